package raidtest

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"

	"skylun/block"
	"skylun/raid"
)

// reserve is how long a piece of a Dir can get.
const reserve = 1 << 40

// Dir is a member that allocates by itself.
type Dir struct {
	*Faults
	total int64

	mu     sync.Mutex
	pieces map[string]*dirPiece // guarded by mu
}

// NewDir returns a member of that many bytes.
func NewDir(total int64, f *Faults) *Dir {
	return &Dir{Faults: f, total: total, pieces: map[string]*dirPiece{}}
}

type dirPiece struct {
	*Disk
	length int64
}

var _ raid.Piece = (*dirPiece)(nil)

// Create makes a piece.
func (d *Dir) Create(name string, size int64) (raid.Piece, error) {
	if err := d.fault("create"); err != nil {
		return nil, err
	}
	d.mu.Lock()
	p := &dirPiece{NewDisk(reserve, d.Faults), size}
	d.pieces[name] = p
	d.mu.Unlock()
	d.at("piece made")
	return p, nil
}

// Open opens a piece.
func (d *Dir) Open(name string, size int64) (raid.Piece, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	p := d.pieces[name]
	if p == nil {
		return nil, fmt.Errorf("%s: %w", name, raid.ErrNotExist)
	}
	if p.length < size {
		return nil, fmt.Errorf("%w: %s has %d bytes instead of %d", block.ErrMedium, name, p.length, size)
	}
	return p, nil
}

// Remove removes a piece.
func (d *Dir) Remove(name string) error {
	if err := d.fault("remove"); err != nil {
		return err
	}
	d.mu.Lock()
	delete(d.pieces, name)
	d.mu.Unlock()
	d.at("piece removed")
	return nil
}

// Pieces returns the names of all pieces.
func (d *Dir) Pieces() (names []string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for name := range d.pieces {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// Space tells that all is free: nothing fills up by itself here.
func (d *Dir) Space() (total, free int64, err error) { return d.total, d.total, nil }

// Close does nothing.
func (d *Dir) Close() error { return nil }

// Killed returns the member as a process leaves it that is killed now.
func (d *Dir) Killed(f *Faults) *Dir {
	return d.each(f, func(p *Disk) *Disk { return p.Killed(f) })
}

// Cut returns the member as a power cut now would leave it.
func (d *Dir) Cut(rnd *rand.Rand, f *Faults) *Dir {
	return d.each(f, func(p *Disk) *Disk { return p.Cut(rnd, f) })
}

func (d *Dir) each(f *Faults, do func(*Disk) *Disk) *Dir {
	left := NewDir(d.total, f)
	for _, name := range d.Pieces() {
		d.mu.Lock()
		p := d.pieces[name]
		d.mu.Unlock()
		left.pieces[name] = &dirPiece{do(p.Disk), p.length}
	}
	return left
}

func (p *dirPiece) Punch(off, n int64) error { return p.Zero(off, n) }

func (p *dirPiece) Clear() error { return p.Zero(0, p.length) }

func (p *dirPiece) Resize(size int64) error {
	if err := p.fault("resize"); err != nil {
		return err
	}
	p.length = max(p.length, size)
	return nil
}

func (p *dirPiece) Allocated() (int64, error) { return 0, nil }

func (p *dirPiece) CopyFrom(int64, raid.Piece, int64, int64) (bool, error) { return false, nil }
