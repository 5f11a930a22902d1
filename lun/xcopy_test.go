package lun

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"skylun/block"
)

// copying is a memory that copies in its own way from another one.
type copying struct {
	*memory
	copied *[]string
}

// CopyFrom implements block.Copier.
func (m copying) CopyFrom(_ context.Context, off int64, src block.Reader, from, n int64) (bool, error) {
	s, ok := src.(copying)
	if !ok {
		return false, nil
	}
	if err := block.CheckRange(off, n, m.Size()); err != nil {
		return false, err
	}
	if err := block.CheckRange(from, n, s.Size()); err != nil {
		return false, err
	}
	*m.copied = append(*m.copied, fmt.Sprintf("%d+%d from %d", off, n, from))
	copy(m.data[off:off+n], s.data[from:])
	return true, m.fault
}

var _ block.Copier = copying{}

// pair is two disks in one map, and a nexus that sees them.
type pair struct {
	units *Map
	nexus *Nexus
	disks [2]*Disk
}

func newPair(t testing.TB, a, b block.Device) *pair {
	p := &pair{units: NewMap(), nexus: testNexus()}
	for i, dev := range []block.Device{a, b} {
		p.disks[i] = NewDisk(dev, DiskConfig{ID: [16]byte{byte(i + 1)}}, discardLog)
		if err := p.units.Add(uint16(i), p.disks[i]); err != nil {
			t.Fatal(err)
		}
	}
	p.units.AttachNexus(p.nexus)
	for _, d := range p.disks {
		wantEnding(t, send(t, d, p.nexus, "00 00000000 00", nil), "02 6/29/00")
	}
	return p
}

// segment returns a block to block segment descriptor.
func segment(source, destination, blocks uint16, sourceLBA, destinationLBA uint64) []byte {
	b := []byte{blockToBlockType, 0, 0, blockToBlockLength - 4}
	b = binary.BigEndian.AppendUint16(b, source)
	b = binary.BigEndian.AppendUint16(b, destination)
	b = binary.BigEndian.AppendUint32(b, uint32(blocks))
	b = binary.BigEndian.AppendUint64(b, sourceLBA)
	return binary.BigEndian.AppendUint64(b, destinationLBA)
}

// copyParameterList returns a parameter list of EXTENDED COPY.
func copyParameterList(id, flags byte, cscds, segments []byte) []byte {
	p := make([]byte, 16)
	p[0], p[1] = id, flags
	binary.BigEndian.PutUint16(p[2:], uint16(len(cscds)))
	binary.BigEndian.PutUint32(p[8:], uint32(len(segments)))
	return slices.Concat(p, cscds, segments)
}

// names returns CSCD descriptors that name disks.
func names(disks ...*Disk) (b []byte) {
	for _, d := range disks {
		b = d.appendIdentification(b)
	}
	return b
}

// xcopy has d copy what a parameter list says.
func xcopy(t testing.TB, d *Disk, n *Nexus, list []byte) *Command {
	t.Helper()
	cdb := make([]byte, 16)
	cdb[0] = byte(extendedCopyCode)
	binary.BigEndian.PutUint32(cdb[10:], uint32(len(list)))
	c := exec(t, d, &Command{CDB: cdb, Nexus: n, Out: list})
	if c.Status == StatusGood && c.Transfer != int64(len(list)) {
		t.Errorf("Transfer %d, want %d", c.Transfer, len(list))
	}
	return c
}

func randomBytes(n int) []byte {
	b := make([]byte, n)
	rnd := rand.New(rand.NewPCG(1, uint64(n)))
	for i := range b {
		b[i] = byte(rnd.Uint32())
	}
	return b
}

