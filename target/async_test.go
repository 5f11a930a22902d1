package target

import (
	"context"
	"encoding/binary"
	"testing"
	"time"

	"skylun/lun"
	"skylun/target/pdu"
	"skylun/test/initiator"
	"skylun/test/memdev"
)

// message receives an asynchronous message of that kind, and checks what all
// have in common.
func message(t testing.TB, c *initiator.Conn, ev pdu.AsyncEvent) *initiator.PDU {
	t.Helper()
	p := receive(t, c, pdu.AsyncMessage)
	if p.AsyncEvent() != ev || p.ITT() != pdu.NoTag || !p.Final() {
		t.Errorf("event %d, ITT %08x, flags %02x; want event %d", p.AsyncEvent(), p.ITT(), p.Flags(), ev)
	}
	return p
}

// asked checks that the target asks for a logout within a second.
func asked(t testing.TB, c *initiator.Conn) {
	t.Helper()
	p := message(t, c, pdu.AsyncLogoutRequest)
	if seconds := binary.BigEndian.Uint16(p.Header[42:]); seconds != 1 {
		t.Errorf("%d seconds to log out", seconds)
	}
}

// leaves checks that the target says that it ends the session, and does.
func leaves(t testing.TB, c *initiator.Conn) {
	t.Helper()
	p := message(t, c, pdu.AsyncDropSession)
	if wait := binary.BigEndian.Uint16(p.Header[40:]); wait != 2 {
		t.Errorf("Time2Wait %d", wait)
	}
	closed(t, c)
}

// dismissed checks that the target asks for a logout and then ends the session.
func dismissed(t testing.TB, c *initiator.Conn) {
	t.Helper()
	asked(t, c)
	leaves(t, c)
}

