package overlay

import (
	"context"

	"skylun/block"
)

// WriteAt implements block.Device.
//
// A write is cut into the part of a block it may begin with, whole blocks, and
// the part of a block it may end with:
//
//	blocks  |       |       |       |       |
//	write        |==|=======|=======|==|
//	             head     whole      tail
//
// Whole blocks are written and then marked present, whatever they were before.
// A part of a block that is not present fills the block up from below first.
func (v *Volume) WriteAt(ctx context.Context, p []byte, off int64) error {
	w, err := v.enter(off, int64(len(p)))
	if err != nil {
		return err
	}
	defer w.leave()
	r := block.Range{Off: off, End: off + int64(len(p))}
	v.share(r)
	done, err := v.put(p, r)
	v.unshare(r)
	if done {
		return v.wrap(err)
	}
	head, whole, tail := split(r)
	err = v.writePart(ctx, p[:head.Len()], head.Off)
	if err == nil && !whole.Empty() {
		v.share(whole)
		_, err = v.put(p[whole.Off-off:whole.End-off], whole)
		v.unshare(whole)
	}
	if err == nil {
		err = v.writePart(ctx, p[tail.Off-off:], tail.Off)
	}
	return v.wrap(err)
}

// TryWriteAt implements block.TryWriter: it writes what needs nothing from
// below.
func (v *Volume) TryWriteAt(p []byte, off int64) (done bool, err error) {
	w, err := v.enter(off, int64(len(p)))
	if err != nil {
		return true, err
	}
	defer w.leave()
	r := block.Range{Off: off, End: off + int64(len(p))}
	if !v.tryShare(r) {
		return false, nil
	}
	defer v.unshare(r)
	done, err = v.put(p, r)
	return done, v.wrap(err)
}

// Discard implements block.Device. Whole blocks only change their state; their
// space is given back once that is durable.
func (v *Volume) Discard(ctx context.Context, off, n int64) error {
	w, err := v.enter(off, n)
	if err != nil {
		return err
	}
	defer w.leave()
	if err := w.failure(); err != nil {
		return v.wrap(err)
	}
	head, whole, tail := split(block.Range{Off: off, End: off + n})
	if err := v.clearPart(ctx, head); err != nil {
		return v.wrap(err)
	}
	if !whole.Empty() {
		v.own(whole)
		if err = v.within(whole); err == nil {
			err = v.markZero(whole)
		}
		v.disown(whole)
	}
	if err == nil {
		err = v.clearPart(ctx, tail)
	}
	return v.wrap(err)
}

// split cuts r into a part of a block, whole blocks, and another part of a
// block. Each may be empty; together they are r.
func split(r block.Range) (head, whole, tail block.Range) {
	whole = r.Inward(block.Size)
	if whole.Off > r.End { // within one block
		whole = block.Range{Off: r.End, End: r.End}
	}
	whole.End = max(whole.End, whole.Off)
	return block.Range{Off: r.Off, End: whole.Off}, whole, block.Range{Off: whole.End, End: r.End}
}

// put writes p to r if r is whole blocks or all of its blocks are present. The
// caller shares r.
func (v *Volume) put(p []byte, r block.Range) (done bool, err error) {
	w := v.view.Load()
	if err := block.CheckRange(r.Off, r.Len(), w.size); err != nil {
		return true, err
	}
	owned := w.top.all(r, present)
	if !owned && (r.Off%block.Size != 0 || r.End%block.Size != 0) {
		return false, nil
	}
	if err := w.write(p, r.Off); err != nil {
		return true, err
	}
	if owned {
		return true, nil
	}
	return true, w.top.mark(r, present)
}

// write writes p at off to the layer that is written to.
func (w *view) write(p []byte, off int64) error {
	if err := w.failureBelow(); err != nil {
		return err
	}
	return w.top.write(p, off)
}

