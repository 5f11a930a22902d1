package overlay

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"skylun/block"
)

// Step is a volume and the new, empty layer that it is to write to, of the
// volume's size.
type Step struct {
	Volume *Volume
	Top    *Layer
}

// Switch gives each volume a new layer on top, all at one instant: a write that
// was answered before is below for all of them, one that begins after it is
// above for all. It does everything or nothing. held is how long writes were
// held.
//
// What lies under the new layers is sealed from then on; Seal makes it durable,
// and a Flush of a volume does.
//
// While writes are held views are exchanged, and nothing else is done: all
// that takes memory or time is done before or after. The layer that was just
// sealed is laid into the combined index afterwards; a Switch that comes before
// that is done does it first.
func Switch(steps []Step) (held time.Duration, err error) {
	steps = slices.Clone(steps)
	slices.SortFunc(steps, func(a, b Step) int { return cmp.Compare(a.Volume.number, b.Volume.number) })
	next := make([]*view, len(steps))
	for i, s := range steps {
		if i > 0 && s.Volume == steps[i-1].Volume {
			return 0, s.Volume.wrap(errors.New("named twice"))
		}
		s.Volume.changing.Lock()
		defer s.Volume.changing.Unlock()
		if next[i], err = s.prepare(); err != nil {
			for _, s := range steps[:i] {
				s.Top.unclaim()
			}
			return 0, s.Volume.wrap(err)
		}
	}
	old := make([]*view, len(steps))
	start := time.Now()
	for _, s := range steps {
		s.Volume.ownAll()
	}
	for i, s := range steps {
		old[i] = s.Volume.view.Swap(next[i])
	}
	for _, s := range steps {
		s.Volume.disownAll()
	}
	held = time.Since(start)
	for i, s := range steps {
		s.Volume.retire(old[i])
		next[i].just.lieOver(next[i].unsynced)
		next[i].just.sealed.Store(true)
		s.Volume.work.Go(func() {
			s.Volume.changing.Lock()
			defer s.Volume.changing.Unlock()
			s.Volume.combine()
		})
	}
	return held, nil
}

// prepare returns the view that a volume is to have after it was switched. The
// caller holds changing.
func (s Step) prepare() (*view, error) {
	v := s.Volume
	if v.view.Load().closed {
		return nil, block.ErrClosed
	}
	if err := v.view.Load().failure(); err != nil {
		return nil, err
	}
	v.combine()
	w := v.view.Load()
	if w.chain != nil && len(w.chain.layers)+2 > chainSlots {
		return nil, fmt.Errorf("there are %d layers already", chainSlots)
	}
	if s.Top.Size() != w.size {
		return nil, fmt.Errorf("new layer %s has %d bytes, not the %d of the volume", s.Top.name, s.Top.Size(), w.size)
	}
	if err := s.Top.claim(v); err != nil {
		return nil, err
	}
	next := w.next()
	next.epoch++
	next.just, next.top = w.top, s.Top
	next.unsynced = append(undurable(w.unsynced), w.top)
	return next, nil
}

// undurable returns those of the layers that may not be durable.
func undurable(layers []*Layer) (left []*Layer) {
	for _, l := range layers {
		if !l.durable.Load() {
			left = append(left, l)
		}
	}
	return left
}

// combine lays the layer that was just sealed into the combined index. The
// caller holds changing.
func (v *Volume) combine() {
	w := v.view.Load()
	if w.just == nil {
		return
	}
	next := w.next()
	next.chain, next.just = w.chain.with(w.just), nil
	next.unsynced = undurable(w.unsynced)
	v.replace(next)
}

// Rebase makes the volume read and write through other layers, as Config.Layers
// says, and of another size, at one instant. Calls that are under way may go on to
// read what it held before: those layers can be closed after Settled.
func (v *Volume) Rebase(ctx context.Context, layers []*Layer, size int64) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return v.wrap(v.rebase(layers, size))
}

func (v *Volume) rebase(layers []*Layer, size int64) error {
	v.changing.Lock()
	defer v.changing.Unlock()
	w := v.view.Load()
	if w.closed {
		return block.ErrClosed
	}
	if v.base != nil && size < v.base.ImageSize() {
		return fmt.Errorf("%d bytes, less than the %d of its image: %w", size, v.base.ImageSize(), block.ErrOutOfRange)
	}
	next, err := v.over(layers, size)
	if err != nil {
		return err
	}
	next.epoch = w.epoch + 1
	v.ownAll()
	old := v.view.Swap(next)
	v.disownAll()
	v.retire(old)
	old.top.sealed.Store(true)
	return nil
}

// Settled returns when all calls have ended that were under way when it was called,
// or with ctx. One that waits for the store ends when that has answered, or when who
// has called gives up.
func (v *Volume) Settled(ctx context.Context) error {
	v.changing.Lock()
	v.replace(v.view.Load().next()) // the current one may have been that of a moment ago
	older := v.older()
	v.changing.Unlock()
	return wait(ctx, older)
}

// wait returns when nobody uses views any more that were replaced.
func wait(ctx context.Context, older []<-chan struct{}) error {
	for _, drained := range older {
		select {
		case <-drained:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}
