package overlay

import (
	"context"
	"errors"
	"log/slog"
	mathrand "math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"skylun/blobstore"
	"skylun/block"
	"skylun/raid"
	"skylun/test/shaped"
)

// The benchmarks read over HTTP from a store behind a modelled link: 20 ms and
// 200 MB/s. Each compares two things side by side and reports the ratio.
var benchLink = shaped.Link{Latency: 20 * time.Millisecond, Bandwidth: 200e6}

// endless is content without a block of zeros.
type endless struct{}

func (endless) ReadAt(p []byte, off int64) (int, error) {
	for i := 0; i < len(p); i += block.Size {
		p[i] = 1
	}
	return len(p), nil
}

// remote is an image in such a store.
type remote struct {
	store *shaped.Store
	image *blobstore.Image
	array *raid.Array
	files int
}

func newRemote(b *testing.B, size int64) *remote {
	store, err := shaped.New(benchLink)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(store.Close)
	store.Put("image", endless{}, size)
	key := filepath.Join(b.TempDir(), "key")
	if err := os.WriteFile(key, []byte(shaped.Key), 0o600); err != nil {
		b.Fatal(err)
	}
	st, err := blobstore.Open(b.Context(), blobstore.Config{URL: store.ContainerURL(), AccountKeyFile: key}, slog.New(slog.DiscardHandler))
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { st.Close() })
	info, err := st.Stat(b.Context(), "image")
	if err != nil {
		b.Fatal(err)
	}
	array, err := raid.Open([]string{b.TempDir()})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { array.Close() })
	return &remote{store: store, image: st.Image(info), array: array}
}

// open opens an empty cache of the image and a volume over it.
func (r *remote) open(b *testing.B, p *Prefetcher) (v *Volume, c *Cache, end func()) {
	r.files++
	name := func(what string) string { return filepath.Join(what, string(rune('a'+r.files))) }
	file, err := r.array.Create(name("cache"), r.image.Size())
	if err != nil {
		b.Fatal(err)
	}
	layer, err := r.array.Create(name("layer"), r.image.Size())
	if err != nil {
		b.Fatal(err)
	}
	if c, err = OpenCache(CacheConfig{Name: "image", Image: r.image, File: file, Map: &memMap{}, Log: slog.New(slog.DiscardHandler), Prefetcher: p}); err != nil {
		b.Fatal(err)
	}
	if v, err = openSingle(single{Name: "v", Size: r.image.Size(), File: layer, Map: &memMap{}, Base: c, Log: slog.New(slog.DiscardHandler)}); err != nil {
		b.Fatal(err)
	}
	return v, c, func() {
		if err := errors.Join(closeAll(v), c.Close(), r.array.Remove(name("cache")), r.array.Remove(name("layer"))); err != nil {
			b.Error(err)
		}
	}
}

// BenchmarkFillOfStore compares a fill (idle) with a plain download that has 32
// requests of 1 MiB under way.
func BenchmarkFillOfStore(b *testing.B) {
	const size = 768 << 20
	r := newRemote(b, size)
	p := NewPrefetcher(PrefetcherConfig{})
	defer p.Close()
	var plain, fill time.Duration
	for b.Loop() {
		began := time.Now()
		offs := make(chan int64)
		var run sync.WaitGroup
		for range 32 {
			run.Go(func() {
				q := make([]byte, 1<<20)
				for off := range offs {
					if err := r.image.ReadAt(b.Context(), q, off); err != nil {
						b.Error(err)
					}
				}
			})
		}
		for off := int64(0); off < size; off += 1 << 20 {
			offs <- off
		}
		close(offs)
		run.Wait()
		plain += time.Since(began)

		v, c, end := r.open(b, p)
		began = time.Now()
		v.SetPrefetch(PrefetchIdle, false)
		for c.Stats().Absent > 0 {
			time.Sleep(time.Millisecond)
		}
		fill += time.Since(began)
		end()
	}
	n := float64(b.N) * size / 1e6
	b.ReportMetric(n/plain.Seconds(), "plain-MB/s")
	b.ReportMetric(n/fill.Seconds(), "fill-MB/s")
	b.ReportMetric(plain.Seconds()/fill.Seconds(), "fill/plain")
}