// writePart writes p at off, within one block.
func (v *Volume) writePart(ctx context.Context, p []byte, off int64) error {
	if len(p) == 0 {
		return nil
	}
	b := block.Range{Off: off, End: off + int64(len(p))}.Outward(block.Size)
	var below [block.Size]byte
	for {
		w := v.use()
		// What lies below changes only when another layer comes to lie there, so
		// it is read before the block is owned: that may take as long as the store
		// does.
		st, _ := w.top.at(off)
		if st == absent {
			if err := v.readBelow(ctx, w, below[:], b.Off); err != nil {
				w.leave()
				return err
			}
		}
		v.own(b)
		known := st == absent && v.view.Load().epoch == w.epoch
		done, err := v.fillUp(&below, b, p, off, known)
		v.disown(b)
		w.leave()
		if done {
			return err
		}
	}
}

// readBelow fills p, one block, with what lies below the layer that w writes to.
func (v *Volume) readBelow(ctx context.Context, w *view, p []byte, off int64) error {
	switch l, st, _ := w.below(off); st {
	case present:
		_, err := l.read(p, off, true)
		return err
	case zero:
		clear(p)
		return nil
	}
	return v.readBase(ctx, p, off)
}

// fillUp writes p at off into the block b. known tells that below is what lies
// below; done is false when it is wanted and is not. The caller owns b.
func (v *Volume) fillUp(below *[block.Size]byte, b block.Range, p []byte, off int64, known bool) (done bool, err error) {
	w := v.view.Load()
	if err := block.CheckRange(off, int64(len(p)), w.size); err != nil {
		return true, err
	}
	switch st, _ := w.top.at(off); {
	case st == present: // perhaps only now
		return true, w.write(p, off)
	case st == zero:
		clear(below[:])
	case !known: // absent again, or something else lies below
		return false, nil
	}
	copy(below[off-b.Off:], p)
	if err := w.write(below[:], b.Off); err != nil {
		return true, err
	}
	return true, w.top.mark(b, present)
}

// clearPart makes r, within one block, read as zeros.
func (v *Volume) clearPart(ctx context.Context, r block.Range) error {
	if r.Empty() {
		return nil
	}
	if _, st, _ := v.view.Load().at(r.Off); st == zero || st == absent && v.inBase(1, r.Off) == 0 {
		return nil
	}
	var zeros [block.Size]byte
	return v.writePart(ctx, zeros[:r.Len()], r.Off)
}

// markZero makes whole blocks read as zeros. The caller owns r.
func (v *Volume) markZero(r block.Range) error {
	w := v.view.Load()
	if v.base != nil {
		return w.top.mark(r, zero)
	}
	for off := r.Off; off < r.End; { // on a blank disk blocks that no layer has are zeros already
		_, st, end := w.at(off)
		end = min(end, r.End)
		if st == present {
			if err := w.top.mark(block.Range{Off: off, End: end}, zero); err != nil {
				return err
			}
		}
		off = end
	}
	return nil
}

// punchMax bounds how much of the volume is owned at a time for punching.
const punchMax = 16 << 20

// punch gives back the space of those blocks of r that still hold nothing in l,
// which v writes to, or did last.
func (v *Volume) punch(l *Layer, r block.Range) {
	for off := r.Off; off < r.End; off += punchMax {
		part := block.Range{Off: off, End: min(off+punchMax, r.End)}
		v.own(part)
		err := v.punchEmpty(l, part)
		v.disown(part)
		if err != nil {
			if v.punchLog.now() {
				v.log.Warn("cannot give back discarded space", "volume", v.name, "error", err)
			}
			return
		}
	}
}

func (v *Volume) punchEmpty(l *Layer, r block.Range) error {
	size := l.Size()
	if w := v.view.Load(); w.top == l { // it may just be becoming smaller
		size = w.size
	}
	r.End = min(r.End, block.Ceil(size, block.Size))
	for off := r.Off; off < r.End; {
		st, end := l.at(off)
		end = min(end, r.End)
		var err error
		switch st {
		case zero:
			err = l.file.Punch(off, end-off)
		case absent: // a read may still take it for present
			v.changes.enter()
			err = l.file.Punch(off, end-off)
			v.changes.leave()
		}
		if err != nil {
			return err
		}
		off = end
	}
	return nil
}
