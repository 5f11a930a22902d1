package overlay

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"skylun/block"
	"skylun/test/memdev"
)

// pooled is a cache in memory with its parts.
type pooled struct {
	*Cache
	image      *countingImage
	data       []byte
	file, sums *memFile
	disk       *memMap
	log        *bytes.Buffer
	recency    Recency // to be opened with
}

func newPooled(t *testing.T, size int64, pool *Pool) *pooled {
	t.Helper()
	data := pattern(size)
	x := &pooled{image: &countingImage{Device: memdev.Of(data)}, data: data, file: newMemFile(block.Ceil(size, block.Size)),
		sums: newMemFile(SumsSize(size)), disk: &memMap{}, log: &bytes.Buffer{}}
	x.open(t, pool)
	t.Cleanup(func() { x.Close() })
	return x
}

func (x *pooled) open(t *testing.T, pool *Pool) {
	t.Helper()
	c, err := OpenCache(CacheConfig{Name: "image", Image: x.image, File: x.file, Sums: x.sums, Map: x.disk, Pool: pool, Recency: x.recency, Log: slog.New(slog.NewTextHandler(x.log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	c.fetches.run.Wait()
	x.Cache = c
}

// want reads r and compares, and waits until copies are kept.
func (x *pooled) want(t *testing.T, r block.Range) {
	t.Helper()
	got := make([]byte, r.Len())
	if err := x.ReadAt(t.Context(), got, r.Off); err != nil {
		t.Fatalf("read %v: %v", r, err)
	}
	if !bytes.Equal(got, x.data[r.Off:r.End]) {
		t.Fatalf("read %v: wrong bytes", r)
	}
	x.fetches.run.Wait()
}

// mib is the i'th MiB.
func mib(i int64) block.Range { return block.Range{Off: i << 20, End: (i + 1) << 20} }

// TestPoolEvictsLeastRecentlyUsed fills a pool of two caches beyond its limit.
func TestPoolEvictsLeastRecentlyUsed(t *testing.T) {
	pool := NewPool(16<<20, slog.New(slog.DiscardHandler))
	a, b := newPooled(t, 32<<20, pool), newPooled(t, 32<<20, pool)
	for i := range int64(8) {
		a.want(t, mib(i))
		b.want(t, mib(i))
	}
	if s := pool.Stats(); s.Held != 16<<20 || s.Evicted != 0 {
		t.Fatalf("full: %+v", s)
	}
	// All but the third and fourth of a and the first of b are read again, some
	// in part, by a read that waits or by one that does not.
	p := make([]byte, 512)
	for i := range int64(8) {
		if i != 2 && i != 3 {
			if done, err := a.TryReadAt(p, i<<20+700); !done || err != nil {
				t.Fatal(done, err)
			}
		}
		if i != 0 {
			b.want(t, block.Range{Off: i << 20, End: i<<20 + 4096})
		}
		pool.clock.Add(1)
	}
	gone := func() (list []string) {
		for i := range int64(8) {
			for name, x := range map[string]*pooled{"a": a, "b": b} {
				if !x.copy.all(mib(i), present) {
					list = append(list, fmt.Sprint(name, i))
				}
			}
		}
		slices.Sort(list)
		return list
	}
	for i, want := range [][]string{{"a2", "b0"}, {"a2", "b0"}, {"a0", "a2", "a3", "b0"}} { // a pass frees one more than it must
		a.want(t, mib(20+int64(i)))
		if got := gone(); !slices.Equal(got, want) {
			t.Errorf("after %d more %v have left, want %v", i+1, got, want)
		}
	}
	if s := pool.Stats(); s.Held > 16<<20 {
		t.Errorf("holds %d bytes, more than its limit", s.Held)
	}
	// The bytes are gone from the file, and what was given up is fetched again.
	if bytes.Count(a.file.now[2<<20:4<<20], []byte{0}) != 2<<20 {
		t.Error("no hole was punched")
	}
	before := len(a.image.taken())
	a.want(t, mib(2))
	if len(a.image.taken()) == before {
		t.Error("what has left was not fetched")
	}
}

// TestPoolHolds reads two images many times as large as the pool, in parallel:
// never wrong bytes, never more than the limit, also not on disk.
func TestPoolHolds(t *testing.T) {
	const limit = 12 << 20
	pool := NewPool(limit, slog.New(slog.DiscardHandler))
	caches := []*pooled{newPooled(t, 40<<20, pool), newPooled(t, 24<<20+5000, pool)}
	var held atomic.Int64
	for _, x := range caches {
		x.file.hook = func(string) {
			if n := pool.Stats().Held; n > held.Load() {
				held.Store(n)
			}
		}
	}
	var wg sync.WaitGroup
	for seed := range uint64(8) {
		wg.Go(func() {
			rnd := rand.New(rand.NewPCG(seed, 5))
			for range 150 {
				x := caches[rnd.IntN(2)]
				off := rnd.Int64N(x.ImageSize())
				if rnd.IntN(2) == 0 {
					off %= 4 << 20 // some are read often
				}
				p := make([]byte, 1+rnd.Int64N(min(300<<10, x.ImageSize()-off)))
				if rnd.IntN(2) == 0 {
					if done, err := x.TryReadAt(p, off); err != nil {
						t.Error(err)
					} else if !done {
						continue
					}
				} else if err := x.ReadAt(t.Context(), p, off); err != nil {
					t.Error(err)
				}
				if !bytes.Equal(p, x.data[off:off+int64(len(p))]) {
					t.Errorf("wrong bytes at %d", off)
				}
			}
		})
	}
	wg.Wait()
	var allocated int64
	for _, x := range caches {
		x.fetches.run.Wait()
		x.file.DataRanges(func(r block.Range) error { allocated += r.Len(); return nil })
		if s := x.Stats(); s.Damaged+s.Unreadable > 0 {
			t.Errorf("a copy that left was taken for damaged: %+v", s)
		}
	}
	s := pool.Stats()
	if held.Load() > limit || s.Held > limit || allocated > limit || s.Evicted == 0 {
		t.Errorf("held %d at most, %d on disk, limit %d: %+v", held.Load(), allocated, limit, s)
	}
}

// TestPoolSparesWhatIsUsed: not what is pinned, being fetched, or read.
func TestPoolSparesWhatIsUsed(t *testing.T) {
	pool := NewPool(4<<20, slog.New(slog.DiscardHandler))
	x := newPooled(t, 16<<20, pool)
	for i := range int64(4) {
		x.want(t, mib(i))
	}
	evictable := func() int64 {
		return pool.free(16<<20, 0, pool.passes.Load(), nil)
	}
	x.Pin()
	if n := evictable(); n != 0 {
		t.Errorf("%d bytes of a pinned cache left", n)
	}
	x.want(t, mib(8)) // is answered, and not kept
	if s := pool.Stats(); s.Held != 4<<20 || s.Pinned != 4<<20 {
		t.Errorf("pinned: %+v", s)
	}
	if s := x.Stats(); s.Dropped == 0 || !strings.Contains(x.log.String(), errPoolFull.Error()) {
		t.Errorf("nobody says that there is no room: %+v\n%s", s, x.log)
	}
	x.Unpin()

	// A read that waits for the disk.
	reading, goOn := make(chan struct{}), make(chan struct{})
	x.file.failing = func(op string) error {
		if op == "read" {
			x.file.failing = nil
			close(reading)
			x.file.mu.Unlock()
			<-goOn
			x.file.mu.Lock()
		}
		return nil
	}
	done := make(chan error)
	go func() { done <- x.ReadAt(context.Background(), make([]byte, 4096), 1<<20) }()
	<-reading
	if n := evictable(); n != 3<<20 || !x.copy.all(mib(1), present) {
		t.Errorf("%d bytes left while one of four MiB was read", n)
	}
	close(goOn)
	if err := <-done; err != nil {
		t.Error(err)
	}

	// A fetch under way.
	x.copy.drop(block.Range{Off: 1<<20 + 8192, End: 1<<20 + 12288})
	x.image.hold = make(chan struct{})
	go func() { done <- x.ReadAt(context.Background(), make([]byte, 4096), 1<<20+8192) }()
	for {
		x.fetches.mu.Lock()
		n := len(x.fetches.list)
		x.fetches.mu.Unlock()
		if n > 0 {
			break
		}
	}
	if n := evictable(); n != 0 {
		t.Errorf("%d bytes left of what is being fetched", n)
	}
	close(x.image.hold)
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// TestRot: what is not what was stored is fetched again, or not shown.
func TestRot(t *testing.T) {
	const size = 3<<20 + 700
	for _, c := range []struct {
		name string
		f    func(x *pooled) *memFile
		off  int64
	}{
		{"copies", func(x *pooled) *memFile { return x.file }, 5*block.Size + 99},
		{"sums", func(x *pooled) *memFile { return x.sums }, 5 * 4},
	} {
		t.Run(c.name, func(t *testing.T) {
			x := newPooled(t, size, nil)
			x.want(t, block.Range{Off: 0, End: size})
			reopen := func() {
				t.Helper()
				if err := x.Close(); err != nil {
					t.Fatal(err)
				}
				x.open(t, nil)
			}
			c.f(x).rot(c.off)
			reopen()
			for _, r := range []block.Range{{Off: 0, End: 2048}, {Off: 5*block.Size + 100, End: 5*block.Size + 612}, {Off: 4*block.Size + 100, End: size}, {Off: 0, End: size}} {
				x.want(t, r)
			}
			if s := x.Stats(); s.Damaged != 1 || s.FetchedBytes != block.Size || s.Cached != block.Ceil(size, block.Size) {
				t.Errorf("after the damage of one block: %+v", s)
			}
			if n := strings.Count(x.log.String(), "a local copy is damaged"); n != 1 {
				t.Errorf("%d log lines:\n%s", n, x.log)
			}
			// It has healed, for good.
			for range 2 {
				reopen()
				x.want(t, block.Range{Off: 0, End: size})
				if s := x.Stats(); s.Damaged != 0 || s.Fetches != 0 {
					t.Errorf("healed: %+v", s)
				}
			}
			// Nobody sees it when the store cannot be reached, not even in part.
			c.f(x).rot(c.off)
			reopen()
			x.image.fail.Store(true)
			p := make([]byte, 512)
			if done, _ := x.TryReadAt(p, 5*block.Size+1024); done {
				t.Error("a read that does not wait took damage for good")
			}
			for range 2 {
				if err := x.ReadAt(t.Context(), p, 5*block.Size+1024); !errors.Is(err, block.ErrMedium) {
					t.Errorf("damaged, and the store is gone: %v, want ErrMedium", err)
				}
			}
			x.image.fail.Store(false)
			x.want(t, block.Range{Off: 0, End: size})
		})
	}
}

// TestTryReadChecks: reads that do not wait find damage, too.
func TestTryReadChecks(t *testing.T) {
	x := newPooled(t, 1<<20, nil)
	x.want(t, mib(0))
	for _, n := range []int64{block.Size, 512, 3 * block.Size, 3*block.Size + 512} {
		p := make([]byte, n)
		if done, err := x.TryReadAt(p, 2*block.Size); !done || err != nil || !bytes.Equal(p, x.data[2*block.Size:][:n]) {
			t.Errorf("%d bytes: done %v, %v", n, done, err)
		}
		x.file.rot(2*block.Size + n - 1)
		if done, _ := x.TryReadAt(p, 2*block.Size); done {
			t.Errorf("%d bytes: damage taken for good", n)
		}
		x.want(t, mib(0))
	}
	p := make([]byte, block.Size)
	for _, n := range []int{512, block.Size} { // of which the pool of buffers may need one
		if allocs := testing.AllocsPerRun(100, func() { x.TryReadAt(p[:n], 8192) }); allocs >= 1 && !raceEnabled {
			t.Errorf("a read of %d bytes allocates %v times", n, allocs)
		}
	}
}

// TestUnreadableCopies: the store makes up for what the local disk cannot read.
func TestUnreadableCopies(t *testing.T) {
	x := newPooled(t, 1<<20, nil)
	x.want(t, mib(0))
	x.file.failing = func(op string) error {
		if op == "read" {
			return syscall.EIO
		}
		return nil
	}
	x.want(t, block.Range{Off: 8192, End: 12288})
	if s := x.Stats(); s.Unreadable != 1 || !strings.Contains(x.log.String(), "cannot be read") {
		t.Errorf("%+v\n%s", s, x.log)
	}
	x.image.fail.Store(true)
	if err := x.ReadAt(t.Context(), make([]byte, 4096), 16384); !errors.Is(err, block.ErrMedium) {
		t.Errorf("the store is gone, too: %v, want ErrMedium", err)
	}
}

// TestCacheSyncFails: no guest hears of it, copies are not kept meanwhile, and
// what the disk has lost is found.
func TestCacheSyncFails(t *testing.T) {
	for _, op := range []string{"sync", "append"} {
		t.Run(op, func(t *testing.T) {
			x := newPooled(t, 2<<20, nil)
			fail := func(o string) error {
				if o == op {
					return syscall.EIO
				}
				return nil
			}
			x.file.failing, x.disk.failing = fail, fail
			x.want(t, block.Range{Off: 0, End: 4096})
			if err := x.copy.commit(t.Context()); !errors.Is(err, block.ErrMedium) {
				t.Fatalf("commit: %v", err)
			}
			x.want(t, block.Range{Off: 0, End: 4096})
			x.want(t, block.Range{Off: 1 << 20, End: 1<<20 + 4096})
			if s := x.Stats(); s.Dropped != 1 {
				t.Errorf("copies are kept that cannot be recorded: %+v", s)
			}
			x.file.failing, x.disk.failing = nil, nil
			if op == "sync" { // what Linux does: the pages count as written
				clear(x.file.dirty)
				clear(x.file.now[:8192])
			}
			if err := x.copy.commit(t.Context()); err != nil {
				t.Fatal(err)
			}
			x.want(t, block.Range{Off: 1 << 20, End: 1<<20 + 4096})
			x.want(t, mib(0))
			if err := x.Close(); err != nil {
				t.Fatal(err)
			}
			x.open(t, nil)
			fetches := len(x.image.taken())
			x.want(t, mib(0))
			x.want(t, block.Range{Off: 1 << 20, End: 1<<20 + 4096})
			if n := len(x.image.taken()); n != fetches {
				t.Errorf("%d fetches of what is here", n-fetches)
			}
		})
	}
}

// TestCachesWithoutSums: what an earlier version has copied is used, and gets
// its sums.
func TestCachesWithoutSums(t *testing.T) {
	const size = 5<<20 + 4096
	x := newPooled(t, size, nil)
	x.want(t, mib(1))
	x.want(t, block.Range{Off: 3<<20 + 4096, End: size})
	if err := x.Close(); err != nil {
		t.Fatal(err)
	}
	x.sums = newMemFile(SumsSize(size))
	fetches := len(x.image.taken())
	summed := false
	c, err := OpenCache(CacheConfig{Name: "image", Image: x.image, File: x.file, Sums: x.sums, Map: x.disk, Unsummed: true, Summed: func() { summed = true }})
	if err != nil {
		t.Fatal(err)
	}
	x.Cache = c
	x.want(t, mib(1))
	if !summed {
		t.Fatal("no sums were made")
	}
	if err := x.Close(); err != nil {
		t.Fatal(err)
	}
	x.open(t, nil)
	x.want(t, mib(1))
	x.want(t, block.Range{Off: 3<<20 + 4096, End: size})
	if s := x.Stats(); s.Damaged != 0 || len(x.image.taken()) != fetches {
		t.Errorf("with sums: %+v, %d fetches", s, len(x.image.taken())-fetches)
	}
	x.file.rot(1<<20 + 5)
	x.want(t, mib(1))
	if s := x.Stats(); s.Damaged != 1 {
		t.Errorf("damage of an old copy: %+v", s)
	}
}

// TestCacheGivesWay: writes of a layer, its notes and its map find room as long
// as there are copies.
func TestCacheGivesWay(t *testing.T) {
	pool := NewPool(0, slog.New(slog.DiscardHandler))
	x := newPooled(t, 64<<20, pool)
	for i := range int64(40) {
		x.want(t, mib(i))
	}
	var kind string
	var wanted int64
	full := func(op string) error {
		if op == kind && x.Stats().Cached > wanted {
			return syscall.ENOSPC
		}
		return nil
	}
	const size = 1 << 20
	file, notes, disk := newMemFile(size), newMemFile(NotesSize(size)), &memMap{}
	file.failing, disk.failing = full, full
	notes.failing = func(op string) error { return full("note " + op) }
	v, err := openSingle(single{Name: "v", Size: size, File: pool.File(file), Map: pool.Map(disk), Notes: pool.Notes(notes), Boot: "1"})
	if err != nil {
		t.Fatal(err)
	}
	defer closeAll(v)
	for i, c := range []struct {
		kind   string
		wanted int64
	}{{"write", 20 << 20}, {"note write", 15 << 20}, {"append", 10 << 20}, {"resize", 5 << 20}} {
		kind, wanted = c.kind, c.wanted
		p := bytes.Repeat([]byte{byte(i + 1)}, 4096)
		if err := v.WriteAt(t.Context(), p, int64(i)<<12); err != nil {
			t.Errorf("%s: %v", c.kind, err)
		}
		if err := v.Flush(t.Context()); err != nil {
			t.Errorf("%s: flush: %v", c.kind, err)
		}
		if c.kind == "resize" {
			if err := v.Resize(t.Context(), 2*size); err != nil {
				t.Errorf("resize: %v", err)
			}
		}
		if n := x.Stats().Cached; n > c.wanted {
			t.Errorf("%s: the cache holds %d bytes", c.kind, n)
		}
		got := make([]byte, 4096)
		if err := v.ReadAt(t.Context(), got, int64(i)<<12); err != nil || !bytes.Equal(got, p) {
			t.Errorf("%s: wrong bytes, %v", c.kind, err)
		}
	}
	if s := pool.Stats(); s.GaveWay != s.Evicted || s.GaveWay < 35<<20 {
		t.Errorf("%+v", s)
	}
	kind, wanted = "write", -1
	if err := v.WriteAt(t.Context(), make([]byte, 4096), 64<<10); !errors.Is(err, block.ErrNoSpace) {
		t.Errorf("nothing is left to leave: %v, want ErrNoSpace", err)
	}
	kind = ""
}

// TestKeepFree: the cache shrinks when the disk gets full, grows no more, and
// grows again.
func TestKeepFree(t *testing.T) {
	pool := NewPool(0, slog.New(slog.DiscardHandler))
	x := newPooled(t, 64<<20, pool)
	for i := range int64(32) {
		x.want(t, mib(i))
	}
	if n := pool.KeepFree(10<<20, 4<<20); n != 0 {
		t.Errorf("%d bytes left although there is room", n)
	}
	for i := range int64(10) {
		x.want(t, mib(40+i))
	}
	if n := pool.Stats().Held; n > 38<<20 {
		t.Errorf("holds %d bytes: not enough is free any more", n)
	}
	held := pool.Stats().Held
	if n := pool.KeepFree(1<<20, 16<<20); n < 15<<20 || n > 17<<20 {
		t.Errorf("%d bytes left, want 15 MiB and a little", n)
	}
	if s := pool.Stats(); s.Held > held-15<<20 || s.GaveWay < 15<<20 {
		t.Errorf("%+v", s)
	}
	pool.KeepFree(0, 1<<30)
	if n := pool.Stats().Held; n != 0 {
		t.Errorf("%d bytes are held on a full disk", n)
	}
	x.want(t, mib(60))
	if n := pool.Stats().Held; n != 0 {
		t.Errorf("%d bytes are kept on a full disk", n)
	}
	pool.KeepFree(1<<40, 1<<30)
	x.want(t, mib(60))
	if n := pool.Stats().Held; n != 1<<20 {
		t.Errorf("%d bytes are kept, want 1 MiB", n)
	}
}

// TestFailedCopyLeavesNothing: what a full disk took of a copy is given back.
func TestFailedCopyLeavesNothing(t *testing.T) {
	for _, full := range []string{"copies", "sums"} {
		t.Run(full, func(t *testing.T) {
			x := newPooled(t, 2<<20, nil)
			f := x.file
			if full == "sums" {
				f = x.sums
			}
			f.failing = func(op string) error {
				if op == "write" {
					return syscall.ENOSPC
				}
				return nil
			}
			x.want(t, mib(0))
			if s := x.Stats(); s.Dropped == 0 || s.Cached != 0 {
				t.Errorf("%+v", s)
			}
			if err := holdsOnly(x.file, x.Cache); err != nil {
				t.Error(err)
			}
			if n := x.pool.Stats().Held; n != 0 {
				t.Errorf("%d bytes are held", n)
			}
			f.failing = nil
			x.want(t, mib(0))
			x.image.fail.Store(true)
			x.want(t, mib(0))
		})
	}
}

// TestStoppedPool: what a cache that is closed has held is not taken by another
// one that is about to be.
func TestStoppedPool(t *testing.T) {
	pool := NewPool(4<<20, slog.New(slog.DiscardHandler))
	a, b := newPooled(t, 8<<20, pool), newPooled(t, 8<<20, pool)
	for i := range int64(4) {
		a.want(t, mib(i))
	}
	pool.Stop()
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	b.want(t, mib(0))
	if n := b.Stats().Cached; n != 0 {
		t.Errorf("%d bytes were kept", n)
	}
	if strings.Contains(b.log.String(), "cannot keep") {
		t.Errorf("the log complains:\n%s", b.log)
	}
}

// TestUnpinnedLeavesInItsTurn: also when who leaves next was known already.
func TestUnpinnedLeavesInItsTurn(t *testing.T) {
	pool := NewPool(32<<20, slog.New(slog.DiscardHandler))
	a, b := newPooled(t, 8<<20, pool), newPooled(t, 32<<20, pool)
	for i := range int64(4) {
		a.want(t, mib(i))
	}
	a.Pin()
	for i := range int64(8) {
		b.want(t, mib(i))
	}
	leave := func() {
		t.Helper()
		if n := pool.free(1<<20, 0, pool.passes.Load(), nil); n != 1<<20 {
			t.Errorf("%d bytes left, want 1 MiB", n)
		}
	}
	leave()
	if a.Stats().Cached != 4<<20 || b.copy.all(mib(0), present) {
		t.Error("not the oldest of what is not pinned has left")
	}
	a.Unpin()
	leave()
	if a.copy.all(mib(0), present) || b.Stats().Cached != 7<<20 {
		t.Error("what was pinned is older, and has not left")
	}
	c := newPooled(t, 8<<20, nil) // copied before the start: nobody has used it since
	c.want(t, mib(3))
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	c.open(t, pool)
	leave()
	if n := c.Stats().Cached; n != 0 {
		t.Errorf("%d bytes that nobody has used are left", n)
	}
}
