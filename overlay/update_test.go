package overlay

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"

	"skylun/block"
	"skylun/test/devicetest"
	"skylun/test/memdev"
)

// TestUpdate adds to a number from many sides while others read it, write
// beside it and discard what lies around: nothing is lost, and nobody sees half
// of an update. The number is all words of a range that covers parts of blocks,
// which at first belong to the image.
func TestUpdate(t *testing.T) {
	const size = 4 << 20
	seed := devicetest.Seed(t)
	r := newRig(t)
	c := r.cache(memdev.New(3 << 20))
	defer c.Close()
	v := r.volume(size, c)
	defer closeAll(v)
	number := block.Range{Off: 1<<20 - 30*block.Size - 512, End: 1<<20 + 2*block.Size + 1024} // over a region's border
	const each = 150
	var updates, others sync.WaitGroup
	var stop atomic.Bool
	for range 4 {
		updates.Go(func() {
			p := make([]byte, number.Len())
			for range each {
				err := v.Update(t.Context(), p, number.Off, func(p []byte) (bool, error) {
					fillSectors(p, binary.BigEndian.Uint64(p)+1)
					return true, nil
				})
				if err != nil {
					t.Errorf("update: %v", err)
				}
			}
		})
	}
	for i := range 2 {
		others.Go(func() {
			p, last := make([]byte, number.Len()), uint64(0)
			for n := 0; !stop.Load(); n++ {
				done, err := false, error(nil)
				if n%2 == i%2 {
					done, err = v.TryReadAt(p, number.Off)
				}
				if !done {
					err = v.ReadAt(t.Context(), p, number.Off)
				}
				if err != nil {
					t.Errorf("read: %v", err)
					return
				}
				got := binary.BigEndian.Uint64(p)
				if !bytes.Equal(p, fillSectors(make([]byte, len(p)), got)) {
					t.Errorf("a read sees half of an update")
					return
				}
				if got < last {
					t.Errorf("a read sees %d after %d", got, last)
					return
				}
				last = got
			}
		})
	}
	others.Go(func() {
		rnd := rand.New(rand.NewPCG(seed, 0))
		for !stop.Load() {
			beside := block.Range{Off: number.Off - 512, End: number.Off}
			if rnd.IntN(2) == 0 {
				beside = block.Range{Off: number.End, End: number.End + 512 + rnd.Int64N(40*block.Size)}
			}
			var err error
			if rnd.IntN(3) == 0 {
				err = v.Discard(t.Context(), beside.Off, beside.Len())
			} else {
				err = v.WriteAt(t.Context(), bytes.Repeat([]byte{1}, int(beside.Len())), beside.Off)
			}
			if err == nil && rnd.IntN(10) == 0 {
				err = v.Flush(t.Context())
			}
			if err != nil {
				t.Errorf("beside it: %v", err)
			}
		}
	})
	updates.Wait()
	stop.Store(true)
	others.Wait()
	p := make([]byte, 8)
	if err := v.ReadAt(t.Context(), p, number.Off); err != nil || binary.BigEndian.Uint64(p) != 4*each {
		t.Errorf("%d after %d updates (%v)", binary.BigEndian.Uint64(p), 4*each, err)
	}
}

// TestUpdateWritesNothing when it is told not to.
func TestUpdateWritesNothing(t *testing.T) {
	data := pattern(1 << 20)
	r := newRig(t)
	c := r.cache(memdev.Of(bytes.Clone(data)))
	defer c.Close()
	v := r.volume(1<<20, c)
	defer closeAll(v)
	p := make([]byte, 9000)
	stop := errors.New("stop")
	for _, want := range []error{nil, stop} {
		err := v.Update(t.Context(), p, 1000, func(p []byte) (bool, error) {
			if !bytes.Equal(p, data[1000:10000]) {
				t.Error("f gets other bytes than there are")
			}
			clear(p)
			return want != nil, want
		})
		if err != want {
			t.Errorf("update: %v, want %v", err, want)
		}
	}
	if err := v.Update(t.Context(), p, 1<<20-100, nil); !errors.Is(err, block.ErrOutOfRange) {
		t.Errorf("update beyond the end: %v, want ErrOutOfRange", err)
	}
	if s := v.Stats(); s.Owned != 0 {
		t.Errorf("%d bytes are in the layer although nothing was written", s.Owned)
	}
	if err := v.Update(t.Context(), p, 1000, func(p []byte) (bool, error) { clear(p); return true, nil }); err != nil {
		t.Fatal(err)
	}
	clear(data[1000:10000])
	got := make([]byte, len(data))
	if err := v.ReadAt(t.Context(), got, 0); err != nil || !bytes.Equal(got, data) {
		t.Errorf("after an update: error %v, right bytes %v", err, bytes.Equal(got, data))
	}
}

func TestSpace(t *testing.T) {
	r := newRig(t)
	v := r.volume(8<<20, nil)
	defer closeAll(v)
	before, err := v.Space(t.Context())
	if err != nil || before.Used != 0 || before.Free <= 0 {
		t.Fatalf("Space: %+v, %v", before, err)
	}
	if err := v.WriteAt(t.Context(), pattern(3<<20), 1<<20); err != nil {
		t.Fatal(err)
	}
	if err := v.Discard(t.Context(), 2<<20, 1<<20); err != nil {
		t.Fatal(err)
	}
	if s, err := v.Space(t.Context()); err != nil || s.Used != 2<<20 {
		t.Errorf("Space: %+v, %v, want 2 MiB used", s, err)
	}
}
