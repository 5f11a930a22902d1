package target

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"testing"

	"skylun/lun"
	"skylun/target/pdu"
	"skylun/test/initiator"
	"skylun/test/memdev"
)

// content returns n bytes that look alike nowhere.
func content(n int) []byte {
	b := make([]byte, n)
	r := rand.NewChaCha8([32]byte{1})
	r.Read(b)
	return b
}

// giver is a unit that answers any command with the first so many bytes of
// data, and the sense key of its choice.
func giver(data []byte, transfer int64, status lun.Status) *fakeUnit {
	return &fakeUnit{try: func(c *lun.Command) bool {
		n := min(len(data), c.InLimit)
		if n > 0 {
			c.In = c.Alloc.Get(n)
			copy(c.In, data)
		}
		c.Transfer, c.Status = transfer, status
		if status == lun.StatusCheckCondition {
			c.Sense = fixedSense(5, 0x24, 0)
		}
		return true
	}}
}

// RFC 7143 11.7: Data-In in PDUs no longer than the initiator takes, in
// sequences no longer than MaxBurstLength, numbered and placed, with the status
// in the last one only.
func TestDataIn(t *testing.T) {
	data := content(100_001)
	for _, c := range []struct{ segment, burst int }{
		{512, 512}, {512, 1024}, {512, 1500}, {1000, 512}, {4096, 262144}, {8192, 65536}, {262144, 65536}, {262144, 1 << 20},
	} {
		t.Run(fmt.Sprintf("%d in %d", c.segment, c.burst), func(t *testing.T) {
			s := start(t, Config{}, giver(data, int64(len(data)), lun.StatusGood))
			conn := s.login(t, "MaxRecvDataSegmentLength", fmt.Sprint(c.segment), "MaxBurstLength", fmt.Sprint(c.burst))
			r := do(t, conn, []byte{0x28}, len(data), nil)
			if !bytes.Equal(r.Data, data) {
				t.Error("data differ")
			}
			inBurst := 0
			for i, p := range r.PDUs {
				last := i == len(r.PDUs)-1
				if p.Opcode() != pdu.DataIn || len(p.Data) > c.segment || p.DataSN() != uint32(i) || p.TTT() != pdu.NoTag {
					t.Fatalf("PDU %d: %v DataSN %d", i, p, p.DataSN())
				}
				if inBurst += len(p.Data); inBurst > c.burst {
					t.Fatalf("PDU %d: sequence of %d bytes", i, inBurst)
				}
				if full := inBurst == c.burst; p.Final() != (last || full) {
					t.Errorf("PDU %d: F is %t after %d bytes of a sequence", i, p.Final(), inBurst)
				}
				if p.Final() {
					inBurst = 0
				}
				if hasStatus := p.Flags()&pdu.FlagStatus != 0; hasStatus != last {
					t.Errorf("PDU %d of %d: S is %t", i, len(r.PDUs), hasStatus)
				}
				if p.ExpCmdSN() != conn.CmdSN || p.MaxCmdSN() == 0 {
					t.Errorf("PDU %d: ExpCmdSN %d, want %d", i, p.ExpCmdSN(), conn.CmdSN)
				}
			}
			alive(t, conn)
		})
	}
}

