package raid

import (
	"errors"
	"fmt"

	"golang.org/x/sync/errgroup"
)

// Spec is a file to be made.
type Spec struct {
	Name string
	Size int64 // bytes

	// Unzeroed says that its user knows what it has written and reads nothing
	// else: then that may read as anything, and where zeros would have to be
	// written the file is made without. What the file grows by, and what is
	// punched or cut off, reads as zeros as ever.
	Unzeroed bool
}

// atOnce bounds how many files are made in parallel: each takes some syncs.
const atOnce = 16

// Create makes a file of size bytes that reads as zeros, and makes its
// existence durable. What had the name before is gone.
func (a *Array) Create(name string, size int64) (*File, error) {
	files, err := a.CreateAll([]Spec{{Name: name, Size: size}})
	if err != nil {
		return nil, err
	}
	return files[0], nil
}

// CreateAll is Create for several files, which together take hardly longer than
// one. It makes all of them, or none.
//
// Their records come first, and say that they are being made, so that a crash
// leaves no piece that nobody knows.
func (a *Array) CreateAll(specs []Spec) (files []*File, err error) {
	a.opening.Lock()
	defer a.opening.Unlock()
	names := make([]string, len(specs))
	bodies := make([]*body, len(specs))
	records := map[string]*fileRecord{}
	for i, s := range specs {
		names[i] = s.Name
		seg, err := a.segment(s.Size)
		if err != nil {
			return nil, err
		}
		r := &fileRecord{At: placement{Segments: []segment{seg}}, Making: true}
		records[s.Name] = r
		if bodies[i], err = a.newBody(s.Name, r); err != nil {
			return nil, err
		}
	}
	if err := a.removeAll(names); err != nil {
		return nil, err
	}
	if err := a.storeAll(records); err != nil {
		return nil, fmt.Errorf("layout of new files: %w", err)
	}
	defer func() {
		if err != nil {
			for _, f := range bodies {
				f.closeParts()
			}
			err = errors.Join(err, a.removeAll(names))
		}
	}()
	var g errgroup.Group
	g.SetLimit(atOnce)
	for i, f := range bodies {
		do := (*slot).Create
		if specs[i].Unzeroed {
			do = (*slot).createUnzeroed
		}
		g.Go(func() (err error) {
			f.parts, err = a.pieces(f.name, f.at, do)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	for _, r := range records {
		r.Making = false
	}
	if err := a.storeAll(records); err != nil {
		return nil, fmt.Errorf("layout of new files: %w", err)
	}
	for i, f := range bodies {
		f.choose()
		a.keep(f)
		files = append(files, f.file(specs[i].Size))
	}
	return files, nil
}

// Remove removes a file; one that does not exist is removed already.
func (a *Array) Remove(name string) error { return a.RemoveAll([]string{name}) }

// RemoveAll is Remove for several files. After an error some may be there.
func (a *Array) RemoveAll(names []string) error {
	a.opening.Lock()
	defer a.opening.Unlock()
	return a.removeAll(names)
}

func (a *Array) removeAll(names []string) error {
	gone := map[string]*fileRecord{}
	var errs []error
	for _, name := range names {
		known, err := a.removeParts(name)
		if errs = append(errs, err); known && err == nil {
			gone[name] = nil
		}
	}
	if len(gone) > 0 {
		if err := a.storeAll(gone); err != nil {
			errs = append(errs, fmt.Errorf("layout of removed files: %w", err))
		}
	}
	return errors.Join(errs...)
}

// removeParts removes the pieces of a file, if there is one. Its record is left.
func (a *Array) removeParts(name string) (known bool, err error) {
	a.mu.Lock()
	f := a.files[name]
	delete(a.files, name)
	a.mu.Unlock()
	if f != nil { // somebody may be moving it
		f.changing.Lock()
		f.gone = true
		f.changing.Unlock()
	}
	r, err := a.record(name)
	if err != nil {
		return false, err
	}
	if r == nil {
		if a.cfg.Records == nil {
			return false, a.slots[0].Remove(name)
		}
		return false, nil
	}
	var errs []error
	for _, p := range r.placements() {
		errs = append(errs, a.removePieces(name, p))
	}
	return true, errors.Join(errs...)
}
