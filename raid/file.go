package raid

import (
	"errors"
	"fmt"
	"math"
	"sync"
	"sync/atomic"

	"skylun/block"
)

// File is a file of a given size. Its methods are safe for parallel calls,
// except that none may run when Close is called. Offsets are the caller's to
// check.
type File struct {
	*body
	size atomic.Int64
}

// body is what all Files of one name share.
type body struct {
	array *Array
	name  string
	users int // guarded by array.mu

	changing   sync.Mutex // held by what changes the layout, before gate
	gone       bool       // guarded by changing: the file was removed
	moveBuffer []byte     // of the one who moves it

	// Every call is inside while it uses the layout; it is shut only for the moment
	// in which the layout changes. Calls that sync are not inside meanwhile.
	gate   gate
	only   *part         // guarded by gate: all of the file is here, at identical offsets; nil: look it up
	at     *placed       // guarded by gate
	next   *placed       // guarded by gate: where it is being moved to, nil: nowhere
	cursor int64         // guarded by gate: what is below is in next
	moving block.Range   // guarded by gate: is being copied; who wants to write to it waits for moved
	moved  chan struct{} // guarded by gate
	parts  []*part       // guarded by gate: all pieces; replaced, never changed
	old    []*part       // guarded by gate: that hold nothing any more, to be closed
}

// Size returns the length in bytes.
func (f *File) Size() int64 { return f.size.Load() }

// where returns the part that off is on, its offset there, and how many bytes
// follow it. The caller is inside the gate.
func (f *body) where(off int64) (p *part, at, n int64) {
	if f.next != nil && off < f.cursor {
		p, at, n = f.next.at(off)
		return p, at, min(n, f.cursor-off)
	}
	return f.at.at(off)
}

// ReadAt fills p from off, or fails.
func (f *body) ReadAt(p []byte, off int64) error {
	f.gate.enter()
	defer f.gate.leave()
	if f.only != nil {
		return f.only.told(f.only.Piece.ReadAt(p, off))
	}
	return f.spread(reading, p, off)
}

// TryReadAt fills p from off when its bytes are in memory. Where a file
// system cannot tell, it reads.
func (f *body) TryReadAt(p []byte, off int64) (done bool, err error) {
	if !f.gate.tryEnter() {
		return false, nil // the layout changes
	}
	defer f.gate.leave()
	if f.only != nil {
		return f.only.TryReadAt(p, off)
	}
	for len(p) > 0 {
		part, at, n := f.where(off)
		n = min(n, int64(len(p)))
		if done, err := part.TryReadAt(p[:n], at); !done || err != nil {
			return done, err
		}
		p, off = p[n:], off+n
	}
	return true, nil
}

// WriteAt writes p at off, or fails. After an error any part of p may have
// been written.
func (f *File) WriteAt(p []byte, off int64) error {
	if off+int64(len(p)) > f.size.Load() {
		return fmt.Errorf("write %d+%d of %s: %w", off, len(p), f.name, block.ErrOutOfRange)
	}
	f.lockForWrite(off, int64(len(p)))
	defer f.gate.leave()
	if f.only != nil {
		err := f.only.Piece.WriteAt(p, off)
		f.only.touched()
		return f.only.told(err)
	}
	return f.spread(writing, p, off)
}

// lockForWrite enters the gate when nothing of the range is being moved.
func (f *body) lockForWrite(off, n int64) {
	f.gate.enter()
	for off < f.moving.End && f.moving.Off < off+n {
		moved := f.moved
		f.gate.leave()
		<-moved
		f.gate.enter()
	}
}

// CopyFrom copies n bytes of src at from to off without a way through memory,
// and shares their space where the file system can. done is false when src is
// no File, or the members cannot: then any part of it may be copied.
func (f *File) CopyFrom(off int64, src any, from, n int64) (done bool, err error) {
	s, ok := src.(*File)
	if !ok || s.array != f.array {
		return false, nil
	}
	if off+n > f.size.Load() {
		return true, fmt.Errorf("write %d+%d of %s: %w", off, n, f.name, block.ErrOutOfRange)
	}
	f.lockForWrite(off, n)
	defer f.gate.leave()
	if s.body != f.body {
		if !s.gate.tryEnter() { // two files that copy from each other must not wait for each other
			return false, nil
		}
		defer s.gate.leave()
	}
	for n > 0 {
		to, at, c := f.where(off)
		sp, sat, sc := s.where(from)
		c = min(n, c, sc)
		if to.on != sp.on {
			return false, nil
		}
		to.begin()
		done, err := to.Piece.CopyFrom(at, sp.Piece, sat, c)
		to.touched()
		if to.end(err); !done || err != nil {
			return done, err
		}
		off, from, n = off+c, from+c, n-c
	}
	return true, nil
}

// Punch makes [off, off+n) read as zeros and gives its space back where the
// members can.
func (f *body) Punch(off, n int64) error {
	return f.each(off, n, (*part).punch)
}

// zero makes [off, off+n) read as zeros.
func (f *body) zero(off, n int64) error {
	return f.each(off, n, (*part).zero)
}

