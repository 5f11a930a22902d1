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
	"skylun/test/devicetest"
	"skylun/test/memdev"
)

// TestResize grows and shrinks a volume over an image at random sizes, between
// writes and discards, and compares with an array whose new bytes are zeros;
// now and then it is opened again, orderly or as after a kill.
func TestResize(t *testing.T) {
	const imageSize = 40*block.Size + 512
	image := pattern(imageSize)
	for _, withImage := range []bool{false, true} {
		rnd := rand.New(rand.NewPCG(devicetest.Seed(t), 3))
		r := newRig(t)
		var c *Cache
		least, model := int64(512), make([]byte, 100*block.Size)
		if withImage {
			c = r.cache(memdev.Of(image))
			defer c.Close()
			least = imageSize
			copy(model, image)
		}
		open := func() *Volume {
			size := int64(len(model))
			v, err := openSingle(single{Name: "v", Size: size, File: r.file("layer", size), Map: r.db.Map(2), Base: c,
				Notes: r.exact("notes", NotesSize(size)), Boot: "boot", Log: slog.New(slog.DiscardHandler)})
			if err != nil {
				t.Fatal(err)
			}
			return v
		}
		v := open()
		for step := range 400 {
			var err error
			size := int64(len(model))
			off := rnd.Int64N(size)
			n := min(size-off, 1+rnd.Int64N(8*block.Size))
			switch op := rnd.IntN(12); {
			case op < 5:
				p := bytes.Repeat([]byte{byte(step%255 + 1)}, int(n))
				copy(model[off:], p)
				err = v.WriteAt(t.Context(), p, off)
			case op < 6:
				clear(model[off : off+n])
				err = v.Discard(t.Context(), off, n)
			case op < 7:
				err = v.Flush(t.Context())
			case op < 8:
				if err = closeAll(v); err == nil {
					v = open()
				}
			case op < 9: // killed: what it had open is never heard of again
				v.top().commits.close()
				v = open()
			default:
				next := least + rnd.Int64N(300)*512
				if rnd.IntN(8) == 0 {
					next += chunkBlocks * block.Size * (1 + rnd.Int64N(3))
				}
				err = v.Resize(t.Context(), next)
				if op == 9 && err == nil { // killed before anybody stores the new size
					v.top().commits.close()
					v = open()
					clear(model[min(size, block.Ceil(next, block.Size)):])
					break
				}
				model = append(model[:min(size, next):min(size, next)], make([]byte, max(0, next-size))...)
			}
			if err != nil {
				t.Fatalf("step %d: %v", step, err)
			}
			if v.Size() != int64(len(model)) {
				t.Fatalf("step %d: size %d, want %d", step, v.Size(), len(model))
			}
			if step%3 == 0 || len(model) < 1<<20 {
				got := make([]byte, len(model))
				if err := v.ReadAt(t.Context(), got, 0); err != nil || !bytes.Equal(got, model) {
					t.Fatalf("step %d: error %v, right bytes %v", step, err, bytes.Equal(got, model))
				}
			}
			if s := v.Stats(); s.Owned+s.Zero+s.Cached+s.Absent != block.Ceil(v.Size(), block.Size) {
				t.Fatalf("step %d: %+v of %d", step, s, v.Size())
			}
		}
		if err := closeAll(v); err != nil {
			t.Error(err)
		}
		err := r.db.Map(2).Load(func(e Extent) error {
			if e.End > block.Ceil(int64(len(model)), block.Size) {
				t.Errorf("extent [%d,%d) is durable beyond %d bytes", e.Off, e.End, len(model))
			}
			return nil
		})
		if err != nil {
			t.Error(err)
		}
	}
}

func TestResizeRefuses(t *testing.T) {
	r := newRig(t)
	c := r.cache(memdev.New(1 << 20))
	defer c.Close()
	v := r.volume(2<<20, c)
	for _, size := range []int64{0, -1, 1<<20 - 512} {
		if err := v.Resize(t.Context(), size); !errors.Is(err, block.ErrOutOfRange) {
			t.Errorf("resize to %d: %v, want ErrOutOfRange", size, err)
		}
	}
	if err := v.Resize(t.Context(), 1<<20); err != nil || v.Size() != 1<<20 {
		t.Errorf("resize to the size of the image: %v, size %d", err, v.Size())
	}
	closeAll(v)
	if err := v.Resize(t.Context(), 3<<20); !errors.Is(err, block.ErrClosed) {
		t.Errorf("resize of a closed volume: %v, want ErrClosed", err)
	}
}

