package target

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"skylun/lun"
	"skylun/target/pdu"
	"skylun/test/initiator"
)

// severalKeys are what an initiator says that takes whatever helps and wants up
// to 4 connections in a session.
var severalKeys = initiator.Keys{
	"MaxConnections", "4", "InitialR2T", "No", "ImmediateData", "Yes", "MaxRecvDataSegmentLength", "262144",
	"MaxBurstLength", "262144", "FirstBurstLength", "65536", "MaxOutstandingR2T", "1",
}

// addConn adds a connection to the session of c.
func (s *server) addConn(t testing.TB, c *initiator.Conn, cid uint16, keys ...string) *initiator.Conn {
	t.Helper()
	o := s.another(t, c, cid)
	mustLogin(t, o, keys...)
	return o
}

// another returns a connection that can be added to the session of c.
func (s *server) another(t testing.TB, c *initiator.Conn, cid uint16) *initiator.Conn {
	t.Helper()
	o := s.dial(t)
	o.ISID, o.TSIH, o.CID, o.CmdSN, o.ITT = c.ISID, c.TSIH, cid, c.CmdSN, uint32(cid)<<16
	return o
}

// twoConns opens a session with two connections, each with digests of its own.
func (s *server) twoConns(t testing.TB) (a, b *initiator.Conn) {
	t.Helper()
	a = s.login(t, severalKeys...)
	b = s.addConn(t, a, 1, "HeaderDigest", "CRC32C", "DataDigest", "CRC32C", "MaxRecvDataSegmentLength", "4096")
	b.InitialR2T, b.ImmediateData = a.InitialR2T, a.ImmediateData // of the session
	return a, b
}

// quiet checks that nothing comes on c for a moment.
func quiet(t testing.TB, c *initiator.Conn) {
	t.Helper()
	timeout := c.Timeout
	c.Timeout = 20 * time.Millisecond
	if p, err := c.Receive(); err == nil {
		t.Errorf("received %v", p)
	}
	c.Timeout = timeout
}

// next returns a command for c with the next CmdSN of the session.
func next(c *initiator.Conn, sn *uint32, cdb byte) *initiator.PDU {
	c.CmdSN = *sn
	*sn++
	return c.NewCommand(0, []byte{0: cdb, 5: 0})
}

// recorder is a unit that notes the opcodes of its commands in the order in
// which they are executed.
type recorder struct {
	fakeUnit
	mu  sync.Mutex
	ops []byte
	out [][]byte
}

func newRecorder(inline bool) *recorder {
	r := new(recorder)
	note := func(c *lun.Command) {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.ops = append(r.ops, c.CDB[0])
		r.out = append(r.out, bytes.Clone(c.Out))
		if c.InLimit > 0 {
			c.In = c.Alloc.Get(c.InLimit)
			copy(c.In, content(c.InLimit))
		}
		c.Transfer = int64(c.InLimit + len(c.Out))
	}
	if inline {
		r.try = func(c *lun.Command) bool { note(c); return true }
	}
	r.execute = func(_ context.Context, c *lun.Command) { note(c) } // those that came early
	return r
}

func (r *recorder) executed() []byte {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.ops)
}

