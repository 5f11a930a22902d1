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
	leave, err := v.enter(off, int64(len(p)))
	if err != nil {
		return err
	}
	defer leave()
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
	if !v.gate.TryRLock() {
		return false, nil
	}
	defer v.gate.RUnlock()
	if err := v.admit(off, int64(len(p))); err != nil {
		return true, err
	}
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
	leave, err := v.enter(off, n)
	if err != nil {
		return err
	}
	defer leave()
	if err := v.layer.failure(); err != nil {
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
	if err := v.within(r); err != nil {
		return true, err
	}
	owned := v.layer.all(r, present)
	if !owned && (r.Off%block.Size != 0 || r.End%block.Size != 0) {
		return false, nil
	}
	if err := v.layer.write(p, r.Off); err != nil {
		return true, err
	}
	if owned {
		return true, nil
	}
	return true, v.layer.mark(r, present)
}

// writePart writes p at off, within one block.
func (v *Volume) writePart(ctx context.Context, p []byte, off int64) error {
	if len(p) == 0 {
		return nil
	}
	b := block.Range{Off: off, End: off + int64(len(p))}.Outward(block.Size)
	var below [block.Size]byte
	for {
		// What lies below never changes, so it is read before the block is
		// owned: that may take as long as the store does.
		st, _ := v.layer.at(off)
		if st == absent {
			if err := v.readBase(ctx, below[:], b.Off); err != nil {
				return err
			}
		}
		v.own(b)
		done, err := v.fillUp(&below, b, p, off, st == absent)
		v.disown(b)
		if done {
			return err
		}
	}
}

// fillUp writes p at off into the block b. known tells that below is what lies
// below; done is false when it is wanted and is not. The caller owns b.
func (v *Volume) fillUp(below *[block.Size]byte, b block.Range, p []byte, off int64, known bool) (done bool, err error) {
	if err := v.within(block.Range{Off: off, End: off + int64(len(p))}); err != nil {
		return true, err
	}
	switch st, _ := v.layer.at(off); {
	case st == present: // perhaps only now
		return true, v.layer.write(p, off)
	case st == zero:
		clear(below[:])
	case !known: // absent again
		return false, nil
	}
	copy(below[off-b.Off:], p)
	if err := v.layer.write(below[:], b.Off); err != nil {
		return true, err
	}
	return true, v.layer.mark(b, present)
}

// clearPart makes r, within one block, read as zeros.
func (v *Volume) clearPart(ctx context.Context, r block.Range) error {
	if r.Empty() {
		return nil
	}
	if st, _ := v.layer.at(r.Off); st == zero || st == absent && v.inBase(1, r.Off) == 0 {
		return nil
	}
	var zeros [block.Size]byte
	return v.writePart(ctx, zeros[:r.Len()], r.Off)
}

// markZero makes whole blocks read as zeros. The caller owns r.
func (v *Volume) markZero(r block.Range) error {
	if v.base != nil {
		return v.layer.mark(r, zero)
	}
	for off := r.Off; off < r.End; { // on a blank disk absent blocks are zeros already
		st, end := v.layer.at(off)
		end = min(end, r.End)
		if st == present {
			if err := v.layer.mark(block.Range{Off: off, End: end}, zero); err != nil {
				return err
			}
		}
		off = end
	}
	return nil
}

// punchMax bounds how much of the volume is owned at a time for punching.
const punchMax = 16 << 20

// punch gives back the space of those blocks of r that still hold nothing.
func (v *Volume) punch(r block.Range) {
	for off := r.Off; off < r.End; off += punchMax {
		part := block.Range{Off: off, End: min(off+punchMax, r.End)}
		v.own(part)
		err := v.punchEmpty(part)
		v.disown(part)
		if err != nil {
			if v.punchLog.now() {
				v.log.Warn("cannot give back discarded space", "volume", v.name, "error", err)
			}
			return
		}
	}
}

func (v *Volume) punchEmpty(r block.Range) error {
	for off := r.Off; off < r.End; {
		st, end := v.layer.at(off)
		end = min(end, r.End)
		var err error
		switch st {
		case zero:
			err = v.layer.file.Punch(off, end-off)
		case absent: // a read may still take it for present
			v.changes.enter()
			err = v.layer.file.Punch(off, end-off)
			v.changes.leave()
		}
		if err != nil {
			return err
		}
		off = end
	}
	return nil
}
