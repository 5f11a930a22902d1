package overlay

import (
	"log/slog"
	"testing"
	"testing/synctest"
	"time"
)

// TestFillOfIdleVolume: an image of which nobody reads becomes local nearly as fast
// as the link brings it, what it takes to find out how fast that is included.
func TestFillOfIdleVolume(t *testing.T) {
	const size, bandwidth = 512 << 20, 200e6
	for latency, want := range map[time.Duration]float64{2 * time.Millisecond: 0.9, 20 * time.Millisecond: 0.9, 80 * time.Millisecond: 0.8} {
		synctest.Test(t, func(t *testing.T) {
			image := &shapedImage{size: size, latency: latency, bandwidth: bandwidth}
			r := newRig(t)
			p := NewPrefetcher(PrefetcherConfig{Load: func() Load { return Load{} }})
			defer p.Close()
			c, err := OpenCache(CacheConfig{Name: "image", Image: image, File: r.file("cache", size), Map: r.db.Map(1),
				Log: slog.New(slog.DiscardHandler), Prefetcher: p})
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			v := r.volumeOf(0, size, c)
			defer v.Close()
			begin := time.Now()
			v.SetPrefetch(PrefetchIdle, false)
			for c.Stats().Absent > 0 {
				time.Sleep(time.Millisecond)
			}
			ratio := (latency.Seconds() + size/bandwidth) / time.Since(begin).Seconds()
			t.Logf("%v: %.2f of what the link brings", latency, ratio)
			if ratio < want {
				t.Errorf("behind %v a fill brings %.2f of what the link does, want %.2f", latency, ratio, want)
			}
			image.mu.Lock()
			defer image.mu.Unlock()
			if image.fetched != size {
				t.Errorf("fetched %d bytes of %d", image.fetched, int64(size))
			}
		})
	}
}
