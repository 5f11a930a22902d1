package overlay

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"skylun/block"
	"skylun/meta"
	"skylun/raid"
	"skylun/test/devicetest"
	"skylun/test/memdev"
)

// rig is a node's local store: a directory and a database.
type rig struct {
	t     *testing.T
	dir   string
	array *raid.Array
	db    *meta.DB
}

func newRig(t *testing.T) *rig {
	t.Helper()
	r := &rig{t: t, dir: t.TempDir()}
	r.open()
	t.Cleanup(func() { r.db.Close() })
	return r
}

func (r *rig) open() {
	r.t.Helper()
	var err error
	if r.array, err = raid.Open([]string{filepath.Join(r.dir, "local")}); err != nil {
		r.t.Fatal(err)
	}
	if r.db, err = meta.Open(filepath.Join(r.dir, "db"), meta.Options{}); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) file(name string, size int64) File {
	r.t.Helper()
	return r.exact(name, block.Ceil(size, block.Size))
}

func (r *rig) exact(name string, size int64) *raid.File {
	r.t.Helper()
	f, err := r.array.Open(name, size)
	if errors.Is(err, raid.ErrNotExist) {
		f, err = r.array.Create(name, size)
	}
	if err != nil {
		r.t.Fatal(err)
	}
	return f
}

