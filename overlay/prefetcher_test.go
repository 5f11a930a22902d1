package overlay

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"skylun/block"
	"skylun/test/memdev"
)

// farImage is an image in a modelled store: each read takes a latency and then the
// time of its bytes, alone on a link that all share, in virtual time.
type farImage struct {
	block.Device
	latency time.Duration
	rate    float64 // bytes/s

	mu     sync.Mutex
	busy   time.Time // guarded by mu: until when the link is
	reads  int       // guarded by mu
	bytes  int64     // guarded by mu
	flight int       // guarded by mu
	most   int       // guarded by mu: in flight

	down atomic.Bool
}

func (m *farImage) ReadAt(ctx context.Context, p []byte, off int64) error {
	m.mu.Lock()
	m.reads++
	m.flight++
	m.most = max(m.most, m.flight)
	m.mu.Unlock()
	defer func() {
		m.mu.Lock()
		m.flight--
		m.mu.Unlock()
	}()
	time.Sleep(m.latency)
	if m.down.Load() {
		return fmt.Errorf("%w: the store is gone", block.ErrMedium)
	}
	if m.rate > 0 { // it is sent in the order in which it is ready
		m.mu.Lock()
		m.busy = maxTime(m.busy, time.Now()).Add(time.Duration(float64(len(p)) / m.rate * float64(time.Second)))
		wait := time.Until(m.busy)
		m.bytes += int64(len(p))
		m.mu.Unlock()
		time.Sleep(wait)
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return m.Device.ReadAt(ctx, p, off)
}

func maxTime(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// plainFile is a File in memory, for tests that need much of it.
type plainFile struct {
	mu sync.RWMutex
	p  []byte

	takes atomic.Int64 // nanoseconds of a read that may wait
}

func newPlainFile(size int64) *plainFile { return &plainFile{p: make([]byte, size)} }

func (f *plainFile) ReadAt(p []byte, off int64) error {
	time.Sleep(time.Duration(f.takes.Load()))
	_, err := f.TryReadAt(p, off)
	return err
}

func (f *plainFile) TryReadAt(p []byte, off int64) (bool, error) {
	f.mu.RLock()
	defer f.mu.RUnlock()
	copy(p, f.p[off:])
	return true, nil
}

func (f *plainFile) WriteAt(p []byte, off int64) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	copy(f.p[off:], p)
	return nil
}

func (f *plainFile) Punch(off, n int64) error { return f.WriteAt(make([]byte, n), off) }
func (f *plainFile) Sync() error              { return nil }
func (f *plainFile) Resize(size int64) error  { return errors.ErrUnsupported }
func (f *plainFile) Close() error             { return nil }

// fillRig is a rig for prefetch: an image, its cache and a volume, to be run in a
// bubble of synctest.
type fillRig struct {
	t     *testing.T
	p     *Prefetcher
	image *farImage
	cache *Cache
	file  *plainFile
	v     *Volume
}

func newFillRig(t *testing.T, size int64, cfg PrefetcherConfig) *fillRig {
	r := &fillRig{t: t, p: NewPrefetcher(cfg), file: newPlainFile(size)}
	r.image = &farImage{Device: memdev.Of(pattern(size)), latency: 20 * time.Millisecond, rate: 200e6}
	c, err := OpenCache(CacheConfig{Name: "image", Image: r.image, File: r.file, Map: &memMap{}, Log: slog.New(slog.DiscardHandler), Prefetcher: r.p})
	if err != nil {
		t.Fatal(err)
	}
	r.cache = c
	r.v = r.volume()
	return r
}

func (r *fillRig) volume() *Volume {
	v, err := openSingle(single{Name: "v", Size: r.cache.Size(), File: newPlainFile(r.cache.Size()), Map: &memMap{}, Base: r.cache, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		r.t.Fatal(err)
	}
	return v
}

func (r *fillRig) close() {
	if err := errors.Join(closeAll(r.v), r.cache.Close()); err != nil {
		r.t.Error(err)
	}
	r.p.Close()
}

// absent returns how much is not local.
func (r *fillRig) absent() int64 { return r.cache.Stats().Absent }

// TestFill brings all of an image, each byte once, says so, and ends.
func TestFill(t *testing.T) {
	for _, s := range []Strategy{PrefetchIdle, PrefetchFull} {
		t.Run(s.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				const size = 256 << 20
				r := newFillRig(t, size, PrefetcherConfig{})
				defer r.close()
				r.v.SetPrefetch(s, false)
				began := time.Now()
				for r.absent() > 0 {
					if time.Since(began) > time.Minute {
						t.Fatalf("%d bytes are missing after %v: %+v", r.absent(), time.Since(began), r.cache.PrefetchStats())
					}
					time.Sleep(10 * time.Millisecond)
				}
				took := time.Since(began)
				t.Logf("%.0f MB/s of %.0f, most in flight %d", size/took.Seconds()/1e6, r.image.rate/1e6, r.image.most)
				if alone := size / r.image.rate; took.Seconds() > alone*1.6 { // also the time in which it learns
					t.Errorf("%v for what takes %.2f s", took, alone)
				}
				synctest.Wait()
				if st := r.cache.Stats(); st.FetchedBytes != size {
					t.Errorf("fetched %d bytes of %d", st.FetchedBytes, size)
				}
				if st := r.cache.PrefetchStats(); st.State != StateComplete || st.Filled != size {
					t.Errorf("%+v, want it complete", st)
				}
				got := make([]byte, 1<<20)
				if done, err := r.v.TryReadAt(got, 100<<20); !done || err != nil || !bytes.Equal(got, pattern(size)[100<<20:101<<20]) {
					t.Errorf("what was filled cannot be read (%v, %v)", done, err)
				}
				time.Sleep(commitAfter + time.Second)
				synctest.Wait()
				if m := r.cache.copy.disk.(*memMap); len(m.durable()) == 0 {
					t.Error("nobody will know after a crash that all is local")
				}
			})
		})
	}
}

