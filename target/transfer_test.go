package target

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"

	"skylun/lun"
	"skylun/target/pdu"
	"skylun/test/initiator"
)

// taker keeps the Data-Out of its commands, which it takes inline or by a
// worker.
type taker struct {
	fakeUnit
	mu  sync.Mutex
	got [][]byte
}

func newTaker(inline bool) *taker {
	u := new(taker)
	take := func(c *lun.Command) {
		u.mu.Lock()
		defer u.mu.Unlock()
		u.got = append(u.got, bytes.Clone(c.Out))
		c.Transfer = int64(len(c.Out))
	}
	if inline {
		u.try = func(c *lun.Command) bool { take(c); return true }
	} else {
		u.execute = func(_ context.Context, c *lun.Command) { take(c) }
	}
	return u
}

// last returns the Data-Out of the last command.
func (u *taker) last() []byte {
	if got := u.all(); len(got) > 0 {
		return got[len(got)-1]
	}
	return nil
}

// all returns the Data-Out of all commands.
func (u *taker) all() [][]byte {
	u.mu.Lock()
	defer u.mu.Unlock()
	return slices.Clone(u.got)
}

// RFC 7143 4.2.5.2, 11.7, 11.8: Data-Out in every way it may come arrives
// byte by byte.
func TestDataOut(t *testing.T) {
	for _, r2t := range []string{"Yes", "No"} {
		for _, immediate := range []string{"Yes", "No"} {
			for _, outstanding := range []int{1, 3} {
				for _, inline := range []bool{true, false} {
					name := fmt.Sprintf("InitialR2T=%s ImmediateData=%s MaxOutstandingR2T=%d inline=%t", r2t, immediate, outstanding, inline)
					t.Run(name, func(t *testing.T) {
						testDataOut(t, r2t, immediate, outstanding, inline)
					})
				}
			}
		}
	}
}

func testDataOut(t *testing.T, r2t, immediate string, outstanding int, inline bool) {
	unit := newTaker(inline)
	conn := start(t, Config{}, unit).login(t, "InitialR2T", r2t, "ImmediateData", immediate,
		"MaxOutstandingR2T", fmt.Sprint(outstanding), "FirstBurstLength", "5000", "MaxBurstLength", "16000", "MaxRecvDataSegmentLength", "8192")
	for _, segment := range []int{512, 3000, 1 << 18} {
		conn.MaxSend = segment
		for _, n := range []int{1, 511, 512, 3000, 5000, 5001, 16000, 21000, 21001, 100_003} {
			data := content(n)
			r := do(t, conn, []byte{0x2a}, 0, data)
			if !bytes.Equal(unit.last(), data) {
				t.Fatalf("%d bytes in PDUs of %d: the unit got something else", n, segment)
			}
			if r.Flags&(pdu.FlagOverflow|pdu.FlagUnderflow) != 0 {
				t.Errorf("%d bytes: residual flags %02x", n, r.Flags)
			}
			checkR2Ts(t, r.PDUs, n, 16000)
		}
	}
}

// checkR2Ts checks the R2Ts of a command, 11.8: numbered, in order, without
// gaps, to the end of the data.
func checkR2Ts(t *testing.T, ps []*initiator.PDU, n, burst int) {
	t.Helper()
	end := -1
	tags := map[uint32]bool{}
	r2ts := ps[:len(ps)-1]
	for i, p := range r2ts {
		if p.Opcode() != pdu.R2T || p.DataSN() != uint32(i) || p.TTT() == pdu.NoTag || tags[p.TTT()] || !p.Final() {
			t.Errorf("R2T %d: %x", i, p.Header)
		}
		tags[p.TTT()] = true
		if end >= 0 && int(p.Offset()) != end || p.DesiredLen() == 0 || int(p.DesiredLen()) > burst {
			t.Errorf("R2T %d: %d+%d after %d", i, p.Offset(), p.DesiredLen(), end)
		}
		end = int(p.Offset() + p.DesiredLen())
	}
	if len(r2ts) > 0 && end != n {
		t.Errorf("R2Ts end at %d of %d", end, n)
	}
	if status := ps[len(ps)-1]; status.DataSN() != uint32(len(r2ts)) {
		t.Errorf("ExpDataSN %d after %d R2Ts", status.DataSN(), len(r2ts))
	}
}

