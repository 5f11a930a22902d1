package overlay

import (
	"math"
	"sync"
	"sync/atomic"

	"skylun/block"
)

// A view is what a volume is made of at a time. It never changes: taking a
// snapshot, merging layers, resizing and closing put another one in its place. A
// call takes the view once and uses what is in it to its end, so nothing is
// missing or mixed from two.
//
//	top     the layer that is written to
//	just    sealed by a snapshot a moment ago, not in chain yet
//	chain   all sealed layers below, with one index over them
//
// A view counts the calls that use it. Who wants to close a file, or to punch
// holes that an old view still refers to, puts another view in place and waits
// for those that use the older ones. New calls never wait for that, however
// long an old one waits for the store.
//
// Calls that change something hold their regions, and who replaces top owns
// all of them. So within its regions a call finds the top that it may write to
// in the current view, whatever it took when it began.
type view struct {
	top   *Layer
	just  *Layer // nil: none
	chain *chain // nil: no sealed layers
	size  int64  // bytes

	// epoch tells views apart in which a byte below top may differ.
	epoch  uint64
	closed bool

	// sealed layers that may not be durable: a flush sees to it.
	unsynced []*Layer

	uses    atomic.Int64
	once    sync.Once
	drained chan struct{} // closed when the view is replaced and nobody uses it
}

// replaced is added to the uses of a view that is not the current one any more.
const replaced = math.MinInt64 / 2

// next returns a copy to be changed and put in w's place.
func (w *view) next() *view {
	return &view{top: w.top, just: w.just, chain: w.chain, size: w.size, epoch: w.epoch, closed: w.closed,
		unsynced: w.unsynced, drained: make(chan struct{})}
}

// use returns the current view; leave ends that.
//
// Whoever has counted itself and then still finds the view current is counted
// before it is replaced, and waited for. Others have used nothing of it.
func (v *Volume) use() *view {
	for {
		w := v.view.Load()
		w.uses.Add(1)
		if v.view.Load() == w {
			return w
		}
		w.leave()
	}
}

func (w *view) leave() {
	if w.uses.Add(-1) == replaced {
		w.once.Do(func() { close(w.drained) })
	}
}

// replace puts next in place of the current view. The caller holds changing.
func (v *Volume) replace(next *view) {
	v.retire(v.view.Swap(next))
}

// retire is told of a view that was replaced. The caller holds changing.
func (v *Volume) retire(old *view) {
	if old.uses.Add(replaced) == replaced {
		old.once.Do(func() { close(old.drained) })
	}
	kept := v.old[:0]
	for _, w := range append(v.old, old) {
		select {
		case <-w.drained:
		default:
			kept = append(kept, w)
		}
	}
	clear(v.old[min(len(kept), len(v.old)):])
	v.old = kept
}

// older returns what to wait for until nobody uses a view that was replaced
// before the call. The caller holds changing.
func (v *Volume) older() (drained []<-chan struct{}) {
	for _, w := range v.old {
		drained = append(drained, w.drained)
	}
	return drained
}

// at returns where the byte at off is: present in the layer l, zero, or absent,
// which is in the image. It is so up to end, and perhaps beyond.
func (w *view) at(off int64) (l *Layer, st state, end int64) {
	st, end = w.top.at(off)
	if st != absent {
		return w.top, st, end
	}
	if w.chain == nil && w.just == nil {
		return nil, absent, end
	}
	l, st, e := w.below(off)
	return l, st, min(end, e)
}

// below is at for what lies below top.
func (w *view) below(off int64) (l *Layer, st state, end int64) {
	end = math.MaxInt64
	if w.just != nil {
		if st, end = w.just.at(off); st != absent {
			return w.just, st, end
		}
	}
	if w.chain != nil {
		var e int64
		l, st, e = w.chain.at(off)
		end = min(end, e)
	}
	return l, st, end
}

// bare tells whether no sealed layer has any of r, which is not empty.
func (w *view) bare(r block.Range) bool {
	for off := r.Off; off < r.End; {
		_, st, end := w.below(off)
		if st != absent {
			return false
		}
		off = end
	}
	return true
}

// failure returns why nothing can be made durable any more, or nil.
func (w *view) failure() error {
	if err := w.failureBelow(); err != nil {
		return err
	}
	return w.top.failure()
}

// failureBelow is failure of what was sealed. A layer that failed after all of it
// was durable, in a merge, has lost nothing.
func (w *view) failureBelow() error {
	for _, l := range w.unsynced { // as a rule there is none
		if err := l.failure(); err != nil && !l.durable.Load() {
			return err
		}
	}
	return nil
}

// layers returns all layers, lowest first.
func (w *view) layers() (all []*Layer) {
	if w.chain != nil {
		all = append(all, w.chain.layers...)
	}
	if w.just != nil {
		all = append(all, w.just)
	}
	return append(all, w.top)
}
