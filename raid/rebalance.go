package raid

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"skylun/block"
)

// Rebalancing moves files to where they would be if they were made now, while
// they are in use. A file is copied piece by piece, from its beginning, into a
// second generation of pieces. The steps of one move, and what swapping two
// would lose:
//
//	hold the writers of the piece: what they wrote behind the copy would be lost.
//	copy, then sync: the cursor must not pass bytes that a power cut takes back.
//	sync, then store the cursor: see above; a crash before copies the piece again.
//	store the cursor, then let readers see it: what they have read from the new
//	place must be there after a power cut.
//	let writers go on, then punch the old bytes: nobody looks there any more.
//
// When the cursor is at the end, the record of the file names the new generation
// alone, and the old one to be removed. A move that was stopped goes on from its
// cursor; a file that is half moved is as good as any other.

// MovePiece is how much is moved at a time, and held from writers meanwhile.
const MovePiece = 4 << 20

// Progress is how far a rebalancing is.
type Progress struct {
	File  string // that is being moved
	Files int    // that are left, with this one
	Done  int64  // bytes of files passed over
	Total int64  // bytes of all files that have to be moved
}

var errGone = errors.New("removed meanwhile")

// Rebalance moves all files that are not laid out as they would be now, until ctx
// ends. Who calls it again goes on.
func (a *Array) Rebalance(ctx context.Context, report func(Progress)) error {
	if a.cfg.Records == nil {
		return nil
	}
	a.moving.Lock()
	defer a.moving.Unlock()
	// A file may be on its way to where it would not be moved to any more, or have
	// grown by what had been laid out before: then it is moved once more.
	p := Progress{}
	for again := true; again; {
		var err error
		if again, err = a.moveStale(ctx, &p, report); err != nil {
			return err
		}
	}
	return nil
}

// moveStale moves all files that are not where they would be now, and tells
// whether it has moved any.
func (a *Array) moveStale(ctx context.Context, p *Progress, report func(Progress)) (moved bool, err error) {
	var todo []string
	sizes := map[string]int64{}
	err = a.eachRecord(func(name string, r *fileRecord) error {
		moves, size, err := a.stale(r)
		if moves {
			todo, sizes[name] = append(todo, name), size
			p.Total += size
		}
		return err
	})
	if err != nil {
		return false, err
	}
	for i, name := range todo {
		p.File, p.Files = name, len(todo)-i
		before := p.Done
		err := a.move(ctx, name, func(cursor int64) {
			p.Done = before + min(cursor, sizes[name])
			if report != nil {
				report(*p)
			}
		})
		if err == nil {
			moved = true
		} else if !errors.Is(err, errGone) && !errors.Is(err, ErrNotExist) {
			return false, fmt.Errorf("move %s: %w", name, err)
		}
		p.Done = before + sizes[name]
	}
	return moved, nil
}

// stale tells whether a file is not where it would be if it was made now, and how
// large it is.
func (a *Array) stale(r *fileRecord) (bool, int64, error) {
	if r.Making {
		return false, 0, nil
	}
	l, err := locate(r.At)
	if err != nil {
		return false, 0, err
	}
	if r.Next != nil {
		return true, l.size, nil
	}
	want, err := a.segment(l.size)
	if err != nil {
		return false, 0, err
	}
	for _, s := range r.At.Segments {
		same := s.Stripe == want.Stripe && slices.Equal(s.On, want.On)
		for i := 0; same && i < len(s.Members); i++ {
			same = len(s.On) == 1 || s.Members[i].Weight == want.Members[i].Weight
		}
		if !same {
			return l.size > 0, l.size, nil
		}
	}
	return false, l.size, nil
}

// move moves one file.
func (a *Array) move(ctx context.Context, name string, report func(cursor int64)) error {
	a.opening.Lock()
	f, err := a.open(name)
	a.opening.Unlock()
	if err != nil {
		return err
	}
	defer a.release(f)
	if err := f.beginMove(); err != nil {
		return err
	}
	f.moveBuffer = make([]byte, 1<<20)
	for first := true; ; first = false {
		if err := ctx.Err(); err != nil {
			return err
		}
		done, cursor, err := f.movePiece(first)
		if err != nil || done {
			return err
		}
		report(cursor)
	}
}

// beginMove makes the next generation of a file's pieces, if there is none. The
// record comes first, so that a crash leaves no piece that nobody knows.
func (f *body) beginMove() error {
	f.changing.Lock()
	defer f.changing.Unlock()
	if f.gone {
		return errGone
	}
	if f.next != nil {
		return nil
	}
	seg, err := f.array.segment(f.at.size)
	if err != nil {
		return err
	}
	next, err := locate(placement{Gen: f.at.Gen + 1, Segments: []segment{seg}})
	if err != nil {
		return err
	}
	r := &fileRecord{At: f.at.placement, Next: &next.placement, MakingNext: true}
	if err := f.array.store(f.name, r); err != nil {
		return err
	}
	undo := func(parts []*part, err error) error {
		for _, p := range parts {
			p.Close()
		}
		return errors.Join(err, f.array.removePieces(f.name, next.placement), f.array.store(f.name, &fileRecord{At: f.at.placement}))
	}
	parts, err := f.array.pieces(f.name, next, (*slot).Create)
	if err != nil {
		return undo(parts, err)
	}
	r.MakingNext = false
	if err := f.array.store(f.name, r); err != nil {
		r.MakingNext = true // it may have been stored: the pieces go when it is known to be not
		if again := f.array.store(f.name, r); again == nil {
			return undo(parts, err)
		}
		for _, p := range parts {
			p.Close()
		}
		return err
	}
	f.gate.close()
	defer f.gate.open()
	f.next, f.cursor = next, 0
	f.parts = slices.Concat(f.parts, parts)
	f.choose()
	return nil
}

