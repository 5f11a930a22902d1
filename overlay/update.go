package overlay

import (
	"context"

	"skylun/block"
)

// Update implements block.Updater. f runs with the regions of the range owned
// and must not call the volume.
func (v *Volume) Update(ctx context.Context, p []byte, off int64, f func(p []byte) (write bool, err error)) error {
	w, err := v.enter(off, int64(len(p)))
	if err != nil {
		return err
	}
	defer w.leave()
	if len(p) == 0 {
		_, err := f(p)
		return err
	}
	r := block.Range{Off: off, End: off + int64(len(p))}
	// What has to be fetched is, before anybody waits for the regions.
	if err := v.read(ctx, w, p, off); err != nil {
		return v.wrap(err)
	}
	v.own(r)
	defer v.disown(r)
	now := v.use() // within the regions what it holds stays so
	defer now.leave()
	if err := block.CheckRange(r.Off, r.Len(), now.size); err != nil {
		return v.wrap(err)
	}
	b := r.Outward(block.Size)
	whole := make([]byte, b.Len())
	if err := v.read(ctx, now, whole, b.Off); err != nil {
		return v.wrap(err)
	}
	part := whole[r.Off-b.Off:][:len(p)]
	copy(p, part)
	if write, err := f(p); err != nil || !write {
		return err
	}
	copy(part, p)
	return v.wrap(v.exchange(now, whole, b, r))
}

// exchange writes the blocks b, of which only r is new, so that a read sees all
// of it or nothing. The caller owns b.
func (v *Volume) exchange(w *view, whole []byte, b, r block.Range) error {
	v.changes.enter()
	defer v.changes.leave()
	if w.top.all(b, present) {
		return w.write(whole[r.Off-b.Off:r.End-b.Off], r.Off)
	}
	if err := w.write(whole, b.Off); err != nil {
		return err
	}
	return w.top.mark(b, present)
}