// RFC 7143 13.17: several R2Ts at once, answered interleaved.
func TestSeveralR2Ts(t *testing.T) {
	unit := newTaker(true)
	conn := start(t, Config{}, unit).login(t, "InitialR2T", "Yes", "ImmediateData", "No", "MaxOutstandingR2T", "3", "MaxBurstLength", "1024")
	data := content(5000)
	p := conn.NewCommand(0, []byte{0x2a})
	p.SetFlags(pdu.FlagFinal | pdu.FlagWrite)
	p.SetExpectedLen(uint32(len(data)))
	send(t, conn, p)
	var r2ts []*initiator.PDU
	for range 3 {
		r2ts = append(r2ts, receive(t, conn, pdu.R2T))
	}
	half := func(r *initiator.PDU, second bool) *initiator.PDU {
		off, sn := r.Offset(), uint32(0)
		if second {
			off, sn = off+512, 1
		}
		return conn.NewDataOut(p.ITT(), r.TTT(), sn, off, data[off:off+512], second)
	}
	send(t, conn, half(r2ts[2], false), half(r2ts[0], false), half(r2ts[1], false))
	send(t, conn, half(r2ts[1], true))
	r2ts = append(r2ts, receive(t, conn, pdu.R2T)) // for the one that is done
	send(t, conn, half(r2ts[0], true), half(r2ts[2], true))
	r := receive(t, conn, pdu.R2T)
	if r.Offset() != 4096 || r.DesiredLen() != uint32(len(data))-4096 {
		t.Fatalf("last R2T asks for %d+%d", r.Offset(), r.DesiredLen())
	}
	send(t, conn, conn.NewDataOut(p.ITT(), r.TTT(), 0, 4096, data[4096:], true))
	send(t, conn, half(r2ts[3], false), half(r2ts[3], true))
	if r := receive(t, conn, pdu.SCSIResponse); r.SCSIStatus() != 0 || !bytes.Equal(unit.last(), data) {
		t.Errorf("status %d, data equal: %t", r.SCSIStatus(), bytes.Equal(unit.last(), data))
	}
}

// Several commands whose Data-Out is mixed.
func TestInterleavedCommands(t *testing.T) {
	unit := newTaker(true)
	conn := start(t, Config{}, unit).login(t, "InitialR2T", "Yes", "ImmediateData", "No", "MaxBurstLength", "65536")
	const commands, size = 8, 4096
	var want [][]byte
	var cmds, r2ts []*initiator.PDU
	for i := range commands {
		want = append(want, bytes.Repeat([]byte{byte(i)}, size))
		p := conn.NewCommand(0, []byte{0x2a})
		p.SetFlags(pdu.FlagFinal | pdu.FlagWrite)
		p.SetExpectedLen(size)
		cmds = append(cmds, p)
	}
	send(t, conn, cmds...)
	for range commands {
		r2ts = append(r2ts, receive(t, conn, pdu.R2T))
	}
	for off := uint32(0); off < size; off += 512 {
		for i := range commands {
			send(t, conn, conn.NewDataOut(cmds[i].ITT(), r2ts[i].TTT(), off/512, off, want[i][off:off+512], off+512 == size))
		}
	}
	for i := range commands {
		if r := receive(t, conn, pdu.SCSIResponse); r.ITT() != cmds[i].ITT() || !bytes.Equal(unit.all()[i], want[i]) {
			t.Errorf("command %d: answer for %d, data equal %t", i, r.ITT(), bytes.Equal(unit.all()[i], want[i]))
		}
	}
}

