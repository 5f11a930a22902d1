package target

import (
	"context"
	"encoding/binary"
	"errors"
	"testing"

	"skylun/block"
	"skylun/lun"
	"skylun/target/pdu"
	"skylun/test/initiator"
	"skylun/test/memdev"
)

// slowWrites is a device whose writes wait until they are let go, or aborted.
type slowWrites struct {
	block.Device
	started chan struct{}
	ended   chan error
}

func (d *slowWrites) WriteAt(ctx context.Context, p []byte, off int64) error {
	d.started <- struct{}{}
	<-ctx.Done()
	d.ended <- ctx.Err()
	return ctx.Err()
}

// reserveOut returns a PERSISTENT RESERVE OUT CDB and its parameter list.
func reserveOut(action, kind byte, key, actionKey uint64) (cdb, list []byte) {
	list = make([]byte, 24)
	binary.BigEndian.PutUint64(list, key)
	binary.BigEndian.PutUint64(list[8:], actionKey)
	return []byte{0x5f, action, kind, 8: 24, 9: 0}, list
}

// result executes a command, however it ends.
func result(t *testing.T, c *initiator.Conn, cdb []byte, in int, out []byte) *initiator.Result {
	t.Helper()
	r, err := c.Do(0, cdb, in, out)
	if err != nil {
		t.Fatalf("opcode 0x%02x: %v", cdb[0], err)
	}
	return r
}

// TestPreemptAndAbort fences a machine whose write is under way: when PREEMPT
// AND ABORT is answered the write can have no effect any more, SPC-4 5.13.11.5,
// and the machine finds itself locked out. How the write ends is up to TAS.
func TestPreemptAndAbort(t *testing.T) {
	t.Run("aborted without an answer", func(t *testing.T) { preemptAndAbort(t, false) })
	t.Run("aborted with TASK ABORTED", func(t *testing.T) { preemptAndAbort(t, true) })
}

func preemptAndAbort(t *testing.T, tas bool) {
	dev := &slowWrites{memdev.New(1 << 20), make(chan struct{}, 1), make(chan error, 1)}
	s := start(t, Config{}, disk(t, dev))
	machine := func(n byte) *initiator.Conn {
		c := s.dial(t)
		c.ISID[5] = n
		mustLogin(t, c)
		result(t, c, make([]byte, 6), 0, nil) // power on
		return c
	}
	a, b := machine(1), machine(2)
	out := func(c *initiator.Conn, action, kind byte, key, actionKey uint64) {
		t.Helper()
		cdb, list := reserveOut(action, kind, key, actionKey)
		do(t, c, cdb, 0, list)
	}
	const (
		register    = 0
		reserve     = 1
		preempt     = 5 // and abort
		registrants = 5
	)
	attentions := []int{0x062a05, 0x062f00} // REGISTRATIONS PREEMPTED, COMMANDS CLEARED BY ANOTHER INITIATOR
	if tas {                                // as it is at first
		attentions = attentions[:1]
	} else {
		do(t, a, []byte{0: 0x15, 1: 0x10, 4: 16, 5: 0}, 0, []byte{4: 0x0a, 5: 10, 6: 0x02, 7: 0x10, 15: 0})
		result(t, b, make([]byte, 6), 0, nil) // mode parameters changed
	}
	out(a, register, 0, 0, 0xa)
	out(b, register, 0, 0, 0xb)
	out(a, reserve, registrants, 0xa, 0)

	write := a.NewCommand(0, []byte{0: 0x2a, 8: 1, 9: 0})
	write.SetFlags(pdu.FlagFinal | pdu.FlagWrite)
	write.SetExpectedLen(512)
	write.Data = make([]byte, 512)
	send(t, a, write)
	<-dev.started
	out(b, preempt, registrants, 0xb, 0xa)
	select {
	case err := <-dev.ended:
		if !errors.Is(err, context.Canceled) {
			t.Errorf("the write ended with %v", err)
		}
	default:
		t.Error("the write goes on after PREEMPT AND ABORT was answered")
	}
	if tas {
		if r := receive(t, a, pdu.SCSIResponse); r.ITT() != write.ITT() || lun.Status(r.SCSIStatus()) != lun.StatusTaskAborted {
			t.Errorf("%v with status %#x", r, r.SCSIStatus())
		}
	}
	for _, want := range attentions {
		if r := result(t, a, make([]byte, 6), 0, nil); r.Key() != want {
			t.Errorf("status %d, sense %06x, want %06x", r.Status, r.Key(), want)
		}
	}
	if r := result(t, a, []byte{0: 0x2a, 8: 1, 9: 0}, 0, make([]byte, 512)); lun.Status(r.Status) != lun.StatusReservationConflict {
		t.Errorf("write of who was fenced: status %d", r.Status)
	}
	do(t, a, []byte{0: 0x28, 8: 1, 9: 0}, 512, nil)
}

// TestReservationByNames logs out and in again: with the same ISID an initiator
// is who it was, with another it is somebody else.
func TestReservationByNames(t *testing.T) {
	s := start(t, Config{}, disk(t, memdev.New(1<<20)))
	session := func(isid byte) *initiator.Conn {
		c := s.dial(t)
		c.ISID[5] = isid
		mustLogin(t, c)
		result(t, c, make([]byte, 6), 0, nil)
		return c
	}
	write := func(c *initiator.Conn) lun.Status {
		t.Helper()
		return lun.Status(result(t, c, []byte{0: 0x2a, 8: 1, 9: 0}, 0, make([]byte, 512)).Status)
	}
	a := session(1)
	for _, action := range []byte{0, 1} { // REGISTER, RESERVE
		cdb, list := reserveOut(action, 1, uint64(action), 1)
		if r := result(t, a, cdb, 0, list); r.Status != 0 {
			t.Fatalf("status %d", r.Status)
		}
	}
	b := session(2)
	a.Close()
	eventually(t, "the session is gone", func() bool { return len(s.Sessions()) == 1 })
	if got := write(b); got != lun.StatusReservationConflict {
		t.Errorf("another port: status %d", got)
	}
	if got := write(session(1)); got != 0 {
		t.Errorf("the same port again: status %d", got)
	}
	if got := write(b); got != lun.StatusReservationConflict {
		t.Errorf("another port: status %d", got)
	}
}
