// Package devicetest is the contract of block.Device in code: every
// implementation runs it, so that callers can rely on the same things of all.
package devicetest

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"math"
	"math/rand/v2"
	"sync"
	"testing"

	"skylun/block"
	"skylun/test/memdev"
)

var seedFlag = flag.Uint64("devicetest.seed", 0, "seed of random operations; 0: a new one")

// Subject is a device under test.
type Subject struct {
	// Device is newly made and holds Content.
	Device block.Device
	// Content is what the device holds at first; its length is the size.
	Content []byte
	// Reopen closes the device and opens it again as after an orderly stop;
	// nil when the device does not outlive its process.
	Reopen func(t *testing.T) block.Device
}

// Run runs all cases, each on a subject of its own.
func Run(t *testing.T, open func(t *testing.T) Subject) {
	for _, c := range []struct {
		name string
		run  func(t *testing.T, s Subject)
	}{
		{"Content", testContent},
		{"Range", testRange},
		{"OddWrites", testOddWrites},
		{"Discard", testDiscard},
		{"ParallelParts", testParallelParts},
		{"ParallelMixed", testParallelMixed},
		{"Random", testRandom},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := open(t)
			if s.Device.Size() != int64(len(s.Content)) {
				t.Fatalf("size %d, want %d", s.Device.Size(), len(s.Content))
			}
			c.run(t, s)
		})
	}
}

// compare reads everything, in pieces that cross borders, and compares.
func compare(t *testing.T, d block.Device, want []byte) {
	t.Helper()
	got := make([]byte, 70001)
	for off := 0; off < len(want); off += len(got) {
		p := got[:min(len(got), len(want)-off)]
		if err := d.ReadAt(t.Context(), p, int64(off)); err != nil {
			t.Fatalf("read %d+%d: %v", off, len(p), err)
		}
		if i := diff(p, want[off:]); i >= 0 {
			t.Fatalf("byte %d is %#x, want %#x", off+i, p[i], want[off+i])
		}
	}
}

// diff returns where p and the beginning of want differ first, or -1.
func diff(p, want []byte) int {
	if bytes.Equal(p, want[:len(p)]) {
		return -1
	}
	for i := range p {
		if p[i] != want[i] {
			return i
		}
	}
	return -1
}

func testContent(t *testing.T, s Subject) {
	compare(t, s.Device, s.Content)
	compare(t, s.Device, s.Content) // now from wherever it was copied to
	if s.Reopen != nil {
		compare(t, s.Reopen(t), s.Content)
	}
}

func testRange(t *testing.T, s Subject) {
	d, size := s.Device, s.Device.Size()
	ctx := t.Context()
	one := make([]byte, 1)
	for _, c := range []struct {
		name   string
		off, n int64
	}{
		{"behind the end", size, 1}, {"over the end", size - 1, 2}, {"negative", -1, 1}, {"huge", math.MaxInt64, 1},
	} {
		p := make([]byte, c.n)
		for what, err := range map[string]error{
			"read": d.ReadAt(ctx, p, c.off), "write": d.WriteAt(ctx, p, c.off), "discard": d.Discard(ctx, c.off, c.n),
		} {
			if !errors.Is(err, block.ErrOutOfRange) {
				t.Errorf("%s %s: %v, want ErrOutOfRange", what, c.name, err)
			}
		}
	}
	for what, err := range map[string]error{
		"read": d.ReadAt(ctx, nil, size), "write": d.WriteAt(ctx, nil, size), "discard": d.Discard(ctx, size, 0),
	} {
		if err != nil {
			t.Errorf("%s of nothing at the end: %v", what, err)
		}
	}
	if err := d.ReadAt(ctx, one, size-1); err != nil {
		t.Errorf("last byte: %v", err)
	}
	compare(t, d, s.Content)
}