// TestFillPauses and goes on where it was; another volume of the image that
// did not pause is reason enough to go on.
func TestFillPauses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newFillRig(t, 256<<20, PrefetcherConfig{Rate: 20 << 20})
		defer r.close()
		r.v.SetPrefetch(PrefetchFull, false)
		time.Sleep(3 * time.Second)
		if done := r.cache.Size() - r.absent(); done > 66<<20 || done < 50<<20 {
			t.Errorf("%d bytes after 3 s at 20 MiB/s", done)
		}
		r.v.SetPrefetch(PrefetchFull, true)
		time.Sleep(time.Second)
		before := r.absent()
		time.Sleep(time.Hour)
		if now := r.absent(); now != before {
			t.Errorf("%d bytes were brought during a pause", before-now)
		}
		if st := r.cache.PrefetchStats(); st.State != StatePaused || st.Strategy != "full" {
			t.Errorf("%+v, want it paused", st)
		}
		other := r.volume()
		other.SetPrefetch(PrefetchIdle, false)
		time.Sleep(time.Second)
		if r.absent() == before {
			t.Error("nothing is brought for the other volume")
		}
		if err := closeAll(other); err != nil {
			t.Error(err)
		}
		time.Sleep(time.Second)
		before = r.absent()
		time.Sleep(time.Hour)
		if now := r.absent(); now != before {
			t.Errorf("%d bytes were brought for a volume that is closed", before-now)
		}
		r.v.SetPrefetch(PrefetchFull, false)
		time.Sleep(time.Minute)
		if n := r.absent(); n > 0 {
			t.Errorf("%d bytes are missing", n)
		}
		if st := r.cache.Stats(); st.FetchedBytes != r.cache.Size() {
			t.Errorf("fetched %d bytes of %d", st.FetchedBytes, r.cache.Size())
		}
	})
}

