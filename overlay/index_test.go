package overlay

import (
	"math/rand/v2"
	"runtime"
	"testing"
)

// TestIndexAgainstModel compares an index with an array after each of many
// random changes: short ones that make chunks dense, long ones that undo it.
func TestIndexAgainstModel(t *testing.T) {
	blocks := int64(3*chunkBlocks + 777)
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 0))
	x := newIndex[state](blocks)
	model := make([]state, blocks)
	was, sawDense := blocks, false
	for step := range 30000 {
		n := 1 + rnd.Int64N(3)
		if rnd.IntN(200) == 0 {
			n = 1 + rnd.Int64N(2*chunkBlocks)
		}
		first := rnd.Int64N(blocks)
		if step < 15000 { // crowd the first chunk
			first = rnd.Int64N(chunkBlocks)
		}
		end := min(first+n, blocks)
		s := state(rnd.IntN(states))
		changed := false
		for b := first; b < end; b++ {
			changed = changed || model[b] != s
			model[b] = s
		}
		if got := x.set(first, end, s); got != changed {
			t.Fatalf("step %d: set(%d, %d, %d) = %v, want %v", step, first, end, s, got, changed)
		}
		sawDense = sawDense || x.chunks[0] != nil && x.chunks[0].dense != nil
		if step%100 == 0 {
			compare(t, x, model)
		}
		if step%250 == 0 {
			blocks = 2*chunkBlocks + rnd.Int64N(3*chunkBlocks)
			x.resize(blocks)
			model = append(model[:min(blocks, int64(len(model)))], make([]state, max(0, blocks-int64(len(model))))...)
			clear(model[min(blocks, was):])
			was = blocks
			compare(t, x, model)
		}
	}
	compare(t, x, model)
	if !sawDense {
		t.Error("no chunk was ever dense")
	}
	x.set(0, blocks, present)
	for i, c := range x.chunks {
		if c != x.uniform[present] {
			t.Errorf("chunk %d of a file written end to end is not uniform", i)
		}
	}
}

func compare(t *testing.T, x *index[state], model []state) {
	t.Helper()
	var counts [states]int64
	for b := int64(0); b < x.blocks; {
		s, first, end := x.runAt(b)
		if s2, end2 := x.get(b); s2 != s || end2 != end {
			t.Fatalf("get(%d) = %d until %d, runAt says %d until %d", b, s2, end2, s, end)
		}
		if first > b || end <= b {
			t.Fatalf("runAt(%d): [%d,%d)", b, first, end)
		}
		for ; first < b; first++ {
			if model[first] != s {
				t.Fatalf("block %d: in a run of %d, want %d", first, s, model[first])
			}
		}
		for ; b < end; b++ {
			if model[b] != s {
				t.Fatalf("block %d: state %d, want %d", b, s, model[b])
			}
			counts[s]++
		}
	}
	for s, n := range counts {
		if got := x.count(state(s)); got != n {
			t.Fatalf("%d blocks of value %d, want %d", got, s, n)
		}
	}
}

// TestIndexMemory opens a terabyte in a million extents.
func TestIndexMemory(t *testing.T) {
	const blocks = 1 << 28 // 1 TiB
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	x := newIndex[state](blocks)
	for i := range int64(1_000_000) {
		b := i * (blocks / 1_000_000)
		x.set(b, b+3, present)
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	if used := int64(after.HeapAlloc) - int64(before.HeapAlloc); used > 64<<20 {
		t.Errorf("index of 1 TiB in a million extents takes %d MiB, want at most 64", used>>20)
	}
	if x.count(present) != 3_000_000 {
		t.Errorf("%d blocks present, want 3000000", x.count(present))
	}
	runtime.KeepAlive(x)
}

func BenchmarkIndexGet(b *testing.B) {
	const blocks = 1 << 28
	x := newIndex[state](blocks)
	for i := range int64(1_000_000) {
		x.set(i*268, i*268+3, present)
	}
	rnd := rand.New(rand.NewPCG(1, 2))
	for b.Loop() {
		x.get(rnd.Int64N(blocks))
	}
}
