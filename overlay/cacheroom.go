package overlay

import (
	"errors"

	"skylun/block"
)

// Copies give way to what guests write: where a write meets a full disk, the pool
// frees some space and the write is tried again, until it fits or nothing is left
// that may leave. The three ways in which a layer takes up space are wrapped:
//
//	File    the bytes
//	Notes   that they are there, of a process that is killed
//	Map     that they are there, for good
//
// The file and the map of a cache are not: what a pass itself needs cannot wait
// for a pass.

// File returns f, whose writes the pool makes room for.
func (p *Pool) File(f File) File { return roomyFile{f, p} }

// Notes is File for notes.
func (p *Pool) Notes(n Notes) Notes { return roomyNotes{n, p} }

// Map is File for maps.
func (p *Pool) Map(m Map) Map { return roomyMap{m, p} }

// roomFor tells whether a call that failed with err is worth another try, because
// there is more room now, n bytes of it. pass is what passes was before the call.
func (p *Pool) roomFor(err error, n int64, pass *uint64) bool {
	if !errors.Is(localError(err), block.ErrNoSpace) || !p.giveWay(n, *pass) {
		return false
	}
	*pass = p.passes.Load()
	return true
}

type roomyFile struct {
	File
	pool *Pool
}

func (f roomyFile) WriteAt(p []byte, off int64) error {
	pass := f.pool.passes.Load()
	err := f.File.WriteAt(p, off)
	for err != nil && f.pool.roomFor(err, int64(len(p)), &pass) {
		err = f.File.WriteAt(p, off)
	}
	return err
}

func (f roomyFile) Resize(size int64) error {
	pass := f.pool.passes.Load()
	err := f.File.Resize(size)
	for err != nil && f.pool.roomFor(err, 0, &pass) {
		err = f.File.Resize(size)
	}
	return err
}

// CopyFrom is that of the file, if it has one. After a part of it was copied it
// may begin anew: the same bytes go to the same place.
func (f roomyFile) CopyFrom(off int64, src any, from, n int64) (done bool, err error) {
	c, ok := f.File.(interface {
		CopyFrom(off int64, src any, from, n int64) (done bool, err error)
	})
	if !ok {
		return false, nil
	}
	if s, ok := src.(roomyFile); ok {
		src = s.File
	}
	pass := f.pool.passes.Load()
	done, err = c.CopyFrom(off, src, from, n)
	for err != nil && f.pool.roomFor(err, n, &pass) {
		done, err = c.CopyFrom(off, src, from, n)
	}
	return done, err
}

// DataRanges is that of the file, if it has one.
func (f roomyFile) DataRanges(fn func(block.Range) error) error {
	if s, ok := f.File.(interface {
		DataRanges(func(block.Range) error) error
	}); ok {
		return s.DataRanges(fn)
	}
	return errors.ErrUnsupported
}

// Free is that of the file, if it has one.
func (f roomyFile) Free() (int64, error) {
	if s, ok := f.File.(interface{ Free() (int64, error) }); ok {
		return s.Free()
	}
	return 0, errors.ErrUnsupported
}

type roomyNotes struct {
	Notes
	pool *Pool
}

func (n roomyNotes) WriteAt(p []byte, off int64) error {
	pass := n.pool.passes.Load()
	err := n.Notes.WriteAt(p, off)
	for err != nil && n.pool.roomFor(err, int64(len(p)), &pass) {
		err = n.Notes.WriteAt(p, off)
	}
	return err
}

func (n roomyNotes) Resize(size int64) error {
	pass := n.pool.passes.Load()
	err := n.Notes.Resize(size)
	for err != nil && n.pool.roomFor(err, 0, &pass) {
		err = n.Notes.Resize(size)
	}
	return err
}

type roomyMap struct {
	Map
	pool *Pool
}

func (m roomyMap) Append(extents []Extent) error {
	pass := m.pool.passes.Load()
	err := m.Map.Append(extents)
	for err != nil && m.pool.roomFor(err, 0, &pass) {
		err = m.Map.Append(extents)
	}
	return err
}

func (m roomyMap) Trim(size int64) error {
	pass := m.pool.passes.Load()
	err := m.Map.Trim(size)
	for err != nil && m.pool.roomFor(err, 0, &pass) {
		err = m.Map.Trim(size)
	}
	return err
}
