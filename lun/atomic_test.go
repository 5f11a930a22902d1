package lun

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"slices"
	"sync"
	"testing"

	"skylun/block"
)

// updatable is a memory that can look at a range and change it in one step.
type updatable struct{ *memory }

// Update implements block.Updater.
func (m updatable) Update(_ context.Context, p []byte, off int64, f func([]byte) (bool, error)) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.enter("read", off, int64(len(p))); err != nil {
		return err
	}
	copy(p, m.data[off:])
	write, err := f(p)
	if err != nil || !write {
		return err
	}
	if err := m.enter("update", off, int64(len(p))); err != nil {
		return err
	}
	copy(m.data[off:], p)
	return nil
}

var _ block.Updater = updatable{}

func compareCDB(flags byte, lba uint64, blocks byte) []byte {
	p := make([]byte, 16)
	p[0], p[1], p[13] = 0x89, flags, blocks
	binary.BigEndian.PutUint64(p[2:], lba)
	return p
}

// TestCompareAndWrite checks SBC-3 5.2.
func TestCompareAndWrite(t *testing.T) {
	const capacity = 1024
	a, b := func(n int) []byte { return filled(n*logicalBlock, 'a') }, func(n int) []byte { return filled(n*logicalBlock, 'b') }
	differing := a(2)
	differing[700] = 'x'
	for _, c := range []struct {
		name  string
		cdb   []byte
		out   []byte
		want  string
		info  uint32 // of a miscompare
		calls []string
	}{
		{name: "one", cdb: compareCDB(0, 5, 1), out: slices.Concat(a(1), b(1)), want: "00", calls: []string{"update 2560+512"}},
		{name: "most", cdb: compareCDB(0, 0, maxCompareBlocks), out: slices.Concat(a(maxCompareBlocks), b(maxCompareBlocks)), want: "00",
			calls: []string{fmt.Sprintf("update 0+%d", maxCompareBlocks*logicalBlock)}},
		{name: "more", cdb: compareCDB(0, 0, maxCompareBlocks+1), out: make([]byte, 2*(maxCompareBlocks+1)*logicalBlock), want: "02 5/24/00"},
		{name: "FUA", cdb: compareCDB(0x08, 5, 1), out: slices.Concat(a(1), b(1)), want: "00", calls: []string{"update 2560+512", "flush"}},
		{name: "DPO", cdb: compareCDB(0x10, 5, 1), out: slices.Concat(a(1), b(1)), want: "00", calls: []string{"update 2560+512"}},
		{name: "WRPROTECT", cdb: compareCDB(0x20, 5, 1), out: slices.Concat(a(1), b(1)), want: "02 5/24/00"},
		{name: "miscompare", cdb: compareCDB(0x08, 5, 2), out: slices.Concat(differing, b(2)), want: "02 e/1d/00", info: 700},
		{name: "miscompare at once", cdb: compareCDB(0, 5, 1), out: slices.Concat(b(1), a(1)), want: "02 e/1d/00", info: 0},
		{name: "nothing", cdb: compareCDB(0, 5, 0), want: "00"},
		{name: "nothing with data", cdb: compareCDB(0, 5, 0), out: a(2), want: "02 5/24/00"},
		{name: "last", cdb: compareCDB(0, capacity-1, 1), out: slices.Concat(a(1), b(1)), want: "00", calls: []string{"update 523776+512"}},
		{name: "beyond", cdb: compareCDB(0, capacity-1, 2), out: make([]byte, 2048), want: "02 5/21/00"},
		{name: "nothing beyond", cdb: compareCDB(0, capacity, 0), want: "02 5/21/00"},
		{name: "wraps", cdb: compareCDB(0, 1<<64-1, 2), out: make([]byte, 2048), want: "02 5/21/00"},
		{name: "half", cdb: compareCDB(0, 5, 1), out: a(1), want: "02 5/24/00"},
		{name: "one byte less", cdb: compareCDB(0, 5, 1), out: slices.Concat(a(1), b(1))[:1023], want: "02 5/24/00"},
		{name: "too much", cdb: compareCDB(0, 5, 1), out: slices.Concat(a(2), b(2)), want: "02 5/24/00"},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := newMemory(capacity * logicalBlock)
			copy(m.data, a(capacity))
			cmd := exec(t, newTestDisk(updatable{m}), &Command{CDB: c.cdb, Out: c.out})
			wantEnding(t, cmd, c.want)
			if !slices.Equal(m.calls, c.calls) {
				t.Errorf("calls %q, want %q", m.calls, c.calls)
			}
			want := a(capacity)
			if c.want == "00" {
				copy(want[binary.BigEndian.Uint64(c.cdb[2:])*logicalBlock:], c.out[len(c.out)/2:])
				if cmd.Transfer != int64(len(c.out)) {
					t.Errorf("Transfer %d, want %d", cmd.Transfer, len(c.out))
				}
			}
			if !bytes.Equal(m.data, want) {
				t.Error("the medium holds something else")
			}
			if c.want == "02 e/1d/00" {
				if got := fixedInfo(t, cmd.Sense); got != c.info {
					t.Errorf("INFORMATION %d, want %d", got, c.info)
				}
			}
		})
	}
	// Without the ability there is no command, and no limit that says so.
	plain := newTestDisk(newMemory(1 << 20))
	wantEnding(t, exec(t, plain, &Command{CDB: compareCDB(0, 0, 1), Out: a(2)}), "02 5/20/00")
	if p := vpd(t, plain, nil, 0xb0); p[1] != 0 {
		t.Errorf("MAXIMUM COMPARE AND WRITE LENGTH %d of a disk without the command", p[1])
	}
	if p := vpd(t, newTestDisk(updatable{newMemory(1 << 20)}), nil, 0xb0); p[1] != maxCompareBlocks {
		t.Errorf("MAXIMUM COMPARE AND WRITE LENGTH %d, want %d", p[1], maxCompareBlocks)
	}
	protected := NewDisk(updatable{newMemory(1 << 20)}, DiskConfig{ReadOnly: true}, discardLog)
	wantEnding(t, exec(t, protected, &Command{CDB: compareCDB(0, 0, 1), Out: a(2)}), "02 7/27/00")
}

