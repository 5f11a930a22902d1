package overlay

import (
	"bytes"
	"errors"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"

	"skylun/block"
	"skylun/raid"
	"skylun/test/devicetest"
	"skylun/test/memdev"
)

// throughMemory is a File that cannot copy.
type throughMemory struct{ File }

// TestCopy does random operations on two volumes of one image, one of another
// image and a blank one, copies between them and within them, and compares all
// with arrays.
func TestCopy(t *testing.T) {
	const size, shortImage = 100*block.Size + 512, 40*block.Size + 512
	seed := devicetest.Seed(t)
	for _, plain := range []bool{false, true} {
		rnd := rand.New(rand.NewPCG(seed, 1))
		r := newRig(t)
		images := [][]byte{pattern(size), pattern(shortImage)}
		var caches []*Cache
		for i, name := range []string{"long", "short"} {
			c, err := OpenCache(CacheConfig{Name: name, Image: memdev.Of(bytes.Clone(images[i])), File: r.file(name, int64(len(images[i]))), Map: r.db.Map(uint64(1 + i)), Log: slog.New(slog.DiscardHandler)})
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			caches = append(caches, c)
		}
		base := []*Cache{caches[0], caches[0], caches[1], nil, caches[0]} // the last is only copied from
		models := make([][]byte, len(base))
		vols := make([]*Volume, len(base))
		open := func(i int) {
			name := string(rune('a' + i))
			var file File = r.file(name, size)
			if plain {
				file = throughMemory{file}
			}
			v, err := openSingle(single{Name: name, Size: size, File: file, Map: r.db.Map(uint64(10 + i)), Base: base[i],
				Notes: r.exact(name+".notes", NotesSize(size)), Boot: "boot", Log: slog.New(slog.DiscardHandler)})
			if err != nil {
				t.Fatal(err)
			}
			vols[i] = v
		}
		for i, b := range base {
			models[i] = make([]byte, size)
			if b != nil {
				copy(models[i], images[i%4/2])
			}
			open(i)
		}
		for step := range 1000 {
			i, j := rnd.IntN(len(vols)-1), rnd.IntN(len(vols))
			off := rnd.Int64N(size - 1)
			n := min(size-off, 1+rnd.Int64N(30*block.Size))
			if rnd.IntN(20) == 0 {
				n = 1 + rnd.Int64N(size-off)
			}
			var err error
			switch op := rnd.IntN(10); {
			case op < 2:
				p := bytes.Repeat([]byte{byte(step%255 + 1)}, int(n))
				copy(models[i][off:], p)
				err = vols[i].WriteAt(t.Context(), p, off)
			case op < 3:
				clear(models[i][off : off+n])
				err = vols[i].Discard(t.Context(), off, n)
			case op < 4:
				err = vols[i].Flush(t.Context())
			case op < 5:
				if rnd.IntN(2) == 0 {
					err = closeAll(vols[i])
				} else { // killed
					vols[i].top().commits.close()
				}
				open(i)
			default:
				from := off
				if rnd.IntN(2) == 0 {
					from = rnd.Int64N(size - n + 1)
					if rnd.IntN(4) != 0 { // the same place of a block
						from = min(block.Floor(from, block.Size)+off%block.Size, block.Floor(size-n-off%block.Size, block.Size)+off%block.Size)
						from = max(from, off%block.Size)
					}
				}
				if from+n > size || i == j && from != off && from < off+n && off < from+n {
					continue
				}
				var done bool
				done, err = vols[i].CopyFrom(t.Context(), off, vols[j], from, n)
				if done != (off%block.Size == from%block.Size) {
					t.Fatalf("step %d: copy %d+%d from %d: done %v", step, off, n, from, done)
				}
				if done {
					copy(models[i][off:off+n], bytes.Clone(models[j][from:from+n]))
				}
			}
			if err != nil {
				t.Fatalf("step %d: %v", step, err)
			}
			got := make([]byte, size)
			if err := vols[i].ReadAt(t.Context(), got, 0); err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got, models[i]) {
				t.Fatalf("step %d: volume %d is not what it should be", step, i)
			}
		}
		for i, v := range vols {
			got := make([]byte, size)
			if err := v.ReadAt(t.Context(), got, 0); err != nil || !bytes.Equal(got, models[i]) {
				t.Errorf("volume %d: error %v, right bytes %v", i, err, bytes.Equal(got, models[i]))
			}
			if err := closeAll(v); err != nil {
				t.Error(err)
			}
		}
	}
}