// TestFillSurvivesErrors says why it does not go on, and goes on by itself.
func TestFillSurvivesErrors(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newFillRig(t, 64<<20, PrefetcherConfig{})
		defer r.close()
		r.image.down.Store(true)
		r.v.SetPrefetch(PrefetchIdle, false)
		time.Sleep(time.Hour)
		st := r.cache.PrefetchStats()
		if st.State != StateWaiting || st.Errors == 0 || !bytes.Contains([]byte(st.Reason), []byte("the store is gone")) {
			t.Errorf("%+v, want it to wait and to say why", st)
		}
		r.image.mu.Lock()
		reads := r.image.reads
		r.image.mu.Unlock()
		if reads > 60 {
			t.Errorf("%d requests within an hour to a store that is gone", reads)
		}
		r.image.down.Store(false)
		time.Sleep(10 * time.Minute)
		if n := r.absent(); n > 0 {
			t.Errorf("%d bytes are missing although the store is back: %+v", n, r.cache.PrefetchStats())
		}
	})
}

// TestFillWaitsForRoom does not fill a local disk that is full, nor beyond the
// space that is to stay free.
func TestFillWaitsForRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const size = 64 << 20
		p := NewPrefetcher(PrefetcherConfig{KeepFree: 1 << 30})
		defer p.Close()
		file := &freeFile{plainFile: newPlainFile(size)}
		file.free.Store(1<<30 + 5<<20)
		image := &farImage{Device: memdev.Of(pattern(size)), latency: time.Millisecond}
		c, err := OpenCache(CacheConfig{Name: "image", Image: image, File: file, Map: &memMap{}, Log: slog.New(slog.DiscardHandler), Prefetcher: p})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		v, err := openSingle(single{Name: "v", Size: size, File: newPlainFile(size), Map: &memMap{}, Base: c, Log: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		defer closeAll(v)
		v.SetPrefetch(PrefetchFull, false)
		time.Sleep(time.Minute)
		if st := c.PrefetchStats(); c.Stats().Cached != 0 || st.State != StateWaiting || st.Reason == "" {
			t.Errorf("%d bytes were stored, %+v", c.Stats().Cached, st)
		}
		file.free.Store(1 << 31)
		time.Sleep(time.Minute)
		if n := c.Stats().Absent; n > 0 {
			t.Errorf("%d bytes are missing although there is room", n)
		}
	})
}

type freeFile struct {
	*plainFile
	free atomic.Int64
}

func (f *freeFile) Free() (int64, error) { return f.free.Load(), nil }

// TestFillKeepsHours fills at night only.
func TestFillKeepsHours(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hours, err := ParseHours("22:00-06:00")
		if err != nil {
			t.Fatal(err)
		}
		now := time.Now().UTC()
		time.Sleep(time.Date(now.Year(), now.Month(), now.Day()+1, 12, 0, 0, 0, time.Local).Sub(now))
		r := newFillRig(t, 64<<20, PrefetcherConfig{Hours: hours})
		defer r.close()
		r.v.SetPrefetch(PrefetchFull, false)
		time.Sleep(9*time.Hour + 59*time.Minute)
		if st := r.cache.PrefetchStats(); r.absent() != r.cache.Size() || st.State != StateWaiting {
			t.Errorf("%d bytes are missing of %d at 21:59, %+v", r.absent(), r.cache.Size(), st)
		}
		time.Sleep(2 * time.Minute)
		if n := r.absent(); n > 0 {
			t.Errorf("%d bytes are missing at 22:01", n)
		}
	})
}