// RFC 7143 11.4.5: residuals.
func TestResiduals(t *testing.T) {
	const o, u = pdu.FlagOverflow, pdu.FlagUnderflow
	for _, c := range []struct {
		name     string
		expected uint32
		flags    byte // R, W
		have     int  // bytes the unit returns if it may
		transfer int64
		status   lun.Status
		want     byte
		residual uint32
		pdus     int
	}{
		{"read, exact", 4096, pdu.FlagRead, 4096, 4096, 0, 0, 0, 1},
		{"read, less", 8192, pdu.FlagRead, 4096, 4096, 0, u, 4096, 1},
		{"read, more", 1000, pdu.FlagRead, 4096, 4096, 0, o, 3096, 1},
		{"read, nothing there", 512, pdu.FlagRead, 0, 0, 0, u, 512, 1},
		{"read, nothing expected", 0, pdu.FlagRead, 4096, 4096, 0, o, 4096, 1},
		{"read, odd length", 255, pdu.FlagRead, 37, 37, 0, u, 218, 1},
		{"read, failed", 512, pdu.FlagRead, 0, 0, lun.StatusCheckCondition, u, 512, 1},
		{"read, failed after some data", 512, pdu.FlagRead, 100, 100, lun.StatusCheckCondition, u, 412, 2},
		{"read, 4 GiB wanted", 512, pdu.FlagRead, 512, 1 << 40, 0, o, 0xffffffff, 1},
		{"no data", 0, 0, 0, 0, 0, 0, 0, 1},
		{"no data expected", 0, 0, 4096, 4096, 0, o, 4096, 1},
		{"write, exact", 512, pdu.FlagWrite, 0, 512, 0, 0, 0, 1},
		{"write, less", 1024, pdu.FlagWrite, 0, 512, 0, u, 512, 1},
		{"write, more", 512, pdu.FlagWrite, 0, 1024, 0, o, 512, 1},
		{"write, failed", 512, pdu.FlagWrite, 0, 0, lun.StatusCheckCondition, u, 512, 1},
		{"write that reads", 512, pdu.FlagWrite, 4096, 512, 0, 0, 0, 1},
		{"TEST UNIT READY with R", 512, pdu.FlagRead, 0, 0, 0, u, 512, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			conn := start(t, Config{}, giver(content(c.have), c.transfer, c.status)).login(t)
			p := conn.NewCommand(0, []byte{0x28})
			p.SetFlags(pdu.FlagFinal | c.flags)
			p.SetExpectedLen(c.expected)
			if c.flags == pdu.FlagWrite {
				p.Data = make([]byte, c.expected)
			}
			send(t, conn, p)
			r, err := conn.Gather(p.ITT(), nil)
			if err != nil {
				t.Fatal(err)
			}
			if r.Flags&(o|u) != c.want || r.Residual != c.residual || lun.Status(r.Status) != c.status {
				t.Errorf("flags %02x, residual %d, status %d; want %02x, %d, %d", r.Flags, r.Residual, r.Status, c.want, c.residual, c.status)
			}
			if len(r.PDUs) != c.pdus {
				t.Errorf("%d PDUs, want %d", len(r.PDUs), c.pdus)
			}
			if c.status != 0 {
				if r.Key() != 0x052400 {
					t.Errorf("sense %06x", r.Key())
				}
				if last := r.PDUs[len(r.PDUs)-1]; last.DataSN() != uint32(len(r.PDUs)-1) {
					t.Errorf("ExpDataSN %d", last.DataSN())
				}
			}
		})
	}
}

// RFC 7143 4.2.2.1: the command window.
func TestCommandWindow(t *testing.T) {
	h := newHanging()
	s := start(t, Config{QueueDepth: 4}, h)
	conn := s.login(t)
	if conn.MaxCmdSN-conn.ExpCmdSN != 3 {
		t.Fatalf("window %d to %d", conn.ExpCmdSN, conn.MaxCmdSN)
	}
	for range 4 {
		send(t, conn, conn.NewCommand(0, make([]byte, 6)))
		<-h.started
	}
	send(t, conn, conn.NewCommand(0, make([]byte, 6))) // the fifth is outside
	conn.CmdSN--
	p := conn.NewRequest(pdu.NOPOut)
	send(t, conn, p)
	if r := receive(t, conn, pdu.NOPIn); r.ExpCmdSN() != conn.CmdSN || r.MaxCmdSN() != conn.CmdSN-1 {
		t.Errorf("full window is %d to %d, want %d to %d", r.ExpCmdSN(), r.MaxCmdSN(), conn.CmdSN, conn.CmdSN-1)
	}
	old := conn.NewCommand(0, make([]byte, 6)) // one that was there before
	conn.CmdSN--
	old.SetCmdSN(conn.CmdSN - 2)
	send(t, conn, old)
	alive(t, conn)
	close(h.release)
	for i := range 4 {
		if r := receive(t, conn, pdu.SCSIResponse); r.MaxCmdSN() != conn.CmdSN+uint32(i) {
			t.Errorf("after %d answers MaxCmdSN is %d, want %d", i+1, r.MaxCmdSN(), conn.CmdSN+uint32(i))
		}
	}
	do(t, conn, make([]byte, 6), 0, nil)
	if n := s.Stats().Commands; n != 5 {
		t.Errorf("%d commands were taken, want 5", n)
	}
}

// RFC 7143 4.2.2.1: CmdSN wraps around.
func TestCommandSerialWrap(t *testing.T) {
	conn := start(t, Config{}, giver(nil, 0, 0)).dial(t)
	conn.CmdSN = 0xfffffffa
	conn.ExpStatSN = 0xfffffffd
	mustLogin(t, conn)
	for range 12 {
		do(t, conn, make([]byte, 6), 0, nil)
	}
}