// RFC 7143 11.7 and 11.4.7.2: Data-Out that is not where it belongs ends its
// command, without reaching the unit, and nothing else.
func TestDataOutRefused(t *testing.T) {
	const size = 4096
	for _, c := range []struct {
		name  string
		spoil func(p *initiator.PDU)
		want  int
	}{
		{"offset beyond the buffer", func(p *initiator.PDU) { p.SetOffset(1 << 31) }, 0x0b0c0d},
		{"offset at the end of the buffer", func(p *initiator.PDU) { p.SetOffset(size) }, 0x0b0c0d},
		{"offset of 4 GiB less something", func(p *initiator.PDU) { p.SetOffset(0xfffffff0) }, 0x0b0c0d},
		{"data over the end of the buffer", func(p *initiator.PDU) { p.Data = make([]byte, size+512) }, 0x0b0c0d},
		{"data over the end of the R2T", func(p *initiator.PDU) { p.Data = make([]byte, 2048) }, 0x0b0c0d},
		{"offset that leaves a gap", func(p *initiator.PDU) { p.SetOffset(512) }, 0x0b0c0d},
		{"DataSN", func(p *initiator.PDU) { p.SetDataSN(1) }, 0x0b0c0d},
		{"F before the end", func(p *initiator.PDU) { p.SetFlags(pdu.FlagFinal) }, 0x0b0c0d},
		{"unsolicited", func(p *initiator.PDU) { p.SetTTT(pdu.NoTag) }, 0x0b0c0c},
	} {
		t.Run(c.name, func(t *testing.T) {
			unit := newTaker(true)
			conn := start(t, Config{}, unit).login(t, "InitialR2T", "Yes", "ImmediateData", "No", "MaxBurstLength", "1024")
			p := conn.NewCommand(0, []byte{0x2a})
			p.SetFlags(pdu.FlagFinal | pdu.FlagWrite)
			p.SetExpectedLen(size)
			send(t, conn, p)
			r2t := receive(t, conn, pdu.R2T)
			bad := conn.NewDataOut(p.ITT(), r2t.TTT(), 0, 0, make([]byte, 512), false)
			c.spoil(bad)
			more := conn.NewDataOut(p.ITT(), r2t.TTT(), 1, 512, make([]byte, 512), true) // still on its way
			send(t, conn, bad, more)
			r, err := conn.Gather(p.ITT(), nil)
			if err != nil || r.Key() != c.want || r.Flags&pdu.FlagUnderflow == 0 || r.Residual != size {
				t.Errorf("sense %06x, residual %d, %v; want sense %06x", r.Key(), r.Residual, err, c.want)
			}
			if unit.last() != nil {
				t.Error("the unit was asked to write")
			}
			data := content(size)
			do(t, conn, []byte{0x2a}, 0, data)
			if !bytes.Equal(unit.last(), data) {
				t.Error("the next command writes something else")
			}
		})
	}
}

// Data-Out for nobody is dropped.
func TestDataOutForNobody(t *testing.T) {
	conn := start(t, Config{}, newTaker(true)).login(t)
	for _, ttt := range []uint32{pdu.NoTag, 0, 77} {
		send(t, conn, conn.NewDataOut(99, ttt, 0, 0, make([]byte, 100_000), true))
	}
	alive(t, conn)
}

// RFC 7143 13.10, 13.11, 13.14: unsolicited data that was not agreed on.
func TestUnsolicitedRefused(t *testing.T) {
	const size = 8192
	for _, c := range []struct {
		name           string
		r2t, immediate string
		flags          byte
		expected       uint32
		data           int
		want           int
	}{
		{"immediate data", "Yes", "No", pdu.FlagFinal | pdu.FlagWrite, size, 512, 0x0b0c0c},
		{"unsolicited Data-Out to come", "Yes", "Yes", pdu.FlagWrite, size, 0, 0x0b0c0c},
		{"immediate data beyond FirstBurstLength", "No", "Yes", pdu.FlagFinal | pdu.FlagWrite, size, 1025, 0x0b0c0d},
		{"immediate data beyond the expected length", "No", "Yes", pdu.FlagFinal | pdu.FlagWrite, 512, 513, 0x0b0c0d},
		{"immediate data of a read", "No", "Yes", pdu.FlagFinal | pdu.FlagRead, size, 512, 0x0b0c0c},
		{"immediate data of a command that moves none", "No", "Yes", pdu.FlagFinal, 0, 512, 0x0b0c0c},
	} {
		t.Run(c.name, func(t *testing.T) {
			unit := newTaker(true)
			conn := start(t, Config{}, unit).login(t, "InitialR2T", c.r2t, "ImmediateData", c.immediate, "FirstBurstLength", "1024")
			p := conn.NewCommand(0, []byte{0x2a})
			p.SetFlags(c.flags)
			p.SetExpectedLen(c.expected)
			p.Data = make([]byte, c.data)
			send(t, conn, p)
			r, err := conn.Gather(p.ITT(), nil)
			if err != nil || r.Key() != c.want || unit.last() != nil {
				t.Errorf("sense %06x, %v, want %06x; unit called: %t", r.Key(), err, c.want, unit.last() != nil)
			}
			alive(t, conn)
		})
	}
}