// TestExtendedCopy copies within a disk and between disks, on devices with
// and without ways of their own, and compares with what copy makes of it.
func TestExtendedCopy(t *testing.T) {
	const capacity = 12 << 10 // 6 MiB
	content := randomBytes(capacity * logicalBlock)
	clear(content[1<<20+700 : 3<<20])
	var copied []string
	for name, wrap := range map[string]func(*memory) block.Device{
		"bytes":  func(m *memory) block.Device { return m },
		"ranges": func(m *memory) block.Device { return ranged{m} },
		"copier": func(m *memory) block.Device { return copying{m, &copied} },
	} {
		for _, s := range []struct {
			source, destination uint16
			blocks              uint16
			from, to            uint64
		}{
			{0, 1, 8192, 0, 0}, // as ESXi does, 4 MiB at a time
			{0, 1, 1, 5, 7},
			{1, 0, 4097, 3, 100},
			{0, 0, 100, 0, 1000},
			{0, 0, 5000, 0, 17},   // overlapping, upwards
			{0, 0, 5000, 17, 0},   // downwards
			{0, 0, 5000, 50, 50},  // in place
			{1, 1, 9000, 1, 3000}, // upwards by more than a piece
			{0, 1, 0, 0, 0},
			{0, 1, 1, capacity - 1, capacity - 1},
			{thisDisk, 1, 8, 0, 0},
		} {
			t.Run(fmt.Sprint(name, s), func(t *testing.T) {
				var mem [2]*memory
				var want [2][]byte
				for i := range mem {
					mem[i] = newMemory(capacity * logicalBlock)
					copy(mem[i].data, content)
					mem[i].data[i]++
					want[i] = bytes.Clone(mem[i].data)
				}
				copied = nil
				p := newPair(t, wrap(mem[0]), wrap(mem[1]))
				list := copyParameterList(7, 0, names(p.disks[:]...), segment(s.source, s.destination, s.blocks, s.from, s.to))
				wantEnding(t, xcopy(t, p.disks[0], p.nexus, list), "00")
				source, destination := int(s.source), int(s.destination)
				if source == thisDisk {
					source = 0
				}
				copy(want[destination][s.to*logicalBlock:], want[source][s.from*logicalBlock:][:int(s.blocks)*logicalBlock])
				for i, m := range mem {
					if !bytes.Equal(m.data, want[i]) {
						t.Errorf("disk %d holds something else", i)
					}
					if len(m.wrong) > 0 {
						t.Errorf("beyond the end: %q", m.wrong)
					}
				}
				if name == "copier" && source != destination && s.blocks > 0 && (len(copied) != 1 || len(mem[1].calls) > 0) {
					t.Errorf("copied %q, calls %q", copied, mem[1].calls)
				}
				status := send(t, p.disks[0], p.nexus, "84 00 07 00000000000000 00000100 00 00", nil)
				moved := int64(s.blocks) * logicalBlock
				if want := append(unhex(t, "00000008 01 0001 00"), binary.BigEndian.AppendUint32(nil, uint32(moved))...); !bytes.Equal(status.In, want) {
					t.Errorf("status % x, want % x", status.In, want)
				}
			})
		}
	}
}

// TestExtendedCopyZeros checks that what reads as zeros goes nowhere and takes
// no space.
func TestExtendedCopyZeros(t *testing.T) {
	a, b := newMemory(1<<20), newMemory(1<<20)
	a.data[8192], a.data[40000] = 1, 1
	p := newPair(t, ranged{a}, ranged{b})
	wantEnding(t, xcopy(t, p.disks[1], p.nexus, copyParameterList(0, 0x18, names(p.disks[:]...), segment(0, 1, 128, 0, 128))), "00")
	want := []string{"discard 65536+8192", "write 73728+4096", "discard 77824+24576", "write 102400+4096", "discard 106496+24576"}
	if !slices.Equal(b.calls, want) {
		t.Errorf("calls %q, want %q", b.calls, want)
	}
}