// each calls do for each run of a range on its part, as a write.
func (f *body) each(off, n int64, do func(p *part, off, n int64) error) error {
	f.lockForWrite(off, n)
	defer f.gate.leave()
	for n > 0 {
		p, at, c := f.where(off)
		for c = min(c, n); c < n; { // neighbours on one member are one hole
			np, nat, nc := f.where(off + c)
			if np != p || nat != at+c {
				break
			}
			c = min(n, c+nc)
		}
		if err := do(p, at, c); err != nil {
			return err
		}
		off, n = off+c, n-c
	}
	return nil
}

// Sync makes all writes and punched holes that have returned durable, on all
// members that they touched. After an error nothing is known about what was
// written since the last Sync, and a later Sync that succeeds does not change
// that.
func (f *body) Sync() error {
	f.gate.enter()
	only, all := f.only, f.parts
	f.gate.leave()
	if only != nil {
		return only.sync()
	}
	var dirty, clean []*part
	for _, p := range all {
		if p.dirty.Load() {
			dirty = append(dirty, p)
		} else {
			clean = append(clean, p)
		}
	}
	err := together(dirty, (*part).sync)
	for _, p := range clean { // another call may be in the middle of syncing it
		err = errors.Join(err, p.sync())
	}
	return err
}

// together calls do for all parts at the same time.
func together(parts []*part, do func(*part) error) error {
	if len(parts) == 0 {
		return nil
	}
	errs := make([]error, len(parts))
	var wg sync.WaitGroup
	for i := 1; i < len(parts); i++ {
		wg.Go(func() { errs[i] = do(parts[i]) })
	}
	errs[0] = do(parts[0])
	wg.Wait()
	return errors.Join(errs...)
}

// DataRanges calls fn, in ascending order, for each range that may hold
// something else than zeros, until fn fails.
func (f *File) DataRanges(fn func(block.Range) error) error {
	type known struct {
		block.Range // the data at or behind what was asked for
		from        int64
	}
	data := map[*part]*known{}
	var r block.Range // not told yet
	for off, size := int64(0), f.size.Load(); off < size; {
		f.gate.enter()
		p, at, n := f.where(off)
		n = min(n, size-off)
		k := data[p]
		var err error
		if k == nil || at < k.from || !k.Empty() && at >= k.End {
			if k == nil {
				k = &known{}
				data[p] = k
			}
			k.from = at
			k.Range, err = p.NextData(at)
		}
		f.gate.leave()
		if err != nil {
			return err
		}
		d := k.Range.Intersect(block.Range{Off: at, End: at + n})
		switch {
		case k.Empty() || k.Off >= at+n: // a hole
			off += n
			continue
		case d.Off > at:
			off += d.Off - at
		}
		next := block.Range{Off: off, End: off + d.Len()}
		if r.End != next.Off && !r.Empty() {
			if err := fn(r); err != nil {
				return err
			}
			r = block.Range{}
		}
		if r.Empty() {
			r = next
		}
		r.End = next.End
		off = next.End
	}
	if r.Empty() {
		return nil
	}
	return fn(r)
}

// Clear makes all of the file zeros and gives its space back.
func (f *body) Clear() error {
	f.lockForWrite(0, math.MaxInt64)
	defer f.gate.leave()
	for _, p := range f.parts {
		if err := p.clear(); err != nil {
			return err
		}
	}
	return nil
}

// Resize changes the size. What is new reads as zeros and is there, durably,
// when it returns. On disk a file never becomes shorter than its user may
// still know it to be: making it smaller gives nothing back, Punch does.
func (f *File) Resize(size int64) error {
	f.changing.Lock()
	defer f.changing.Unlock()
	if old := f.size.Load(); size > old {
		// It may have been longer once.
		if end := min(size, f.capacity()); end > old {
			if err := f.zero(old, end-old); err != nil {
				return err
			}
		}
		if size > f.capacity() {
			if err := f.array.grow(f.body, size); err != nil {
				return err
			}
		}
		if err := f.Sync(); err != nil {
			return err
		}
	}
	f.size.Store(size)
	return nil
}

// capacity returns how long the file can be without growing.
func (f *body) capacity() int64 {
	f.gate.enter()
	defer f.gate.leave()
	if f.next != nil {
		return min(f.at.size, f.next.size)
	}
	return f.at.size
}

// Allocated returns the bytes that the file occupies on its members.
func (f *body) Allocated() (sum int64, err error) {
	f.gate.enter()
	defer f.gate.leave()
	for _, p := range f.parts {
		n, err := p.Piece.Allocated()
		if err != nil {
			return 0, err
		}
		sum += n
	}
	return sum, nil
}

// plenty is told of where no write ever needs more space.
const plenty = 1 << 50

// Free returns the bytes that the file can still take: evenly written, until the
// first of its members is full. On a member with identical allocation it has all
// its space already.
func (f *body) Free() (int64, error) {
	f.gate.enter()
	defer f.gate.leave()
	l := f.at
	if f.next != nil {
		l = f.next
	}
	least := int64(plenty)
	for number, used := range l.used {
		s := f.array.slot(number)
		if s == nil || s.kind == Identical {
			continue
		}
		_, free, err := s.Space()
		if err != nil {
			return 0, err
		}
		if used < l.size {
			free = int64(min(float64(free)*(float64(l.size)/float64(used)), math.MaxInt64/2))
		}
		least = min(least, free)
	}
	return least, nil
}

// Close closes the file without syncing it.
func (f *File) Close() error { return f.array.release(f.body) }
