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
//	of the same image                  become the image's: absent again, where no
//	                                   sealed layer has them
//	the image's otherwise              is read from its cache and written
//	a layer's                          is copied by the file system, without a
//	                                   way through memory where that can do it
//
// Parts of blocks at the ends are read and written. After an error each logical
// block of the range holds its old or its new bytes.
func (v *Volume) CopyFrom(ctx context.Context, off int64, src block.Reader, from, n int64) (done bool, err error) {
	s, ok := src.(*Volume)
	if !ok || off%block.Size != from%block.Size {
		return false, nil
	}
	w, err := v.enter(off, n)
	if err != nil {
		return true, err
	}
	defer w.leave()
	ws, err := s.enter(from, n)
	if err != nil {
		return true, err
	}
	defer ws.leave()
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
	w := c.from.use()
	err := c.from.readQuiet(c.ctx, w, p, r.Off+c.shift)
	w.leave()
	if err != nil {
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
// is false when it was not any more after it was looked at, or something else
// lies below.
func (c *copying) piece(r block.Range) (end int64, done bool, err error) {
	v, s := c.to, c.from
	ws := s.use()
	defer ws.leave()
	l, st, e := ws.at(r.Off + c.shift)
	r.End = min(r.End, e-c.shift)
	do := v.markZero
	epoch := v.view.Load().epoch
	switch {
	case st == present:
		do = func(r block.Range) error { return c.file(l, r) }
	case st == absent && c.shift == 0 && s.base == v.base && v.view.Load().bare(r):
		do = v.refer
	case st == absent:
		below, e := s.image(r.Off+c.shift, r.End+c.shift)
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
	if err := v.view.Load().failure(); err != nil {
		return 0, false, err
	}
	if v.view.Load().epoch != epoch || s.view.Load().epoch != ws.epoch || !ws.alike(c.source(r), l, st) {
		return 0, false, nil
	}
	return r.End, true, do(r)
}

// file copies blocks that are present in the source's layer l. Both volumes are
// locked.
func (c *copying) file(l *Layer, r block.Range) error {
	top := c.to.view.Load().top
	done, err := top.copyFrom(r.Off, l.sparse, r.Off+c.shift, r.Len())
	if !done && err == nil {
		p := c.buffer(r.Len())
		if _, err = l.read(p, r.Off+c.shift, true); err == nil {
			err = top.write(p, r.Off)
		}
	}
	if err != nil || top.all(r, present) {
		return err
	}
	return top.mark(r, present)
}

// alike tells whether all of r is in state st, and in l if it is present.
func (w *view) alike(r block.Range, l *Layer, st state) bool {
	for off := r.Off; off < r.End; {
		at, got, end := w.at(off)
		if at != l || got != st {
			return false
		}
		off = end
	}
	return true
}

// refer makes whole blocks the image's again, which no sealed layer has. The
// caller owns r.
//
// What is in the file stays until that is durable; only then its space is given
// back. So after a crash a block is either present with what it held, or
// absent.
func (v *Volume) refer(r block.Range) error {
	top := v.view.Load().top
	for off := r.Off; off < r.End; {
		st, end := top.at(off)
		end = min(end, r.End)
		if st != absent {
			if err := top.mark(block.Range{Off: off, End: end}, absent); err != nil {
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
	if err := src.lost.Load(); err != nil {
		return true, *err
	}
	f, ok := s.file.(interface {
		CopyFrom(off int64, src any, from, n int64) (done bool, err error)
	})
	if !ok {
		return false, nil
	}
	done, err = f.CopyFrom(off, src.file, from, n)
	s.wrote.Store(true)
	s.capture.spill()
	return done, localError(err)
}
