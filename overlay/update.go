package overlay

import (
	"context"

	"skylun/block"
)

// Update implements block.Updater. f runs with the regions of the range owned
// and must not call the volume.
func (v *Volume) Update(ctx context.Context, p []byte, off int64, f func(p []byte) (write bool, err error)) error {
	leave, err := v.enter(off, int64(len(p)))
	if err != nil {
		return err
	}
	defer leave()
	if len(p) == 0 {
		_, err := f(p)
		return err
	}
	r := block.Range{Off: off, End: off + int64(len(p))}
	// What has to be fetched is, before anybody waits for the regions.
	if err := v.read(ctx, p, off); err != nil {
		return v.wrap(err)
	}
	v.own(r)
	defer v.disown(r)
	if err := v.within(r); err != nil {
		return v.wrap(err)
	}
	b := r.Outward(block.Size)
	whole := make([]byte, b.Len())
	if err := v.read(ctx, whole, b.Off); err != nil {
		return v.wrap(err)
	}
	part := whole[r.Off-b.Off:][:len(p)]
	copy(p, part)
	if write, err := f(p); err != nil || !write {
		return err
	}
	copy(part, p)
	return v.wrap(v.replace(whole, b, r))
}

// replace writes the blocks b, of which only r is new, so that a read sees all
// of it or nothing. The caller owns b.
func (v *Volume) replace(whole []byte, b, r block.Range) error {
	v.changes.enter()
	defer v.changes.leave()
	if v.layer.all(b, present) {
		return v.layer.write(whole[r.Off-b.Off:r.End-b.Off], r.Off)
	}
	if err := v.layer.write(whole, b.Off); err != nil {
		return err
	}
	return v.layer.mark(b, present)
}
