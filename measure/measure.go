package measure

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"skylun/block"
)

// Options bound a measurement.
type Options struct {
	Time  time.Duration // of all steps together; 0: DefaultTime
	Space int64         // bytes that are written; 0: DefaultSpace
	Force bool          // also a device that is not empty: the stretch that is written to is lost

	// Progress, when set, is told what is being done.
	Progress func(step string)
}

const (
	DefaultTime  = 20 * time.Second
	DefaultSpace = 1 << 30

	minSpace = 16 << 20
	maxSpace = 1 << 40
	minTime  = 100 * time.Millisecond

	large         = 1 << 20
	largeInFlight = 8
	smallInFlight = 32
	steps         = 5
)

// Result is what was measured.
type Result struct {
	Path   string `json:"path"`
	Size   int64  `json:"size"`   // bytes that can be used: free ones of a directory, all of a device
	Space  int64  `json:"space"`  // bytes that were written to
	Cached bool   `json:"cached"` // through the page cache

	ReadBytes  int64         `json:"read_bytes_per_second"`
	WriteBytes int64         `json:"write_bytes_per_second"`
	ReadIOPS   int64         `json:"read_iops"`
	WriteIOPS  int64         `json:"write_iops"`
	Median     time.Duration `json:"latency_median_ns"`
	P99        time.Duration `json:"latency_p99_ns"`
}

// ErrNotEmpty is the error of a device that holds something.
var ErrNotEmpty = errors.New("is not empty")

// Path measures a directory, a block device, or a file that is used like one.
func Path(ctx context.Context, path string, o Options) (Result, error) {
	if o.Time == 0 {
		o.Time = DefaultTime
	}
	if o.Space == 0 {
		o.Space = DefaultSpace
	}
	if o.Progress == nil {
		o.Progress = func(string) {}
	}
	switch {
	case o.Time < minTime:
		return Result{}, fmt.Errorf("a time of %v is too short: %v or more", o.Time, minTime)
	case o.Space < minSpace || o.Space > maxSpace:
		return Result{}, fmt.Errorf("a space of %d bytes is not what can be measured with: %d to %d", o.Space, minSpace, int64(maxSpace))
	}
	fi, err := os.Stat(path)
	if err != nil {
		return Result{}, err
	}
	var r *run
	switch {
	case fi.IsDir():
		r, err = openDir(path, &o)
	case fi.Mode().IsRegular(), fi.Mode()&os.ModeDevice != 0 && fi.Mode()&os.ModeCharDevice == 0:
		r, err = openDevice(ctx, path, &o)
	default:
		err = errors.New("is neither a directory, a block device nor a file")
	}
	if err != nil {
		return Result{}, fmt.Errorf("%s: %w", path, err)
	}
	r.Path = path
	err = r.measure(ctx, o)
	if e := r.clean(); err == nil {
		err = e
	}
	if e := r.f.Close(); err == nil {
		err = e
	}
	if err != nil {
		return Result{}, fmt.Errorf("%s: %w", path, err)
	}
	return r.Result, nil
}

// run is a measurement under way.
type run struct {
	Result
	f     *os.File
	at    int64 // where the stretch that is used begins
	clean func() error
}