// TestCopyTakesLeast looks at what copies cost: what both volumes have of their
// image takes no space and no fetch, and the space of what it replaces is given
// back; zeros take none either.
func TestCopyTakesLeast(t *testing.T) {
	const size = 16 << 20
	image := &countingImage{Device: memdev.Of(pattern(size))}
	r := newRig(t)
	c := r.cache(image)
	defer c.Close()
	open := func(name string, id uint64) *Volume {
		v, err := openSingle(single{Name: name, Size: size, File: r.file(name, size), Map: r.db.Map(id), Base: c, Log: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	a, b := open("a", 10), open("b", 11)
	defer closeAll(a)
	defer closeAll(b)
	if err := a.Discard(t.Context(), 8<<20, 8<<20); err != nil {
		t.Fatal(err)
	}
	if err := b.WriteAt(t.Context(), make([]byte, size), 0); err != nil {
		t.Fatal(err)
	}
	if done, err := b.CopyFrom(t.Context(), 0, a, 0, size); !done || err != nil {
		t.Fatal(done, err)
	}
	for range 2 { // the second flush begins after the first has punched
		if err := b.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if s := b.Stats(); s.Owned != 0 || s.Zero != 8<<20 || s.Absent != 8<<20 {
		t.Errorf("stats %+v", s)
	}
	if n := len(image.taken()); n != 0 {
		t.Errorf("%d fetches", n)
	}
	if err := b.WriteAt(t.Context(), []byte("x"), 0); err != nil { // and waits for the punching
		t.Fatal(err)
	}
	if n, err := b.top().file.(*raid.File).Allocated(); err != nil || n > 1<<20 {
		t.Errorf("%d bytes are allocated (%v)", n, err)
	}
	// The image's blocks elsewhere have to be copied.
	if done, err := b.CopyFrom(t.Context(), 4<<20, a, 1<<20, 64<<10); !done || err != nil {
		t.Fatal(done, err)
	}
	got, want := make([]byte, 64<<10), pattern(size)[1<<20:1<<20+64<<10]
	if err := b.ReadAt(t.Context(), got, 4<<20); err != nil || !bytes.Equal(got, want) {
		t.Errorf("copied from elsewhere: error %v, right bytes %v", err, bytes.Equal(got, want))
	}
}

// TestCopyRefuses what it cannot do better, and says so before it does anything.
func TestCopyRefuses(t *testing.T) {
	r := newRig(t)
	v := r.volume(1<<20, nil)
	defer closeAll(v)
	if done, err := v.CopyFrom(t.Context(), 0, memdev.New(1<<20), 0, 4096); done || err != nil {
		t.Errorf("from another kind of device: done %v, %v", done, err)
	}
	if done, err := v.CopyFrom(t.Context(), 0, v, 512, 4096); done || err != nil {
		t.Errorf("from another place of a block: done %v, %v", done, err)
	}
	for _, at := range [][2]int64{{1<<20 - 4096, 0}, {0, 1<<20 - 4096}, {-4096, 0}, {0, -4096}} {
		if _, err := v.CopyFrom(t.Context(), at[0], v, at[1], 8192); !errors.Is(err, block.ErrOutOfRange) {
			t.Errorf("from %d to %d: %v, want ErrOutOfRange", at[1], at[0], err)
		}
	}
	gone, err := openSingle(single{Name: "gone", Size: 1 << 20, File: newMemFile(1 << 20), Map: &memMap{}})
	if err != nil {
		t.Fatal(err)
	}
	closeAll(gone)
	if _, err := v.CopyFrom(t.Context(), 0, gone, 0, 4096); !errors.Is(err, block.ErrClosed) {
		t.Errorf("from a closed volume: %v, want ErrClosed", err)
	}
}

// TestCopyBothWays copies between two volumes in both directions, within each,
// writes, discards and flushes all at once: everybody comes to an end, and every
// sector is of one kind.
func TestCopyBothWays(t *testing.T) {
	const size = 4 << 20
	r := newRig(t)
	c := r.cache(memdev.Of(fillSectors(make([]byte, size), 7)))
	defer c.Close()
	var vols [2]*Volume
	for i := range vols {
		v, err := openSingle(single{Name: "v", Size: size, File: r.file(string(rune('a'+i)), size), Map: r.db.Map(uint64(10 + i)), Base: c, Log: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		defer closeAll(v)
		vols[i] = v
	}
	var wg sync.WaitGroup
	for w := range 6 {
		wg.Go(func() {
			rnd := rand.New(rand.NewPCG(uint64(w), 9))
			p := make([]byte, 64<<10)
			for range 150 {
				v, s := vols[rnd.IntN(2)], vols[rnd.IntN(2)]
				off := rnd.Int64N(size/2-64<<10) &^ (sector - 1)
				n := (1 + rnd.Int64N(128)) * sector
				var err error
				switch op := rnd.IntN(10); {
				case op < 3:
					_, err = v.CopyFrom(t.Context(), off, s, off, n)
				case op < 5:
					_, err = v.CopyFrom(t.Context(), off, s, off+size/2, n)
				case op < 6:
					_, err = v.CopyFrom(t.Context(), off+size/2, s, off, n)
				case op < 7:
					err = v.WriteAt(t.Context(), fillSectors(p[:n], uint64(w+1)), off)
				case op < 8:
					err = v.Discard(t.Context(), off, n)
				case op < 9:
					err = v.Flush(t.Context())
				default:
					if err = v.ReadAt(t.Context(), p[:n], off); err != nil {
						break
					}
					for s := int64(0); s < n; s += sector {
						if value, e := sectorValue(p[s : s+sector]); e != nil || value > 7 {
							t.Errorf("sector at %d holds %d (%v)", off+s, value, e)
							return
						}
					}
				}
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
}

// TestCopyShowsNoHoles makes blocks the image's again while parts of them are
// written and read, and their space is given back: they hold what was written or
// what the image has, and never the zeros of a hole.
func TestCopyShowsNoHoles(t *testing.T) {
	const size = 2 * block.Size
	r := newRig(t)
	c := r.cache(memdev.Of(fillSectors(make([]byte, size), 7)))
	defer c.Close()
	open := func(name string) *Volume {
		v, err := openSingle(single{Name: name, Size: size, File: r.file(name, size), Map: &memMap{}, Base: c, Log: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	v, source := open("v"), open("source")
	defer closeAll(v)
	defer closeAll(source)
	var readers, writers sync.WaitGroup
	var stop atomic.Bool
	within := func(rnd *rand.Rand) block.Range {
		off := rnd.Int64N(size/sector) * sector
		return block.Range{Off: off, End: min(size, off+(1+rnd.Int64N(8))*sector)}
	}
	for i := range 2 {
		readers.Go(func() {
			rnd, p := rand.New(rand.NewPCG(uint64(i), 1)), make([]byte, size)
			for !stop.Load() && !t.Failed() {
				r := within(rnd)
				if err := v.ReadAt(t.Context(), p[:r.Len()], r.Off); err != nil {
					t.Error(err)
				}
				for s := int64(0); s < r.Len(); s += sector {
					if value, err := sectorValue(p[s : s+sector]); err != nil || value == 0 {
						t.Errorf("sector at %d holds %d (%v)", r.Off+s, value, err)
					}
				}
			}
		})
	}
	for range 400 {
		for _, do := range []func() error{
			func() error { _, err := v.CopyFrom(t.Context(), 0, source, 0, size); return err },
			func() error { return v.WriteAt(t.Context(), fillSectors(make([]byte, 5*sector), 1), 2*sector) },
			func() error { return v.WriteAt(t.Context(), fillSectors(make([]byte, sector), 1), block.Size) },
			func() error { return v.Flush(t.Context()) },
		} {
			writers.Go(func() {
				if err := do(); err != nil {
					t.Error(err)
				}
			})
		}
		writers.Wait()
	}
	stop.Store(true)
	readers.Wait()
}

// TestFillUpAgain: a block that became absent after somebody saw it present is
// not filled up with zeros.
func TestFillUpAgain(t *testing.T) {
	r := newRig(t)
	c := r.cache(memdev.Of(pattern(1 << 20)))
	defer c.Close()
	v := r.volume(1<<20, c)
	defer closeAll(v)
	var below [block.Size]byte
	b := block.Range{Off: 0, End: block.Size}
	if done, err := v.fillUp(&below, b, make([]byte, sector), 0, false); done || err != nil {
		t.Errorf("filled up from nowhere: done %v, %v", done, err)
	}
	if s := v.Stats(); s.Owned != 0 {
		t.Error("a block was written")
	}
}
