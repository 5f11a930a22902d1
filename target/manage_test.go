package target

import (
	"context"
	"sync/atomic"
	"testing"

	"skylun/lun"
	"skylun/target/pdu"
	"skylun/test/initiator"
)

func newTaskRequest(c *initiator.Conn, f pdu.TaskFunction, unit uint8, ref *initiator.PDU) *initiator.PDU {
	p := c.NewRequest(pdu.TaskRequest)
	p.SetFlags(pdu.FlagFinal | byte(f))
	p.SetLUN([8]byte{1: unit})
	if ref != nil {
		p.SetRefTag(ref.ITT())
		p.SetRefCmdSN(ref.CmdSN())
	}
	return p
}

// manage sends a task management request and returns the response code.
func manage(t testing.TB, c *initiator.Conn, f pdu.TaskFunction, unit uint8, ref *initiator.PDU) byte {
	t.Helper()
	p := newTaskRequest(c, f, unit, ref)
	send(t, c, p)
	r := receive(t, c, pdu.TaskResponse)
	if r.ITT() != p.ITT() {
		t.Errorf("response for %d, want %d", r.ITT(), p.ITT())
	}
	return r.ResponseCode()
}

// RFC 7143 11.5.1: an aborted command gets no answer, and the response comes
// when it is out of the way.
func TestAbortTask(t *testing.T) {
	h := newHanging()
	conn := start(t, Config{}, h).login(t)
	keep, victim := conn.NewCommand(0, make([]byte, 6)), conn.NewCommand(0, make([]byte, 6))
	send(t, conn, keep, victim)
	<-h.started
	<-h.started
	if code := manage(t, conn, pdu.AbortTask, 0, victim); code != pdu.TaskComplete {
		t.Errorf("response %d", code)
	}
	if n := h.running.Load(); n != 1 {
		t.Errorf("%d commands are being executed", n)
	}
	close(h.release)
	if r := receive(t, conn, pdu.SCSIResponse); r.ITT() != keep.ITT() {
		t.Errorf("answer for %d, want %d", r.ITT(), keep.ITT())
	}
	alive(t, conn)
}

// A command that takes its time to end holds up the response, not the
// connection.
func TestAbortWaits(t *testing.T) {
	started, cancelled, ends := make(chan struct{}), make(chan struct{}), make(chan struct{})
	unit := &fakeUnit{execute: func(ctx context.Context, c *lun.Command) {
		close(started)
		<-ctx.Done()
		close(cancelled)
		<-ends
	}}
	conn := start(t, Config{}, unit).login(t)
	victim := conn.NewCommand(0, make([]byte, 6))
	send(t, conn, victim)
	<-started
	for range maxImmediates - 2 {
		send(t, conn, newTaskRequest(conn, pdu.AbortTaskSet, 0, nil))
	}
	first, second := newTaskRequest(conn, pdu.AbortTask, 0, victim), newTaskRequest(conn, pdu.LogicalUnitReset, 0, nil)
	send(t, conn, first, second)
	<-cancelled
	alive(t, conn)
	if code := manage(t, conn, pdu.AbortTaskSet, 0, nil); code != pdu.TaskRejected {
		t.Errorf("response %d to one request too many", code)
	}
	close(ends)
	seen := map[uint32]bool{}
	for range maxImmediates {
		seen[receive(t, conn, pdu.TaskResponse).ITT()] = true
	}
	if !seen[first.ITT()] || !seen[second.ITT()] {
		t.Errorf("responses for %v", seen)
	}
}

// RFC 7143 11.6.1: aborts of what is not there.
func TestAbortAbsentTask(t *testing.T) {
	s := start(t, Config{}, giver(nil, 0, 0))
	for _, c := range []struct {
		initiator string
		want      byte
	}{
		{testInitiator, pdu.TaskNotFound},
		{"iqn.1998-01.com.vmware:esx-0001", pdu.TaskComplete}, // resets the target if told otherwise
	} {
		conn := s.dial(t)
		if _, err := conn.Login(initiator.Options{Initiator: c.initiator, Target: testTarget}); err != nil {
			t.Fatal(err)
		}
		p := conn.NewCommand(0, make([]byte, 6))
		send(t, conn, p)
		receive(t, conn, pdu.SCSIResponse)
		if code := manage(t, conn, pdu.AbortTask, 0, p); code != c.want {
			t.Errorf("%s: response %d, want %d", c.initiator, code, c.want)
		}
	}
}

// RFC 7143 11.5.1: a command that waits for its data ends at once; the data
// are dropped when they come.
func TestAbortGathering(t *testing.T) {
	unit := newTaker(true)
	conn := start(t, Config{}, unit).login(t, "InitialR2T", "Yes", "ImmediateData", "No")
	p := conn.NewCommand(0, []byte{0x2a})
	p.SetFlags(pdu.FlagFinal | pdu.FlagWrite)
	p.SetExpectedLen(512)
	send(t, conn, p)
	r2t := receive(t, conn, pdu.R2T)
	if code := manage(t, conn, pdu.AbortTaskSet, 0, nil); code != pdu.TaskComplete {
		t.Errorf("response %d", code)
	}
	send(t, conn, conn.NewDataOut(p.ITT(), r2t.TTT(), 0, 0, make([]byte, 512), true))
	alive(t, conn)
	if unit.last() != nil {
		t.Error("an aborted command has written")
	}
}

