package overlay

import (
	"context"

	"skylun/block"
)

// copyPiece is how much is copied at a time, and at most held in memory. Pieces
// end on multiples of it in the destination, so they take few region locks.
const copyPiece = regionSize

// CopyFrom implements block.Copier for sources that are volumes of this
// package, when both ranges begin at the same place of a block. What the source
// holds is done with the least that is needed:
//
//	zeros                              become zeros, without data
//	the image's, at the same offset
//	of the same image                  become the image's: absent again
//	the image's otherwise              is read from its cache and written
//	the layer's                        is copied by the file system, without a
//	                                   way through memory where that can do it
//
// Parts of blocks at the ends are read and written. After an error each logical
// block of the range holds its old or its new bytes.
func (v *Volume) CopyFrom(ctx context.Context, off int64, src block.Reader, from, n int64) (done bool, err error) {
	s, ok := src.(*Volume)
	if !ok || off%block.Size != from%block.Size {
		return false, nil
	}
	leave, err := v.enter(off, n)
	if err != nil {
		return true, err
	}
	defer leave()
	// Not waiting: two volumes that copy from each other, and are closed,
	// would wait for one another.
	if s != v && !s.gate.TryRLock() {
		return true, s.wrap(block.ErrClosed)
	} else if s != v {
		defer s.gate.RUnlock()
	}
	if err := s.admit(from, n); err != nil {
		return true, err
	}
	if s == v && off == from {
		return true, nil
	}
	c := copying{ctx: ctx, to: v, from: s, shift: from - off}
	head, whole, tail := split(block.Range{Off: off, End: off + n})
	if err = c.part(head); err == nil {
		err = c.blocks(whole)
	}
	if err == nil {
		err = c.part(tail)
	}
	return true, v.wrap(err)
}

// copying is a copy under way. Its ranges are those of the destination.
type copying struct {
	ctx      context.Context
	to, from *Volume
	shift    int64  // what is to be at off is at off+shift
	buf      []byte // nil until it is needed
}

func (c *copying) source(r block.Range) block.Range {
	return block.Range{Off: r.Off + c.shift, End: r.End + c.shift}
}

func (c *copying) buffer(n int64) []byte {
	if c.buf == nil {
		c.buf = make([]byte, copyPiece)
	}
	return c.buf[:n]
}

// part copies a part of a block.
func (c *copying) part(r block.Range) error {
	if r.Empty() {
		return nil
	}
	p := c.buffer(r.Len())
	if err := c.from.readQuiet(c.ctx, p, r.Off+c.shift); err != nil {
		return err
	}
	return c.to.writePart(c.ctx, p, r.Off)
}

// blocks copies whole blocks.
func (c *copying) blocks(r block.Range) error {
	for off := r.Off; off < r.End; {
		if err := c.ctx.Err(); err != nil {
			return err
		}
		r := block.Range{Off: off, End: min(r.End, block.Floor(off, copyPiece)+copyPiece)}
		end, done, err := c.piece(r)
		if err != nil {
			return err
		}
		if done { // else the source has changed meanwhile: look again
			off = end
		}
	}
	return nil
}

// piece copies the beginning of r, up to end, that is alike in the source. done
// is false when it was not any more after it was looked at.
func (c *copying) piece(r block.Range) (end int64, done bool, err error) {
	v, s := c.to, c.from
	st, e := s.layer.at(r.Off + c.shift)
	r.End = min(r.End, e-c.shift)
	do := v.markZero
	switch {
	case st == present:
		do = c.file
	case st == absent && c.shift == 0 && s.base == v.base:
		do = v.refer
	case st == absent:
		below, e := s.below(r.Off+c.shift, r.End+c.shift)
		r.End = e - c.shift
		if below != present {
			break
		}
		// Before anything is locked: it may take as long as the store.
		p := c.buffer(r.Len())
		if err := s.readBase(c.ctx, p, r.Off+c.shift); err != nil {
			return 0, false, err
		}
		do = func(r block.Range) error { _, err := v.put(p, r); return err }
	}
	unlock := ownAndShare(v, r, s, c.source(r))
	defer unlock()
	if err := v.within(r); err != nil {
		return 0, false, err
	}
	if err := s.within(c.source(r)); err != nil {
		return 0, false, err
	}
	if err := v.layer.failure(); err != nil {
		return 0, false, err
	}
	if !s.layer.all(c.source(r), st) {
		return 0, false, nil
	}
	return r.End, true, do(r)
}

// file copies blocks that are present in the source's layer. Both are locked.
func (c *copying) file(r block.Range) error {
	l := c.to.layer
	done, err := l.copyFrom(r.Off, c.from.layer, r.Off+c.shift, r.Len())
	if !done && err == nil {
		p := c.buffer(r.Len())
		if _, err = c.from.layer.read(p, r.Off+c.shift, true); err == nil {
			err = l.write(p, r.Off)
		}
	}
	if err != nil || l.all(r, present) {
		return err
	}
	return l.mark(r, present)
}

// refer makes whole blocks the image's again. The caller owns r.
//
// What is in the file stays until that is durable; only then its space is given
// back. So after a crash a block is either present with what it held, or
// absent.
func (v *Volume) refer(r block.Range) error {
	for off := r.Off; off < r.End; {
		st, end := v.layer.at(off)
		end = min(end, r.End)
		if st != absent {
			if err := v.layer.mark(block.Range{Off: off, End: end}, absent); err != nil {
				return err
			}
		}
		off = end
	}
	return nil
}

// copyFrom has the file system copy n bytes of src at from to off; done is false
// when it cannot.
func (s *sparse) copyFrom(off int64, src *sparse, from, n int64) (done bool, err error) {
	f, ok := s.file.(interface {
		CopyFrom(off int64, src any, from, n int64) (done bool, err error)
	})
	if !ok {
		return false, nil
	}
	done, err = f.CopyFrom(off, src.file, from, n)
	s.wrote.Store(true)
	return done, localError(err)
}
