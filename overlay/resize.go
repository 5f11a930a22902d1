package overlay

import (
	"context"
	"fmt"
	"slices"

	"skylun/block"
)

// Resize makes the volume size bytes long while it is in use. What it grows by
// reads as zeros. What it loses is discarded, and a write that is under way
// there fails with block.ErrOutOfRange. It cannot become smaller than its
// image.
//
// The caller stores the new size after Resize has returned. A crash before
// that leaves the old size: what was to be added is not there, the blocks that
// were to be cut off read as they did, or as zeros.
//
// Growing, in this order:
//
//  1. clear what a partial last block holds behind the old end, and commit:
//     bytes that were cut off earlier must not come back
//  2. extend file and notes; behind the old end the notes hold nothing, and
//     the file is not asked, because the blocks are absent
//  3. extend the index
//  4. hide what sealed layers hold behind the old end, from a time when the
//     volume was larger, and commit
//  5. let the new size be seen
//
// Shrinking:
//
//  1. let the new size be seen, and wait for writes that saw the old one
//  2. trim the durable map, then pending changes and the index. A round that
//     ran beside this could append again what was trimmed, and so could what is
//     in the redo log: a large round empties it before.
//  3. give the space back: earlier, a crash would leave extents whose bytes
//     are gone
//
// Over sealed layers nothing is trimmed: a crash before the new size is stored
// would show what they hold. What is cut off is discarded instead, and that stays
// in the durable map, beyond the end, until the volume grows again.
func (v *Volume) Resize(ctx context.Context, size int64) error {
	w, err := v.enter(0, 0)
	if err != nil {
		return err
	}
	defer w.leave()
	v.changing.Lock()
	defer v.changing.Unlock()
	old := v.Size()
	switch {
	case size <= 0:
		err = fmt.Errorf("resize to %d bytes: %w", size, block.ErrOutOfRange)
	case v.base != nil && size < v.base.ImageSize():
		err = fmt.Errorf("resize to %d bytes, less than the %d of its image: %w", size, v.base.ImageSize(), block.ErrOutOfRange)
	case size > old:
		err = v.grow(ctx, old, size)
	case size < old:
		err = v.shrink(ctx, old, size)
	}
	return v.wrap(err)
}

// resized lets another size be seen.
func (v *Volume) resized(size int64) {
	next := v.view.Load().next()
	next.size = size
	v.replace(next)
}

func (v *Volume) grow(ctx context.Context, old, size int64) error {
	if err := v.clearTail(old); err != nil {
		return err
	}
	w := v.view.Load()
	if err := w.commit(ctx, true); err != nil {
		return err
	}
	if err := w.top.grow(old, size); err != nil {
		return err
	}
	if gained := (block.Range{Off: block.Ceil(old, block.Size), End: block.Ceil(size, block.Size)}); !gained.Empty() && !w.bare(gained) {
		err := w.top.mark(gained, zero)
		if err == nil {
			err = w.commit(ctx, true)
		}
		if err != nil {
			w.top.truncate(old)
			return err
		}
	}
	w.top.size.Store(size)
	v.resized(size)
	return nil
}

// clearTail makes zeros of what the last block holds behind the end of the
// volume, if it is not whole.
func (v *Volume) clearTail(size int64) error {
	r := block.Range{Off: size, End: block.Ceil(size, block.Size)}
	if r.Empty() {
		return nil
	}
	v.own(r)
	defer v.disown(r)
	w := v.view.Load()
	if err := w.failure(); err != nil {
		return err
	}
	switch l, st, _ := w.at(size); {
	case st != present: // also the image has nothing there
		return nil
	case l == w.top:
		return w.write(make([]byte, r.Len()), r.Off)
	default:
		var p [block.Size]byte
		b := r.Outward(block.Size)
		if _, err := l.read(p[:r.Off-b.Off], b.Off, true); err != nil {
			return err
		}
		if err := w.write(p[:], b.Off); err != nil {
			return err
		}
		return w.top.mark(b, present)
	}
}

func (v *Volume) shrink(ctx context.Context, old, size int64) error {
	if err := v.view.Load().failure(); err != nil {
		return err
	}
	v.resized(size)
	gone := block.Range{Off: size, End: old}
	v.own(gone)
	v.disown(gone)
	w := v.view.Load()
	gone = block.Range{Off: block.Ceil(size, block.Size), End: block.Ceil(old, block.Size)}
	var err error
	if gone.Empty() || w.bare(gone) {
		err = w.top.shrink(size)
	} else if err = v.markZero(gone); err == nil {
		if err = w.commit(ctx, true); err == nil {
			w.top.truncate(size)
		}
	}
	if err != nil {
		v.resized(old)
		return err
	}
	w.top.size.Store(size)
	if err := w.top.release(gone); err != nil && v.punchLog.now() {
		v.log.Warn("cannot give back the space of what was cut off", "volume", v.name, "error", err)
	}
	return nil
}

// truncate forgets what is beyond size, but not durably. Nobody writes there any
// more.
func (s *sparse) truncate(size int64) {
	s.alone.Lock()
	defer s.alone.Unlock()
	s.excess = true
	s.truncateLocked(size)
}

// truncateLocked forgets what is beyond size. The caller holds alone.
func (s *sparse) truncateLocked(size int64) {
	end := block.Ceil(size, block.Size)
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range s.pending {
		s.pending[i].End = min(s.pending[i].End, end)
	}
	s.pending = slices.DeleteFunc(s.pending, func(e Extent) bool { return e.Off >= e.End })
	s.index.resize(end / block.Size)
}

// grow makes room for size bytes, up to now old.
func (s *sparse) grow(old, size int64) error {
	s.alone.Lock()
	defer s.alone.Unlock()
	if s.excess { // of a resize that a crash ended
		if err := s.disk.Trim(old); err != nil {
			return localError(err)
		}
		s.excess = false
	}
	if err := s.file.Resize(block.Ceil(size, block.Size)); err != nil {
		// It may have been a sync of the file that failed.
		if syncErr := s.file.Sync(); syncErr != nil {
			return s.fail(s.distrust(fmt.Errorf("sync: %w", syncErr)))
		}
		return localError(err)
	}
	if s.notes != nil {
		// To the old size first: where that failed when it was cut off, what
		// was noted behind it would come back.
		for _, n := range []int64{old, size} {
			if err := s.notes.Resize(NotesSize(n)); err != nil {
				return localError(err)
			}
		}
	}
	s.mu.Lock()
	s.index.resize(block.Ceil(size, block.Size) / block.Size)
	s.mu.Unlock()
	return nil
}

// shrink forgets what is beyond size, durably. Nobody writes there any more.
func (s *sparse) shrink(size int64) error {
	emptied, err := s.shrinkAlone(size)
	s.giveBack(emptied)
	return err
}

func (s *sparse) shrinkAlone(size int64) (emptied []Extent, err error) {
	s.alone.Lock()
	defer s.alone.Unlock()
	if s.redo != nil {
		if emptied, err = s.roundAlone(true); err != nil {
			return nil, err
		}
	}
	if err := s.disk.Trim(size); err != nil {
		return emptied, s.mapError(err)
	}
	s.truncateLocked(size)
	return emptied, nil
}

// release gives back the space of gone, which was cut off the end.
func (s *sparse) release(gone block.Range) error {
	if s.notes != nil {
		if err := s.notes.Resize(NotesSize(gone.Off)); err != nil {
			return localError(err)
		}
	}
	if !gone.Empty() {
		if err := s.file.Punch(gone.Off, gone.Len()); err != nil {
			return localError(err)
		}
	}
	return localError(s.file.Resize(gone.Off))
}
