package overlay

import (
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// TestSequential: read-ahead keeps a link busy, a near one and a far one, also
// when the reader has several commands in flight, which come in any order. It
// takes longer to trust a reader where what nobody reads is waste.
func TestSequential(t *testing.T) {
	const size, total, piece, bandwidth = 256 << 20, 128 << 20, 256 << 10, 200e6
	for _, strategy := range []Strategy{ReadAhead, PrefetchIdle} {
		for _, depth := range []int{1, 4, 8} {
			for _, latency := range []time.Duration{2 * time.Millisecond, 20 * time.Millisecond, 80 * time.Millisecond} {
				t.Run(fmt.Sprintf("%v, %d in flight, %v", strategy, depth, latency), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						image := &shapedImage{size: size, latency: latency, bandwidth: bandwidth}
						r := newRig(t)
						p := NewPrefetcher(PrefetcherConfig{})
						defer p.Close()
						c, err := OpenCache(CacheConfig{Name: "image", Image: image, File: r.file("cache", size), Map: r.db.Map(1),
							Log: slog.New(slog.DiscardHandler), Prefetcher: p})
						if err != nil {
							t.Fatal(err)
						}
						defer c.Close()
						v := r.volumeOf(0, size, c)
						defer v.Close()
						v.SetPrefetch(strategy, false)
						begin := time.Now()
						var next, half atomic.Int64
						var wg sync.WaitGroup
						for range depth {
							wg.Go(func() {
								b := make([]byte, piece)
								for off := next.Add(piece) - piece; off < total; off = next.Add(piece) - piece {
									if off == total/2 {
										half.Store(time.Now().UnixNano())
									}
									done, err := v.TryReadAt(b, off)
									if !done {
										err = v.ReadAt(t.Context(), b, off)
									}
									if err != nil {
										t.Error(err)
										return
									}
								}
							})
						}
						wg.Wait()
						image.mu.Lock() // read-ahead may still be under way
						fetched := image.fetched
						image.mu.Unlock()
						rate := total / time.Since(begin).Seconds()
						later := total / 2 / time.Since(time.Unix(0, half.Load())).Seconds()
						t.Logf("%.0f %% of the link, %.0f %% in the second half, %d bytes fetched for %d", 100*rate/bandwidth, 100*later/bandwidth, fetched, int64(total))
						least, leastLater := bandwidth/2, bandwidth/2
						if strategy == ReadAhead && latency > 50*time.Millisecond {
							// To fill 80 ms takes 16 MiB ahead of the reader, for which he has
							// to have read as much: what he then does not read is waste.
							least, leastLater = bandwidth*3/10, bandwidth/3
						}
						if rate < least || later < leastLater {
							t.Errorf("read at %.0f MB/s of %.0f, in the second half at %.0f", rate/1e6, bandwidth/1e6, later/1e6)
						}
						if strategy == ReadAhead && fetched > total*5/4 {
							t.Errorf("fetched %d bytes for %d", fetched, int64(total))
						}
					})
				})
			}
		}
	}
}