func (r *rig) cache(image block.Reader) *Cache {
	r.t.Helper()
	c, err := OpenCache(CacheConfig{Name: "image", Image: image, File: r.file("cache", image.Size()), Map: r.db.Map(1), Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		r.t.Fatal(err)
	}
	return c
}

func (r *rig) volume(size int64, base *Cache) *Volume {
	r.t.Helper()
	v, err := openSingle(single{Name: "vol", Size: size, File: r.file("layer", size), Map: r.db.Map(2), Base: base, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		r.t.Fatal(err)
	}
	return v
}

// pattern returns n bytes that differ from block to block.
func pattern(n int64) []byte {
	p := make([]byte, n)
	for i := range p {
		p[i] = byte(i>>9)*7 + byte(i)
	}
	return p
}

// TestVolume runs the contract of devices over an image, over an image shorter
// than the volume and of odd size, and over nothing.
func TestVolume(t *testing.T) {
	const size = 5<<20 + 512
	for name, imageSize := range map[string]int64{"Blank": 0, "Image": size, "ShortImage": 3<<20 + 1536} {
		t.Run(name, func(t *testing.T) {
			devicetest.Run(t, func(t *testing.T) devicetest.Subject {
				r := newRig(t)
				image := pattern(imageSize)
				content := append(bytes.Clone(image), make([]byte, size-imageSize)...)
				var c *Cache
				var v *Volume
				open := func() {
					if imageSize > 0 {
						c = r.cache(memdev.Of(image))
					}
					v = r.volume(size, c)
				}
				stop := func(t *testing.T) {
					if err := closeAll(v); err != nil {
						t.Errorf("close volume: %v", err)
					}
					if c != nil {
						if err := c.Close(); err != nil {
							t.Errorf("close cache: %v", err)
						}
					}
				}
				open()
				t.Cleanup(func() {
					stop(t)
					if !bytes.Equal(image, pattern(imageSize)) {
						t.Error("the image has changed")
					}
				})
				return devicetest.Subject{Device: v, Content: content, Reopen: func(t *testing.T) block.Device {
					stop(t)
					if err := r.db.Close(); err != nil {
						t.Error(err)
					}
					r.open()
					open()
					return v
				}}
			})
		})
	}
}

// countingImage counts the reads of an image, can hold them up, make them fail
// and tell ranges.
type countingImage struct {
	*memdev.Device
	mu     sync.Mutex
	reads  []block.Range // guarded by mu
	fail   atomic.Bool
	hold   chan struct{} // reads wait until it is closed; nil: they do not
	ranges []block.Range
}

func (c *countingImage) ReadAt(ctx context.Context, p []byte, off int64) error {
	c.mu.Lock()
	c.reads = append(c.reads, block.Range{Off: off, End: off + int64(len(p))})
	c.mu.Unlock()
	if c.hold != nil {
		select {
		case <-c.hold:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	if c.fail.Load() {
		return block.ErrMedium
	}
	return c.Device.ReadAt(ctx, p, off)
}

func (c *countingImage) DataRanges(_ context.Context, _ block.Range, f func(block.Range) error) error {
	for _, r := range c.ranges {
		if err := f(r); err != nil {
			return err
		}
	}
	return nil
}

func (c *countingImage) taken() []block.Range {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.reads)
}

// TestCacheFetchesOnce lets many readers want the same cold bytes at once, and
// then again.
func TestCacheFetchesOnce(t *testing.T) {
	const size = 4 << 20
	data := pattern(size)
	r := newRig(t)
	image := &countingImage{Device: memdev.Of(data), hold: make(chan struct{})}
	c := r.cache(image)
	readAll := func() {
		var wg sync.WaitGroup
		for i := range 64 {
			wg.Go(func() {
				off := int64(i) * 10000
				p := make([]byte, 300000)
				if err := c.ReadAt(t.Context(), p, off); err != nil {
					t.Errorf("read at %d: %v", off, err)
				} else if !bytes.Equal(p, data[off:off+int64(len(p))]) {
					t.Errorf("read at %d: wrong bytes", off)
				}
			})
		}
		if image.hold != nil {
			for len(image.taken()) < 1 {
				time.Sleep(time.Millisecond)
			}
			close(image.hold)
		}
		wg.Wait()
	}
	readAll()
	var fetched int64
	for _, x := range image.taken() {
		fetched += x.Len()
		for _, y := range image.taken() {
			if x != y && !x.Intersect(y).Empty() {
				t.Errorf("%v and %v were both fetched", x, y)
			}
		}
	}
	if want := int64(63*10000 + 300000); fetched < want || fetched > want+256<<10 {
		t.Errorf("fetched %d bytes, want %d or a little more", fetched, want)
	}
	before := len(image.taken())
	image.hold = nil
	readAll()
	if n := len(image.taken()) - before; n != 0 {
		t.Errorf("%d fetches of what was read before", n)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	// What was fetched is there after a restart.
	c = r.cache(image)
	readAll()
	if n := len(image.taken()) - before; n != 0 {
		t.Errorf("%d fetches after a restart", n)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestScan never fetches what the store says is empty.
func TestScan(t *testing.T) {
	const size = 4<<20 + 512
	data := make([]byte, size)
	full := block.Range{Off: 1<<20 + 700, End: 1<<20 + 20000}
	copy(data[full.Off:full.End], pattern(full.Len()))
	image := &countingImage{Device: memdev.Of(data), ranges: []block.Range{full}}
	r := newRig(t)
	c := r.cache(image)
	if err := c.Scan(t.Context()); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, size)
	if err := c.ReadAt(t.Context(), got, 0); err != nil || !bytes.Equal(got, data) {
		t.Errorf("read: error %v, right bytes %v", err, bytes.Equal(got, data))
	}
	if want := []block.Range{full.Outward(block.Size)}; !slices.Equal(image.taken(), want) {
		t.Errorf("fetched %v, want %v", image.taken(), want)
	}
	if s := c.Stats(); s.Absent != 0 || s.Cached != want(full) {
		t.Errorf("stats %+v", s)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestDataRanges tells what is in the layer and what the image may have.
func TestDataRanges(t *testing.T) {
	const size = 64*block.Size + 512
	image := &countingImage{Device: memdev.Of(pattern(32 * block.Size)), ranges: []block.Range{{Off: 8 * block.Size, End: 16 * block.Size}}}
	r := newRig(t)
	c := r.cache(image)
	defer c.Close()
	if err := c.Scan(t.Context()); err != nil {
		t.Fatal(err)
	}
	v := r.volume(size, c)
	defer closeAll(v)
	write := func(first, end int64) {
		t.Helper()
		if err := v.WriteAt(t.Context(), make([]byte, min(end*block.Size, size)-first*block.Size), first*block.Size); err != nil {
			t.Fatal(err)
		}
	}
	write(4, 6)
	write(7, 9) // touches what the image has
	write(40, 41)
	write(64, 65) // the last, short block
	if err := v.Discard(t.Context(), 12*block.Size, block.Size); err != nil {
		t.Fatal(err)
	}
	ranges := func(in block.Range) (got []block.Range) {
		t.Helper()
		if err := v.DataRanges(t.Context(), in, func(r block.Range) error { got = append(got, r); return nil }); err != nil {
			t.Fatal(err)
		}
		return got
	}
	got := ranges(block.Range{Off: 0, End: size})
	blocks := func(first, end int64) block.Range {
		return block.Range{Off: first * block.Size, End: min(end*block.Size, size)}
	}
	if want := []block.Range{blocks(4, 6), blocks(7, 12), blocks(13, 16), blocks(40, 41), blocks(64, 65)}; !slices.Equal(got, want) {
		t.Errorf("DataRanges: %v, want %v", got, want)
	}
	for _, c := range []struct {
		in   block.Range
		want []block.Range
	}{
		{block.Range{Off: 5*block.Size + 512, End: 7*block.Size + 1024}, []block.Range{{Off: 5*block.Size + 512, End: 6 * block.Size}, {Off: 7 * block.Size, End: 7*block.Size + 1024}}},
		{block.Range{Off: 12 * block.Size, End: 13 * block.Size}, nil},
		{block.Range{Off: size - 1, End: size}, []block.Range{{Off: size - 1, End: size}}},
		{block.Range{Off: size, End: size}, nil},
	} {
		if got := ranges(c.in); !slices.Equal(got, c.want) {
			t.Errorf("DataRanges of %v: %v, want %v", c.in, got, c.want)
		}
	}
	if err := v.DataRanges(t.Context(), block.Range{Off: 0, End: size + 1}, func(block.Range) error { return nil }); !errors.Is(err, block.ErrOutOfRange) {
		t.Errorf("DataRanges beyond the end: %v, want ErrOutOfRange", err)
	}
	stop := errors.New("stop")
	if err := v.DataRanges(t.Context(), block.Range{Off: 0, End: size}, func(block.Range) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("DataRanges: %v, want the error of f", err)
	}
}

func want(r block.Range) int64 { return r.Outward(block.Size).Len() }

// TestAlignedWriteReadsNothing: a write of whole blocks must not touch the
// image, one of a part reads that block's surroundings once.
func TestAlignedWriteReadsNothing(t *testing.T) {
	image := &countingImage{Device: memdev.Of(pattern(4 << 20))}
	r := newRig(t)
	c := r.cache(image)
	v := r.volume(4<<20, c)
	defer c.Close()
	defer closeAll(v)
	if done, err := v.TryWriteAt(make([]byte, 3*block.Size), 8192); !done || err != nil {
		t.Errorf("aligned write waits (%v, %v)", done, err)
	}
	if n := len(image.taken()); n != 0 {
		t.Errorf("aligned write fetched %d times", n)
	}
	if done, _ := v.TryWriteAt(make([]byte, 512), 1<<20); done {
		t.Error("a partial write of a cold block did not have to wait")
	}
	if err := v.WriteAt(t.Context(), make([]byte, 512), 1<<20); err != nil {
		t.Fatal(err)
	}
	if n := len(image.taken()); n != 1 {
		t.Errorf("a partial write fetched %d times, want 1", n)
	}
	if done, err := v.TryWriteAt(make([]byte, 512), 1<<20+512); !done || err != nil {
		t.Errorf("a partial write of an owned block waits (%v, %v)", done, err)
	}
}

// TestStoreGone: what is here is read, what is not fails, and is tried again.
func TestStoreGone(t *testing.T) {
	data := pattern(4 << 20)
	image := &countingImage{Device: memdev.Of(data)}
	r := newRig(t)
	c := r.cache(image)
	v := r.volume(4<<20, c)
	defer c.Close()
	defer closeAll(v)
	p := make([]byte, 4096)
	if err := v.ReadAt(t.Context(), p, 0); err != nil {
		t.Fatal(err)
	}
	image.fail.Store(true)
	if err := v.ReadAt(t.Context(), p, 0); err != nil {
		t.Errorf("cached: %v", err)
	}
	if err := v.ReadAt(t.Context(), p, 2<<20); !errors.Is(err, block.ErrMedium) {
		t.Errorf("not cached: %v, want ErrMedium", err)
	}
	if err := v.WriteAt(t.Context(), []byte("x"), 3<<20); !errors.Is(err, block.ErrMedium) {
		t.Errorf("partial write of a cold block: %v, want ErrMedium", err)
	}
	image.fail.Store(false)
	if err := v.ReadAt(t.Context(), p, 2<<20); err != nil || !bytes.Equal(p, data[2<<20:2<<20+4096]) {
		t.Errorf("back again: %v", err)
	}
}

// TestCancelledReader: a reader that gives up does not fail the others.
func TestCancelledReader(t *testing.T) {
	image := &countingImage{Device: memdev.Of(pattern(1 << 20)), hold: make(chan struct{})}
	r := newRig(t)
	c := r.cache(image)
	ctx, cancel := context.WithCancel(t.Context())
	errs := make(chan error)
	go func() { errs <- c.ReadAt(ctx, make([]byte, 4096), 0) }()
	other := make(chan error)
	go func() { other <- c.ReadAt(t.Context(), make([]byte, 4096), 8192) }()
	for len(image.taken()) == 0 {
		time.Sleep(time.Millisecond)
	}
	cancel()
	if err := <-errs; !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	close(image.hold)
	if err := <-other; err != nil {
		t.Errorf("the other reader: %v", err)
	}
	// A fetch that never comes back ends when the cache closes.
	image.hold = make(chan struct{})
	go func() { errs <- c.ReadAt(t.Context(), make([]byte, 4096), 512<<10) }()
	for len(image.taken()) < 2 {
		time.Sleep(time.Millisecond)
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	if err := <-errs; !errors.Is(err, block.ErrClosed) {
		t.Errorf("fetch of a closed cache: %v, want ErrClosed", err)
	}
}

func TestImageLargerThanVolume(t *testing.T) {
	r := newRig(t)
	c := r.cache(memdev.New(2 << 20))
	defer c.Close()
	_, err := openSingle(single{Name: "v", Size: 1 << 20, File: r.file("layer", 1<<20), Map: r.db.Map(2), Base: c})
	if err == nil {
		t.Error("a volume smaller than its image was opened")
	}
}

func TestClosed(t *testing.T) {
	r := newRig(t)
	v := r.volume(1<<20, nil)
	if err := closeAll(v); err != nil {
		t.Fatal(err)
	}
	if err := v.Close(); err != nil {
		t.Errorf("closed twice: %v", err)
	}
	ctx, p := t.Context(), make([]byte, 1)
	for what, err := range map[string]error{
		"read": v.ReadAt(ctx, p, 0), "write": v.WriteAt(ctx, p, 0), "discard": v.Discard(ctx, 0, 1), "flush": v.Flush(ctx),
	} {
		if !errors.Is(err, block.ErrClosed) {
			t.Errorf("%s: %v, want ErrClosed", what, err)
		}
	}
}

// TestDiscardGivesSpaceBack looks at what the file occupies.
func TestDiscardGivesSpaceBack(t *testing.T) {
	r := newRig(t)
	v := r.volume(8<<20, nil)
	defer closeAll(v)
	if err := v.WriteAt(t.Context(), pattern(8<<20), 0); err != nil {
		t.Fatal(err)
	}
	if err := v.Discard(t.Context(), 1<<20, 7<<20); err != nil {
		t.Fatal(err)
	}
	for range 2 { // the second flush begins after the first has punched
		if err := v.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if err := v.WriteAt(t.Context(), []byte("x"), 0); err != nil {
		t.Fatal(err)
	}
	if n, err := v.top().file.(*raid.File).Allocated(); err != nil || n > 2<<20 {
		t.Errorf("%d bytes are allocated after discarding all but 1 MiB (%v)", n, err)
	}
	if s := v.Stats(); s.Owned != 1<<20 || s.Zero != 7<<20 || s.Absent != 0 {
		t.Errorf("stats %+v", s)
	}
}

// TestUnflushedIsCommittedAfterAWhile: nobody flushes, time goes by.
func TestUnflushedIsCommittedAfterAWhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &memMap{}
		v, err := openSingle(single{Name: "v", Size: 1 << 20, File: newMemFile(1 << 20), Map: m})
		if err != nil {
			t.Fatal(err)
		}
		if err := v.WriteAt(t.Context(), make([]byte, 4096), 0); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if n := len(m.durable()); n != 0 {
			t.Fatalf("%d extents durable at once", n)
		}
		time.Sleep(commitAfter + time.Millisecond)
		synctest.Wait()
		if n := len(m.durable()); n != 1 {
			t.Errorf("%d extents durable after %v, want 1", n, commitAfter)
		}
		if err := closeAll(v); err != nil {
			t.Fatal(err)
		}
	})
}
