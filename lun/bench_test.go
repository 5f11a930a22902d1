package lun

import (
	"fmt"
	"testing"
)

// onePool always hands out the same buffer.
type onePool []byte

func (p onePool) Get(n int) []byte { return p[:n] }

// benchDisk returns a disk of 1 MiB and two attached nexuses. The first one
// has heard everything; whether the second has is the caller's choice.
func benchDisk(tb testing.TB, quiet bool) (*Disk, *Nexus) {
	d := newTestDisk(quick{newMemory(1 << 20)})
	a, b := testNexus(), testNexus()
	for _, n := range []*Nexus{a, b} {
		d.Attach(n)
		if n == a || quiet {
			send(tb, d, n, testUnitReady, nil)
		}
	}
	return d, a
}

var hotCommands = []struct {
	name string
	cdb  []byte
}{
	{"READ10", extentCDB(0x28, 0, 8, 8)},
	{"READ16", extentCDB(0x88, 0, 8, 8)},
	{"WRITE10", extentCDB(0x2a, 0, 8, 8)},
	{"WRITE16", extentCDB(0x8a, 0, 8, 8)},
}

// TestHotPathAllocates checks that reads and writes that need not wait take
// nothing from the heap.
func TestHotPathAllocates(t *testing.T) {
	t.Run("no reservation", func(t *testing.T) { hotPathAllocates(t) })
	t.Run("persistent reservation", func(t *testing.T) {
		hotPathAllocates(t, "5f 06 00 0000 00000018 00", "5f 01 05 0000 00000018 00")
	})
}

// hotPathAllocates runs the hot commands of a nexus that has sent others
// before, with a reservation key and what it becomes as their parameter list.
func hotPathAllocates(t *testing.T, before ...string) {
	d, n := benchDisk(t, false)
	for _, cdb := range before {
		wantEnding(t, send(t, d, n, cdb, basicList(5, 5, 0)), "00")
	}
	for _, h := range hotCommands {
		c := &Command{CDB: h.cdb, Nexus: n, Out: make([]byte, 4096), InLimit: 4096, Alloc: onePool(make([]byte, 4096))}
		if allocs := testing.AllocsPerRun(100, func() {
			if !d.Try(c) || c.Status != StatusGood {
				t.Fatalf("%s: %s", h.name, ending(c))
			}
		}); allocs != 0 {
			t.Errorf("%s allocates %v times", h.name, allocs)
		}
	}
}

// TestTryGivesUp checks what Try leaves to Execute, and that the buffer it had
// taken is used.
func TestTryGivesUp(t *testing.T) {
	m := newMemory(1 << 20)
	d := newTestDisk(quick{m})
	gets := 0
	pool := poolFunc(func(n int) []byte { gets++; return make([]byte, n) })
	for _, c := range []struct {
		cdb  []byte
		try  bool
		gets int
	}{
		{extentCDB(0x28, 0, 0, 1), false, 1},
		{extentCDB(0x2a, 0, 0, 1), false, 0},
		{extentCDB(0x2a, fua, 0, 1), false, 0},
		{extentCDB(0x35, 0, 0, 1), false, 0},
		{extentCDB(0x41, 0, 0, 1), false, 0},
		{unmapCDB(8), false, 0},
		{extentCDB(0x28, 0, 1<<20, 1), true, 0},
		{extentCDB(0x2a, 0, 1<<20, 1), true, 0},
		{unhex(t, "12 00 00 00ff 00"), true, 1},
		{unhex(t, "00 00000000 00"), true, 0},
		{unhex(t, "1a 08 3f 00 ff 00"), true, 1},
	} {
		gets, m.reluct = 0, true
		cmd := &Command{CDB: c.cdb, Out: make([]byte, 512), InLimit: 4096, Alloc: pool}
		if got := d.Try(cmd); got != c.try {
			t.Errorf("% x: Try %v", c.cdb, got)
		} else if !got {
			if cmd.In != nil {
				t.Errorf("% x: Data-In without an end", c.cdb)
			}
			d.Execute(t.Context(), cmd)
			wantEnding(t, cmd, "00")
		}
		if gets != c.gets {
			t.Errorf("% x took %d buffers, want %d", c.cdb, gets, c.gets)
		}
	}
}

type poolFunc func(int) []byte

func (f poolFunc) Get(n int) []byte { return f(n) }

func BenchmarkTry(b *testing.B) {
	for _, quiet := range []bool{true, false} {
		d, n := benchDisk(b, quiet)
		for _, h := range hotCommands {
			b.Run(fmt.Sprintf("%s/quiet=%v", h.name, quiet), func(b *testing.B) {
				c := &Command{CDB: h.cdb, Nexus: n, Out: make([]byte, 4096), InLimit: 4096, Alloc: onePool(make([]byte, 4096))}
				b.ReportAllocs()
				for b.Loop() {
					if !d.Try(c) {
						b.Fatal("waits")
					}
				}
			})
		}
	}
}

func BenchmarkMapUnit(b *testing.B) {
	m := NewMap()
	for lun := range uint16(8) {
		if err := m.Add(lun, newTestDisk(newMemory(4096))); err != nil {
			b.Fatal(err)
		}
	}
	field := encodeLUN(5)
	for b.Loop() {
		m.Unit(field)
	}
}