// RFC 7143 11.9.1: an initiator that logs out when it is asked to is not waited
// for.
func TestLogoutWhenAsked(t *testing.T) {
	for _, reason := range []byte{pdu.LogoutSession, pdu.LogoutConnection} {
		s := start(t, Config{LogoutTimeout: time.Minute}, giver(nil, 0, 0))
		conn := s.login(t)
		alive(t, conn) // the target knows, too, that it is logged in
		done := make(chan error, 1)
		go func() { done <- s.Shutdown(context.Background()) }()
		if p := message(t, conn, pdu.AsyncLogoutRequest); binary.BigEndian.Uint16(p.Header[42:]) != 60 {
			t.Errorf("%x", p.Header)
		}
		do(t, conn, make([]byte, 6), 0, nil) // what was on its way is still answered
		p := conn.NewRequest(pdu.LogoutReq)
		p.SetFlags(pdu.FlagFinal | reason)
		p.SetTTT(0)
		send(t, conn, p)
		if r := receive(t, conn, pdu.LogoutResp); r.ResponseCode() != pdu.LogoutDone {
			t.Errorf("response %d", r.ResponseCode())
		}
		closed(t, conn)
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

// The context of Shutdown bounds the wait for logouts, too.
func TestShutdownEndsWithContext(t *testing.T) {
	s := start(t, Config{LogoutTimeout: time.Hour}, giver(nil, 0, 0))
	conn := s.login(t)
	alive(t, conn) // the target knows, too, that it is logged in
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Shutdown(ctx) }()
	message(t, conn, pdu.AsyncLogoutRequest)
	cancel()
	<-done
	if n := len(s.Sessions()); n != 0 {
		t.Errorf("%d sessions", n)
	}
}

// A peer that does not read does not keep the server from stopping.
func TestDismissalOfPeerThatDoesNotRead(t *testing.T) {
	s := start(t, Config{}, giver(make([]byte, 1<<20), 1<<20, lun.StatusGood))
	conn := s.login(t)
	for range 40 {
		p := conn.NewCommand(0, []byte{0x28})
		p.SetFlags(pdu.FlagFinal | pdu.FlagRead)
		p.SetExpectedLen(1 << 20)
		send(t, conn, p)
	}
	eventually(t, "something was sent", func() bool { return s.Stats().BytesRead > 0 })
	if err := s.RemoveTarget(t.Context(), testTarget); err != nil {
		t.Error(err)
	}
}

// RFC 7143 11.9.1: changes of the inventory are told as the unit attention
// that tells them, in a SCSI event; many at once need not be many messages.
func TestInventoryChanged(t *testing.T) {
	dev := memdev.New(1 << 20)
	s := start(t, Config{}, disk(t, tryDevice{dev}))
	conn := s.login(t)
	alive(t, conn) // the target knows, too, that it is logged in
	units := s.targets[testTarget].Units
	if err := units.Add(7, disk(t, tryDevice{dev})); err != nil {
		t.Fatal(err)
	}
	p := message(t, conn, pdu.AsyncSCSI)
	if n := binary.BigEndian.Uint16(p.Data); int(n) != len(p.Data)-2 {
		t.Fatalf("sense data %x", p.Data)
	}
	if sense := p.Data[2:]; sense[0] != 0x70 || sense[2] != 6 || sense[12] != 0x3f || sense[13] != 0x0e {
		t.Errorf("sense data %x", sense)
	}
	units.Remove(7)
	message(t, conn, pdu.AsyncSCSI)
	r, err := conn.Do(0, make([]byte, 6), 0, nil)
	for err == nil && r.Key() == 0x062900 {
		r, err = conn.Do(0, make([]byte, 6), 0, nil)
	}
	if err != nil || r.Key() != 0x063f0e {
		t.Errorf("sense %06x, %v", r.Key(), err)
	}
	alive(t, conn)
}

// A session that has just lost its connection is told nothing, and nobody
// waits.
func TestInventoryChangedWithoutPeer(t *testing.T) {
	s := start(t, Config{}, newHanging())
	conn := s.login(t)
	nexus := s.sessionList()[0].nexus
	conn.Close()
	eventually(t, "session is gone", func() bool { return len(s.Sessions()) == 0 })
	nexus.Transport.InventoryChanged()
}

// AbortTasks aborts the commands of a nexus for a unit, but for the one that
// asks for it, and returns when they are gone.
func TestAbortTasks(t *testing.T) {
	h, other := newHanging(), newHanging()
	s := start(t, Config{}, h, other)
	conn := s.login(t)
	for _, unit := range []uint8{0, 0, 1} {
		send(t, conn, conn.NewCommand(unit, make([]byte, 6)))
	}
	<-h.started
	<-h.started
	<-other.started
	nexus := s.sessionList()[0].nexus
	var but *lun.Command
	end := onlyConn(t, s.Server)
	end.mu.Lock()
	for _, task := range end.tasks {
		if lunNumber(task.lun) == 0 {
			but = &task.cmd
		}
	}
	end.mu.Unlock()
	if err := nexus.Transport.AbortTasks(t.Context(), h, but); err != nil {
		t.Fatal(err)
	}
	if a, b := h.running.Load(), other.running.Load(); a != 1 || b != 1 {
		t.Errorf("%d and %d commands are left", a, b)
	}
	if r := receive(t, conn, pdu.SCSIResponse); lun.Status(r.SCSIStatus()) != lun.StatusTaskAborted {
		t.Errorf("status %d", r.SCSIStatus())
	}
	if err := nexus.Transport.AbortTasks(t.Context(), h, nil); err != nil || h.running.Load() != 0 {
		t.Error(err)
	}
}

// A command that does not end holds up AbortTasks until its context ends.
func TestAbortTasksEndsWithContext(t *testing.T) {
	stuck, started := make(chan struct{}), make(chan struct{})
	unit := &fakeUnit{execute: func(context.Context, *lun.Command) {
		close(started)
		<-stuck
	}}
	s := start(t, Config{}, unit)
	conn := s.login(t)
	send(t, conn, conn.NewCommand(0, make([]byte, 6)))
	<-started
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if err := s.sessionList()[0].nexus.Transport.AbortTasks(ctx, unit, nil); err != context.DeadlineExceeded {
		t.Error(err)
	}
	close(stuck)
	receive(t, conn, pdu.SCSIResponse)
}
