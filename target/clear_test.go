package target

import (
	"context"
	"encoding/hex"
	"slices"
	"sync/atomic"
	"testing"

	"skylun/block"
	"skylun/lun"
	"skylun/target/pdu"
	"skylun/test/initiator"
	"skylun/test/memdev"
)

// slowReads is a device whose reads hang until they are cancelled.
type slowReads struct {
	block.Device
	started chan struct{}
}

func (d slowReads) ReadAt(ctx context.Context, _ []byte, _ int64) error {
	d.started <- struct{}{}
	<-ctx.Done()
	return ctx.Err()
}

// settled sends TEST UNIT READY until no unit attention is left, and returns
// what there was.
func settled(t testing.TB, c *initiator.Conn) (keys []int) {
	t.Helper()
	for {
		r, err := c.Do(0, make([]byte, 6), 0, nil)
		if err != nil {
			t.Fatal(err)
		}
		if r.Status == 0 {
			return keys
		}
		keys = append(keys, r.Key())
	}
}

// SAM-5 5.3.1, 5.14, SPC-4 7.5.8: commands that another session clears end with
// TASK ABORTED, or if TAS is zero without an answer and with a unit attention.
func TestClearedByOther(t *testing.T) {
	for _, c := range []struct {
		tas  bool
		f    pdu.TaskFunction
		want []int // unit attentions of those whose commands were cleared
	}{
		{true, pdu.ClearTaskSet, nil},
		{true, pdu.LogicalUnitReset, []int{0x062903}},
		{false, pdu.ClearTaskSet, []int{0x062f00}},
		{false, pdu.LogicalUnitReset, []int{0x062903, 0x062f00}},
		{false, pdu.TargetWarmReset, []int{0x062903, 0x062f00}},
	} {
		dev := slowReads{memdev.New(1 << 20), make(chan struct{}, 10)}
		s := start(t, Config{}, disk(t, dev))
		mine, theirs, idle := s.login(t), s.dial(t), s.dial(t)
		theirs.ISID[5]++
		mustLogin(t, theirs)
		idle.ISID[5] += 2
		mustLogin(t, idle)
		settled(t, mine)
		if !c.tas { // the Control page with TAS
			list, _ := hex.DecodeString("00000000" + "0a0a0210" + "0000000000000000")
			do(t, mine, []byte{0: 0x15, 1: 0x10, 4: byte(len(list)), 5: 0}, 0, list)
		}
		settled(t, theirs)
		settled(t, idle)
		settled(t, mine)
		var victims []uint32
		for range 2 {
			p := theirs.NewCommand(0, []byte{0: 0x28, 8: 1, 9: 0})
			p.SetFlags(pdu.FlagFinal | pdu.FlagRead)
			p.SetExpectedLen(512)
			victims = append(victims, p.ITT())
			send(t, theirs, p)
			<-dev.started
		}
		if code := manage(t, mine, c.f, 0, nil); code != pdu.TaskComplete {
			t.Errorf("function %d: response %d", c.f, code)
		}
		if c.tas {
			for range 2 {
				if r := receive(t, theirs, pdu.SCSIResponse); lun.Status(r.SCSIStatus()) != lun.StatusTaskAborted || !slices.Contains(victims, r.ITT()) {
					t.Errorf("function %d: status %02x for %d", c.f, r.SCSIStatus(), r.ITT())
				}
			}
		}
		if got := settled(t, theirs); !slices.Equal(got, c.want) { // and no answers for the commands
			t.Errorf("function %d, TAS %t: attentions %06x, want %06x", c.f, c.tas, got, c.want)
		}
		if got := settled(t, idle); slices.Contains(got, 0x062f00) {
			t.Errorf("function %d, TAS %t: attentions %06x for a session without commands", c.f, c.tas, got)
		}
		windowIsWhole(t, s, theirs)
	}
}

// A unit is reset when its commands are out of the way, not before: what one
// does at its end does not survive the reset.
func TestResetAfterCommands(t *testing.T) {
	var executing, early atomic.Int32
	started, ends := make(chan struct{}), make(chan struct{})
	unit := &resettable{Unit: &fakeUnit{execute: func(ctx context.Context, c *lun.Command) {
		executing.Add(1)
		defer executing.Add(-1)
		close(started)
		<-ctx.Done()
		<-ends
	}}}
	unit.onReset = func() { early.Add(executing.Load()) }
	conn := start(t, Config{}, unit).login(t)
	send(t, conn, conn.NewCommand(0, make([]byte, 6)))
	<-started
	send(t, conn, newTaskRequest(conn, pdu.LogicalUnitReset, 0, nil))
	alive(t, conn)
	if n := unit.resets.Load(); n != 0 {
		t.Error("reset while a command is being executed")
	}
	close(ends)
	receive(t, conn, pdu.TaskResponse)
	if unit.resets.Load() != 1 || early.Load() != 0 {
		t.Errorf("%d resets, %d commands were being executed", unit.resets.Load(), early.Load())
	}
}

