package overlay

import (
	"context"
	"encoding/binary"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"skylun/block"
	"skylun/test/boottrace"
)

// shapedImage is an image behind a link: every read has a latency, and all
// together share the bandwidth. What is at an offset says so itself.
type shapedImage struct {
	size      int64
	latency   time.Duration
	bandwidth int64 // bytes/s

	mu      sync.Mutex
	free    time.Time // when the link is
	fetched int64
	reads   int
}

func (s *shapedImage) Size() int64 { return s.size }

func (s *shapedImage) ReadAt(ctx context.Context, p []byte, off int64) error {
	s.mu.Lock()
	// The answer begins after the latency, and after those before it.
	begin := time.Now().Add(s.latency)
	if s.free.After(begin) {
		begin = s.free
	}
	end := begin.Add(time.Duration(int64(len(p)) * int64(time.Second) / s.bandwidth))
	s.free = end
	s.fetched += int64(len(p))
	s.reads++
	s.mu.Unlock()
	select {
	case <-time.After(time.Until(end)):
	case <-ctx.Done():
		return ctx.Err()
	}
	for i := 0; i < len(p); i += 512 {
		binary.LittleEndian.PutUint64(p[i:], uint64(off)+uint64(i))
	}
	return nil
}

const volumesAtMost = 64

// storm is how a boot storm went.
type storm struct {
	took    time.Duration
	fetched int64
	reads   int
}

func (s storm) String() string {
	return fmt.Sprintf("%v, %d bytes fetched with %d requests", s.took, s.fetched, s.reads)
}