// TestFillIsFair gives two images their turns, and one that is to be filled fast
// more of them.
func TestFillIsFair(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const size = 256 << 20
		r := newFillRig(t, size, PrefetcherConfig{Rate: 32 << 20})
		defer r.close()
		c, err := OpenCache(CacheConfig{Name: "other", Image: r.image, File: newPlainFile(size), Map: &memMap{}, Log: slog.New(slog.DiscardHandler), Prefetcher: r.p})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		share := func(s Strategy) float64 {
			c.prefetched.want("test", s, false)
			a, b := r.cache.PrefetchStats().Filled, c.PrefetchStats().Filled
			time.Sleep(2 * time.Second)
			return float64(r.cache.PrefetchStats().Filled-a) / float64(c.PrefetchStats().Filled-b)
		}
		r.v.SetPrefetch(PrefetchIdle, false)
		time.Sleep(time.Second) // a start that is not made up for
		if s := share(PrefetchIdle); s < 0.8 || s > 1.25 {
			t.Errorf("one of two got %.2f times as much as the other", s)
		}
		if s := share(PrefetchFull); s < 1/5. || s > 1/3. {
			t.Errorf("an image got %.2f of what one got that is to be filled fast", s)
		}
	})
}

// TestFillBacksOff sends nothing any more when a reader waits for the store,
// and is back at its rate some time after.
func TestFillBacksOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const size = 512 << 20
		r := newFillRig(t, size, PrefetcherConfig{})
		r.image.rate = 100e6
		defer r.close()
		r.v.SetPrefetch(PrefetchIdle, false)
		time.Sleep(2 * time.Second)
		alone := r.cache.PrefetchStats().Rate
		p := make([]byte, 4096)
		began := time.Now()
		if err := r.v.ReadAt(t.Context(), p, size-4096); err != nil {
			t.Fatal(err)
		}
		waited := time.Since(began)
		t.Logf("rate %d MB/s, the reader waited %v", alone/1e6, waited)
		if waited > 100*time.Millisecond {
			t.Errorf("the reader waited %v for a store that takes %v", waited, r.image.latency)
		}
		r.image.mu.Lock()
		before := r.image.reads
		r.image.mu.Unlock()
		time.Sleep(50 * time.Millisecond)
		r.image.mu.Lock()
		sent := r.image.reads - before
		r.image.mu.Unlock()
		if sent > 1 {
			t.Errorf("%d requests within 50 ms after a reader had to wait", sent)
		}
		if st := r.cache.PrefetchStats(); st.State != StateYielding || st.Reason == "" {
			t.Errorf("%+v, want it to yield", st)
		}
	})
}

// TestProfileComes first, and although readers wait.
func TestProfileComes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const size = 512 << 20
		r := newFillRig(t, size, PrefetcherConfig{})
		defer r.close()
		var want []block.Range
		for i := range int64(64) {
			off := (i*37 + 11) % 512 << 20
			want = append(want, block.Range{Off: off, End: off + 96<<10})
		}
		r.v.SetPrefetch(ReadAhead, false)
		r.cache.SetProfile(want)
		ctx, cancel := context.WithCancel(t.Context())
		var readers sync.WaitGroup
		readers.Go(func() {
			rnd := rand.New(rand.NewPCG(1, 2))
			for ctx.Err() == nil {
				r.v.ReadAt(ctx, make([]byte, 4096), rnd.Int64N(size/4096)*4096)
			}
		})
		time.Sleep(time.Second)
		cancel()
		readers.Wait()
		for _, w := range want {
			if !r.cache.holds(w.Off, w.Len()) {
				t.Errorf("%v of the profile is not local", w)
			}
		}
		if st := r.cache.PrefetchStats(); st.Filled > 64*96<<10 {
			t.Errorf("%d bytes were filled, more than the profile has", st.Filled)
		}
	})
}