func (r *run) measure(ctx context.Context, o Options) error {
	each := o.Time / steps
	o.Progress(fmt.Sprintf("writing up to %d MiB", o.Space>>20))
	n, took, err := r.fill(ctx, o.Space, each)
	if err != nil {
		return err
	}
	r.Space, r.WriteBytes = n, perSecond(n, took)
	if r.Cached {
		unix.Fadvise(int(r.f.Fd()), r.at, n, unix.FADV_DONTNEED)
	}
	o.Progress("reading")
	var next atomic.Int64
	ops, took, err := r.load(ctx, each, largeInFlight, large, func(*mathrand.Rand) int64 { return (next.Add(large) - large) % (n / large * large) }, r.f.ReadAt, nil)
	if err != nil {
		return err
	}
	r.ReadBytes = perSecond(ops*large, took)
	anywhere := func(rnd *mathrand.Rand) int64 { return rnd.Int64N(n/block.Size) * block.Size }
	o.Progress("reading at random")
	if ops, took, err = r.load(ctx, each, smallInFlight, block.Size, anywhere, r.f.ReadAt, nil); err != nil {
		return err
	}
	r.ReadIOPS = perSecond(ops, took)
	o.Progress("writing at random")
	if ops, took, err = r.load(ctx, each, smallInFlight, block.Size, anywhere, r.f.WriteAt, r.sync); err != nil {
		return err
	}
	r.WriteIOPS = perSecond(ops, took)
	o.Progress("timing single reads")
	var times []time.Duration
	timed := func(p []byte, off int64) (int, error) {
		begun := time.Now()
		n, err := r.f.ReadAt(p, off)
		times = append(times, time.Since(begun))
		return n, err
	}
	if _, _, err = r.load(ctx, each, 1, block.Size, anywhere, timed, nil); err != nil {
		return err
	}
	slices.Sort(times)
	r.Median, r.P99 = times[len(times)/2], times[len(times)*99/100]
	return nil
}

func (r *run) sync() error { return unix.Fdatasync(int(r.f.Fd())) }

func perSecond(n int64, took time.Duration) int64 {
	return int64(float64(n) / max(took, time.Microsecond).Seconds())
}

// fill writes from the beginning of the stretch on until space or time is used
// up. What was written is a multiple of large, and not nothing.
func (r *run) fill(ctx context.Context, space int64, each time.Duration) (n int64, took time.Duration, err error) {
	var next atomic.Int64
	stop := func() bool { return next.Load() >= space/large*large }
	begun := time.Now()
	_, _, err = r.loadUntil(ctx, each, largeInFlight, large, stop, func(*mathrand.Rand) int64 { return next.Add(large) - large }, func(p []byte, off int64) (int, error) {
		if off-r.at >= space/large*large { // another one has taken the last
			return len(p), nil
		}
		return r.f.WriteAt(p, off)
	}, r.sync)
	return min(next.Load(), space/large*large), time.Since(begun), err
}

// load has workers call op at offsets for a time, and after once in the end, and
// returns how many calls were made in what time.
func (r *run) load(ctx context.Context, each time.Duration, workers, size int, where func(*mathrand.Rand) int64, op func([]byte, int64) (int, error), after func() error) (int64, time.Duration, error) {
	return r.loadUntil(ctx, each, workers, size, func() bool { return false }, where, op, after)
}

func (r *run) loadUntil(ctx context.Context, each time.Duration, workers, size int, stop func() bool, where func(*mathrand.Rand) int64, op func([]byte, int64) (int, error), after func() error) (int64, time.Duration, error) {
	// Buffers of whole pages, as O_DIRECT wants them.
	memory, err := unix.Mmap(-1, 0, workers*size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		return 0, 0, err
	}
	defer unix.Munmap(memory)
	rand.Read(memory) // nothing that a disk could make less of
	var (
		wg    sync.WaitGroup
		total atomic.Int64
		once  sync.Once
		fault error
	)
	done := make(chan struct{})
	begun := time.Now()
	for i := range workers {
		p := memory[i*size : (i+1)*size]
		wg.Go(func() {
			rnd := mathrand.New(mathrand.NewPCG(uint64(i), uint64(begun.UnixNano())))
			for n := 0; ; n++ {
				select {
				case <-done:
					return
				case <-ctx.Done():
					return
				default:
				}
				if n > 0 && (time.Since(begun) >= each || stop()) { // one at least
					return
				}
				if _, err := op(p, r.at+where(rnd)); err != nil {
					once.Do(func() { fault = err; close(done) })
					return
				}
				total.Add(1)
			}
		})
	}
	wg.Wait()
	if fault == nil {
		fault = ctx.Err()
	}
	if fault == nil && after != nil {
		fault = after()
	}
	return total.Load(), time.Since(begun), fault
}