// TestExtendedCopyChecks checks the parameter list, SPC-4 6.4.
func TestExtendedCopyChecks(t *testing.T) {
	const capacity = 2048
	p := newPair(t, newMemory(capacity*logicalBlock), newMemory(capacity*logicalBlock))
	both := names(p.disks[:]...)
	one := segment(0, 1, 1, 0, 0)
	list := func(cscds, segments []byte) []byte { return copyParameterList(1, 0, cscds, segments) }
	edit := func(b []byte, at int, to ...byte) []byte {
		b = bytes.Clone(b)
		copy(b[at:], to)
		return b
	}
	stranger := newTestDisk(newMemory(4096))
	for _, c := range []struct {
		name string
		list []byte
		want string
	}{
		{"good", list(both, one), "00"},
		{"good without descriptors", list(nil, nil), "00"},
		{"good with DC and CAT", list(both, edit(one, 1, 3)), "00"},
		{"good with STR and priority", edit(list(both, one), 1, 0x23), "00"},
		{"good without length of blocks", list(edit(both, 29, 0, 0, 0), one), "00"},
		{"good, a stranger is named but not used", list(names(p.disks[0], p.disks[1], stranger), one), "00"},
		{"header cut", list(both, one)[:15], "02 5/1a/00"},
		{"descriptor cut", list(both, one)[:16+63], "02 5/1a/00"},
		{"segment cut", list(both, one)[:16+64+27], "02 5/1a/00"},
		{"descriptors of odd length", list(both[:63], one), "02 5/26/00"},
		{"segments of odd length", list(both, one[:27]), "02 5/26/00"},
		{"lengths that wrap", edit(list(both, one), 8, 0xff, 0xff, 0xff, 0xff), "02 5/1a/00"},
		{"inline data", edit(list(both, one), 15, 1), "02 5/26/0b"},
		{"too many descriptors", list(bytes.Repeat(both, maxCSCDs/2+1), one), "02 5/26/06"},
		{"too many segments", list(both, bytes.Repeat(one, maxSegments+1)), "02 5/26/08"},
		{"too many of both", list(bytes.Repeat(both, maxCSCDs/2+1), bytes.Repeat(one, maxSegments+1)), "02 5/1a/00"},
		{"type of a descriptor", list(edit(both, 0, 0xe0), one), "02 5/26/07"},
		{"type of a segment", list(both, edit(one, 0, 0x0a)), "02 5/26/09"},
		{"length of a segment", list(both, edit(one, 3, 0x17)), "02 5/26/00"},
		{"good with LU ID TYPE and NUL", list(edit(both, 1, 0xe0), one), "00"},
		{"LIST ID USAGE", edit(list(both, one), 1, 0x08), "02 5/26/00"},
		{"identifier that is none", edit(list(both, one), 1, 0x18), "02 5/26/00"},
		{"another type of device", list(edit(both, 1, 0x05), one), "02 a/08/04"},
		{"another length of blocks", list(edit(both, 29, 0, 0x10, 0), one), "02 a/08/04"},
		{"another kind of designator", list(edit(both, 5, 1), one), "02 a/08/04"},
		{"shorter designator", list(edit(both, 7, 8), one), "02 a/08/04"},
		{"longer designator", list(edit(both, 7, 0xff), one), "02 a/08/04"},
		{"a stranger", list(names(p.disks[0], stranger), one), "02 a/08/04"},
		{"no such source", list(both, segment(2, 1, 1, 0, 0)), "02 a/08/04"},
		{"no such destination", list(both, segment(0, 0xf800, 1, 0, 0)), "02 a/08/04"},
		{"source beyond the end", list(both, segment(0, 1, 2, capacity-1, 0)), "02 a/0d/02"},
		{"destination beyond the end", list(both, segment(0, 1, 2, 0, capacity-1)), "02 a/0d/02"},
		{"source that wraps", list(both, segment(0, 1, 2, 1<<64-1, 0)), "02 a/0d/02"},
		{"destination that wraps", list(both, segment(0, 1, 2, 0, 1<<63)), "02 a/0d/02"},
	} {
		t.Run(c.name, func(t *testing.T) {
			cmd := xcopy(t, p.disks[0], p.nexus, c.list)
			wantEnding(t, cmd, c.want)
		})
	}
	wantEnding(t, xcopy(t, p.disks[0], p.nexus, nil), "00")
	// The second segment fails: that is told, and so is what the first did.
	cmd := xcopy(t, p.disks[0], p.nexus, copyParameterList(9, 0, both, slices.Concat(segment(0, 1, 4, 0, 0), segment(0, 1, 1, 0, 1<<40))))
	if wantEnding(t, cmd, "02 a/0d/02"); binary.BigEndian.Uint32(cmd.Sense[8:]) != 1 {
		t.Errorf("COMMAND-SPECIFIC INFORMATION in % x, want segment 1", cmd.Sense)
	}
	if got, want := send(t, p.disks[0], p.nexus, "84 00 09 00000000000000 00000100 00 00", nil).In, unhex(t, "00000008 02 0001 00 00000800"); !bytes.Equal(got, want) {
		t.Errorf("status % x, want % x", got, want)
	}
	details := send(t, p.disks[0], p.nexus, "84 04 09 00000000000000 00000100 00 00", nil).In
	if want := append(unhex(t, "02 00 00 12"), cmd.Sense...); len(details) != 78 || details[3] != 74 || !bytes.Equal(details[56:], want) {
		t.Errorf("failure details % x, want ... % x", details, want)
	}
	wantEnding(t, xcopy(t, p.disks[0], p.nexus, list(both, one)), "00")
	if got := send(t, p.disks[0], p.nexus, "84 04 01 00000000000000 00000100 00 00", nil).In; len(got) != 60 || !allZero(got) {
		t.Errorf("failure details of a copy that did not fail: % x", got)
	}
	wantEnding(t, send(t, p.disks[0], p.nexus, "84 01 09 00000000000000 00000100 00 00", nil), "00")
	for _, cdb := range []string{"84 00 0a 00000000000000 00000100 00 00", "84 01 0a 00000000000000 00000100 00 00", "84 04 0a 00000000000000 00000100 00 00"} {
		wantEnding(t, send(t, p.disks[0], p.nexus, cdb, nil), "02 5/24/00")
		wantEnding(t, send(t, p.disks[0], nil, cdb, nil), "02 5/24/00") // nobody else is told
	}
	p.units.DetachNexus(p.nexus)
	if n := len(p.disks[0].copies.records); n != 0 {
		t.Errorf("copies of %d nexuses are remembered after the only one went", n)
	}
}