// TestReadAhead has what a sequential reader wants here before it comes, and
// does not fetch what the layer has or what is empty.
func TestReadAhead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const size = 128 << 20
		r := newFillRig(t, size, PrefetcherConfig{})
		defer r.close()
		if err := r.v.WriteAt(t.Context(), make([]byte, 4<<20), 32<<20); err != nil {
			t.Fatal(err)
		}
		read := func(from, to int64) (took time.Duration) {
			p := make([]byte, 64<<10)
			began := time.Now()
			for off := from; off < to; off += int64(len(p)) {
				if done, err := r.v.TryReadAt(p, off); err != nil {
					t.Fatal(err)
				} else if !done {
					if err := r.v.ReadAt(t.Context(), p, off); err != nil {
						t.Fatal(err)
					}
				}
			}
			return time.Since(began)
		}
		without := read(0, 16<<20)
		r.v.SetPrefetch(ReadAhead, false)
		with := read(16<<20, 64<<20)
		t.Logf("16 MiB in %v without, 48 MiB in %v with", without, with)
		if with > without/2 {
			t.Errorf("48 MiB took %v, and 16 MiB without read-ahead %v", with, without)
		}
		time.Sleep(time.Second)
		if r.cache.holds(33<<20, 4096) {
			t.Error("what the layer has was fetched")
		}
		st := r.cache.PrefetchStats()
		if st.Ahead == 0 || st.Used == 0 || st.Hits == 0 {
			t.Errorf("%+v, want figures of what was used", st)
		}
		if s := r.cache.Stats(); s.FetchedBytes > 60<<20+streamsMost {
			t.Errorf("%d bytes were fetched for 60 MiB", s.FetchedBytes)
		}
	})
}

// streamsMost is how far ahead of its end a stream of the test may be read.
const streamsMost = 32 << 20

// TestShared counts what one volume does not have to fetch because another
// one did.
func TestShared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newFillRig(t, 16<<20, PrefetcherConfig{})
		defer r.close()
		p := make([]byte, 1<<20)
		if err := r.v.ReadAt(t.Context(), p, 1<<20); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		if n := r.cache.PrefetchStats().Shared; n != 0 {
			t.Errorf("%d bytes were shared with nobody", n)
		}
		other := r.volume()
		defer closeAll(other)
		for range 2 {
			if err := other.ReadAt(t.Context(), p, 1<<20); err != nil {
				t.Fatal(err)
			}
		}
		if n := r.cache.PrefetchStats().Shared; n != 1<<20 {
			t.Errorf("%d bytes were shared, want %d", n, 1<<20)
		}
	})
}

// TestPrefetchRace reads, writes, changes strategies, and closes while
// everything is being filled.
func TestPrefetchRace(t *testing.T) {
	const size = 32 << 20
	data := pattern(size)
	p := NewPrefetcher(PrefetcherConfig{Load: func() Load { return Load{} }})
	defer p.Close()
	for round := range 4 {
		c, err := OpenCache(CacheConfig{Name: "image", Image: memdev.Of(data), File: newPlainFile(size), Map: &memMap{}, Log: slog.New(slog.DiscardHandler), Prefetcher: p})
		if err != nil {
			t.Fatal(err)
		}
		c.SetProfile([]block.Range{{Off: 1 << 20, End: 2 << 20}})
		var run sync.WaitGroup
		for i := range 3 {
			v, err := openSingle(single{Name: "v", Size: size, File: newPlainFile(size), Map: &memMap{}, Base: c, Log: slog.New(slog.DiscardHandler)})
			if err != nil {
				t.Fatal(err)
			}
			run.Go(func() {
				rnd := rand.New(rand.NewPCG(uint64(round), uint64(i)))
				q := make([]byte, 64<<10)
				for j := range int64(200) {
					off := rnd.Int64N(size-int64(len(q))) / 512 * 512
					if j%2 == 0 {
						off = j * int64(len(q))
					}
					done, err := v.TryReadAt(q, off)
					if err == nil && !done {
						err = v.ReadAt(context.Background(), q, off)
					}
					if err != nil || !bytes.Equal(q, data[off:off+int64(len(q))]) {
						t.Errorf("read at %d: wrong bytes or %v", off, err)
						break
					}
					v.SetPrefetch(Strategy(rnd.IntN(int(strategyCount))), rnd.IntN(4) == 0)
					c.PrefetchStats()
				}
				if err := closeAll(v); err != nil {
					t.Error(err)
				}
			})
		}
		run.Wait()
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	}
}