// RFC 7143 4.2.2.1: commands have their effect in the order of CmdSN, whatever
// connection they come through. One that comes early does not hold up the
// others of its connection, and its data may come before its turn.
func TestOrderOverConnections(t *testing.T) {
	for _, inline := range []bool{true, false} {
		unit := newRecorder(inline)
		s := start(t, Config{}, unit)
		a, b := s.twoConns(t)
		sn := a.CmdSN
		first := next(a, &sn, 1)
		data := content(100_000)

		read := next(b, &sn, 2)
		read.SetFlags(pdu.FlagFinal | pdu.FlagRead)
		read.SetExpectedLen(10_000)
		plain := next(b, &sn, 3)
		whole := next(b, &sn, 4) // with all its data
		whole.SetFlags(pdu.FlagFinal | pdu.FlagWrite)
		whole.SetExpectedLen(5000)
		whole.Data = data[:5000]
		part := next(b, &sn, 5) // that needs R2Ts
		part.SetFlags(pdu.FlagWrite)
		part.SetExpectedLen(100_000)
		part.Data = data[:3000]
		send(t, b, read, plain, whole, part)
		alive(t, b)
		send(t, b, b.NewDataOut(part.ITT(), pdu.NoTag, 0, 3000, data[3000:8000], true))
		alive(t, b)
		if got := unit.executed(); len(got) > 0 {
			t.Fatalf("executed %v before their turn", got)
		}
		if i := s.Sessions()[0]; i.InFlight != 4 {
			t.Errorf("%d in flight", i.InFlight)
		}

		send(t, a, first)
		receive(t, a, pdu.SCSIResponse)
		seen := map[uint32]*initiator.PDU{}
		for len(seen) < 4 {
			p, err := b.Receive()
			if err != nil {
				t.Fatal(err)
			}
			switch p.Opcode() {
			case pdu.R2T:
				off, n := p.Offset(), p.DesiredLen()
				send(t, b, b.NewDataOut(p.ITT(), p.TTT(), 0, off, data[off:off+n], true))
			case pdu.DataIn:
				if int(p.Offset())+len(p.Data) == 10_000 {
					seen[p.ITT()] = p
				}
			case pdu.SCSIResponse:
				seen[p.ITT()] = p
			}
		}
		got := unit.executed()
		if len(got) != 5 || inline && got[0] != 1 { // workers start as they like
			t.Errorf("executed %v", got)
		}
		if i := slices.Index(got, 4); !bytes.Equal(unit.out[i], data[:5000]) {
			t.Error("a write has got something else")
		}
		if i := slices.Index(got, 5); !bytes.Equal(unit.out[i], data) {
			t.Error("a write in parts has got something else")
		}
		windowIsWhole(t, s, a)
	}
}

// windowIsWhole checks that as many commands can be sent as at the beginning,
// and that nothing is kept.
func windowIsWhole(t testing.TB, s *server, c *initiator.Conn) {
	t.Helper()
	w := &s.sessionList()[0].win
	eventually(t, "window is whole", func() bool { return w.max.Load()-w.exp.Load()+1 == uint32(s.cfg.QueueDepth) })
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.kept.Load() != 0 || len(w.early) > 0 || len(w.barriers) > 0 {
		t.Errorf("kept %d, early %d, barriers %d", w.kept.Load(), len(w.early), len(w.barriers))
	}
}

// RFC 7143 4.2.2.1: within a session it does not matter through which
// connection a missing command comes, and on one connection either.
func TestGapIsFilled(t *testing.T) {
	for _, same := range []bool{true, false} {
		unit := newRecorder(true)
		s := start(t, Config{}, unit)
		a, b := s.twoConns(t)
		if same {
			b = a
		}
		sn := a.CmdSN
		ps := []*initiator.PDU{next(a, &sn, 1), next(b, &sn, 2), next(a, &sn, 3), next(b, &sn, 4)}
		for _, i := range []int{3, 1, 2, 0} {
			c := a
			if i%2 == 1 {
				c = b
			}
			send(t, c, ps[i])
			alive2(t, c)
		}
		eventually(t, "all are executed", func() bool { return len(unit.executed()) == 4 })
		windowIsWhole(t, s, a)
	}
}

// RFC 7143 4.2.2.1: a number that is there is not taken again, nor one beyond
// the window, whoever sends it.
func TestEarlyDuplicates(t *testing.T) {
	unit := newRecorder(true)
	s := start(t, Config{QueueDepth: 8}, unit)
	a, b := s.twoConns(t)
	sn := a.CmdSN
	first := next(a, &sn, 1)
	early := next(b, &sn, 2)
	again, beyond := next(a, &sn, 3), next(a, &sn, 4)
	again.SetCmdSN(early.CmdSN())
	beyond.SetCmdSN(first.CmdSN() + 8)
	send(t, b, early, early)
	alive(t, b)
	send(t, a, again, beyond, first, first)
	receive(t, a, pdu.SCSIResponse)
	receive(t, b, pdu.SCSIResponse)
	alive(t, a)
	if got := unit.executed(); !bytes.Equal(got, []byte{1, 2}) {
		t.Errorf("executed %v", got)
	}
	windowIsWhole(t, s, a)
}

