package target

import (
	"fmt"
	"net"
	"testing"

	"skylun/target/pdu"
	"skylun/test/initiator"
)

// RFC 7143 4.2.2.1: an initiator that leaves a gap and fills the window behind
// it, with all the data it may send unasked, gets the memory that the window
// allows and no more. The gap can be filled after that.
func TestEarlyFlood(t *testing.T) {
	const depth, first = 16, 64 << 10
	unit := newTaker(false)
	s := start(t, Config{QueueDepth: depth, MaxTransfer: 1 << 20, ConnectionBuffers: 1 << 20}, unit)
	a, b := s.twoConns(t)
	sn := a.CmdSN
	missing := next(a, &sn, 0)
	for i := range 4 * depth { // most are beyond the window
		c := []*initiator.Conn{a, b}[i%2]
		p := next(c, &sn, 0x2a)
		p.SetFlags(pdu.FlagFinal | pdu.FlagWrite)
		p.SetExpectedLen(first)
		p.Data = make([]byte, first)
		send(t, c, p)
	}
	alive(t, a)
	alive(t, b)
	var held int64
	for _, c := range s.sessionList()[0].connections() {
		held += c.account().held
	}
	if held > (depth-1)*first {
		t.Errorf("%d bytes are held", held)
	}
	send(t, a, missing)
	eventually(t, "all of the window are executed", func() bool { return len(unit.all()) == depth })
	windowIsWhole(t, s, a)
}

// Requests without effect do not widen the window, so they cannot be kept
// without end behind a gap.
func TestEarlyFloodOfOtherRequests(t *testing.T) {
	const depth = 8
	s := start(t, Config{QueueDepth: depth}, giver(nil, 0, 0))
	a, b := s.twoConns(t)
	sn := a.CmdSN
	missing := next(a, &sn, 0)
	for range 100 {
		b.CmdSN = sn
		sn++
		p := b.NewRequest(pdu.NOPOut)
		p.SetOpcode(pdu.NOPOut)
		send(t, b, p)
	}
	for range depth - 1 {
		receive(t, b, pdu.NOPIn)
	}
	alive(t, b)
	if n := s.sessionList()[0].win.kept.Load(); n != depth-1 {
		t.Errorf("%d requests are kept", n)
	}
	send(t, a, missing)
	receive(t, a, pdu.SCSIResponse)
	windowIsWhole(t, s, a)
}

// RFC 7143 11.5: task management requests that wait for commands which do not
// come are bounded, too.
func TestFunctionFlood(t *testing.T) {
	s := start(t, Config{}, giver(nil, 0, 0))
	a, b := s.twoConns(t)
	sn := a.CmdSN
	missing := next(a, &sn, 0)
	b.CmdSN = sn
	for range maxImmediates + 10 {
		send(t, b, newTaskRequest(b, pdu.AbortTaskSet, 0, nil))
	}
	for range 10 {
		if r := receive(t, b, pdu.TaskResponse); r.ResponseCode() != pdu.TaskRejected {
			t.Errorf("response %d", r.ResponseCode())
		}
	}
	alive(t, b)
	send(t, a, missing)
	receive(t, a, pdu.SCSIResponse)
	for range maxImmediates {
		if r := receive(t, b, pdu.TaskResponse); r.ResponseCode() != pdu.TaskComplete {
			t.Errorf("response %d", r.ResponseCode())
		}
	}
	windowIsWhole(t, s, a)
}

// RFC 7143 11.2.2: what additional header segments may say about themselves.
func TestAHS(t *testing.T) {
	for _, c := range []struct {
		name string
		ahs  []byte
		key  int // 0: the command is executed
	}{
		{"shorter than its own header", []byte{0, 0, 1, 0}, 0x050e03},
		{"length 1", []byte{0, 1, 1, 0}, 0x050e03},
		{"longer than there is", []byte{0, 100, 1, 0, 1, 2, 3, 4}, 0x050e03},
		{"65535", []byte{0xff, 0xff, 1, 0, 1, 2, 3, 4}, 0x050e03},
		{"unknown type", []byte{0, 5, 9, 0, 1, 2, 3, 4}, 0x050e03},
		{"two CDBs", []byte{0, 5, 1, 0, 1, 2, 3, 4, 0, 5, 1, 0, 1, 2, 3, 4}, 0x050e03},
		{"rest of one", []byte{0, 5, 1, 0, 1, 2, 3, 4, 0, 0, 0, 0}, 0x050e03},
		{"all there can be", append([]byte{0x03, 0xf9, 1, 0}, make([]byte, pdu.MaxAHS-4)...), 0},
		{"one byte", []byte{0, 2, 1, 0, 1, 0, 0, 0}, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			conn := start(t, Config{}, giver(nil, 0, 0)).login(t)
			p := conn.NewCommand(0, make([]byte, 16))
			p.AHS = c.ahs
			send(t, conn, p)
			if r, err := conn.Gather(p.ITT(), nil); err != nil || r.Key() != c.key {
				t.Errorf("sense %06x, %v", r.Key(), err)
			}
			for _, op := range []pdu.Opcode{pdu.NOPOut, pdu.TextReq, pdu.TaskRequest} { // nobody else has use for one
				q := conn.NewRequest(op)
				q.AHS = c.ahs
				if op == pdu.TaskRequest {
					q.SetFlags(pdu.FlagFinal | byte(pdu.AbortTaskSet))
				}
				send(t, conn, q)
				if r, err := conn.Receive(); err != nil || r.ITT() != q.ITT() {
					t.Errorf("%v: %v, %v", op, r, err)
				}
			}
		})
	}
}

