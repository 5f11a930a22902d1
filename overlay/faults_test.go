package overlay

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"syscall"
	"testing"

	"skylun/block"
	"skylun/test/devicetest"
)

// fault lets one call of files and maps fail, counted over all of them. A write
// that fails has written a part.
type fault struct {
	mu    sync.Mutex
	at    int // guarded by mu: which call
	calls int // guarded by mu: so far
	op    string
	err   error
}

func (f *fault) call(op string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.calls++; f.calls != f.at {
		return nil
	}
	f.op = op
	return fmt.Errorf("%s: injected: %w", op, f.err)
}

// met tells whether the call that fails has come, and forgets it.
func (f *fault) met() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.op != ""
}

// TestFaultsEverywhere lets every call of random operations fail in turn, with a
// full disk and with a broken one. Who asked for the operation is told what it
// was; nothing that was flushed is lost, also when the power is cut later; what
// a failed write leaves in a sector is the old or the new; and the volume goes
// on, unless nobody knows any more what is on disk.
func TestFaultsEverywhere(t *testing.T) {
	first, dir := devicetest.Seed(t), crashDir(t)
	seeds := uint64(6)
	if testing.Short() || raceEnabled {
		seeds = 1
	}
	met := map[string]int{}
	all := func() bool {
		for _, op := range faultOps {
			if met[op] == 0 {
				return false
			}
		}
		return true
	}
	// Some operations are rare: a few more seeds until each has failed.
	for seed := first; seed < first+seeds || seeds > 1 && seed < first+5*seeds && !all(); seed++ {
		for _, kind := range []struct{ cause, want error }{
			{syscall.ENOSPC, block.ErrNoSpace}, {syscall.EIO, block.ErrMedium},
		} {
			for at := 1; ; at++ {
				f := &fault{at: at, err: kind.cause}
				if err := faultRun(seed, dir, f, kind.want); err != nil {
					t.Fatalf("-devicetest.seed=%d, call %d (%s) fails with %q: %v", seed, at, f.op, kind.cause, err)
				}
				if !f.met() {
					break
				}
				met[f.op]++
			}
		}
	}
	t.Log(met)
	for _, op := range faultOps {
		if met[op] == 0 && seeds > 1 {
			t.Errorf("no %s ever failed", op)
		}
	}
}

// faultOps are the calls that can fail.
var faultOps = []string{"read", "write", "sync", "punch", "resize", "note", "append", "trim", "redo read", "redo write", "redo sync", "redo create"}

var errNoCuts = errors.New("no power cuts by themselves")

// inject makes the calls of everything in w go through f.
func (w *world) inject(f *fault) {
	w.fault = f.call
	for _, l := range w.layers {
		l.hook(w)
	}
	w.cacheFile.failing, w.cacheSums.failing = f.call, f.call
	w.cacheMap.(*memMap).failing = f.call
}

// faultRun does random operations while f applies.
func faultRun(seed uint64, dir string, f *fault, want error) error {
	return faultRunOn(0, seed, dir, f, want)
}

// faultRunOn is faultRun with layers on arrays of members.
func faultRunOn(members int, seed uint64, dir string, f *fault, want error) error {
	rnd := rand.New(rand.NewPCG(seed, 23))
	sectors := 40 + rnd.Int64N(100)
	w, err := newWorld(worldConfig{sectors: sectors, imageSectors: sectors * rnd.Int64N(2), cached: true, dir: dir, members: members, redo: rnd.IntN(3) > 0}, rnd)
	if err != nil {
		return err
	}
	w.err = errNoCuts
	w.inject(f)
	done := false
	for op := range 50 {
		before := [2]history{w.vols[0].h.clone(), w.vols[1].h.clone()}
		what, err := w.step()
		w.settle()
		grow := members > 0 && strings.HasPrefix(what, "resize") // an array syncs when it makes a file longer
		if grow && done && f.op == "note" && errors.Is(err, f.err) {
			// The file of the notes could not be synced, and cannot from then on. Else
			// nobody syncs it.
			continue
		}
		if err != nil && (done || !f.met()) {
			return fmt.Errorf("operation %d, %s: %w, although nothing fails", op, what, err)
		}
		if done || !f.met() {
			continue
		}
		done = true
		want := want
		if strings.HasPrefix(f.op, "redo") && !errors.Is(err, want) { // what cannot be made void ends durability
			want = block.ErrMedium
		}
		if (f.op == "sync" || f.op == "store") && !(grow && errors.Is(err, want)) { // where chunks are belongs to a sync
			want = block.ErrMedium // what is on disk is not known, whatever the cause
		}
		if grow && errors.Is(err, block.ErrMedium) { // that sync may meet it anywhere
			want = block.ErrMedium
		}
		if err != nil && !errors.Is(err, want) {
			return fmt.Errorf("operation %d, %s: %w, want %w", op, what, err, want)
		}
		if w, err = w.recover(before, what, err); err != nil {
			return fmt.Errorf("after operation %d, %s: %w", op, what, err)
		}
	}
	left, err := w.cut(false)
	w.abandon()
	if err == nil {
		err = left.verify()
	}
	if err == nil {
		err = left.close()
	}
	return err
}

// lost tells whether a layer cannot be read until it is opened again.
func (w *world) lost() bool {
	for _, l := range w.allOpen() {
		if l.lost.Load() != nil {
			return true
		}
	}
	return false
}

// recover looks at what an operation that met a fault has left, and goes on.
func (w *world) recover(before [2]history, what string, failed error) (*world, error) {
	ctx := context.Background()
	if what == "restart" && failed != nil { // the next try
		w.abandon()
		return w, w.open()
	}
	if failed != nil {
		for i, x := range w.vols {
			// Each sector holds what it did, or what it was to hold.
			allowed := newHistory(int64(len(x.h)), x.h.last)
			for s := range min(len(allowed), len(before[i])) {
				allowed[s] = append(allowed[s], before[i].last(int64(s)))
			}
			got := make([]byte, x.v.Size())
			if err := x.v.ReadAt(ctx, got, 0); errors.Is(err, block.ErrMedium) && w.lost() {
				continue
			} else if err != nil {
				return w, err
			}
			if err := allowed.resize(x.v.Size()).check(got); err != nil {
				return w, fmt.Errorf("volume %s: %w", x.name, err)
			}
			x.h = x.h.resize(x.v.Size())
			for s := range x.h {
				value, _ := sectorValue(got[s*sector:])
				x.h[s] = append(x.h[s], value)
			}
		}
	}
	broken := w.cache != nil && w.cache.copy.failure() != nil // keeps no more copies
	for _, l := range w.allOpen() {
		broken = broken || l.failure() != nil // does not merge any more
	}
	for _, x := range w.vols {
		if x.v.view.Load().failure() == nil {
			continue
		}
		broken = true
		for what, err := range map[string]error{
			"write": x.v.WriteAt(ctx, make([]byte, sector), 0), "discard": x.v.Discard(ctx, 0, sector),
			"update": x.v.Update(ctx, make([]byte, sector), 0, func([]byte) (bool, error) { return true, nil }),
			"flush":  x.v.Flush(ctx), "resize": x.v.Resize(ctx, x.size+sector),
		} {
			if !errors.Is(err, block.ErrMedium) {
				return w, fmt.Errorf("%s of a volume that cannot be believed: %w", what, err)
			}
		}
	}
	if !broken {
		return w, nil
	}
	left, err := w.fall()
	left.err = errNoCuts
	return left, err
}