// BenchmarkFollow is what watching costs a read of what is local.
func BenchmarkFollow(b *testing.B) {
	const size = 1 << 30
	c, err := OpenCache(CacheConfig{Name: "image", Image: memdev.New(size), File: newPlainFile(0), Map: &memMap{}, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		b.Fatal(err)
	}
	w := newFollower(c)
	w.strategy.Store(uint32(ReadAhead))
	c.copy.fill(block.Range{End: size}, present)
	for _, kind := range []string{"random", "sequential"} {
		b.Run(kind, func(b *testing.B) {
			b.ReportAllocs()
			off := int64(0)
			for b.Loop() {
				if kind == "random" {
					off = rand.Int64N(size/4096) * 4096
				} else {
					off = (off + 4096) % size
				}
				w.read(off, 4096, false, whole)
			}
		})
	}
}

// TestFillHearsOfLoad slows down while the node is busy, and stops while the
// store wants to be left alone.
func TestFillHearsOfLoad(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var commands, throttled atomic.Uint64
		var until atomic.Int64
		began := time.Now()
		var rate atomic.Int64 // commands a second
		r := newFillRig(t, 512<<20, PrefetcherConfig{Load: func() Load {
			commands.Store(uint64(time.Since(began).Seconds() * float64(rate.Load())))
			return Load{Commands: commands.Load(), Throttled: throttled.Load(), Until: time.Unix(0, until.Load())}
		}})
		defer r.close()
		r.image.rate = 50e6
		brought := func(d time.Duration) int64 {
			before := r.absent()
			time.Sleep(d)
			return before - r.absent()
		}
		r.v.SetPrefetch(PrefetchIdle, false)
		brought(2 * time.Second)
		alone := brought(2 * time.Second)
		rate.Store(20000)
		brought(200 * time.Millisecond)
		busy := brought(time.Second)
		if busy > alone/2/2 || busy == 0 {
			t.Errorf("%d bytes in a second while the node is busy, %d in two while it is not", busy, alone)
		}
		if st := r.cache.PrefetchStats(); st.State != StateYielding {
			t.Errorf("%+v, want it to yield", st)
		}
		rate.Store(0)
		brought(time.Second)
		throttled.Store(1)
		until.Store(time.Now().Add(3 * time.Second).UnixNano())
		brought(300 * time.Millisecond)
		if n := brought(2 * time.Second); n > 0 {
			t.Errorf("%d bytes while the store wants to be left alone", n)
		}
		if st := r.cache.PrefetchStats(); st.Reason != "the store asks to slow down" {
			t.Errorf("%+v, want it to say why", st)
		}
		brought(2 * time.Second)
		if n := brought(time.Second); n == 0 {
			t.Error("it does not go on")
		}
	})
}

// TestFillHearsOfTheDisk: a fill takes less when it makes readers of local data
// wait longer for the disk than they did alone.
func TestFillHearsOfTheDisk(t *testing.T) {
	for takes, yields := range map[time.Duration]bool{time.Millisecond: false, 8 * time.Millisecond: true} {
		synctest.Test(t, func(t *testing.T) {
			r := newFillRig(t, 1<<30, PrefetcherConfig{})
			defer r.close()
			p := make([]byte, 64<<10)
			read := func() {
				if err := r.v.ReadAt(t.Context(), p, 0); err != nil {
					t.Fatal(err)
				}
			}
			read()
			time.Sleep(time.Second)
			r.file.takes.Store(int64(time.Millisecond))
			for range 50 {
				read()
			}
			r.v.SetPrefetch(PrefetchIdle, false)
			brought := func() int64 {
				before := r.absent()
				for end := time.Now().Add(time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
					read()
				}
				return before - r.absent()
			}
			brought()
			alone := brought()
			r.file.takes.Store(int64(takes))
			brought()
			if among := brought(); among < alone/2 != yields || among == 0 {
				t.Errorf("%d bytes in a second while reads take %v, %d before", among, takes, alone)
			}
		})
	}
}