func testOddWrites(t *testing.T, s Subject) {
	d, model := s.Device, bytes.Clone(s.Content)
	size := d.Size()
	v := byte(1)
	for _, r := range []block.Range{
		{Off: 0, End: 512}, {Off: 512, End: 1024}, // two parts of one block
		{Off: 4096 + 100, End: 4096 + 101}, // one byte
		{Off: 3*4096 - 1, End: 3*4096 + 1}, // over a border
		{Off: 4*4096 + 7, End: 7*4096 + 9}, // head, whole, tail
		{Off: 8 * 4096, End: 9*4096 + 5},   // whole, tail
		{Off: 10*4096 + 5, End: 12 * 4096}, // head, whole
		{Off: 5 * 4096, End: 6 * 4096},     // what is there already
		{Off: size - 1, End: size}, {Off: size - 5000, End: size}, {Off: 0, End: size / 2},
		{Off: 1<<20 - 3, End: 1<<20 + 3}, // over a region's border
	} {
		r = r.Intersect(block.Range{Off: 0, End: size})
		p := bytes.Repeat([]byte{v}, int(r.Len()))
		v++
		if err := d.WriteAt(t.Context(), p, r.Off); err != nil {
			t.Fatalf("write %v: %v", r, err)
		}
		copy(model[r.Off:], p)
		compare(t, d, model)
	}
	if err := d.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	if s.Reopen != nil {
		compare(t, s.Reopen(t), model)
	}
}

func testDiscard(t *testing.T, s Subject) {
	d, model := s.Device, bytes.Clone(s.Content)
	ctx := t.Context()
	size := d.Size()
	if err := d.WriteAt(ctx, bytes.Repeat([]byte{0xee}, int(size/2)), size/4); err != nil {
		t.Fatal(err)
	}
	copy(model[size/4:], bytes.Repeat([]byte{0xee}, int(size/2)))
	for _, r := range []block.Range{
		{Off: 0, End: 8192},                        // what was never written
		{Off: size/4 - 3*4096, End: size/4 + 4096}, // over the border of what was
		{Off: size/2 + 512, End: size/2 + 1024},    // part of a block
		{Off: size/2 + 5000, End: size/2 + 50001},  // parts and blocks
		{Off: size/2 + 5000, End: size/2 + 50001},  // again
		{Off: size - 3000, End: size},
	} {
		if err := d.Discard(ctx, r.Off, r.Len()); err != nil {
			t.Fatalf("discard %v: %v", r, err)
		}
		clear(model[r.Off:r.End])
		compare(t, d, model)
	}
	if err := d.Flush(ctx); err != nil {
		t.Fatal(err)
	}
	compare(t, d, model)
	// A part of a discarded block is written: the rest stays zero.
	if err := d.WriteAt(ctx, []byte("part"), 700); err != nil {
		t.Fatal(err)
	}
	copy(model[700:], "part")
	compare(t, d, model)
	if s.Reopen != nil {
		compare(t, s.Reopen(t), model)
	}
}

// testParallelParts writes all parts of a block at once: none may be lost.
func testParallelParts(t *testing.T, s Subject) {
	d, model := s.Device, bytes.Clone(s.Content)
	const part = 512
	var wg sync.WaitGroup
	n := min(len(model)/part, 1024)
	for i := range n {
		p := bytes.Repeat([]byte{byte(i + 1)}, part)
		copy(model[i*part:], p)
		wg.Go(func() {
			if err := d.WriteAt(t.Context(), p, int64(i*part)); err != nil {
				t.Errorf("write part %d: %v", i, err)
			}
		})
	}
	wg.Wait()
	compare(t, d, model)
}