// movePiece moves what follows the cursor. done is true when all of the file has
// been moved.
func (f *body) movePiece(first bool) (done bool, cursor int64, err error) {
	f.changing.Lock()
	defer f.changing.Unlock()
	if f.gone {
		return false, 0, errGone
	}
	// What is behind the end of either, after they have grown, nobody has seen.
	r := block.Range{Off: f.cursor, End: min(f.cursor+f.array.cfg.MovePiece, f.at.size, f.next.size)}
	if r.End <= r.Off {
		return true, f.cursor, f.endMove()
	}
	f.gate.close() // those who write now are done when it is there
	f.moving, f.moved = r, make(chan struct{})
	f.gate.open()
	defer func() {
		f.gate.close()
		if err == nil {
			f.cursor = r.End
		}
		close(f.moved)
		f.moving, f.moved = block.Range{}, nil
		f.gate.open()
		if err == nil {
			err = f.punchOld(r)
		}
	}()
	if first { // a crash may have left what a longer copy had of the piece
		err = runsOf(f.next, block.Range{Off: r.Off, End: min(r.Off+f.array.cfg.MovePiece, f.next.size)}, func(p *part, at, _, n int64) error { return p.zero(at, n) })
		if err != nil {
			return false, 0, err
		}
	}
	if err := runsOf(f.at, r, f.copyRun); err != nil {
		return false, 0, err
	}
	if err := together(partsOf(f.next), (*part).sync); err != nil {
		return false, 0, err
	}
	if err := f.array.store(f.name, &fileRecord{At: f.at.placement, Next: &f.next.placement, Cursor: r.End}); err != nil {
		f.unsure(err)
		return false, 0, err
	}
	return false, r.End, nil
}

// unsure makes it known again where a file is, after the cursor may have been stored
// or not: it is what it was. If that cannot be stored either, nothing of the
// file is durable any more, as what is written goes to the old place, and would be
// looked for in the new one after the next start. For want of room nothing has been
// stored.
func (f *body) unsure(err error) {
	if errors.Is(memberError(err), block.ErrNoSpace) || f.array.store(f.name, &fileRecord{At: f.at.placement, Next: &f.next.placement, Cursor: f.cursor}) == nil {
		return
	}
	for _, p := range f.parts {
		p.fail(fmt.Errorf("%w; restart the node", err))
	}
}

// copyRun copies what is data of n bytes of the file at off, which are on p.
func (f *body) copyRun(p *part, at, off, n int64) error {
	for end := at + n; at < end; {
		data, err := p.NextData(at)
		if err != nil {
			return err
		}
		data = data.Intersect(block.Range{Off: at, End: end})
		if data.Empty() {
			return nil
		}
		off += data.Off - at
		at = data.Off
		for at < data.End {
			b := f.moveBuffer[:min(int64(len(f.moveBuffer)), data.End-at)]
			if err := p.read(b, at); err != nil {
				return err
			}
			err := runsOf(f.next, block.Range{Off: off, End: off + int64(len(b))}, func(to *part, on, from, n int64) error {
				return to.write(b[from-off:][:n], on)
			})
			if err != nil {
				return err
			}
			at, off = at+int64(len(b)), off+int64(len(b))
		}
	}
	return nil
}

// punchOld gives back what has been moved.
func (f *body) punchOld(r block.Range) error {
	return runsOf(f.at, r, func(p *part, at, _, n int64) error { return p.punch(at, n) })
}

// runsOf calls do for the runs of a range of a file: off is where they are in the
// file, at where on the part.
func runsOf(l *placed, r block.Range, do func(p *part, at, off, n int64) error) error {
	for off := r.Off; off < r.End; {
		p, at, n := l.at(off)
		n = min(n, r.End-off)
		if err := do(p, at, off, n); err != nil {
			return err
		}
		off += n
	}
	return nil
}

// partsOf returns the parts of a placement.
func partsOf(l *placed) (parts []*part) {
	seen := map[*part]bool{}
	for _, s := range l.segs {
		for _, p := range s.parts {
			if p != nil {
				seen[p] = true
			}
		}
	}
	return slices.Collect(maps.Keys(seen))
}

// endMove makes the next generation the only one. The old pieces stay open until
// the file is closed: a sync may be using them.
func (f *body) endMove() error {
	old := f.at.placement
	r := &fileRecord{At: f.next.placement, Old: &old}
	if err := f.array.store(f.name, r); err != nil {
		return err
	}
	unused := partsOf(f.at)
	f.gate.close()
	f.at, f.next, f.cursor = f.next, nil, 0
	f.parts = slices.DeleteFunc(slices.Clone(f.parts), func(p *part) bool { return slices.Contains(unused, p) })
	f.old = append(f.old, unused...)
	f.choose()
	f.gate.open()
	if err := f.array.removePieces(f.name, old); err != nil {
		return err
	}
	return f.array.store(f.name, &fileRecord{At: f.at.placement})
}
