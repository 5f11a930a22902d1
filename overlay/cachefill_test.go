package overlay

import (
	"bytes"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"skylun/test/memdev"
)

// TestFillMakesNothingLeave: an image that does not fit is brought as far as it
// does, once, however much others read; a pinned one as far as it must.
func TestFillMakesNothingLeave(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const size, limit = 64 << 20, 32 << 20
		data := pattern(size)
		p := NewPrefetcher(PrefetcherConfig{})
		defer p.Close()
		pool := NewPool(limit, slog.New(slog.DiscardHandler))
		image := &farImage{Device: memdev.Of(data), latency: 5 * time.Millisecond, rate: 64 << 20}
		open := func() (*Cache, *Volume) {
			c, err := OpenCache(CacheConfig{Name: "image", Image: image, File: newPlainFile(size), Map: &memMap{}, Pool: pool, Prefetcher: p})
			if err != nil {
				t.Fatal(err)
			}
			v, err := openSingle(single{Name: "v", Size: size, File: newPlainFile(size), Map: &memMap{}, Base: c})
			if err != nil {
				t.Fatal(err)
			}
			return c, v
		}
		a, v := open()
		b, w := open()
		defer func() { closeAll(v); closeAll(w); a.Close(); b.Close() }()
		read := func(v *Volume, from, to int64) {
			t.Helper()
			p := make([]byte, 1<<20)
			for i := from; i < to; i++ {
				if err := v.ReadAt(t.Context(), p, i<<20); err != nil || !bytes.Equal(p, data[i<<20:(i+1)<<20]) {
					t.Fatalf("MiB %d: wrong bytes, or %v", i, err)
				}
			}
		}
		read(w, 0, 4)
		v.SetPrefetch(PrefetchFull, false)
		time.Sleep(time.Minute)
		s := pool.Stats()
		if s.Evicted > 0 || s.Held > limit-limit/8 || s.Held < limit/4 || b.Stats().Cached < 4<<20 {
			t.Errorf("after a minute: %+v", s)
		}
		if st := a.PrefetchStats(); st.State != StateWaiting || st.Reason != "the caches hold as much as they may" {
			t.Errorf("%+v", st)
		}
		// Readers may use all of it, and what leaves for them is not brought again.
		filled := a.PrefetchStats().Filled
		for range 3 {
			read(w, 0, 48)
			time.Sleep(time.Minute)
		}
		if s := pool.Stats(); s.Evicted == 0 || s.Held > limit {
			t.Errorf("after reads: %+v", s)
		}
		if n := a.PrefetchStats().Filled - filled; n > 0 {
			t.Errorf("%d bytes were brought into a pool that readers have filled", n)
		}
		// What is pinned has the space.
		if err := closeAll(v); err != nil {
			t.Fatal(err)
		}
		if err := a.Close(); err != nil {
			t.Fatal(err)
		}
		a, v = open()
		a.Pin()
		time.Sleep(time.Minute)
		if s := pool.Stats(); s.Pinned < limit-2<<20 || s.Held > limit {
			t.Errorf("pinned: %+v", s)
		}
		a.Unpin()
		read(w, 0, 48)
		synctest.Wait()
		if s := pool.Stats(); s.Pinned != 0 || b.Stats().Cached < 16<<20 {
			t.Errorf("not pinned any more: %+v, and the other has %d bytes", s, b.Stats().Cached)
		}
	})
}

// TestSumsInMemory: not all of a large cache has its sums in memory, and none is
// wrong for that.
func TestSumsInMemory(t *testing.T) {
	x := newPooled(t, 40<<20, nil)
	x.maxSums = 8
	check := func() {
		t.Helper()
		n := int64(0)
		for i := range int64(40) {
			if x.regions.at(i<<20).sums.Load() != nil {
				n++
			}
		}
		if n != x.sumsLoaded.Load() || n > 8+1 {
			t.Errorf("%d regions have their sums in memory, %d are counted", n, x.sumsLoaded.Load())
		}
	}
	p := make([]byte, 4096)
	for range 3 {
		for i := range int64(40) {
			x.want(t, mib(i))
			if done, err := x.TryReadAt(p, i<<20+8192); !done || err != nil {
				t.Errorf("MiB %d has to wait after it was read: %v", i, err)
			}
			x.pool.clock.Add(1)
		}
		check()
	}
	if s := x.Stats(); s.Damaged != 0 || s.Fetches != 40 {
		t.Errorf("%+v", s)
	}
	x.file.rot(20<<20 + 5)
	x.want(t, mib(20))
	if s := x.Stats(); s.Damaged != 1 {
		t.Errorf("damage is not found: %+v", s)
	}
}