// RFC 7143 4.2.2.1: requests other than commands take their turn, too. What
// has no effect on others is answered when it comes.
func TestOtherRequestsEarly(t *testing.T) {
	h := newHanging()
	s := start(t, Config{}, h)
	a, b := s.twoConns(t)
	sn := a.CmdSN
	first := next(a, &sn, 1)
	numbered := func(op pdu.Opcode) *initiator.PDU {
		b.CmdSN = sn
		sn++
		p := b.NewRequest(op)
		p.SetOpcode(op)
		return p
	}
	ping, text, abort, logout := numbered(pdu.NOPOut), numbered(pdu.TextReq), numbered(pdu.TaskRequest), numbered(pdu.LogoutReq)
	text.Data = pdu.AppendPair(nil, "SendTargets", "")
	abort.SetFlags(pdu.FlagFinal | byte(pdu.AbortTaskSet))
	logout.SetFlags(pdu.FlagFinal | pdu.LogoutConnection)
	logout.SetTTT(0)
	logout.SetCID(1)
	send(t, b, ping, text, abort, logout)
	receive(t, b, pdu.NOPIn)
	receive(t, b, pdu.TextResp)
	quiet(t, b)
	send(t, a, first)
	<-h.started
	receive(t, b, pdu.TaskResponse)
	if h.running.Load() != 0 {
		t.Error("the command before the ABORT TASK SET is still being executed")
	}
	receive(t, b, pdu.LogoutResp)
	closed(t, b)
	alive(t, a)
	windowIsWhole(t, s, a)
}

// A request that is refused before its turn still counts as received.
func TestRejectedEarly(t *testing.T) {
	unit := newRecorder(true)
	s := start(t, Config{}, unit)
	a, b := s.twoConns(t)
	sn := a.CmdSN
	first, bad, worse, last := next(a, &sn, 1), next(b, &sn, 2), next(b, &sn, 3), next(b, &sn, 4)
	bad.SetITT(pdu.NoTag)
	worse.AHS = []byte{0, 5, 2, 0, 0, 0, 0, 0} // bidirectional, which is refused
	send(t, b, bad)
	receive(t, b, pdu.Reject)
	send(t, b, worse)
	if r := receive(t, b, pdu.SCSIResponse); r.SCSIStatus() != 2 {
		t.Errorf("status %d", r.SCSIStatus())
	}
	send(t, b, last)
	alive(t, b)
	send(t, a, first)
	receive(t, a, pdu.SCSIResponse)
	receive(t, b, pdu.SCSIResponse)
	windowIsWhole(t, s, a)
}

// RFC 7143 11.6.1 b: an ABORT TASK for a command that has not come makes it
// count as received, and those behind it go on.
func TestAbortFillsGap(t *testing.T) {
	for _, several := range []bool{true, false} {
		unit := newRecorder(true)
		s := start(t, Config{}, unit)
		a, b := s.twoConns(t)
		if !several {
			b = a
		}
		sn := a.CmdSN
		missing, later := next(a, &sn, 1), next(b, &sn, 2)
		send(t, b, later)
		alive(t, b)
		a.CmdSN = sn
		if code := manage(t, a, pdu.AbortTask, 0, missing); code != pdu.TaskComplete {
			t.Errorf("response %d", code)
		}
		receive(t, b, pdu.SCSIResponse)
		send(t, a, missing) // too late
		alive(t, a)
		if got := unit.executed(); !bytes.Equal(got, []byte{2}) {
			t.Errorf("executed %v", got)
		}
		windowIsWhole(t, s, a)
	}
}

// A command can be aborted before its turn.
func TestAbortEarly(t *testing.T) {
	unit := newRecorder(true)
	s := start(t, Config{}, unit)
	a, b := s.twoConns(t)
	sn := a.CmdSN
	first, victim := next(a, &sn, 1), next(b, &sn, 2)
	writing := next(b, &sn, 3)
	writing.SetFlags(pdu.FlagWrite)
	writing.SetExpectedLen(9000)
	send(t, b, victim, writing)
	alive(t, b)
	a.CmdSN = sn
	for _, p := range []*initiator.PDU{victim, writing} {
		if code := manage(t, a, pdu.AbortTask, 0, p); code != pdu.TaskComplete { // through the other connection
			t.Errorf("response %d", code)
		}
	}
	send(t, a, first)
	receive(t, a, pdu.SCSIResponse)
	alive(t, b)
	if got := unit.executed(); !bytes.Equal(got, []byte{1}) {
		t.Errorf("executed %v", got)
	}
	windowIsWhole(t, s, a)
}

