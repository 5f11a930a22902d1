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
//  3. extend the index, then let the new size be seen
//
// Shrinking:
//
//  1. let the new size be seen, and wait for writes that saw the old one
//  2. trim the durable map, then pending changes and the index. A round that
//     ran beside this could append again what was trimmed.
//  3. give the space back: earlier, a crash would leave extents whose bytes
//     are gone
func (v *Volume) Resize(ctx context.Context, size int64) error {
	leave, err := v.enter(0, 0)
	if err != nil {
		return err
	}
	defer leave()
	v.resizing.Lock()
	defer v.resizing.Unlock()
	old := v.size.Load()
	switch {
	case size <= 0:
		err = fmt.Errorf("resize to %d bytes: %w", size, block.ErrOutOfRange)
	case v.base != nil && size < v.base.ImageSize():
		err = fmt.Errorf("resize to %d bytes, less than the %d of its image: %w", size, v.base.ImageSize(), block.ErrOutOfRange)
	case size > old:
		err = v.grow(ctx, old, size)
	case size < old:
		err = v.shrink(old, size)
	}
	return v.wrap(err)
}

func (v *Volume) grow(ctx context.Context, old, size int64) error {
	if end := block.Ceil(old, block.Size); end > old {
		r := block.Range{Off: old, End: end}
		v.own(r)
		err := v.layer.failure()
		if st, _ := v.layer.at(old); err == nil && st == present {
			err = v.layer.write(make([]byte, r.Len()), r.Off)
		}
		v.disown(r)
		if err != nil {
			return err
		}
	}
	if err := v.layer.commit(ctx); err != nil {
		return err
	}
	if err := v.layer.grow(old, size); err != nil {
		return err
	}
	v.size.Store(size)
	return nil
}

func (v *Volume) shrink(old, size int64) error {
	if err := v.layer.failure(); err != nil {
		return err
	}
	v.size.Store(size)
	gone := block.Range{Off: size, End: old}
	v.own(gone)
	v.disown(gone)
	if err := v.layer.shrink(size); err != nil {
		v.size.Store(old)
		return err
	}
	gone = block.Range{Off: block.Ceil(size, block.Size), End: block.Ceil(old, block.Size)}
	if err := v.layer.release(gone); err != nil && v.punchLog.now() {
		v.log.Warn("cannot give back the space of what was cut off", "volume", v.name, "error", err)
	}
	return nil
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
	s.alone.Lock()
	defer s.alone.Unlock()
	if err := s.disk.Trim(size); err != nil {
		return s.mapError(err)
	}
	end := block.Ceil(size, block.Size)
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range s.pending {
		s.pending[i].End = min(s.pending[i].End, end)
	}
	s.pending = slices.DeleteFunc(s.pending, func(e Extent) bool { return e.Off >= e.End })
	s.index.resize(end / block.Size)
	return nil
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