// RFC 7143 4.2.2.1: immediate commands pass the window; there is a limit.
func TestImmediateCommands(t *testing.T) {
	h := newHanging()
	conn := start(t, Config{QueueDepth: 1, Workers: 100}, h).login(t)
	send(t, conn, conn.NewCommand(0, make([]byte, 6)))
	<-h.started
	immediate := func() *initiator.PDU {
		p := conn.NewCommand(0, make([]byte, 6))
		conn.CmdSN--
		p.SetImmediate()
		p.SetCmdSN(conn.CmdSN)
		return p
	}
	before := conn.MaxCmdSN
	for range maxImmediates {
		send(t, conn, immediate())
		<-h.started
	}
	p := immediate()
	send(t, conn, p)
	r := receive(t, conn, pdu.Reject)
	if r.RejectReason() != pdu.RejectTooMany || !bytes.Equal(r.Data, p.Header[:]) {
		t.Errorf("reject reason %02x with %x", r.RejectReason(), r.Data)
	}
	close(h.release)
	for range maxImmediates + 1 {
		receive(t, conn, pdu.SCSIResponse)
	}
	if conn.MaxCmdSN != before+1 {
		t.Errorf("MaxCmdSN went from %d to %d for one command that was not immediate", before, conn.MaxCmdSN)
	}
}

// RFC 7143 11.17: Reject carries the header of what is rejected.
func TestReject(t *testing.T) {
	for _, c := range []struct {
		name string
		pdu  func(c *initiator.Conn) *initiator.PDU
		want pdu.RejectReason
	}{
		{"SNACK", func(c *initiator.Conn) *initiator.PDU { return c.NewRequest(pdu.SNACK) }, pdu.RejectSNACK},
		{"opcode of a target", func(c *initiator.Conn) *initiator.PDU { return c.NewRequest(pdu.NOPIn) }, pdu.RejectNotSupported},
		{"vendor's opcode", func(c *initiator.Conn) *initiator.PDU { return c.NewRequest(0x1c) }, pdu.RejectNotSupported},
		{"command with the reserved tag", func(c *initiator.Conn) *initiator.PDU {
			p := c.NewCommand(0, make([]byte, 6))
			p.SetITT(pdu.NoTag)
			return p
		}, pdu.RejectInvalidField},
		{"text with an unknown transfer tag", func(c *initiator.Conn) *initiator.PDU {
			p := c.NewRequest(pdu.TextReq)
			p.SetTTT(5)
			return p
		}, pdu.RejectInvalidField},
		{"text that is none", func(c *initiator.Conn) *initiator.PDU {
			p := c.NewRequest(pdu.TextReq)
			p.Data = []byte("hello")
			return p
		}, pdu.RejectProtocol},
	} {
		t.Run(c.name, func(t *testing.T) {
			conn := start(t, Config{}, giver(nil, 0, 0)).login(t)
			p := c.pdu(conn)
			send(t, conn, p)
			r := receive(t, conn, pdu.Reject)
			if r.RejectReason() != c.want || r.ITT() != pdu.NoTag || !bytes.Equal(r.Data, p.Header[:]) {
				t.Errorf("reason %02x with %x, want %02x with %x", r.RejectReason(), r.Data, c.want, p.Header[:])
			}
			alive(t, conn)
			do(t, conn, make([]byte, 6), 0, nil)
		})
	}
}

// RFC 7143 11.17.1: a task tag in use.
func TestTaskInProgress(t *testing.T) {
	h := newHanging()
	conn := start(t, Config{}, h).login(t)
	first := conn.NewCommand(0, make([]byte, 6))
	send(t, conn, first)
	<-h.started
	second := conn.NewCommand(0, make([]byte, 6))
	second.SetITT(first.ITT())
	send(t, conn, second)
	if r := receive(t, conn, pdu.Reject); r.RejectReason() != pdu.RejectInProgress {
		t.Errorf("reason %02x", r.RejectReason())
	}
	close(h.release)
	receive(t, conn, pdu.SCSIResponse)
	do(t, conn, make([]byte, 6), 0, nil)
}

// RFC 7143 11.2.2.3: a CDB longer than 16 bytes.
func TestExtendedCDB(t *testing.T) {
	var got atomic.Pointer[[]byte]
	unit := &fakeUnit{try: func(c *lun.Command) bool {
		cdb := bytes.Clone(c.CDB)
		got.Store(&cdb)
		return true
	}}
	conn := start(t, Config{}, unit).login(t)
	for _, n := range []int{16, 17, 32, 33, 200, 260} {
		cdb := content(n)
		do(t, conn, cdb, 0, nil)
		if !bytes.Equal(*got.Load(), cdb) {
			t.Errorf("CDB of %d bytes arrives as %x, want %x", n, *got.Load(), cdb)
		}
	}
}