// RFC 7143 11.5.1: whom each function concerns. The commands of other sessions
// end with TASK ABORTED, those of the session that asks without an answer.
func TestTaskManagementScope(t *testing.T) {
	for _, c := range []struct {
		f                              pdu.TaskFunction
		mine0, mine1, theirs0, theirs1 bool // aborted, on LUN 0 and 1
		code                           byte
	}{
		{pdu.AbortTaskSet, true, false, false, false, pdu.TaskComplete},
		{pdu.ClearTaskSet, true, false, true, false, pdu.TaskComplete},
		{pdu.LogicalUnitReset, true, false, true, false, pdu.TaskComplete},
		{pdu.TargetWarmReset, true, true, true, true, pdu.TaskComplete},
		{pdu.TargetColdReset, true, true, true, true, pdu.TaskComplete},
		{pdu.TaskReassign, false, false, false, false, pdu.TaskNoReassign},
		{pdu.ClearACA, false, false, false, false, pdu.TaskNotSupported},
		{99, false, false, false, false, pdu.TaskRejected},
	} {
		h := newHanging()
		s := start(t, Config{}, h, h)
		addTarget(t, s.Server, Target{Name: testTarget + "-other"}, h)
		mine, theirs, other := s.login(t), s.dial(t), s.dial(t)
		theirs.ISID[5]++
		mustLogin(t, theirs)
		if _, err := other.Login(initiator.Options{Initiator: testInitiator, Target: testTarget + "-other"}); err != nil {
			t.Fatal(err)
		}
		var cmds [5]*initiator.PDU
		for i, conn := range []*initiator.Conn{mine, mine, theirs, theirs, other} {
			cmds[i] = conn.NewCommand([]uint8{0, 1, 0, 1, 0}[i], make([]byte, 6))
			send(t, conn, cmds[i])
			<-h.started
		}
		if code := manage(t, mine, c.f, 0, nil); code != c.code {
			t.Errorf("function %d: response %d, want %d", c.f, code, c.code)
		}
		left := int32(5)
		for i, aborted := range []bool{c.mine0, c.mine1, c.theirs0, c.theirs1} {
			if !aborted {
				continue
			}
			left--
			if i >= 2 {
				if r := receive(t, theirs, pdu.SCSIResponse); lun.Status(r.SCSIStatus()) != lun.StatusTaskAborted {
					t.Errorf("function %d: status %02x for another session", c.f, r.SCSIStatus())
				}
			}
		}
		if n := h.running.Load(); n != left {
			t.Errorf("function %d: %d commands are left, want %d", c.f, n, left)
		}
		close(h.release)
		for i, conn := range []*initiator.Conn{mine, mine, theirs, theirs, other} {
			if i < 4 && [4]bool{c.mine0, c.mine1, c.theirs0, c.theirs1}[i] {
				continue
			}
			receive(t, conn, pdu.SCSIResponse)
		}
		if c.f == pdu.TargetColdReset {
			dismissed(t, mine)
			dismissed(t, theirs)
			mine, theirs = other, other
		}
		for _, conn := range []*initiator.Conn{mine, theirs, other} {
			alive(t, conn)
		}
	}
}

func TestLUNNumber(t *testing.T) {
	for _, c := range []struct {
		lun  [8]byte
		want int
	}{
		{[8]byte{}, 0}, {[8]byte{0, 255}, 255}, {[8]byte{0x40, 7}, 7}, {[8]byte{0x41, 0}, 256}, {[8]byte{0x7f, 0xff}, 16383},
		{[8]byte{1, 0}, -1}, {[8]byte{0, 0, 1}, -1}, {[8]byte{0xc1, 1}, -1}, {[8]byte{0x80}, -1},
	} {
		if got := lunNumber(c.lun); got != c.want {
			t.Errorf("%x: %d, want %d", c.lun, got, c.want)
		}
	}
}

// resettable counts its resets.
type resettable struct {
	lun.Unit
	resets  atomic.Int32
	onReset func() // may be nil
}

func (u *resettable) Reset() {
	u.resets.Add(1)
	if u.onReset != nil {
		u.onReset()
	}
}

// SAM-5 6.3: a reset reaches the units that it concerns before it is answered.
func TestResetReachesUnits(t *testing.T) {
	zero, one := &resettable{Unit: giver(nil, 0, 0)}, &resettable{Unit: giver(nil, 0, 0)}
	conn := start(t, Config{}, zero, one).login(t)
	for _, c := range []struct {
		f         pdu.TaskFunction
		zero, one int32 // resets so far
	}{
		{pdu.AbortTaskSet, 0, 0}, {pdu.ClearTaskSet, 0, 0}, {pdu.LogicalUnitReset, 1, 0},
		{pdu.TargetWarmReset, 2, 1}, {pdu.TargetColdReset, 3, 2},
	} {
		if code := manage(t, conn, c.f, 0, nil); code != pdu.TaskComplete {
			t.Errorf("function %d: response %d", c.f, code)
		}
		if a, b := zero.resets.Load(), one.resets.Load(); a != c.zero || b != c.one {
			t.Errorf("after function %d: %d and %d resets, want %d and %d", c.f, a, b, c.zero, c.one)
		}
	}
}
