package boottrace

import (
	"context"
	"math/rand/v2"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"skylun/block"
)

// Read is one read of a guest, and for how long it works before.
type Read struct {
	Off   int64
	Len   int
	Think time.Duration
}

// A Chain is reads of which each waits for the one before.
type Chain []Read

// A Stage is chains side by side. It ends when all of them have.
type Stage []Chain

// Trace is what a guest reads: one stage after the other.
type Trace []Stage

// group is the size of a block group of ext4.
const group = 128 << 20

// Linux returns the trace of a guest that boots from a disk of size bytes,
// which is a multiple of the size of a block group, and reads about total
// bytes, 4 MiB or more. The same arguments give the same trace.
func Linux(size, total int64, seed uint64) Trace {
	rnd := rand.New(rand.NewPCG(seed, 1))
	groups := max(1, size/group)
	think := func(most time.Duration) time.Duration { return time.Duration(rnd.Int64N(int64(most))) }

	firmware := Chain{{0, 512, 0}, {512, 16 << 10, 0}, {0, 4096, 0}}
	for i := range int64(24) { // the boot loader's core image and its modules
		firmware = append(firmware, Read{1<<20 + i*32<<10, 32 << 10, think(time.Millisecond)})
	}

	// Kernel and initial RAM disk are two fifths of what is read.
	var loader Chain
	for _, f := range []block.Range{{Off: 8 << 20, End: 8<<20 + total/10}, {Off: 16<<20 + total/10, End: 16<<20 + total/10 + total*3/10}} {
		for off := block.Floor(f.Off, 64<<10); off < min(f.End, size); off += 64 << 10 {
			loader = append(loader, Read{off, 64 << 10, 100 * time.Microsecond})
		}
	}

	mount := Chain{{4096, 4096, think(time.Millisecond)}}
	for i := range 64 {
		mount = append(mount, Read{int64(i)%groups*group + int64(2+rnd.IntN(60))*4096, 4096, think(200 * time.Microsecond)})
	}

	const chains = 6
	services := make(Stage, chains)
	for left, i := total*3/5, 0; left > 0; i++ {
		base := rnd.Int64N(groups) * group
		c := &services[i%chains]
		*c = append(*c,
			Read{base + 1<<20 + rnd.Int64N(256)*4096, 4096, think(2 * time.Millisecond)},
			Read{base + 4<<20 + rnd.Int64N(256)*4096, 4096, think(200 * time.Microsecond)})
		// Most files are small, most bytes in large ones.
		length := int64(4096) << min(rnd.IntN(10), rnd.IntN(10))
		off := base + 24<<20 + rnd.Int64N((group-32<<20)/4096)*4096
		if off+length > size {
			continue
		}
		left -= length + 8192
		for window := int64(16 << 10); length > 0; window = min(4*window, 128<<10) {
			n := min(window, length)
			*c = append(*c, Read{off, int(n), think(300 * time.Microsecond)})
			off, length = off+n, length-n
		}
	}
	return Trace{{firmware}, {loader}, {mount}, services}
}

// Replay reads what the trace reads, with the guest's pauses multiplied by
// pace.
func (t Trace) Replay(ctx context.Context, pace float64, read func(ctx context.Context, p []byte, off int64) error) error {
	for _, s := range t {
		g, ctx := errgroup.WithContext(ctx)
		for _, c := range s {
			g.Go(func() error {
				var p []byte
				for _, r := range c {
					if d := time.Duration(float64(r.Think) * pace); d > 0 {
						select {
						case <-time.After(d):
						case <-ctx.Done():
							return ctx.Err()
						}
					}
					p = slices.Grow(p[:0], r.Len)[:r.Len]
					if err := read(ctx, p, r.Off); err != nil {
						return err
					}
				}
				return nil
			})
		}
		if err := g.Wait(); err != nil {
			return err
		}
	}
	return nil
}

// Reads returns how many reads there are.
func (t Trace) Reads() (n int) {
	for _, s := range t {
		for _, c := range s {
			n += len(c)
		}
	}
	return n
}

// Distinct returns the ranges that are read, ascending, as whole blocks, and
// how many bytes they have.
func (t Trace) Distinct() (rs []block.Range, bytes int64) {
	for _, s := range t {
		for _, c := range s {
			for _, r := range c {
				rs = append(rs, block.Range{Off: r.Off, End: r.Off + int64(r.Len)}.Outward(block.Size))
			}
		}
	}
	slices.SortFunc(rs, func(a, b block.Range) int { return int(a.Off/block.Size - b.Off/block.Size) })
	merged := rs[:0]
	for _, r := range rs {
		if n := len(merged); n > 0 && r.Off <= merged[n-1].End {
			merged[n-1].End = max(merged[n-1].End, r.End)
			continue
		}
		merged = append(merged, r)
	}
	for _, r := range merged {
		bytes += r.Len()
	}
	return merged, bytes
}