// Unsolicited Data-Out in all cuts, with and without an F bit at its end.
func TestUnsolicitedSequence(t *testing.T) {
	const size, first = 4000, 2048
	unit := newTaker(true)
	conn := start(t, Config{}, unit).login(t, "InitialR2T", "No", "FirstBurstLength", fmt.Sprint(first))
	data := content(size)
	for _, c := range []struct {
		name    string
		pieces  []int // immediate, then unsolicited
		noFinal bool
	}{
		{"immediate only", []int{2048}, false},
		{"nothing immediate", []int{0, 2048}, false},
		{"mixed", []int{100, 900, 1000, 48}, false},
		{"less than FirstBurstLength", []int{100, 100}, false},
		{"an empty one at the end", []int{100, 100, 0}, false},
	} {
		p := conn.NewCommand(0, []byte{0x2a})
		p.SetFlags(pdu.FlagWrite)
		if len(c.pieces) == 1 {
			p.SetFlags(pdu.FlagFinal | pdu.FlagWrite)
		}
		p.SetExpectedLen(size)
		p.Data = data[:c.pieces[0]]
		send(t, conn, p)
		off := c.pieces[0]
		for i, n := range c.pieces[1:] {
			send(t, conn, conn.NewDataOut(p.ITT(), pdu.NoTag, uint32(i), uint32(off), data[off:off+n], i == len(c.pieces)-2))
			off += n
		}
		r2t := receive(t, conn, pdu.R2T)
		if int(r2t.Offset()) != off || int(r2t.DesiredLen()) != size-off {
			t.Errorf("%s: R2T for %d+%d after %d", c.name, r2t.Offset(), r2t.DesiredLen(), off)
		}
		send(t, conn, conn.NewDataOut(p.ITT(), r2t.TTT(), 0, uint32(off), data[off:], true))
		if r := receive(t, conn, pdu.SCSIResponse); r.SCSIStatus() != 0 || !bytes.Equal(unit.last(), data) {
			t.Errorf("%s: status %d, data equal: %t", c.name, r.SCSIStatus(), bytes.Equal(unit.last(), data))
		}
	}

	// All of the data unsolicited, and the last piece without F.
	p := conn.NewCommand(0, []byte{0x2a})
	p.SetFlags(pdu.FlagWrite)
	p.SetExpectedLen(1000)
	p.Data = data[:500]
	send(t, conn, p, conn.NewDataOut(p.ITT(), pdu.NoTag, 0, 500, data[500:1000], false))
	if r := receive(t, conn, pdu.SCSIResponse); r.SCSIStatus() != 0 || !bytes.Equal(unit.last(), data[:1000]) {
		t.Errorf("without F: status %d", r.SCSIStatus())
	}
	alive(t, conn)
}

// RFC 7143 11.7: the LUN field of Data-Out is not looked at. Windows does not
// set it.
func TestDataOutLUN(t *testing.T) {
	unit := newTaker(true)
	conn := start(t, Config{}, newTaker(true), unit).login(t, "InitialR2T", "Yes", "ImmediateData", "No")
	p := conn.NewCommand(1, []byte{0x2a})
	p.SetFlags(pdu.FlagFinal | pdu.FlagWrite)
	p.SetExpectedLen(512)
	send(t, conn, p)
	r2t := receive(t, conn, pdu.R2T)
	if r2t.LUN() != p.LUN() {
		t.Errorf("R2T has LUN %x", r2t.LUN())
	}
	out := conn.NewDataOut(p.ITT(), r2t.TTT(), 0, 0, content(512), true)
	out.SetLUN([8]byte{0, 9})
	send(t, conn, out)
	receive(t, conn, pdu.SCSIResponse)
	if !bytes.Equal(unit.last(), content(512)) {
		t.Error("data differ")
	}
}

// Payloads that arrive in pieces, whatever the pieces.
func TestTornPDUs(t *testing.T) {
	unit := newTaker(true)
	conn := start(t, Config{}, unit).login(t, "InitialR2T", "No", "FirstBurstLength", "262144")
	data := content(200_001)
	for _, piece := range []int{1, 47, 48, 49, 1000, 16 << 10, 65536, 150_000} {
		n := len(data)
		if piece < 100 {
			n = 3000 // a system call for each piece is enough of that
		}
		p := conn.NewCommand(0, []byte{0x2a})
		p.SetFlags(pdu.FlagFinal | pdu.FlagWrite)
		p.SetExpectedLen(uint32(n))
		p.Data = data[:n]
		for b := p.Bytes(); len(b) > 0; {
			m, err := conn.Write(b[:min(piece, len(b))])
			if err != nil {
				t.Fatal(err)
			}
			b = b[m:]
		}
		if r := receive(t, conn, pdu.SCSIResponse); r.SCSIStatus() != 0 || !bytes.Equal(unit.last(), data[:n]) {
			t.Errorf("pieces of %d: status %d, data equal: %t", piece, r.SCSIStatus(), bytes.Equal(unit.last(), data[:n]))
		}
	}
}

