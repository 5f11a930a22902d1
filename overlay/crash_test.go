package overlay

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"skylun/block"
	"skylun/meta"
	"skylun/test/devicetest"
)

var crashSeeds = flag.Int("overlay.seeds", 0, "how many seeds for power cuts; 0: a few hundred")

// TestPowerCut does random operations in many configurations and cuts the power
// at the points where something becomes durable.
func TestPowerCut(t *testing.T) {
	first := devicetest.Seed(t)
	n := *crashSeeds
	if n == 0 {
		n = 300
		if testing.Short() || raceEnabled {
			n = 60
		}
	}
	dir := crashDir(t)
	begin, cuts := time.Now(), 0
	var mu sync.Mutex
	var g errgroup.Group
	g.SetLimit(runtime.GOMAXPROCS(0))
	for i := range n {
		g.Go(func() error {
			seed := first + uint64(i)
			c, err := crashRun(seed, dir, lie{})
			mu.Lock()
			cuts += c
			mu.Unlock()
			if err != nil {
				return fmt.Errorf("-devicetest.seed=%d -overlay.seeds=1: %w", seed, err)
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	if cuts < 5*n {
		t.Errorf("only %d power cuts", cuts)
	}
	t.Logf("%d seeds, %d power cuts, %v", n, cuts, time.Since(begin))
}

// crashDir returns a directory in memory if there is one: what the files of
// the database hold is what counts here, not that it is on a disk.
func crashDir(t *testing.T) string {
	dir, err := os.MkdirTemp("/dev/shm", "skylun-crash-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// crashRun runs one world and returns how many power cuts it looked at.
func crashRun(seed uint64, dir string, lies lie) (cuts int, err error) {
	return crashRunOn(0, seed, dir, lies)
}

// crashRunOn is crashRun with layers on arrays of members.
func crashRunOn(members int, seed uint64, dir string, lies lie) (cuts int, err error) {
	rnd := rand.New(rand.NewPCG(seed, 17))
	cfg := worldConfig{
		sectors: 8 + rnd.Int64N(200),
		cached:  rnd.IntN(2) == 0,
		bolt:    rnd.IntN(6) == 0,
		scanned: rnd.IntN(3) == 0,
		redo:    rnd.IntN(4) > 0,
		lie:     lies,
		dir:     dir,
		members: members,
	}
	switch rnd.IntN(4) {
	case 0:
	case 1:
		cfg.imageSectors = 1 + rnd.Int64N(cfg.sectors)
	default:
		cfg.imageSectors = cfg.sectors
	}
	w, err := newWorld(cfg, rnd)
	if err != nil {
		return 0, err
	}
	var log []string
	for op := range 60 {
		what, err := w.step()
		w.settle()
		if err == nil && rnd.IntN(10) == 0 {
			w.point("at rest")
		}
		if err == nil {
			err = w.err
		}
		if err == nil && rnd.IntN(25) == 0 {
			what += ", power cut"
			cuts += w.cuts
			w, err = w.fall()
		}
		log = append(log, what)
		if err != nil {
			return cuts, fmt.Errorf("%v: operation %d: %w; after:\n%s", cfg, op, err, strings.Join(log, "\n"))
		}
	}
	w.err = errors.New("no more power cuts")
	if err := w.close(); err != nil {
		return cuts, fmt.Errorf("%v: close: %w", cfg, err)
	}
	return cuts + w.cuts, nil
}

// fall cuts the power and goes on with what is left.
func (w *world) fall() (*world, error) {
	left, err := w.cut(true)
	w.abandon()
	if w.db != nil {
		err = errors.Join(err, w.db.close())
	}
	if err == nil {
		err = left.verify()
	}
	if err != nil {
		return w, err
	}
	return left, nil
}

// step does one random operation.
func (w *world) step() (what string, err error) {
	ctx := context.Background()
	rnd := w.rnd
	x, y := w.vols[rnd.IntN(2)], w.vols[rnd.IntN(2)]
	r := block.Range{Off: rnd.Int64N(x.size/sector) * sector}
	r.End = min(x.size, r.Off+(1+rnd.Int64N(24))*sector)
	if rnd.IntN(3) == 0 {
		r = r.Outward(block.Size).Intersect(block.Range{Off: 0, End: x.size})
	}
	flush := func() error {
		err := x.v.Flush(ctx)
		if err == nil {
			w.looking.Lock()
			x.h.flushed()
			w.looking.Unlock()
		}
		return err
	}
	w.value++
	p := fillSectors(make([]byte, r.Len()), w.value)
	switch op := rnd.IntN(30); {
	case op < 6:
		x.h.write(r, w.value)
		if op == 0 {
			if done, err := x.v.TryWriteAt(p, r.Off); done {
				return fmt.Sprintf("try write %v of %s", r, x.name), err
			}
		}
		return fmt.Sprintf("write %v of %s", r, x.name), x.v.WriteAt(ctx, p, r.Off)
	case op < 7:
		x.h.write(r, w.value)
		if err = x.v.WriteAt(ctx, p, r.Off); err == nil {
			err = flush()
		}
		return fmt.Sprintf("write %v of %s through", r, x.name), err
	case op < 8:
		x.h.write(r, w.value)
		return fmt.Sprintf("update %v of %s", r, x.name), x.v.Update(ctx, make([]byte, r.Len()), r.Off, func(q []byte) (bool, error) {
			copy(q, p)
			return true, nil
		})
	case op < 10:
		x.h.write(r, 0)
		return fmt.Sprintf("discard %v of %s", r, x.name), x.v.Discard(ctx, r.Off, r.Len())
	case op < 13:
		return "flush " + x.name, flush()
	case op < 14:
		return fmt.Sprintf("read %v", r), x.v.ReadAt(ctx, p, r.Off)
	case op < 15:
		if w.cache == nil {
			return "", nil
		}
		return "commit the cache", w.cache.copy.commit(ctx)
	case op < 17:
		return w.copy(x, y, r)
	case op < 18:
		return w.resize(x)
	case op < 19:
		return "restart", w.restart(rnd.IntN(2) == 0)
	case op < 20:
		return w.evict(r)
	case op < 21:
		return w.decay(), nil
	case op < 23:
		named := []int{0, 1}
		if rnd.IntN(2) == 0 {
			named = named[rnd.IntN(2):][:1]
		}
		return w.snapshot(named)
	case op < 24:
		return w.rebase(rnd.IntN(2))
	case op < 25:
		return w.remove()
	case op < 29:
		return w.tidy()
	default:
		if w.db == nil {
			return "", nil
		}
		return "fold", w.db.fold()
	}
}

// evict lets a part of the cache leave.
func (w *world) evict(r block.Range) (what string, err error) {
	if w.cache == nil {
		return "", nil
	}
	w.settle() // what is being filled does not leave
	p := w.cache.pool
	p.evicting.Lock()
	defer p.evicting.Unlock()
	r = r.Outward(block.Size).Intersect(block.Range{Off: 0, End: w.cache.Size()})
	if !r.Empty() {
		w.cache.evict(r, w.cache.regions.last(r.Off))
	}
	return fmt.Sprintf("evict %v", r), w.cache.punchLeft()
}

// decay lets a byte of the copies rot, or of their sums, now and then.
func (w *world) decay() (what string) {
	if w.cache == nil || w.rnd.IntN(3) > 0 {
		return ""
	}
	f := w.cacheFile
	if w.rnd.IntN(4) == 0 {
		f = w.cacheSums
	}
	off := w.rnd.Int64N(f.size)
	if f == w.cacheSums {
		off %= w.cache.Size() / block.Size * 4
	}
	// Where nothing is, what is not zeros looks like space to be given back.
	if st, _ := w.cache.copy.at(off % w.cache.Size()); f == w.cacheFile && st != present {
		return ""
	}
	w.rotted = true
	f.rot(off)
	return fmt.Sprintf("rot at %d", off)
}

func (w *world) copy(x, y *worldVolume, r block.Range) (what string, err error) {
	from := r.Off
	if w.rnd.IntN(2) == 0 {
		from = block.Floor(w.rnd.Int64N(y.size), block.Size) + r.Off%block.Size
	}
	r.End = min(r.End, r.Off+y.size-from)
	overlap := x == y && from != r.Off && from < r.End && r.Off < from+r.Len()
	if r.Empty() || overlap {
		return "", nil
	}
	x.h.copy(r, y.h, from)
	done, err := x.v.CopyFrom(context.Background(), r.Off, y.v, from, r.Len())
	if err == nil && !done {
		err = errors.New("not done")
	}
	return fmt.Sprintf("copy %v of %s from %d of %s", r, x.name, from, y.name), err
}

// resize grows or shrinks x and then stores the new size. What is beyond a new
// end may be gone as soon as it begins.
func (w *world) resize(x *worldVolume) (what string, err error) {
	size := (max(w.imageSectors, 1) + w.rnd.Int64N(200)) * sector
	if size < x.size {
		x.h.write(block.Range{Off: min(block.Ceil(size, block.Size), x.size), End: x.size}, 0)
	}
	if err := x.v.Resize(context.Background(), size); err != nil {
		return "resize", err
	}
	w.settle() // growing commits, and holes are punched after that
	was := x.size
	err = w.transact(func(db *meta.DB) error { return db.ResizeVolume(x.name, size) }, func(r *records) {
		i := slices.Index(w.vols[:], x)
		r.vols[i].size = size
		r.layers[r.vols[i].top] = layerRecord{r.layers[r.vols[i].top].parent, size}
	})
	if err != nil {
		return "store the size", err
	}
	x.size, x.h = size, x.h.resize(size)
	return fmt.Sprintf("resize %s from %d to %d", x.name, was, size), nil
}

// restart stops in an orderly way or not, and starts again on the running
// system: everything that was answered is there.
func (w *world) restart(orderly bool) error {
	if orderly {
		for _, x := range w.vols {
			if err := x.v.Close(); err != nil {
				return err
			}
			w.settle()
			x.h.flushed()
		}
		for _, l := range w.allOpen() {
			if err := l.Close(); err != nil {
				return err
			}
		}
		if w.cache != nil {
			if err := w.cache.Close(); err != nil {
				return err
			}
		}
	} else {
		w.abandon()
	}
	if w.db != nil {
		if err := w.db.restart(orderly); err != nil {
			return err
		}
		w.cacheMap = w.db.newMap(cacheID)
	}
	for id, l := range w.layers {
		if _, ok := w.rec.layers[id]; !ok { // made for what then failed
			delete(w.layers, id)
		} else if w.db != nil {
			l.states = w.db.newMap(id)
		}
	}
	if err := w.open(); err != nil {
		return err
	}
	for _, x := range w.vols {
		latest := newHistory(int64(len(x.h)), x.h.last)
		got := make([]byte, x.size)
		if err := x.v.ReadAt(context.Background(), got, 0); err != nil {
			return err
		}
		if err := latest.check(got); err != nil {
			return fmt.Errorf("volume %s after a restart: %w", x.name, err)
		}
	}
	return nil
}
