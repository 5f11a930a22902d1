package overlay

import (
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"testing"

	"skylun/block"
	"skylun/meta"
	"skylun/raid"
	"skylun/test/memdev"
)

// The benchmarks compare a call through a volume with the same call on its
// file: b.Run names say which is which.

const benchSize = 256 << 20

func benchVolume(b *testing.B, fill bool) *Volume {
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
	f, err := array.Create("layer", benchSize)
	if err != nil {
		b.Fatal(err)
	}
	notes, err := array.Create("notes", NotesSize(benchSize))
	if err != nil {
		b.Fatal(err)
	}
	v, err := openSingle(single{Name: "v", Size: benchSize, File: f, Map: db.Map(1), Notes: notes, Boot: "bench"})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := closeAll(v); err != nil {
			b.Error(err)
		}
		db.Close()
	})
	if fill { // by small writes: the page cache is faster with small folios
		p := make([]byte, block.Size)
		for off := int64(0); off < benchSize; off += block.Size {
			if done, err := v.TryWriteAt(p, off); !done || err != nil {
				b.Fatal(done, err)
			}
		}
		if err := v.Flush(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
	return v
}

func BenchmarkRead4K(b *testing.B) {
	v := benchVolume(b, true)
	p := make([]byte, block.Size)
	b.Run("volume", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			off := rand.Int64N(benchSize/block.Size) * block.Size
			done, err := v.TryReadAt(p, off)
			if !done {
				err = v.ReadAt(b.Context(), p, off)
			}
			if err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("file", func(b *testing.B) {
		for b.Loop() {
			if err := v.top().file.ReadAt(p, rand.Int64N(benchSize/block.Size)*block.Size); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func BenchmarkOverwrite4K(b *testing.B) {
	v := benchVolume(b, true)
	p := make([]byte, block.Size)
	b.Run("volume", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if done, err := v.TryWriteAt(p, rand.Int64N(benchSize/block.Size)*block.Size); !done || err != nil {
				b.Fatal(done, err)
			}
		}
	})
	b.Run("file", func(b *testing.B) {
		for b.Loop() {
			if err := v.top().file.WriteAt(p, rand.Int64N(benchSize/block.Size)*block.Size); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// BenchmarkFirstWrite4K writes blocks in a scattered order, each for the first
// time.
func BenchmarkFirstWrite4K(b *testing.B) {
	p := make([]byte, block.Size)
	at := func(i int) int64 { return int64(i*7919%(benchSize/block.Size)) * block.Size }
	for name, write := range map[string]func(v *Volume, off int64) error{
		"volume": func(v *Volume, off int64) error { _, err := v.TryWriteAt(p, off); return err },
		"file":   func(v *Volume, off int64) error { return v.top().file.WriteAt(p, off) },
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				b.StopTimer()
				v := benchVolume(b, false)
				b.StartTimer()
				for i := range benchSize / block.Size {
					if err := write(v, at(i)); err != nil {
						b.Fatal(err)
					}
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/(benchSize/block.Size), "ns/write")
		})
	}
}

// BenchmarkFlush flushes after one scattered 4 KiB write.
func BenchmarkFlush(b *testing.B) {
	p := make([]byte, block.Size)
	write := func(b *testing.B, v *Volume, i int) {
		if done, err := v.TryWriteAt(p, int64(i*7919%(benchSize/block.Size))*block.Size); !done || err != nil {
			b.Fatal(done, err)
		}
	}
	b.Run("overwrite", func(b *testing.B) {
		v := benchVolume(b, true)
		for i := 0; b.Loop(); i++ {
			write(b, v, i)
			if err := v.Flush(b.Context()); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("first", func(b *testing.B) {
		v := benchVolume(b, false)
		for i := 0; b.Loop(); i++ {
			write(b, v, i)
			if err := v.Flush(b.Context()); err != nil {
				b.Fatal(err)
			}
		}
	})
	for name, fill := range map[string]bool{"overwrite-file": true, "first-file": false} {
		b.Run(name, func(b *testing.B) {
			v := benchVolume(b, fill)
			for i := 0; b.Loop(); i++ {
				write(b, v, i)
				if err := v.top().file.Sync(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkCachedRead4K reads blocks of an image that are in its cache, with
// checksums and without.
func BenchmarkCachedRead4K(b *testing.B) {
	const size = 64 << 20
	for _, sums := range []bool{false, true} {
		array, err := raid.Open([]string{b.TempDir()})
		if err != nil {
			b.Fatal(err)
		}
		f, err := array.Create("cache", size)
		if err != nil {
			b.Fatal(err)
		}
		cfg := CacheConfig{Name: "image", Image: memdev.Of(pattern(size)), File: f, Map: &memMap{}}
		if sums {
			if cfg.Sums, err = array.Create("sums", SumsSize(size)); err != nil {
				b.Fatal(err)
			}
		}
		c, err := OpenCache(cfg)
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { c.Close() })
		p := make([]byte, 1<<20)
		for off := int64(0); off < size; off += 1 << 20 {
			if err := c.ReadAt(b.Context(), p, off); err != nil {
				b.Fatal(err)
			}
		}
		c.fetches.run.Wait()
		p = p[:block.Size]
		b.Run(fmt.Sprintf("sums=%v", sums), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if done, err := c.TryReadAt(p, rand.Int64N(size/block.Size)*block.Size); !done || err != nil {
					b.Fatal(done, err)
				}
			}
		})
	}
}