// A command that announces more than any unit takes gets MaxTransfer bytes
// asked for, and the unit decides.
func TestGiantExpectedLength(t *testing.T) {
	const limit = 64 << 10
	unit := newTaker(true)
	conn := start(t, Config{MaxTransfer: limit}, unit).login(t, "InitialR2T", "Yes", "ImmediateData", "No", "MaxBurstLength", "16777215")
	p := conn.NewCommand(0, []byte{0x2a})
	p.SetFlags(pdu.FlagFinal | pdu.FlagWrite)
	p.SetExpectedLen(0xffffffff)
	send(t, conn, p)
	r2t := receive(t, conn, pdu.R2T)
	if r2t.Offset() != 0 || r2t.DesiredLen() != limit {
		t.Fatalf("R2T for %d+%d", r2t.Offset(), r2t.DesiredLen())
	}
	data := content(limit)
	send(t, conn, conn.NewDataOut(p.ITT(), r2t.TTT(), 0, 0, data, true))
	r := receive(t, conn, pdu.SCSIResponse)
	if !bytes.Equal(unit.last(), data) || r.Flags()&pdu.FlagUnderflow == 0 || r.Residual() != 0xffffffff-limit {
		t.Errorf("flags %02x, residual %d", r.Flags(), r.Residual())
	}
}

// 200 commands that each announce 4 GiB take no more memory than is
// configured, and all end when their data comes.
func TestManyGiantCommands(t *testing.T) {
	const commands, transfer, limit = 200, 128 << 10, 5 * 128 << 10
	unit := newTaker(true)
	s := start(t, Config{QueueDepth: commands, MaxTransfer: transfer, ConnectionBuffers: limit}, unit)
	conn := s.login(t, "InitialR2T", "Yes", "ImmediateData", "No", "MaxBurstLength", "16777215")
	for range commands {
		p := conn.NewCommand(0, []byte{0x2a})
		p.SetFlags(pdu.FlagFinal | pdu.FlagWrite)
		p.SetExpectedLen(0xffffffff)
		send(t, conn, p)
	}
	ended, r2ts := 0, 0
	for ended < commands {
		p, err := conn.Receive()
		if err != nil {
			t.Fatal(err)
		}
		switch p.Opcode() {
		case pdu.R2T:
			if r2ts++; r2ts-ended > limit/transfer {
				t.Fatalf("%d commands have buffers at once", r2ts-ended)
			}
			send(t, conn, conn.NewDataOut(p.ITT(), p.TTT(), 0, 0, make([]byte, p.DesiredLen()), true))
		case pdu.SCSIResponse:
			ended++
		default:
			t.Fatalf("received %v", p)
		}
	}
}

// Reads whose answers do not fit the memory wait for it.
func TestReadsWaitForMemory(t *testing.T) {
	t.Run("three at a time", func(t *testing.T) { testReadsWait(t, 3<<20, 3) })
	t.Run("less than one at a time", func(t *testing.T) { testReadsWait(t, 1, 1) })
}

func testReadsWait(t *testing.T, limit int64, together int) {
	const commands, size = 50, 1 << 20
	var now, most counter
	unit := new(fakeUnit)
	unit.execute = func(_ context.Context, c *lun.Command) {
		most.max(now.add(1))
		c.In = c.Alloc.Get(c.InLimit)
		clear(c.In)
		c.Transfer = int64(len(c.In))
		now.add(-1)
	}
	s := start(t, Config{QueueDepth: commands, MaxTransfer: size, ConnectionBuffers: limit}, unit)
	conn := s.login(t)
	for range commands {
		p := conn.NewCommand(0, []byte{0x28})
		p.SetFlags(pdu.FlagFinal | pdu.FlagRead)
		p.SetExpectedLen(size)
		send(t, conn, p)
	}
	bytes := 0
	for ended := 0; ended < commands; {
		p := receive(t, conn, pdu.DataIn)
		bytes += len(p.Data)
		if p.Flags()&pdu.FlagStatus != 0 {
			ended++
		}
	}
	if bytes != commands*size {
		t.Errorf("%d bytes", bytes)
	}
	if most := most.add(0); most > together {
		t.Errorf("%d reads had buffers at once", most)
	}
}

// counter is a number that several goroutines change.
type counter struct {
	mu sync.Mutex
	v  int
}

func (c *counter) add(n int) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.v += n
	return c.v
}

func (c *counter) max(n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.v = max(c.v, n)
}