// TestExtendedCopyAccess checks who may copy what: what a nexus could not read
// or write by itself, it cannot have copied.
func TestExtendedCopyAccess(t *testing.T) {
	list := func(p *pair) []byte { return copyParameterList(1, 0, names(p.disks[:]...), segment(0, 1, 1, 0, 0)) }
	fresh := func() *pair { return newPair(t, newMemory(4096), newMemory(4096)) }

	p := fresh()
	other := testNexus()
	p.units.AttachNexus(other)
	wantEnding(t, send(t, p.disks[1], other, "00 00000000 00", nil), "02 6/29/00")
	wantEnding(t, send(t, p.disks[1], other, "16 00 0000 00 00", nil), "00") // RESERVE(6)
	wantEnding(t, xcopy(t, p.disks[0], p.nexus, list(p)), "02 a/0d/01")
	wantEnding(t, xcopy(t, p.disks[1], p.nexus, list(p)), "18")
	wantEnding(t, send(t, p.disks[1], other, "17 00 0000 00 00", nil), "00")
	wantEnding(t, xcopy(t, p.disks[0], p.nexus, list(p)), "00")

	p = fresh()
	p.disks[1].protect(true)
	wantEnding(t, xcopy(t, p.disks[0], p.nexus, list(p)), "02 a/0d/01")
	if got := p.disks[1].dev.(*memory).calls; got != nil {
		t.Errorf("a write protected disk got %q", got)
	}
	wantEnding(t, xcopy(t, p.disks[1], p.nexus, copyParameterList(1, 0, names(p.disks[:]...), segment(1, 0, 1, 0, 0))), "00")

	// Disks of other targets are out of reach until somebody says they are not.
	p, q := fresh(), newPair(t, newMemory(4096), newMemory(4096))
	for i, d := range q.disks {
		d.id = diskIdentity([16]byte{0xff, byte(i)})
	}
	across := copyParameterList(1, 0, names(p.disks[0], q.disks[0]), segment(0, 1, 1, 0, 0))
	wantEnding(t, xcopy(t, p.disks[0], p.nexus, across), "02 a/08/04")
	p.units.SetPeers(func(n *Nexus) []*Map {
		if n != p.nexus {
			t.Error("asked for another nexus")
		}
		return []*Map{q.units}
	})
	wantEnding(t, xcopy(t, p.disks[0], p.nexus, across), "00")
	q.units.Remove(0)
	wantEnding(t, xcopy(t, p.disks[0], p.nexus, across), "02 a/08/04")
}

// TestExtendedCopyErrors checks what a copy makes of errors of devices, and
// that it is durable when writes are.
func TestExtendedCopyErrors(t *testing.T) {
	for _, c := range []struct {
		err  error
		want string
	}{
		{block.ErrMedium, "02 a/0d/01"},
		{block.ErrNoSpace, "02 7/27/07"},
		{context.Canceled, "40"},
	} {
		a, b := newMemory(4096), newMemory(4096)
		b.fault = c.err
		p := newPair(t, a, b)
		wantEnding(t, xcopy(t, p.disks[0], p.nexus, copyParameterList(3, 0, names(p.disks[:]...), segment(0, 1, 1, 0, 0))), c.want)
		if got := send(t, p.disks[0], p.nexus, "84 00 03 00000000000000 00000100 00 00", nil).In; len(got) != 12 || got[4] != 2 {
			t.Errorf("status % x after %v", got, c.err)
		}
	}
	a, b := newMemory(4096), newMemory(4096)
	p := newPair(t, a, b)
	p.disks[1].writeThrough.Store(true)
	wantEnding(t, xcopy(t, p.disks[0], p.nexus, copyParameterList(3, 0, names(p.disks[:]...), segment(0, 1, 1, 0, 0))), "00")
	if want := []string{"write 0+512", "flush"}; !slices.Equal(b.calls, want) {
		t.Errorf("calls %q, want %q", b.calls, want)
	}
}