// boot has n volumes of one image, which nobody has read so far, replay the
// trace at the same time, in the bubble's time, with the pauses of the guest
// multiplied by pace. What the profile names is brought meanwhile.
func boot(t *testing.T, trace boottrace.Trace, pace float64, size int64, n int, strategy Strategy, profile []block.Range) (s storm) {
	synctest.Test(t, func(t *testing.T) {
		image := &shapedImage{size: size, latency: 20 * time.Millisecond, bandwidth: 200e6}
		r := newRig(t)
		p := NewPrefetcher(PrefetcherConfig{})
		defer p.Close()
		c, err := OpenCache(CacheConfig{Name: "image", Image: image, File: r.file("cache", size), Map: r.db.Map(1), Log: slog.New(slog.DiscardHandler), Prefetcher: p})
		if err != nil {
			t.Fatal(err)
		}
		var vs []*Volume
		for i := range n {
			vs = append(vs, r.volumeOf(i, size, c))
		}
		for _, v := range vs {
			v.SetPrefetch(strategy, false)
		}
		begin := time.Now()
		c.SetProfile(profile)
		var wg sync.WaitGroup
		for i, v := range vs {
			wg.Go(func() {
				// No two guests are equally fast; the first one is in the middle.
				pace := pace
				if i > 0 {
					pace *= 1 + float64(i*37%volumesAtMost)/volumesAtMost*0.4 - 0.2
				}
				if err := trace.Replay(t.Context(), pace, func(ctx context.Context, p []byte, off int64) error {
					done, err := v.TryReadAt(p, off)
					if !done {
						err = v.ReadAt(ctx, p, off)
					}
					if got := binary.LittleEndian.Uint64(p); err == nil && got != uint64(off) {
						err = fmt.Errorf("at %d is what belongs to %d", off, got)
					}
					return err
				}); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		image.mu.Lock() // what nobody waits for may still be under way
		s = storm{time.Since(begin), image.fetched, image.reads}
		image.mu.Unlock()
		shared := int64(0)
		for _, v := range vs {
			x := v.Stats()
			shared += x.Shared
			if x.Hits+x.Misses < int64(trace.Reads()) || x.Far == 0 || x.Far > size {
				t.Errorf("figures of a volume: %+v", x)
			}
		}
		if p := c.PrefetchStats(); shared != p.Shared || n > 1 && shared == 0 && strategy != PrefetchOff {
			t.Errorf("%d bytes shared in all, and %d of the image", shared, p.Shared)
		}
		for _, v := range vs {
			if err := v.Close(); err != nil {
				t.Error(err)
			}
		}
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// TestBootStorm: as many guests as one likes boot of one image in the time of
// one. What they read is fetched once, and little else: nothing with a profile,
// and a tenth without one, unless all of the image is wanted anyway.
func TestBootStorm(t *testing.T) {
	const size = 1 << 30
	t.Run("made", func(t *testing.T) { bootStorm(t, boottrace.Linux(size, 32<<20, 1), 1, size, volumesAtMost) })
	t.Run("recorded", func(t *testing.T) {
		trace, size := boottrace.Debian()
		bootStorm(t, trace, 1./50, size, 4) // a guest that is emulated thinks for longer
	})
	for seed := range uint64(4) { // the tenth is not that of one trace
		trace := boottrace.Linux(size>>(seed%2), 32<<20, 10+seed)
		_, bytes := trace.Distinct()
		if one := boot(t, trace, 1, size, 1, ReadAhead, nil); one.fetched > bytes*11/10 {
			t.Errorf("trace %d: %v, want at most 1.1 times %d bytes", seed, one, bytes)
		}
	}
}

func bootStorm(t *testing.T, trace boottrace.Trace, pace float64, size int64, volumes int) {
	distinct, bytes := trace.Distinct()
	t.Logf("%d reads of %d bytes in %d ranges", trace.Reads(), bytes, len(distinct))
	known := time.Duration(0) // what they take with a profile
	for _, c := range []struct {
		name     string
		strategy Strategy
		profile  []block.Range
		most     int64 // bytes fetched
	}{
		{"profile", ReadAhead, distinct, bytes},
		{"off", PrefetchOff, nil, bytes * 11 / 10},
		{"readahead", ReadAhead, nil, bytes * 11 / 10},
		{"idle", PrefetchIdle, nil, size},
	} {
		one := boot(t, trace, pace, size, 1, c.strategy, c.profile)
		all := boot(t, trace, pace, size, volumes, c.strategy, c.profile)
		share := func(s storm) float64 { return float64(s.fetched) / float64(bytes) }
		t.Logf("%-9s  one volume: %v (%.2f)  %d volumes: %v (%.2f)", c.name, one, share(one), volumes, all, share(all))
		if all.took > one.took*3/2 {
			t.Errorf("%s: %d volumes took %v, one took %v", c.name, volumes, all.took, one.took)
		}
		if one.fetched > c.most || all.fetched > c.most {
			t.Errorf("%s: one volume fetched %d bytes and %d volumes %d, want at most %d for %d that are read",
				c.name, one.fetched, volumes, all.fetched, c.most, bytes)
		}
		if c.profile != nil {
			known = all.took
		} else if known > one.took/2 {
			t.Errorf("with a profile %d volumes took %v; one without, with the strategy %s, %v", volumes, known, c.name, one.took)
		}
	}
}

// TestKnown: what a profile names is fetched as it says, and nothing beside it.
func TestKnown(t *testing.T) {
	k := newKnown([]block.Range{{Off: 40, End: 60}, {Off: 0, End: 10}, {Off: 60, End: 61}})
	for off := int64(0); off < 70; off++ {
		if want := off < 10 || off >= 40 && off < 61; k.has(off) != want {
			t.Errorf("has(%d) = %v", off, !want)
		}
	}
	if newKnown(nil).has(0) {
		t.Error("an empty one has something")
	}
}

// volumeOf is volume for the i'th of several.
func (r *rig) volumeOf(i int, size int64, base *Cache) *Volume {
	r.t.Helper()
	v, err := openSingle(single{Name: fmt.Sprint("vol", i), Size: size, File: r.file(fmt.Sprint("layer", i), size),
		Map: r.db.Map(uint64(100 + i)), Base: base, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		r.t.Fatal(err)
	}
	return v
}