// BenchmarkReadersDuringFill compares the latency of one that reads 4 KiB at random,
// each not local yet, now and then, with and without a fill.
func BenchmarkReadersDuringFill(b *testing.B) {
	const size, reads = 4 << 30, 200
	r := newRemote(b, size)
	p := NewPrefetcher(PrefetcherConfig{})
	defer p.Close()
	for b.Loop() {
		for _, every := range []time.Duration{5 * time.Millisecond, 100 * time.Millisecond} {
			var p99 [PrefetchFull + 1]time.Duration
			for _, s := range []Strategy{PrefetchOff, PrefetchIdle, PrefetchFull} {
				v, c, end := r.open(b, p)
				v.SetPrefetch(s, false)
				time.Sleep(time.Second)
				rnd := mathrand.New(mathrand.NewPCG(1, 2))
				q := make([]byte, block.Size)
				var took []time.Duration
				for len(took) < reads {
					time.Sleep(time.Duration(rnd.ExpFloat64() * float64(every)))
					off := rnd.Int64N(size/block.Size) * block.Size
					if c.holds(off, block.Size) {
						continue
					}
					began := time.Now()
					if err := v.ReadAt(context.Background(), q, off); err != nil {
						b.Fatal(err)
					}
					took = append(took, time.Since(began))
				}
				slices.Sort(took)
				p99[s] = took[len(took)*99/100]
				b.Logf("%-4v a read every %-6v median %v, 99th percentile %v, filled %d MB", s, every, took[len(took)/2].Round(10*time.Microsecond), p99[s].Round(10*time.Microsecond), c.PrefetchStats().Filled/1e6)
				end()
			}
			b.ReportMetric(float64(p99[PrefetchIdle])/float64(p99[PrefetchOff]), "idle/off-"+every.String())
			b.ReportMetric(float64(p99[PrefetchFull])/float64(p99[PrefetchOff]), "full/off-"+every.String())
		}
	}
}

// BenchmarkColdFirstRead compares the first 4 KiB of a cold image through a volume
// with one bare request for them.
func BenchmarkColdFirstRead(b *testing.B) {
	r := newRemote(b, 64<<20)
	q := make([]byte, block.Size)
	if err := r.image.ReadAt(b.Context(), q, 0); err != nil { // a connection
		b.Fatal(err)
	}
	var bare, first []time.Duration
	for b.Loop() {
		began := time.Now()
		if err := r.image.ReadAt(b.Context(), q, 0); err != nil {
			b.Fatal(err)
		}
		bare = append(bare, time.Since(began))
		v, _, end := r.open(b, nil)
		began = time.Now()
		if err := v.ReadAt(b.Context(), q, 0); err != nil {
			b.Fatal(err)
		}
		first = append(first, time.Since(began))
		end()
	}
	slices.Sort(bare)
	slices.Sort(first)
	b.ReportMetric(bare[len(bare)/2].Seconds()*1e3, "bare-ms")
	b.ReportMetric(first[len(first)/2].Seconds()*1e3, "first-ms")
	b.ReportMetric(first[len(first)/2].Seconds()/bare[len(bare)/2].Seconds(), "first/bare")
}

// BenchmarkColdSequential reads an image from start to end, 256 KiB at a time and
// four at once.
func BenchmarkColdSequential(b *testing.B) {
	const size, piece, depth = 256 << 20, 256 << 10, 4
	r := newRemote(b, size)
	p := NewPrefetcher(PrefetcherConfig{})
	defer p.Close()
	for _, s := range []Strategy{ReadAhead, PrefetchIdle} {
		b.Run(s.String(), func(b *testing.B) {
			b.SetBytes(size)
			for b.Loop() {
				v, _, end := r.open(b, p)
				v.SetPrefetch(s, false)
				var next atomic.Int64
				var run sync.WaitGroup
				for range depth {
					run.Go(func() {
						q := make([]byte, piece)
						for off := next.Add(piece) - piece; off < size; off = next.Add(piece) - piece {
							if err := v.ReadAt(b.Context(), q, off); err != nil {
								b.Error(err)
								return
							}
						}
					})
				}
				run.Wait()
				end()
			}
		})
	}
}