// TestCompareAndWriteAtomic has many nexuses count in one logical block as
// cluster file systems take locks: read it, then replace it if it still is
// what was read. No count is lost.
func TestCompareAndWriteAtomic(t *testing.T) {
	const nexuses, rounds = 8, 50
	m := newMemory(64 << 10)
	d := newTestDisk(updatable{m})
	var all sync.WaitGroup
	for range nexuses {
		all.Go(func() {
			n := testNexus()
			for done := 0; done < rounds; {
				read := &Command{CDB: extentCDB(0x88, 0, 7, 1), Nexus: n, InLimit: logicalBlock, Alloc: heap{}}
				d.Execute(t.Context(), read)
				next := bytes.Clone(read.In)
				binary.BigEndian.PutUint64(next[100:], binary.BigEndian.Uint64(next[100:])+1)
				cmd := &Command{CDB: compareCDB(0, 7, 1), Nexus: n, Out: slices.Concat(read.In, next), Alloc: heap{}}
				d.Execute(t.Context(), cmd)
				switch got := ending(cmd); got {
				case "00":
					done++
				case "02 e/1d/00":
				default:
					t.Errorf("ended with %s", got)
					return
				}
			}
		})
	}
	all.Wait()
	if got := binary.BigEndian.Uint64(m.data[7*logicalBlock+100:]); got != nexuses*rounds {
		t.Errorf("counted to %d, want %d", got, nexuses*rounds)
	}
}

// TestORWrite checks SBC-3 5.5.
func TestORWrite(t *testing.T) {
	const capacity = 32
	for _, c := range []struct {
		name  string
		cdb   []byte
		out   []byte
		want  string
		moved int64
		calls []string
	}{
		{name: "two", cdb: extentCDB(0x8b, 0, 3, 2), out: filled(1024, 0x0f), want: "00", moved: 1024, calls: []string{"update 1536+1024"}},
		{name: "FUA", cdb: extentCDB(0x8b, 0x08, 3, 1), out: filled(512, 0x0f), want: "00", moved: 512, calls: []string{"update 1536+512", "flush"}},
		{name: "nothing", cdb: extentCDB(0x8b, 0, 3, 0), want: "00"},
		{name: "short", cdb: extentCDB(0x8b, 0, 3, 2), out: filled(700, 0x0f), want: "00", moved: 1024, calls: []string{"update 1536+512"}},
		{name: "no data", cdb: extentCDB(0x8b, 0, 3, 2), want: "00", moved: 1024},
		{name: "ORPROTECT", cdb: extentCDB(0x8b, 0x40, 3, 2), out: filled(1024, 0x0f), want: "02 5/24/00"},
		{name: "beyond", cdb: extentCDB(0x8b, 0, capacity-1, 2), out: filled(1024, 0x0f), want: "02 5/21/00"},
		{name: "wraps", cdb: extentCDB(0x8b, 0, 1<<64-1, 2), out: filled(1024, 0x0f), want: "02 5/21/00"},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := newMemory(capacity * logicalBlock)
			copy(m.data, filled(len(m.data), 0x31))
			cmd := exec(t, newTestDisk(updatable{m}), &Command{CDB: c.cdb, Out: c.out})
			if wantEnding(t, cmd, c.want); cmd.Transfer != c.moved {
				t.Errorf("Transfer %d, want %d", cmd.Transfer, c.moved)
			}
			if !slices.Equal(m.calls, c.calls) {
				t.Errorf("calls %q, want %q", m.calls, c.calls)
			}
			want := filled(len(m.data), 0x31)
			if c.want == "00" {
				copy(want[3*logicalBlock:], filled(len(c.out)/logicalBlock*logicalBlock, 0x3f))
			}
			if !bytes.Equal(m.data, want) {
				t.Error("the medium holds something else")
			}
		})
	}
	wantEnding(t, exec(t, newTestDisk(newMemory(4096)), &Command{CDB: extentCDB(0x8b, 0, 3, 2)}), "02 5/20/00")
}

// TestUpdateErrors checks how commands end when their update does not.
func TestUpdateErrors(t *testing.T) {
	for _, c := range []struct {
		err  error
		want string
	}{
		{block.ErrMedium, "02 3/0c/00"},
		{block.ErrNoSpace, "02 7/27/07"},
		{context.Canceled, "40"},
	} {
		m := newMemory(4096)
		m.fault = c.err
		d := newTestDisk(updatable{m})
		wantEnding(t, exec(t, d, &Command{CDB: compareCDB(0, 0, 1), Out: make([]byte, 1024)}), c.want)
		wantEnding(t, exec(t, d, &Command{CDB: extentCDB(0x8b, 0, 0, 1), Out: make([]byte, 512)}), c.want)
	}
}