// RFC 7143 11.2.2.4 and 11.3.1: bidirectional commands are refused, and so is
// what cannot be parsed.
func TestCommandRefused(t *testing.T) {
	var called atomic.Bool
	unit := &fakeUnit{try: func(c *lun.Command) bool { called.Store(true); return true }}
	for _, c := range []struct {
		name  string
		flags byte
		ahs   []byte
	}{
		{"bidirectional", pdu.FlagFinal | pdu.FlagRead | pdu.FlagWrite, []byte{0, 5, 2, 0, 0, 0, 16, 0}},
		{"read and write", pdu.FlagFinal | pdu.FlagRead | pdu.FlagWrite, nil},
		{"broken AHS", pdu.FlagFinal, []byte{0xff, 0xff, 1, 0}},
	} {
		t.Run(c.name, func(t *testing.T) {
			conn := start(t, Config{}, unit).login(t)
			p := conn.NewCommand(0, []byte{0x53})
			p.SetFlags(c.flags)
			p.AHS = c.ahs
			p.SetExpectedLen(4096)
			if c.flags&pdu.FlagWrite != 0 {
				p.Data = make([]byte, 4096)
			}
			send(t, conn, p)
			r, err := conn.Gather(p.ITT(), nil)
			if err != nil || r.Key() != 0x050e03 {
				t.Errorf("sense %06x, %v", r.Key(), err)
			}
			alive(t, conn)
		})
	}
	if called.Load() {
		t.Error("a refused command has reached the unit")
	}
}

// A LUN without a unit has an answer too.
func TestUnknownLUN(t *testing.T) {
	conn := start(t, Config{}, disk(t, tryDevice{memdev.New(1 << 20)})).login(t)
	r, err := conn.Do(7, make([]byte, 6), 0, nil)
	if err != nil || r.Key() != 0x052500 {
		t.Errorf("TEST UNIT READY: sense %06x, %v", r.Key(), err)
	}
	r, err = conn.Do(7, []byte{0: 0x12, 4: 96, 5: 0}, 96, nil)
	if err != nil || r.Status != 0 || len(r.Data) < 36 || r.Data[0] != 0x7f {
		t.Errorf("INQUIRY: status %d, %x, %v", r.Status, r.Data, err)
	}
}

// A panic in a unit ends its command.
func TestUnitPanics(t *testing.T) {
	for name, unit := range map[string]*fakeUnit{
		"Try":     {try: func(*lun.Command) bool { panic("oh") }},
		"Execute": {execute: func(context.Context, *lun.Command) { panic("oh") }},
	} {
		t.Run(name, func(t *testing.T) {
			conn := start(t, Config{}, unit).login(t)
			r, err := conn.Do(0, []byte{0x28}, 512, nil)
			if err != nil || r.Key() != 0x044400 {
				t.Errorf("sense %06x, %v", r.Key(), err)
			}
			alive(t, conn)
		})
	}
}

// Commands that wait do not hold up those that need not, and end in any order.
func TestCommandsOvertake(t *testing.T) {
	slow := newHanging()
	conn := start(t, Config{}, giver(nil, 0, 0), slow).login(t)
	p := conn.NewCommand(1, make([]byte, 6))
	send(t, conn, p)
	<-slow.started
	for range 10 {
		do(t, conn, make([]byte, 6), 0, nil)
	}
	close(slow.release)
	if r := receive(t, conn, pdu.SCSIResponse); r.ITT() != p.ITT() {
		t.Errorf("answer for %d, want %d", r.ITT(), p.ITT())
	}
}

// All commands of the window are in flight at once, most of them in workers,
// some waiting for one.
func TestManyInFlight(t *testing.T) {
	const depth, workers = 128, 16
	h := newHanging()
	s := start(t, Config{QueueDepth: depth, Workers: workers}, h)
	conn := s.login(t)
	for range depth {
		send(t, conn, conn.NewCommand(0, make([]byte, 6)))
	}
	for range workers {
		<-h.started
	}
	eventually(t, "all are taken", func() bool { return s.Sessions()[0].InFlight == depth })
	if n := len(h.started); n != 0 {
		t.Errorf("%d more are executed than there are workers", n)
	}
	if c := onlyConn(t, s.Server); c.workers.n != workers {
		t.Errorf("%d workers", c.workers.n)
	}
	close(h.release)
	seen := map[uint32]bool{}
	for range depth {
		seen[receive(t, conn, pdu.SCSIResponse).ITT()] = true
	}
	if len(seen) != depth {
		t.Errorf("answers for %d commands, want %d", len(seen), depth)
	}
}