// RFC 7143 4.2.3.3 b: a function waits for the commands before it that are on
// their way through another connection, and does not concern those after it.
func TestFunctionWaitsForCommands(t *testing.T) {
	for _, f := range []pdu.TaskFunction{pdu.AbortTaskSet, pdu.ClearTaskSet, pdu.LogicalUnitReset} {
		h := newHanging()
		s := start(t, Config{}, h)
		a, b := s.twoConns(t)
		sn := a.CmdSN
		missing, there := next(a, &sn, 1), next(b, &sn, 2)
		b.CmdSN = sn
		request, after := newTaskRequest(b, f, 0, nil), next(b, &sn, 3)
		send(t, b, there, request, after)
		quiet(t, b)
		send(t, a, missing)
		receive(t, b, pdu.TaskResponse)
		for range 3 {
			<-h.started // those that are aborted may start before they are
			if h.running.Load() == 1 {
				break
			}
		}
		eventually(t, "one is left", func() bool { return h.running.Load() == 1 })
		close(h.release)
		if r := receive(t, b, pdu.SCSIResponse); r.ITT() != after.ITT() || r.SCSIStatus() != 0 {
			t.Errorf("function %d: answer %v", f, r)
		}
		alive(t, a)
		windowIsWhole(t, s, a)
	}
}

// RFC 7143 4.2.3.3 b: a reset of the target does not wait for commands.
func TestTargetResetFillsGap(t *testing.T) {
	unit := newRecorder(true)
	s := start(t, Config{}, unit)
	a, b := s.twoConns(t)
	sn := a.CmdSN
	missing, there := next(a, &sn, 1), next(b, &sn, 2)
	send(t, b, there)
	b.CmdSN = sn
	if code := manage(t, b, pdu.TargetWarmReset, 0, nil); code != pdu.TaskComplete {
		t.Errorf("response %d", code)
	}
	send(t, a, missing)
	alive(t, a)
	last := next(a, &sn, 3)
	send(t, a, last)
	receive(t, a, pdu.SCSIResponse)
	if got := unit.executed(); !bytes.Equal(got, []byte{3}) {
		t.Errorf("executed %v", got)
	}
	windowIsWhole(t, s, a)
}

// RFC 7143 11.5.1: a command of another connection can be aborted, also while
// it is being executed.
func TestAbortAcrossConnections(t *testing.T) {
	h := newHanging()
	s := start(t, Config{}, h)
	a, b := s.twoConns(t)
	sn := a.CmdSN
	victim := next(a, &sn, 1)
	send(t, a, victim)
	<-h.started
	b.CmdSN = sn
	if code := manage(t, b, pdu.AbortTask, 0, victim); code != pdu.TaskComplete || h.running.Load() != 0 {
		t.Errorf("response %d, %d running", code, h.running.Load())
	}
	alive(t, a)
	windowIsWhole(t, s, a)
}

// RFC 7143 4.2.1: Data-Out comes through the connection of its command, and is
// dropped on another.
func TestConnectionAllegiance(t *testing.T) {
	unit := newTaker(true)
	s := start(t, Config{}, unit)
	a, b := s.twoConns(t)
	p := newWrite(a, 1000, nil)
	send(t, a, p)
	r2t := receive(t, a, pdu.R2T)
	send(t, b, b.NewDataOut(p.ITT(), r2t.TTT(), 0, 0, make([]byte, 1000), true))
	alive(t, b)
	data := content(1000)
	send(t, a, a.NewDataOut(p.ITT(), r2t.TTT(), 0, 0, data, true))
	receive(t, a, pdu.SCSIResponse)
	if !bytes.Equal(unit.last(), data) {
		t.Error("the unit got something else")
	}
}