// TestResizeUnderWrites shrinks and grows while writes, reads and flushes go
// on: what is beyond fails as such, what is not is never touched.
func TestResizeUnderWrites(t *testing.T) {
	const small, large = 1<<20 + 512, 8 << 20
	r := newRig(t)
	v := r.volume(large, nil)
	defer closeAll(v)
	keep := pattern(1 << 20)
	if err := v.WriteAt(t.Context(), keep, 0); err != nil {
		t.Fatal(err)
	}
	var stop atomic.Bool
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			rnd := rand.New(rand.NewPCG(uint64(i), 1))
			p := make([]byte, 20*block.Size)
			for !stop.Load() {
				q := p[:1+rnd.IntN(len(p))]
				off := 1<<20 + 512 + rnd.Int64N(large-small-int64(len(q)))
				var err error
				switch rnd.IntN(6) {
				case 0:
					err = v.ReadAt(t.Context(), q, off)
				case 1:
					err = v.Discard(t.Context(), off, int64(len(q)))
				case 2:
					_, err = v.TryWriteAt(q, off)
				case 3:
					if i == 0 {
						err = v.Flush(t.Context())
					}
				default:
					err = v.WriteAt(t.Context(), q, off)
				}
				if err != nil && !errors.Is(err, block.ErrOutOfRange) {
					t.Errorf("%d+%d: %v", off, len(q), err)
				}
			}
		})
	}
	for range 40 {
		for _, size := range []int64{small, large} {
			if err := v.Resize(t.Context(), size); err != nil {
				t.Error(err)
			}
			if s := v.Stats(); size == small && s.Owned+s.Zero+s.Cached+s.Absent != block.Ceil(small, block.Size) {
				t.Errorf("after shrinking: %+v", s)
			}
		}
	}
	stop.Store(true)
	wg.Wait()
	got := make([]byte, len(keep))
	if err := v.ReadAt(t.Context(), got, 0); err != nil || !bytes.Equal(got, keep) {
		t.Errorf("what was not resized: error %v, right bytes %v", err, bytes.Equal(got, keep))
	}
	if err := v.Resize(t.Context(), small); err != nil {
		t.Fatal(err)
	}
	if err := v.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	err := r.db.Map(2).Load(func(e Extent) error {
		if e.End > block.Ceil(small, block.Size) {
			t.Errorf("extent [%d,%d) is durable beyond %d bytes", e.Off, e.End, small)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestResizeFails leaves the volume as it was when there is no room.
func TestResizeFails(t *testing.T) {
	file, disk := newMemFile(1<<20), &memMap{}
	v, err := openSingle(single{Name: "v", Size: 1 << 20, File: file, Map: disk})
	if err != nil {
		t.Fatal(err)
	}
	defer closeAll(v)
	if err := v.WriteAt(t.Context(), pattern(1<<20), 0); err != nil {
		t.Fatal(err)
	}
	file.failing = func(op string) error {
		if op == "resize" {
			return block.ErrNoSpace
		}
		return nil
	}
	disk.failing = func(string) error { return block.ErrNoSpace }
	for _, size := range []int64{2 << 20, 512 << 10} {
		if err := v.Resize(t.Context(), size); !errors.Is(err, block.ErrNoSpace) || v.Size() != 1<<20 {
			t.Errorf("resize to %d without room: %v, size %d", size, err, v.Size())
		}
	}
	file.failing, disk.failing = nil, nil
	got := make([]byte, 1<<20)
	if err := v.ReadAt(t.Context(), got, 0); err != nil || !bytes.Equal(got, pattern(1<<20)) {
		t.Errorf("afterwards: error %v, right bytes %v", err, bytes.Equal(got, pattern(1<<20)))
	}
	if err := v.Resize(t.Context(), 512<<10); err != nil {
		t.Errorf("with room again: %v", err)
	}
}