// A command that the reader executes itself can be aborted through another
// connection, or by another session, like any other.
func TestAbortInHand(t *testing.T) {
	for _, other := range []bool{false, true} {
		started, ends := make(chan struct{}), make(chan struct{})
		unit := &fakeUnit{try: func(c *lun.Command) bool {
			close(started)
			<-ends
			return true
		}}
		s := start(t, Config{}, unit)
		a, b := s.twoConns(t)
		sn := a.CmdSN
		victim := next(a, &sn, 1)
		send(t, a, victim)
		<-started
		b.CmdSN = sn
		request := newTaskRequest(b, pdu.AbortTask, 0, victim)
		if other {
			b = s.dial(t)
			b.ISID[5]++
			mustLogin(t, b)
			request = newTaskRequest(b, pdu.ClearTaskSet, 0, nil)
		}
		send(t, b, request)
		alive(t, b) // no response while the unit works
		close(ends)
		receive(t, b, pdu.TaskResponse)
		if other { // it ended as it would have
			receive(t, a, pdu.SCSIResponse)
		}
		alive(t, a)
	}
}

// RFC 7143 6.3.5.1: units hear once that a session goes, however it does.
func TestDetachedOnce(t *testing.T) {
	for name, end := range map[string]func(s *server, conns []*initiator.Conn){
		"connections lost": func(_ *server, conns []*initiator.Conn) {
			for _, c := range conns {
				c.Close()
			}
		},
		"logout":         func(_ *server, conns []*initiator.Conn) { conns[1].Logout() },
		"target removed": func(s *server, _ []*initiator.Conn) { s.RemoveTarget(context.Background(), testTarget) },
		"cold reset": func(_ *server, conns []*initiator.Conn) {
			conns[0].Send(newTaskRequest(conns[0], pdu.TargetColdReset, 0, nil))
		},
		"protocol error": func(_ *server, conns []*initiator.Conn) {
			for _, c := range conns {
				c.Send(c.NewRequest(pdu.LoginReq))
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			unit := &counted{Unit: newHanging()}
			s := start(t, Config{}, unit)
			a, b := s.twoConns(t)
			send(t, a, a.NewCommand(0, make([]byte, 6)))
			end(s, []*initiator.Conn{a, b, s.addConn(t, a, 2)})
			eventually(t, "session is gone", func() bool { return len(s.Sessions()) == 0 })
			if unit.attached.Load() != 1 || unit.detached.Load() != 1 {
				t.Errorf("attached %d times, detached %d times", unit.attached.Load(), unit.detached.Load())
			}
		})
	}
}

// counted counts what it is told of nexuses.
type counted struct {
	lun.Unit
	attached, detached atomic.Int32
}

func (u *counted) Attach(n *lun.Nexus) { u.attached.Add(1); u.Unit.Attach(n) }
func (u *counted) Detach(n *lun.Nexus) { u.detached.Add(1); u.Unit.Detach(n) }

// RFC 7143 11.5.1: after a cold reset all sessions with the target end, and its
// initiators can log in again.
func TestColdReset(t *testing.T) {
	s := start(t, Config{}, giver(nil, 0, 0))
	addTarget(t, s.Server, Target{Name: testTarget + "-other"}, giver(nil, 0, 0))
	mine, theirs, other := s.login(t), s.dial(t), s.dial(t)
	theirs.ISID[5]++
	mustLogin(t, theirs)
	if _, err := other.Login(initiator.Options{Initiator: testInitiator, Target: testTarget + "-other"}); err != nil {
		t.Fatal(err)
	}
	alive(t, theirs)
	if code := manage(t, mine, pdu.TargetColdReset, 0, nil); code != pdu.TaskComplete {
		t.Errorf("response %d", code)
	}
	dismissed(t, mine)
	dismissed(t, theirs)
	alive(t, other)
	do(t, s.login(t), make([]byte, 6), 0, nil)
}

// RFC 7143 11.6.1: functions for a unit that is not there.
func TestFunctionsOfAbsentUnit(t *testing.T) {
	conn := start(t, Config{}, giver(nil, 0, 0)).login(t)
	for _, f := range []pdu.TaskFunction{pdu.AbortTaskSet, pdu.ClearTaskSet, pdu.LogicalUnitReset} {
		if code := manage(t, conn, f, 9, nil); code != pdu.TaskNoLUN {
			t.Errorf("function %d: response %d", f, code)
		}
	}
	p := newTaskRequest(conn, pdu.LogicalUnitReset, 0, nil)
	p.SetITT(pdu.NoTag)
	send(t, conn, p)
	if r := receive(t, conn, pdu.Reject); r.RejectReason() != pdu.RejectInvalidField {
		t.Errorf("reason %02x", r.RejectReason())
	}
}
