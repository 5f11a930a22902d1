package overlay

import (
	"bytes"
	"log/slog"
	"math/rand/v2"
	"syscall"
	"testing"

	"skylun/block"
	"skylun/test/devicetest"
	"skylun/test/memdev"
)

// TestCacheFaultsEverywhere lets every call of the copies, their sums and their map
// fail in turn, while an image that does not fit is read and copies leave. No
// reader hears of it while the store is there, nothing wrong is shown, also after
// a power cut, and what is held is what is there.
func TestCacheFaultsEverywhere(t *testing.T) {
	seed := devicetest.Seed(t)
	const size, limit = 5<<20 + 700, 3 << 20
	data := pattern(size)
	met := map[string]int{}
	step := 1
	if testing.Short() || raceEnabled {
		step = 7
	}
	for _, cause := range []error{syscall.EIO, syscall.ENOSPC} {
		for at := 1; ; at += step {
			f := &fault{at: at, err: cause}
			rnd := rand.New(rand.NewPCG(seed, 3))
			pool := NewPool(limit, slog.New(slog.DiscardHandler))
			x := &pooled{image: &countingImage{Device: memdev.Of(data)}, data: data, log: &bytes.Buffer{},
				file: newMemFile(block.Ceil(size, block.Size)), sums: newMemFile(SumsSize(size)), disk: &memMap{}}
			x.open(t, pool)
			x.file.failing, x.disk.failing = f.call, f.call
			x.sums.failing = func(op string) error { return f.call(op + " sums") }
			for i := range int64(14) {
				off := rnd.Int64N(size)
				x.want(t, block.Range{Off: off, End: min(size, off+1+rnd.Int64N(800<<10))})
				if i%3 == 2 { // so that it gets full
					x.want(t, mib(i/3))
				}
			}
			done := !f.met()
			met[f.op]++
			x.file.failing, x.sums.failing, x.disk.failing = nil, nil, nil
			if err := x.copy.commit(t.Context()); err != nil {
				t.Fatalf("call %d (%s) has failed, and no round succeeds any more: %v", at, f.op, err)
			}
			left := &pooled{image: x.image, data: data, log: x.log, file: x.file.cut(rnd), sums: x.sums.cut(rnd), disk: &memMap{extents: x.disk.durable()}}
			x.want(t, block.Range{Off: 0, End: size})
			pool.free(0, 0, pool.passes.Load(), nil) // what could not be recorded
			if s := pool.Stats(); s.Held != x.Stats().Cached || s.Held > limit {
				t.Fatalf("call %d (%s) has failed: %d bytes are held, %d are there", at, f.op, s.Held, x.Stats().Cached)
			}
			if err := x.Close(); err != nil {
				t.Fatalf("call %d (%s) has failed: close: %v", at, f.op, err)
			}
			left.open(t, nil)
			left.want(t, block.Range{Off: 0, End: size})
			if err := holdsOnly(left.file, left.Cache); err != nil {
				t.Fatalf("call %d (%s) has failed: %v", at, f.op, err)
			}
			if err := left.Close(); err != nil {
				t.Fatal(err)
			}
			if done {
				break
			}
		}
	}
	t.Log(met)
	for _, op := range []string{"read", "write", "sync", "punch", "append", "write sums", "sync sums"} {
		if met[op] == 0 && step == 1 {
			t.Errorf("no %s ever failed", op)
		}
	}
}