// testParallelMixed runs everything at once, each worker on its own part, and
// flushes meanwhile.
func testParallelMixed(t *testing.T, s Subject) {
	d, model := s.Device, bytes.Clone(s.Content)
	const workers = 8
	share := len(model) / workers
	stop := make(chan struct{})
	var flusher, wg sync.WaitGroup
	flusher.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			if err := d.Flush(t.Context()); err != nil {
				t.Errorf("flush: %v", err)
				return
			}
		}
	})
	seed := Seed(t)
	for w := range workers {
		wg.Go(func() {
			mine := memdev.Of(model[w*share : (w+1)*share])
			rnd := rand.New(rand.NewPCG(seed, uint64(w)))
			for range 150 {
				step(t, rnd, d, int64(w*share), mine)
			}
		})
	}
	wg.Wait()
	close(stop)
	flusher.Wait()
	compare(t, d, model)
	if s.Reopen != nil {
		compare(t, s.Reopen(t), model)
	}
}

func testRandom(t *testing.T, s Subject) {
	rnd := rand.New(rand.NewPCG(Seed(t), 99))
	d, model := s.Device, memdev.Of(bytes.Clone(s.Content))
	for i := range 600 {
		step(t, rnd, d, 0, model)
		if i%97 == 0 && s.Reopen != nil {
			d = s.Reopen(t)
		}
	}
	want := make([]byte, model.Size())
	if err := model.ReadAt(t.Context(), want, 0); err != nil {
		t.Fatal(err)
	}
	compare(t, d, want)
}

// step does one random operation on d at base and on model at 0, and compares
// what it reads.
func step(t *testing.T, rnd *rand.Rand, d block.Device, base int64, model *memdev.Device) {
	ctx := context.Background()
	n := 1 + rnd.Int64N(3*block.Size)
	if rnd.IntN(10) == 0 {
		n = 1 + rnd.Int64N(64*block.Size)
	}
	n = min(n, model.Size())
	off := rnd.Int64N(model.Size() - n + 1)
	if rnd.IntN(2) == 0 { // aligned
		off = block.Floor(off, block.Size)
		n = max(min(block.Size, model.Size()-off), block.Floor(n, block.Size))
	}
	p := make([]byte, n)
	switch op := rnd.IntN(10); {
	case op < 4:
		for i := range p {
			p[i] = byte(rnd.Uint32())
		}
		err := tryWrite(ctx, d, p, base+off, rnd.IntN(2) == 0)
		if err != nil {
			t.Errorf("write %d+%d: %v", base+off, n, err)
		}
		model.WriteAt(ctx, p, off)
	case op < 5:
		if err := d.Discard(ctx, base+off, n); err != nil {
			t.Errorf("discard %d+%d: %v", base+off, n, err)
		}
		model.Discard(ctx, off, n)
	case op < 6:
		if err := d.Flush(ctx); err != nil {
			t.Errorf("flush: %v", err)
		}
	default:
		if err := tryRead(ctx, d, p, base+off, rnd.IntN(2) == 0); err != nil {
			t.Errorf("read %d+%d: %v", base+off, n, err)
		}
		want := make([]byte, n)
		model.ReadAt(ctx, want, off)
		if i := diff(p, want); i >= 0 {
			t.Errorf("read %d+%d: byte %d is %#x, want %#x", base+off, n, base+off+int64(i), p[i], want[i])
		}
	}
}

// tryRead reads with TryReadAt first, if asked and d has it.
func tryRead(ctx context.Context, d block.Device, p []byte, off int64, try bool) error {
	if r, ok := d.(block.TryReader); ok && try {
		if done, err := r.TryReadAt(p, off); done {
			return err
		}
	}
	return d.ReadAt(ctx, p, off)
}

// tryWrite writes with TryWriteAt first, if asked and d has it.
func tryWrite(ctx context.Context, d block.Device, p []byte, off int64, try bool) error {
	if w, ok := d.(block.TryWriter); ok && try {
		if done, err := w.TryWriteAt(p, off); done {
			return err
		}
	}
	return d.WriteAt(ctx, p, off)
}

// Seed returns the seed for a test's random operations and logs it.
func Seed(t *testing.T) uint64 {
	seed := *seedFlag
	if seed == 0 {
		seed = rand.Uint64()
	}
	t.Logf("seed: -devicetest.seed=%d", seed)
	return seed
}
