package overlay

import (
	"fmt"
	"log/slog"
	"math/rand/v2"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"skylun/block"
	"skylun/meta"
	"skylun/raid"
)

// store is where benchmarks keep layers.
type store struct {
	b     testing.TB
	array *raid.Array
	db    *meta.DB
}

func newStore(b testing.TB) *store {
	b.Helper()
	dir := b.TempDir()
	array, err := raid.Open([]string{filepath.Join(dir, "local")})
	if err != nil {
		b.Fatal(err)
	}
	db, err := meta.Open(filepath.Join(dir, "db"), meta.Options{})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { db.Close() })
	return &store{b, array, db}
}

func (s *store) layer(size int64) *Layer {
	s.b.Helper()
	id, err := s.db.NewMap()
	if err != nil {
		s.b.Fatal(err)
	}
	f, err := s.array.Create(fmt.Sprint(id), size)
	if err != nil {
		s.b.Fatal(err)
	}
	notes, err := s.array.Create(fmt.Sprint(id, ".notes"), NotesSize(size))
	if err != nil {
		s.b.Fatal(err)
	}
	l, err := OpenLayer(LayerConfig{Name: fmt.Sprint(id), ID: id, Size: size, File: f, Map: s.db.Map(id), Notes: notes, Boot: "bench", Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		s.b.Fatal(err)
	}
	return l
}

// over returns a volume whose blocks, all of them, are scattered over count layers.
func (s *store) over(size int64, count int) *Volume {
	s.b.Helper()
	v, err := Open(Config{Name: "v", Size: size, Layers: []*Layer{s.layer(size)}, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		s.b.Fatal(err)
	}
	layers := []*Layer{v.top()}
	p := make([]byte, block.Size)
	for i := range count {
		if i > 0 {
			layers = append(layers, s.layer(size))
			if _, err := Switch([]Step{{v, layers[i]}}); err != nil {
				s.b.Fatal(err)
			}
			if err := layers[i-1].Seal(s.b.Context()); err != nil {
				s.b.Fatal(err)
			}
		}
		for b := range size / block.Size {
			if (b*2654435761>>16)%int64(count) != int64(i) {
				continue
			}
			if done, err := v.TryWriteAt(p, b*block.Size); !done || err != nil {
				s.b.Fatal(done, err)
			}
		}
	}
	v.work.Wait()
	s.b.Cleanup(func() {
		v.Close()
		for _, l := range layers {
			l.Abandon()
		}
	})
	return v
}

// BenchmarkLayers reads and writes volumes whose blocks are scattered over so
// many layers.
func BenchmarkLayers(b *testing.B) {
	const size = 64 << 20
	p := make([]byte, block.Size)
	for _, count := range []int{1, 3, 64} {
		v := newStore(b).over(size, count)
		at := func() int64 { return rand.Int64N(size/block.Size) * block.Size }
		b.Run(fmt.Sprintf("read4K/%d", count), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				off := at()
				done, err := v.TryReadAt(p, off)
				if !done {
					err = v.ReadAt(b.Context(), p, off)
				}
				if err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(fmt.Sprintf("look-up/%d", count), func(b *testing.B) {
			w := v.view.Load()
			for b.Loop() {
				w.at(at())
			}
		})
	}
}

// BenchmarkSwitch takes snapshots of a hundred volumes, while nothing else goes
// on and while all are written to and flushed. It tells how long writes were
// held at worst.
func BenchmarkSwitch(b *testing.B) {
	const count, size = 100, 16 << 20
	for _, loaded := range []bool{false, true} {
		b.Run(map[bool]string{false: "idle", true: "loaded"}[loaded], func(b *testing.B) {
			s := newStore(b)
			var vols []*Volume
			var layers []*Layer
			for range count {
				l := s.layer(size)
				v, err := Open(Config{Name: "v", Size: size, Layers: []*Layer{l}, Log: slog.New(slog.DiscardHandler)})
				if err != nil {
					b.Fatal(err)
				}
				vols, layers = append(vols, v), append(layers, l)
			}
			var stop atomic.Bool
			var wg sync.WaitGroup
			var writes atomic.Int64
			for i := range 8 {
				if !loaded {
					break
				}
				wg.Go(func() {
					rnd := rand.New(rand.NewPCG(uint64(i), 1))
					p := make([]byte, 64<<10)
					for n := 0; !stop.Load(); n++ {
						v := vols[rnd.IntN(count)]
						if err := v.WriteAt(b.Context(), p[:block.Size<<rnd.IntN(5)], rnd.Int64N(size/(64<<10))*(64<<10)); err != nil {
							b.Error(err)
							return
						}
						writes.Add(1)
						if n%32 == 0 {
							if err := v.Flush(b.Context()); err != nil {
								b.Error(err)
								return
							}
						}
					}
				})
			}
			worst, rounds := time.Duration(0), 0
			for b.Loop() {
				b.StopTimer()
				steps := make([]Step, count)
				for i, v := range vols {
					steps[i] = Step{v, s.layer(size)}
					layers = append(layers, steps[i].Top)
				}
				b.StartTimer()
				held, err := Switch(steps)
				if err != nil {
					b.Fatal(err)
				}
				worst, rounds = max(worst, held), rounds+1
			}
			b.ReportMetric(float64(worst.Microseconds()), "worst-held-µs")
			b.ReportMetric(float64(writes.Load())/float64(rounds), "writes/switch")
			stop.Store(true)
			wg.Wait()
			for _, v := range vols {
				v.Close()
			}
			for _, l := range layers {
				l.Abandon()
			}
		})
	}
}

// TestLayersMemory opens a terabyte in a million extents over many layers.
func TestLayersMemory(t *testing.T) {
	if raceEnabled {
		t.Skip("says nothing about memory with the race detector")
	}
	const blocks, count, extents = 1 << 28, 64, 1_000_000 // 1 TiB
	maps := make([]*memMap, count)
	for i := range maps {
		maps[i] = &memMap{}
	}
	for i := range int64(extents) {
		b := i * (blocks / extents)
		m := maps[i%count]
		m.extents = append(m.extents, Extent{b * block.Size, (b + 3) * block.Size, uint8(present)})
	}
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	begin := time.Now()
	var layers []*Layer
	for i, m := range maps {
		l, err := OpenLayer(LayerConfig{Name: "l", Size: blocks * block.Size, File: &memFile{}, Map: m, Sealed: i < count-1})
		if err != nil {
			t.Fatal(err)
		}
		layers = append(layers, l)
	}
	v, err := Open(Config{Name: "v", Size: blocks * block.Size, Layers: layers})
	if err != nil {
		t.Fatal(err)
	}
	took := time.Since(begin)
	runtime.GC()
	runtime.ReadMemStats(&after)
	used := int64(after.HeapAlloc) - int64(before.HeapAlloc)
	t.Logf("%d extents in %d layers of %d TiB: opened in %v, %d MiB", extents, count, blocks*block.Size>>40, took, used>>20)
	if used > 64<<20 {
		t.Errorf("the indices take %d MiB, want at most 64", used>>20)
	}
	if s := v.Stats(); s.Owned != 3*extents*block.Size {
		t.Errorf("%d blocks owned, want %d", s.Owned/block.Size, 3*extents)
	}
	runtime.KeepAlive(maps)
}
