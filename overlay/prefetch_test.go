package overlay

import (
	"bytes"
	"context"
	"errors"
	"testing"
	"testing/synctest"

	"skylun/block"
	"skylun/test/memdev"
)

// TestPrefetch fetches what the layer does not have, once, and only the image.
func TestPrefetch(t *testing.T) {
	data := pattern(8<<20 + 512)
	image := &countingImage{Device: memdev.Of(data)}
	r := newRig(t)
	c := r.cache(image)
	defer c.Close()
	v := r.volume(16<<20, c)
	defer closeAll(v)
	if err := v.WriteAt(t.Context(), make([]byte, 2<<20), 3<<20); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := v.Prefetch(t.Context(), 1<<20, 15<<20, true); err != nil {
			t.Fatal(err)
		}
	}
	var fetched int64
	for _, r := range image.taken() {
		fetched += r.Len()
		if own := (block.Range{Off: 3 << 20, End: 5 << 20}); !r.Intersect(own).Empty() || r.Off < 1<<20 {
			t.Errorf("fetched %v, which the layer has or nobody asked for", r)
		}
	}
	if fetched != 5<<20+512 {
		t.Errorf("fetched %d bytes, want %d", fetched, 5<<20+512)
	}
	got := make([]byte, 1<<20)
	if done, err := v.TryReadAt(got, 6<<20); !done || err != nil || !bytes.Equal(got, data[6<<20:7<<20]) {
		t.Errorf("a prefetched range has to wait (%v, %v)", done, err)
	}
	if err := v.Prefetch(t.Context(), 15<<20, 2<<20, true); !errors.Is(err, block.ErrOutOfRange) {
		t.Errorf("beyond the end: %v, want ErrOutOfRange", err)
	}
}

// TestPrefetchFails tells why when somebody waits.
func TestPrefetchFails(t *testing.T) {
	image := &countingImage{Device: memdev.Of(pattern(4 << 20))}
	image.fail.Store(true)
	r := newRig(t)
	c := r.cache(image)
	defer c.Close()
	v := r.volume(4<<20, c)
	defer closeAll(v)
	if err := v.Prefetch(t.Context(), 0, 4<<20, true); !errors.Is(err, block.ErrMedium) {
		t.Errorf("store gone: %v, want ErrMedium", err)
	}
	image.fail.Store(false)
	file := newMemFile(4 << 20)
	file.failing = func(op string) error {
		if op == "write" {
			return block.ErrNoSpace
		}
		return nil
	}
	full, err := OpenCache(CacheConfig{Name: "image", Image: image, File: file, Map: &memMap{}, Log: c.log})
	if err != nil {
		t.Fatal(err)
	}
	defer full.Close()
	v2, err := openSingle(single{Name: "v2", Size: 4 << 20, File: newMemFile(4 << 20), Map: &memMap{}, Base: full})
	if err != nil {
		t.Fatal(err)
	}
	defer closeAll(v2)
	if err := v2.Prefetch(t.Context(), 0, 4<<20, true); !errors.Is(err, block.ErrNoSpace) {
		t.Errorf("no room for copies: %v, want ErrNoSpace", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := v2.Prefetch(ctx, 0, 4<<20, true); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

// TestPrefetchDetached goes on after the call has returned, is bounded, and
// ends with the cache.
func TestPrefetchDetached(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const size = 64 << 20
		image := &countingImage{Device: memdev.New(size), hold: make(chan struct{})}
		c, err := OpenCache(CacheConfig{Name: "image", Image: image, File: newMemFile(size), Map: &memMap{}})
		if err != nil {
			t.Fatal(err)
		}
		v, err := openSingle(single{Name: "v", Size: size, File: newMemFile(size), Map: &memMap{}, Base: c})
		if err != nil {
			t.Fatal(err)
		}
		for i := range int64(8) {
			if err := v.Prefetch(t.Context(), i*8<<20, 8<<20, false); err != nil {
				t.Fatal(err)
			}
		}
		synctest.Wait()
		if n := len(image.taken()); n != prefetchQueue*prefetchParallel {
			t.Errorf("%d fetches under way, want %d", n, prefetchQueue*prefetchParallel)
		}
		close(image.hold)
		synctest.Wait()
		if s := c.Stats(); s.Cached != prefetchQueue*8<<20 {
			t.Errorf("%d bytes are local, want %d", s.Cached, prefetchQueue*8<<20)
		}
		image.hold = make(chan struct{})
		if err := v.Prefetch(t.Context(), 0, size, false); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if err := closeAll(v); err != nil {
			t.Error(err)
		}
		if err := c.Close(); err != nil { // and synctest sees to it that nothing runs on
			t.Error(err)
		}
	})
}