// RFC 7143 6.3.1, 13.2: who may add a connection, and how many there may be.
func TestAddConnection(t *testing.T) {
	s := start(t, Config{}, giver(nil, 0, 0))
	a := s.login(t, severalKeys...)
	for cid := uint16(1); cid < 4; cid++ {
		c := s.addConn(t, a, cid)
		if c.TSIH != a.TSIH {
			t.Errorf("TSIH %d", c.TSIH)
		}
	}
	fifth := s.another(t, a, 9)
	if got := loginStatus(t, fifth); got != pdu.LoginTooManyConns {
		t.Errorf("fifth connection: status %04x", got)
	}
	foreign := s.another(t, a, 9)
	foreign.ISID[5]++
	if got := loginStatus(t, foreign); got != pdu.LoginNoSession {
		t.Errorf("with another ISID: status %04x", got)
	}
	stranger := s.another(t, a, 9)
	_, err := stranger.Login(initiator.Options{Initiator: testInitiator + "x", Target: testTarget})
	if status := (initiator.StatusError{}); !errors.As(err, &status) || status.Status != pdu.LoginNoSession {
		t.Errorf("another initiator: %v", err)
	}
	discovery := s.another(t, a, 9)
	_, err = discovery.Login(initiator.Options{Initiator: testInitiator})
	if status := (initiator.StatusError{}); !errors.As(err, &status) || status.Status != pdu.LoginNoSession {
		t.Errorf("discovery: %v", err)
	}
	alive(t, a)
	info := s.Sessions()
	if len(info) != 1 || len(info[0].Connections) != 4 || info[0].Connections[3].CID != 3 || info[0].Remote != info[0].Connections[0].Remote {
		t.Errorf("%+v", info)
	}
}

// RFC 7143 11.13: until it is part of it, a connection hears of the window of
// the session that it joins, not of one that is wider.
func TestWindowWhileJoining(t *testing.T) {
	h := newHanging()
	s := start(t, Config{QueueDepth: 4}, h)
	a := s.login(t, severalKeys...)
	for range 3 {
		send(t, a, a.NewCommand(0, make([]byte, 6)))
		<-h.started
	}
	b := s.another(t, a, 1)
	p := b.NewLogin(pdu.Operational, 0, false, testNames)
	send(t, b, p)
	if r := receive(t, b, pdu.LoginResp); r.ExpCmdSN() != a.CmdSN || r.MaxCmdSN() != a.CmdSN {
		t.Errorf("window %d to %d, want %d to %d", r.ExpCmdSN(), r.MaxCmdSN(), a.CmdSN, a.CmdSN)
	}
	close(h.release)
}

// RFC 7143 6.3.4: a login with the CID of a connection takes its place. Its
// commands end, the session goes on.
func TestReinstatementOfOneConnection(t *testing.T) {
	for _, several := range []bool{true, false} {
		h := newHanging()
		s := start(t, Config{}, h)
		a := s.login(t, severalKeys...)
		b := a
		if several {
			b = s.addConn(t, a, 1)
		}
		send(t, b, b.NewCommand(0, make([]byte, 6)))
		<-h.started
		nexus := s.sessionList()[0].nexus
		again := s.addConn(t, b, b.CID)
		if h.running.Load() != 0 {
			t.Error("the command of the old connection is still being executed")
		}
		closed(t, b)
		alive(t, again)
		if list := s.sessionList(); len(list) != 1 || list[0].nexus != nexus || h.nexuses.Load() != 1 {
			t.Errorf("%d sessions, %d nexuses", len(list), h.nexuses.Load())
		}
		if several {
			alive(t, a)
		}
		windowIsWhole(t, s, again)
	}
}

// RFC 7143 6.3.5: session reinstatement ends all connections.
func TestSessionReinstatementEndsAll(t *testing.T) {
	h := newHanging()
	s := start(t, Config{}, h)
	a, b := s.twoConns(t)
	c := s.login(t)
	closed(t, a)
	closed(t, b)
	alive(t, c)
	if n := h.nexuses.Load(); n != 1 || len(s.Sessions()) != 1 {
		t.Errorf("%d nexuses", n)
	}
}