// TestExtendedCopyAborted aborts a copy that waits for its source, and looks
// at it meanwhile.
func TestExtendedCopyAborted(t *testing.T) {
	a, b := newMemory(4096), newMemory(4096)
	a.blocked = make(chan struct{})
	p := newPair(t, a, b)
	ctx, abort := context.WithCancel(t.Context())
	list := copyParameterList(3, 0, names(p.disks[:]...), segment(0, 1, 1, 0, 0))
	cdb := []byte{0x83, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, byte(len(list)), 0, 0}
	done := make(chan *Command)
	go func() {
		c := &Command{CDB: cdb, Nexus: p.nexus, Out: list, Alloc: heap{}}
		p.disks[0].Execute(ctx, c)
		done <- c
	}()
	status := func() []byte { return send(t, p.disks[0], p.nexus, "84 00 03 00000000000000 00000100 00 00", nil).In }
	for status() == nil { // until it has begun
	}
	if got := status(); got[4] != 0 {
		t.Errorf("status % x of a copy that runs", got)
	}
	wantEnding(t, xcopy(t, p.disks[0], p.nexus, list), "02 5/00/16") // the same identifier
	wantEnding(t, send(t, p.disks[0], p.nexus, "84 04 03 00000000000000 00000100 00 00", nil), "02 5/24/00")
	abort()
	wantEnding(t, <-done, "40")
	if got := status(); got[4] != 2 || len(b.calls) > 0 {
		t.Errorf("status % x, calls %q after the copy was aborted", got, b.calls)
	}
}

// TestCopyParameters checks that RECEIVE COPY OPERATING PARAMETERS and the
// Third-Party Copy page tell what EXTENDED COPY does, and that the commands
// in the page are those of the table.
func TestCopyParameters(t *testing.T) {
	d := newTestDisk(newMemory(4096))
	p := send(t, d, nil, "84 03 0000000000000000 00000100 00 00", nil).In
	be := binary.BigEndian
	if len(p) != 46 || be.Uint32(p) != 42 || p[4] != 1 || be.Uint16(p[8:]) != maxCSCDs || be.Uint16(p[10:]) != maxSegments ||
		be.Uint32(p[12:]) != maxCopyList || be.Uint32(p[16:]) != 65535*512 || be.Uint32(p[20:]) != 0 || p[37] != 9 || !bytes.Equal(p[43:], []byte{2, 0x02, 0xe4}) {
		t.Errorf("operating parameters % x", p)
	}
	page := vpd(t, d, nil, 0x8f)
	kinds := []uint16{}
	for len(page) > 0 {
		if len(page) < 4 || len(page) < 4+int(be.Uint16(page[2:])) || be.Uint16(page[2:])%4 != 0 {
			t.Fatalf("rest of the page % x", page)
		}
		kind, body := be.Uint16(page), page[4:][:be.Uint16(page[2:])]
		kinds = append(kinds, kind)
		if kind == 0x0001 {
			for list := body[1:][:body[0]]; len(list) > 0; list = list[2+list[1]:] {
				for _, action := range list[2:][:list[1]] {
					if c := exec(t, d, &Command{CDB: append([]byte{list[0], action}, make([]byte, 14)...)}); ending(c) == "02 5/20/00" {
						t.Errorf("command %02x/%02x of the page is not there", list[0], action)
					}
				}
			}
		}
		page = page[4+len(body):]
	}
	if want := []uint16{0, 1, 4, 8, 0x0c, 0x106, 0x108, 0x8001}; !slices.Equal(kinds, want) {
		t.Errorf("descriptors %04x, want %04x", kinds, want)
	}
	want := unhex(t, "0000 0020 000000000000 0040 0000012c 0000003c 0000000000080000 0000000000020000")
	if page := vpd(t, d, nil, 0x8f); !bytes.Equal(page[:36], want) {
		t.Errorf("token limits % x, want % x", page[:36], want)
	}
}
