package raid

import (
	"errors"
	"fmt"
	"slices"

	"skylun/block"
	"skylun/raid/stripe"
)

func (f *body) file(size int64) *File {
	n := &File{body: f}
	n.size.Store(size)
	return n
}

// newBody returns a file of which no piece is open.
func (a *Array) newBody(name string, r *fileRecord) (f *body, err error) {
	f = &body{array: a, name: name, cursor: r.Cursor}
	if f.at, err = locate(r.At); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	if r.Next != nil {
		if f.next, err = locate(*r.Next); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
	}
	return f, nil
}

// attach opens the pieces of a placement.
func (a *Array) attach(f *body, l *placed) error {
	parts, err := a.pieces(f.name, l, (*slot).Open)
	for _, p := range parts { // a process that was killed may have written to them
		p.dirty.Store(true)
	}
	f.parts = slices.Concat(f.parts, parts)
	return err
}

// pieces opens or makes the pieces of a placement, as do does, and gives it their
// parts. After an error there may be some.
func (a *Array) pieces(name string, l *placed, do func(s *slot, name string, size int64) (Piece, error)) (all []*part, err error) {
	parts := map[int]*part{}
	for number, used := range l.used {
		s := a.slot(number)
		if s == nil {
			return all, fmt.Errorf("%s: a part of it is on member %d, which is not there: %w", name, number, ErrNotExist)
		}
		piece, err := do(s, pieceName(name, l.Gen), used)
		if err != nil {
			return all, err
		}
		parts[number] = &part{Piece: piece, on: s}
		all = append(all, parts[number])
	}
	l.connect(parts)
	return all, nil
}

// removePieces removes the pieces of a placement.
func (a *Array) removePieces(name string, p placement) error {
	var errs []error
	for _, seg := range p.Segments {
		for _, number := range seg.On {
			if s := a.slot(number); s != nil {
				errs = append(errs, s.Remove(pieceName(name, p.Gen)))
			}
		}
	}
	return errors.Join(errs...)
}

// choose finds out whether all of the file is on one member.
func (f *body) choose() {
	f.only = nil
	if number, ok := f.at.only(); ok && f.next == nil {
		for _, p := range f.at.segs[0].parts {
			if p != nil && p.on.number == number {
				f.only = p
			}
		}
	}
}

func (f *body) closeParts() error {
	var errs []error
	for _, p := range slices.Concat(f.parts, f.old) {
		errs = append(errs, p.Close())
	}
	return errors.Join(errs...)
}

// keep makes f the open file of its name.
func (a *Array) keep(f *body) {
	a.mu.Lock()
	defer a.mu.Unlock()
	f.users = 1
	a.files[f.name] = f
}

// release takes one user from f and closes it when there is none left.
func (a *Array) release(f *body) error {
	a.opening.Lock() // it is not opened again while its pieces are closed
	defer a.opening.Unlock()
	return a.letGo(f)
}

func (a *Array) letGo(f *body) error {
	a.mu.Lock()
	f.users--
	last := f.users == 0
	if last && a.files[f.name] == f {
		delete(a.files, f.name)
	}
	a.mu.Unlock()
	if !last {
		return nil
	}
	return f.closeParts()
}

// Open opens a file that Create made, as one of size bytes. It may have been
// longer; what is behind size is not to be seen. It fails with ErrNotExist when
// the array does not hold it.
func (a *Array) Open(name string, size int64) (*File, error) {
	a.opening.Lock()
	defer a.opening.Unlock()
	f, err := a.open(name)
	if err != nil {
		return nil, err
	}
	if has := f.capacity(); has < size {
		err := memberError(fmt.Errorf("%s has %d bytes instead of %d", name, has, size))
		return nil, errors.Join(err, a.letGo(f))
	}
	return f.file(size), nil
}

func (a *Array) open(name string) (*body, error) {
	a.mu.Lock()
	f := a.files[name]
	if f != nil {
		f.users++
	}
	a.mu.Unlock()
	if f != nil {
		return f, nil
	}
	r, err := a.record(name)
	if err != nil {
		return nil, err
	}
	if r == nil {
		d, plain := a.slots[0].Member.(*dir)
		if a.cfg.Records != nil || !plain {
			return nil, fmt.Errorf("%s: %w", name, ErrNotExist)
		}
		if r, err = d.adopt(name, a.slots[0].number); err != nil {
			return nil, err
		}
	}
	if f, err = a.newBody(name, r); err != nil {
		return nil, err
	}
	err = a.attach(f, f.at)
	if err == nil && f.next != nil {
		err = a.attach(f, f.next)
	}
	if err != nil {
		f.closeParts()
		return nil, err
	}
	f.choose()
	a.keep(f)
	return f, nil
}

// adopt returns the layout of a plain file, as it was made when an array was
// one directory.
func (d *dir) adopt(name string, number int) (*fileRecord, error) {
	f, has, err := d.open(name)
	if err != nil {
		return nil, err
	}
	size := block.Ceil(has, stripe.MinSize)
	if has < size { // nothing of it was ever to be seen
		err = f.Truncate(size)
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return nil, memberError(err)
	}
	seg := segment{Stripe: stripe.MinSize, On: []int{number}, Members: []stripe.Member{{Size: size}}}
	return &fileRecord{At: placement{Segments: []segment{seg}}}, nil
}