// RFC 7143 11.14: logout of one connection, by itself or by another, and of
// the session. It ends with its last connection.
func TestLogoutOfConnections(t *testing.T) {
	h := newHanging()
	s := start(t, Config{}, h)
	logout := func(c *initiator.Conn, reason byte, cid uint16) byte {
		t.Helper()
		p := c.NewRequest(pdu.LogoutReq)
		p.SetFlags(pdu.FlagFinal | reason)
		p.SetTTT(0)
		p.SetCID(cid)
		send(t, c, p)
		return receive(t, c, pdu.LogoutResp).ResponseCode()
	}
	a, b := s.twoConns(t)
	c := s.addConn(t, a, 2)
	send(t, b, b.NewCommand(0, make([]byte, 6)))
	<-h.started
	if code := logout(a, pdu.LogoutRecovery, 1); code != pdu.LogoutNoRecovery {
		t.Errorf("for recovery: %d", code)
	}
	if code := logout(a, pdu.LogoutConnection, 7); code != pdu.LogoutNoCID {
		t.Errorf("of no connection: %d", code)
	}
	if code := logout(a, pdu.LogoutConnection, 1); code != pdu.LogoutDone || h.running.Load() != 0 {
		t.Errorf("of another: %d, %d running", code, h.running.Load())
	}
	closed(t, b)
	alive(t, a)
	if code := logout(c, pdu.LogoutConnection, 2); code != pdu.LogoutDone {
		t.Errorf("of itself: %d", code)
	}
	closed(t, c)
	alive(t, a)
	if code := logout(a, pdu.LogoutConnection, 0); code != pdu.LogoutDone {
		t.Errorf("of the last: %d", code)
	}
	eventually(t, "session is gone", func() bool { return len(s.Sessions()) == 0 && h.nexuses.Load() == 0 })

	a, b = s.twoConns(t)
	send(t, a, a.NewCommand(0, make([]byte, 6)))
	<-h.started
	if code := logout(b, pdu.LogoutSession, 0); code != pdu.LogoutDone || h.running.Load() != 0 {
		t.Errorf("of the session: %d, %d running", code, h.running.Load())
	}
	closed(t, a)
	closed(t, b)
	eventually(t, "session is gone", func() bool { return len(s.Sessions()) == 0 && h.nexuses.Load() == 0 })
}

// The numbers of commands that were lost with a connection can be used again,
// and the window is as wide as before.
func TestConnectionLostWithEarlyCommands(t *testing.T) {
	unit := newRecorder(true)
	s := start(t, Config{}, unit)
	a, b := s.twoConns(t)
	sn := a.CmdSN
	first := next(a, &sn, 1)
	writing := next(b, &sn, 2)
	writing.SetFlags(pdu.FlagWrite)
	writing.SetExpectedLen(9000)
	send(t, b, writing, next(b, &sn, 3))
	alive(t, b)
	b.Close()
	eventually(t, "connection is gone", func() bool { return s.Stats().Connections == 1 })
	send(t, a, first, next(a, &sn, 4))
	receive(t, a, pdu.SCSIResponse)
	receive(t, a, pdu.SCSIResponse)
	if got := unit.executed(); !bytes.Equal(got, []byte{1, 4}) {
		t.Errorf("executed %v", got)
	}
	windowIsWhole(t, s, a)
}

// RFC 7143 4.2.2.1: what is missing may come late, but a gap that stays ends
// the session: nobody will fill it.
func TestGapThatStays(t *testing.T) {
	for _, fill := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			s, c := pipe(t, Config{PingInterval: -1})
			mustLogin(t, c)
			sn := c.CmdSN
			missing, early := next(c, &sn, 1), next(c, &sn, 2)
			send(t, c, early)
			time.Sleep(gapTimeout - time.Second)
			alive(t, c)
			if fill {
				send(t, c, missing)
				receive(t, c, pdu.SCSIResponse)
				receive(t, c, pdu.SCSIResponse)
				time.Sleep(3 * gapTimeout)
				alive(t, c)
				c.Close()
			} else {
				time.Sleep(2 * time.Second)
				closed(t, c)
			}
			synctest.Wait()
			if n := len(s.Sessions()); n != 0 {
				t.Errorf("%d sessions", n)
			}
		})
	}
}
