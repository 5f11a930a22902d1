package overlay

import (
	"context"
	"time"

	"skylun/block"
)

// ReadAt implements block.Reader.
func (v *Volume) ReadAt(ctx context.Context, p []byte, off int64) error {
	w, err := v.enter(off, int64(len(p)))
	if err != nil {
		return err
	}
	defer w.leave()
	waited, began := false, time.Time{}
	if v.follower != nil {
		if waited = !v.base.holds(off, int64(len(p))); !waited {
			began = time.Now() // for the disk alone, which prefetch must not slow down
		}
	}
	if err := v.readQuiet(ctx, w, p, off); err != nil {
		return v.wrap(err)
	}
	if !began.IsZero() {
		v.base.localRead(time.Since(began))
	}
	v.follow(off, int64(len(p)), waited)
	return nil
}

// readQuiet fills p from off. Of what is announced in changes it sees all or
// nothing.
func (v *Volume) readQuiet(ctx context.Context, w *view, p []byte, off int64) error {
	seen := v.changes.before()
	if err := v.read(ctx, w, p, off); err != nil || v.changes.quiet(seen) {
		return err
	}
	r := block.Range{Off: off, End: off + int64(len(p))}
	v.share(r)
	defer v.unshare(r)
	return v.read(ctx, w, p, off) // what had to be fetched is here by now
}

// read fills p from off with what is where its blocks say.
func (v *Volume) read(ctx context.Context, w *view, p []byte, off int64) (err error) {
	v.start(w, block.Range{Off: off, End: off + int64(len(p))})
	for len(p) > 0 {
		l, st, end := w.at(off)
		n := min(int64(len(p)), end-off)
		switch st {
		case present:
			_, err = l.read(p[:n], off, true)
		case zero:
			clear(p[:n])
		default:
			err = v.readBase(ctx, p[:n], off)
		}
		if err != nil {
			return err
		}
		p, off = p[n:], off+n
	}
	return nil
}

// start begins the fetches that reading r needs when it is in several parts,
// so that they run in parallel.
func (v *Volume) start(w *view, r block.Range) {
	if v.base == nil {
		return
	}
	if _, _, end := w.at(r.Off); end >= r.End {
		return
	}
	for off := r.Off; off < r.End; {
		_, st, end := w.at(off)
		end = min(end, r.End)
		if below := (block.Range{Off: off, End: min(end, v.base.Size())}); st == absent && !below.Empty() {
			v.base.plan(below)
		}
		off = end
	}
}

// readBase reads what the image has; behind the end of the image are zeros.
func (v *Volume) readBase(ctx context.Context, p []byte, off int64) error {
	n := v.inBase(len(p), off)
	clear(p[n:])
	if n == 0 {
		return nil
	}
	missed, err := v.base.readAt(ctx, p[:n], off)
	if missed {
		v.misses.Add(1)
	} else if err == nil {
		v.hits.Add(1)
	}
	return err
}

// inBase returns how many of n bytes at off the image has.
func (v *Volume) inBase(n int, off int64) int64 {
	if v.base == nil {
		return 0
	}
	return max(0, min(int64(n), v.base.Size()-off))
}

// TryReadAt implements block.TryReader: it reads what is in memory.
func (v *Volume) TryReadAt(p []byte, off int64) (done bool, err error) {
	at, length := off, int64(len(p))
	w, err := v.enter(off, int64(len(p)))
	if err != nil {
		return true, err
	}
	defer w.leave()
	seen := v.changes.before()
	for len(p) > 0 {
		l, st, end := w.at(off)
		n := min(int64(len(p)), end-off)
		done := true
		switch st {
		case present:
			done, err = l.read(p[:n], off, false)
		case zero:
			clear(p[:n])
		default:
			below := v.inBase(int(n), off)
			clear(p[below:n])
			if below > 0 {
				if done, err = v.base.TryReadAt(p[:below], off); done && err == nil {
					v.hits.Add(1)
				}
			}
		}
		if !done || err != nil {
			return done, v.wrap(err)
		}
		p, off = p[n:], off+n
	}
	if !v.changes.quiet(seen) {
		return false, nil
	}
	v.follow(at, length, false)
	return true, nil
}

// DataRanges implements block.DataRanger: what is in the layers, and below them
// what the image may have.
func (v *Volume) DataRanges(ctx context.Context, in block.Range, f func(block.Range) error) error {
	w, err := v.enter(in.Off, in.Len())
	if err != nil {
		return err
	}
	defer w.leave()
	run := block.Range{} // told when it is known where it ends
	tell := func() error {
		if run = run.Intersect(in); run.Empty() {
			return nil
		}
		return f(run)
	}
	for off := in.Off; off < in.End; {
		if err := ctx.Err(); err != nil {
			return err
		}
		_, st, end := w.at(off)
		if st == absent {
			st, end = v.image(off, end)
		}
		switch {
		case st != present:
		case off == run.End:
			run.End = end
		default:
			if err := tell(); err != nil {
				return err
			}
			run = block.Range{Off: off, End: end}
		}
		off = end
	}
	return tell()
}

// image tells whether what the image has at off may be data, and until where,
// at most end, that holds.
func (v *Volume) image(off, end int64) (state, int64) {
	if v.base == nil || off >= v.base.Size() {
		return zero, end
	}
	st, baseEnd := v.base.copy.at(off)
	if st == absent {
		st = present
	}
	return st, min(end, baseEnd)
}