// RFC 7143 11.7: Data-Out for a read, for a command without data, for one that
// is being executed, and with a tag that was never given.
func TestDataOutOutOfPlace(t *testing.T) {
	h := newHanging()
	s := start(t, Config{}, h)
	conn := s.login(t)
	read, none, write := conn.NewCommand(0, []byte{0x28}), conn.NewCommand(0, make([]byte, 6)), newWrite(conn, 512, content(512))
	read.SetFlags(pdu.FlagFinal | pdu.FlagRead)
	read.SetExpectedLen(512)
	waiting := newWrite(conn, 512, nil)
	send(t, conn, read, none, write, waiting)
	r2t := receive(t, conn, pdu.R2T)
	for range 3 {
		<-h.started
	}
	for _, p := range []*initiator.PDU{read, none, write} {
		for _, ttt := range []uint32{pdu.NoTag, 0, r2t.TTT(), r2t.TTT() + 1} {
			send(t, conn, conn.NewDataOut(p.ITT(), ttt, 0, 0, content(512), true))
		}
	}
	send(t, conn, conn.NewDataOut(waiting.ITT(), r2t.TTT()+1, 0, 0, content(512), true)) // of no R2T
	alive(t, conn)
	if h.running.Load() != 3 {
		t.Errorf("%d commands are being executed", h.running.Load())
	}
	send(t, conn, conn.NewDataOut(waiting.ITT(), r2t.TTT(), 0, 0, content(512), true))
	<-h.started
	close(h.release)
	for range 4 {
		receive(t, conn, pdu.SCSIResponse)
	}
}

// RFC 7143 11.3: offsets and lengths at the edges of 32 bits in Data-Out.
func TestDataOutWraps(t *testing.T) {
	for _, c := range []struct{ offset, n uint32 }{
		{0xfffffe00, 512}, {0xffffffff, 512}, {0xfffffe00, 513}, {512, 512}, {1, 511}, {0, 513}, {0x80000000, 0}, {511, 1}, {511, 2},
	} {
		t.Run(fmt.Sprintf("%d+%d", c.offset, c.n), func(t *testing.T) {
			unit := newTaker(true)
			conn := start(t, Config{}, unit).login(t)
			p := newWrite(conn, 512, nil)
			send(t, conn, p)
			r2t := receive(t, conn, pdu.R2T)
			send(t, conn, conn.NewDataOut(p.ITT(), r2t.TTT(), 0, c.offset, make([]byte, c.n), true))
			if r, err := conn.Gather(p.ITT(), nil); err != nil || r.Key() != 0x0b0c0d {
				t.Errorf("sense %06x, %v", r.Key(), err)
			}
			if unit.last() != nil {
				t.Error("something was written")
			}
			alive(t, conn)
		})
	}
}

// RFC 7143 11.14: between a logout and its response nothing else is done, for
// whatever connection it is.
func TestFloodAfterLogout(t *testing.T) {
	h := newHanging()
	s := start(t, Config{}, h)
	a, b := s.twoConns(t)
	p := a.NewRequest(pdu.LogoutReq)
	p.SetFlags(pdu.FlagFinal | pdu.LogoutSession)
	send(t, a, p)
	for range 50 {
		if a.Send(a.NewCommand(0, make([]byte, 6)), a.NewRequest(pdu.NOPOut)) != nil {
			break
		}
		if b.Send(b.NewRequest(pdu.NOPOut)) != nil {
			break
		}
	}
	eventually(t, "session is gone", func() bool { return len(s.Sessions()) == 0 })
	if n := h.running.Load() + int32(len(h.started)); n != 0 {
		t.Errorf("%d commands were executed", n)
	}
}

// A table of sessions that is full keeps others out, and lets those live that
// are in it: they work, add connections, log in again and come back.
func TestFullTableLetsSessionsLive(t *testing.T) {
	s := start(t, Config{MaxSessions: 2}, giver(nil, 0, 0))
	a := s.login(t, severalKeys...)
	other := s.dial(t)
	other.ISID[5]++
	mustLogin(t, other)
	for i := range 5 {
		late := s.dial(t)
		late.ISID[5] = byte(100 + i)
		if got := loginStatus(t, late); got != pdu.LoginOutOfResources {
			t.Errorf("status %04x", got)
		}
	}
	b := s.addConn(t, a, 1)
	b = s.addConn(t, b, 1)
	do(t, other, make([]byte, 6), 0, nil)
	alive(t, b)
	do(t, s.login(t), make([]byte, 6), 0, nil) // reinstates
	closed(t, a)
}

// One connection of a session whose peer does not read holds up neither the
// others nor the commands that follow.
func TestNeverReadsOneOfTwo(t *testing.T) {
	const size = 64 << 10
	s := start(t, Config{MaxTransfer: size, QueueDepth: 64}, giver(make([]byte, size), size, 0))
	a, b := s.twoConns(t)
	a.Conn.(*net.TCPConn).SetReadBuffer(4096)
	sn := a.CmdSN
	for range 40 {
		p := next(a, &sn, 0x28)
		p.SetFlags(pdu.FlagFinal | pdu.FlagRead)
		p.SetExpectedLen(size)
		send(t, a, p)
	}
	for range 20 {
		p := next(b, &sn, 0)
		send(t, b, p)
		if _, err := b.Gather(p.ITT(), nil); err != nil {
			t.Fatal(err)
		}
	}
}
