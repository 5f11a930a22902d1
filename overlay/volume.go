package overlay

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"

	"skylun/block"
)

// Config says what Open opens.
type Config struct {
	Name   string   // for messages
	Size   int64    // bytes; at least that of the image
	Layers []*Layer // lowest first; the last one is written to, by this volume alone, and of the volume's size
	Base   *Cache   // what lies below all of them; nil: zeros
	Log    *slog.Logger
}

// Volume is a disk that can be written: layers over the cache of an image or
// over zeros. It is a block.Device.
type Volume struct {
	name string
	base *Cache
	log  *slog.Logger

	view atomic.Pointer[view]

	// changing is held by what replaces the view; that of several volumes is
	// taken in ascending order of their numbers. Before regions.
	changing sync.Mutex
	old      []*view        // guarded by changing: replaced, perhaps still used
	work     sync.WaitGroup // what the volume does by itself

	// regions serialise what decides by a block's state and then changes it.
	// A write that covers whole blocks, or parts of blocks that are present,
	// holds its regions shared, so such writes run in parallel. Filling up a
	// block, discarding and punching hold theirs exclusively. They are taken
	// in ascending order.
	regions [regionLocks]sync.RWMutex
	number  uint64  // regions of several volumes are taken in ascending order of it
	changes changes // that reads must not see half of

	follower *follower // of what is read of the image; nil: there is none

	hits, misses atomic.Int64 // reads of the image

	punchLog sparingly
}

// Stats are figures of a Volume or a Layer in bytes; they add up to its size in
// whole blocks.
type Stats struct {
	Owned  int64 `json:"owned_bytes"`  // in its layers
	Zero   int64 `json:"zero_bytes"`   // discarded
	Cached int64 `json:"cached_bytes"` // of the image, and local
	Absent int64 `json:"absent_bytes"` // of the image, and only in the store; or blank
	Far    int64 `json:"far_bytes"`    // of Absent: only in the store

	// Since the volume was opened.
	Hits   int64 `json:"hits"`         // reads of the image that were answered without the store
	Misses int64 `json:"misses"`       // and that waited for it
	Shared int64 `json:"shared_bytes"` // not fetched for it, because another volume of the image had them fetched
}

// Open opens a volume. Its layers stay the caller's to close, after the volume.
func Open(cfg Config) (*Volume, error) {
	if cfg.Base != nil && cfg.Base.ImageSize() > cfg.Size {
		return nil, fmt.Errorf("volume %s: its size %d is less than the %d of its image", cfg.Name, cfg.Size, cfg.Base.ImageSize())
	}
	v := &Volume{name: cfg.Name, number: volumes.Add(1), base: cfg.Base, log: cfg.Log}
	w, err := v.over(cfg.Layers, cfg.Size)
	if err != nil {
		return nil, v.wrap(err)
	}
	if v.base != nil {
		v.follower = newFollower(v.base)
	}
	v.view.Store(w)
	return v, nil
}

// over returns a view of layers, the last of which v writes to from now on.
func (v *Volume) over(layers []*Layer, size int64) (*view, error) {
	if len(layers) == 0 {
		return nil, errors.New("no layer to write to")
	}
	below, top := slices.Clone(layers[:len(layers)-1]), layers[len(layers)-1]
	if len(layers) > chainSlots {
		return nil, fmt.Errorf("%d layers, at most %d", len(layers), chainSlots)
	}
	for _, l := range below {
		if l.claimed.Load() && !l.sealed.Load() {
			return nil, fmt.Errorf("layer %s is being written to", l.name)
		}
	}
	if top.Size() != size {
		return nil, fmt.Errorf("layer %s has %d bytes, not the %d of the volume", top.name, top.Size(), size)
	}
	if err := top.claim(v); err != nil {
		return nil, err
	}
	w := &view{top: top, size: size, unsynced: undurable(below), drained: make(chan struct{})}
	for _, l := range below {
		l.seal()
	}
	w.chain = newChain(below)
	return w, nil
}

// Size implements block.Reader.
func (v *Volume) Size() int64 { return v.view.Load().size }

// Stats returns the figures now.
func (v *Volume) Stats() (s Stats) {
	w := v.view.Load()
	s.Hits, s.Misses = v.hits.Load(), v.misses.Load()
	if v.follower != nil {
		s.Shared = v.follower.shared.Load()
	}
	if v.base == nil && w.chain == nil && w.just == nil {
		return w.top.Stats()
	}
	for off, size := int64(0), block.Ceil(w.size, block.Size); off < size; {
		_, st, end := w.at(off)
		end = min(end, size)
		sum := &s.Absent
		switch {
		case st == present:
			sum = &s.Owned
		case st == zero:
			sum = &s.Zero
		case v.base != nil && off < v.base.Size():
			if st, end = v.base.far(off, end); st != absent {
				sum = &s.Cached
			} else {
				s.Far += end - off
			}
		}
		*sum += end - off
		off = end
	}
	return s
}

// Flush implements block.Device.
func (v *Volume) Flush(ctx context.Context) error {
	w, err := v.enter(0, 0)
	if err != nil {
		return err
	}
	defer w.leave()
	return v.wrap(w.commit(ctx, false))
}

// commit makes durable what was written to the layers of w, without the redo log
// of the top one if large says so.
func (w *view) commit(ctx context.Context, large bool) error {
	for _, l := range w.unsynced {
		if l.durable.Load() {
			continue
		}
		if err := l.commit(ctx); err != nil {
			return err
		}
	}
	return w.top.commitIn(ctx, large)
}

// Close makes everything durable. Calls under way end first, calls after it fail
// with block.ErrClosed.
func (v *Volume) Close() error {
	v.changing.Lock()
	if v.view.Load().closed {
		v.changing.Unlock()
		return nil
	}
	w := v.view.Load().next()
	w.closed = true
	v.replace(w)
	older := v.older()
	v.changing.Unlock()
	wait(context.Background(), older)
	v.SetPrefetch(PrefetchOff, false)
	v.work.Wait()
	return v.wrap(w.commit(context.Background(), false))
}

// enter begins a call on [off, off+n), which uses the view until it leaves it.
func (v *Volume) enter(off, n int64) (*view, error) {
	w := v.use()
	if err := w.admit(off, n); err != nil {
		w.leave()
		return nil, v.wrap(err)
	}
	return w, nil
}

// admit tells whether a call on [off, off+n) may go on.
func (w *view) admit(off, n int64) error {
	if w.closed {
		return block.ErrClosed
	}
	return block.CheckRange(off, n, w.size)
}

// within tells whether r is within the volume now. The caller holds r's
// regions, so it stays that way until they are given back.
func (v *Volume) within(r block.Range) error { return block.CheckRange(r.Off, r.Len(), v.Size()) }

func (v *Volume) wrap(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("volume %s: %w", v.name, err)
}

var (
	_ block.Device     = (*Volume)(nil)
	_ block.TryReader  = (*Volume)(nil)
	_ block.TryWriter  = (*Volume)(nil)
	_ block.DataRanger = (*Volume)(nil)

	_ block.Updater       = (*Volume)(nil)
	_ block.Copier        = (*Volume)(nil)
	_ block.Prefetcher    = (*Volume)(nil)
	_ block.SpaceReporter = (*Volume)(nil)
)
