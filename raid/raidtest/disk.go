package raidtest

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"

	"skylun/block"
)

// Sector is what is written as a whole or not at all.
const Sector = 512

const page = 4096

// Faults are told what happens, and may prevent it. The lies are for tests of
// tests: promises that a disk does not keep.
type Faults struct {
	Hook    func(point string)    // nil: nobody is told
	Failing func(op string) error // nil: nothing fails

	SyncsNothing bool // Sync
	ZeroNothing  bool // Zero
	ForgetsNotes bool // writes of less than a sector
}

func (f *Faults) at(point string) {
	if f != nil && f.Hook != nil {
		f.Hook(point)
	}
}

func (f *Faults) fault(op string) error {
	if f == nil || f.Failing == nil {
		return nil
	}
	return f.Failing(op)
}

// Disk is a device in memory.
type Disk struct {
	*Faults // nil: none
	size    int64

	mu     sync.Mutex
	now    map[int64][]byte   // guarded by mu: pages; one that is not there is zeros; none is ever changed
	synced map[int64][]byte   // guarded by mu
	dirty  map[int64][][]byte // guarded by mu: what sectors were written to hold since the last sync
	syncs  int                // guarded by mu
}

// NewDisk returns a disk of zeros.
func NewDisk(size int64, f *Faults) *Disk {
	return &Disk{Faults: f, size: size, now: map[int64][]byte{}, synced: map[int64][]byte{}, dirty: map[int64][][]byte{}}
}

// Size returns the length in bytes.
func (d *Disk) Size() int64 { return d.size }

// Syncs returns how often the disk was synced.
func (d *Disk) Syncs() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.syncs
}

func (d *Disk) check(n int, off int64) error {
	if off < 0 || off+int64(n) > d.size {
		return fmt.Errorf("%w: %d+%d of %d", block.ErrOutOfRange, off, n, d.size)
	}
	return nil
}

// ReadAt fills p.
func (d *Disk) ReadAt(p []byte, off int64) error {
	if err := d.fault("read"); err != nil {
		return err
	}
	if err := d.check(len(p), off); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	copyPages(d.now, p, off)
	return nil
}

func copyPages(pages map[int64][]byte, p []byte, off int64) {
	for len(p) > 0 {
		in := off % page
		n := min(len(p), page-int(in))
		if q := pages[off/page]; q != nil {
			copy(p[:n], q[in:])
		} else {
			clear(p[:n])
		}
		p, off = p[n:], off+int64(n)
	}
}

// TryReadAt is ReadAt.
func (d *Disk) TryReadAt(p []byte, off int64) (bool, error) { return true, d.ReadAt(p, off) }

// WriteAt writes p; when it fails, a part of it.
func (d *Disk) WriteAt(p []byte, off int64) error {
	if err := d.check(len(p), off); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.fault("write"); err != nil {
		d.put(p[:len(p)/2/Sector*Sector], off)
		return err
	}
	if d.Faults != nil && d.ForgetsNotes && len(p) < Sector {
		return nil
	}
	d.put(p, off)
	return nil
}

func (d *Disk) put(p []byte, off int64) {
	for len(p) > 0 {
		in := off % page
		n := min(len(p), page-int(in))
		q := make([]byte, page)
		copy(q, d.now[off/page])
		copy(q[in:], p[:n])
		d.now[off/page] = q
		for s := off / Sector; s*Sector < off+int64(n); s++ {
			d.dirty[s] = append(d.dirty[s], q[s*Sector%page:][:Sector])
		}
		p, off = p[n:], off+int64(n)
	}
}

// Zero makes a range zeros.
func (d *Disk) Zero(off, n int64) error {
	if err := d.check(int(n), off); err != nil {
		return err
	}
	if err := d.fault("punch"); err != nil {
		return err
	}
	if d.Faults != nil && d.ZeroNothing {
		return nil
	}
	d.mu.Lock()
	for n > 0 {
		c := min(n, page-off%page)
		if d.now[off/page] != nil || d.synced[off/page] != nil || d.wrote(off, c) {
			d.put(make([]byte, c), off)
		}
		off, n = off+c, n-c
	}
	d.mu.Unlock()
	d.at("made zeros")
	return nil
}

func (d *Disk) wrote(off, n int64) bool {
	for s := off / Sector; s*Sector < off+n; s++ {
		if d.dirty[s] != nil {
			return true
		}
	}
	return false
}

// Sync makes durable what was written.
func (d *Disk) Sync() error {
	d.at("before a sync")
	if err := d.fault("sync"); err != nil {
		return err
	}
	d.mu.Lock()
	d.syncs++
	if d.Faults != nil && d.SyncsNothing {
		d.mu.Unlock()
		return nil
	}
	d.synced = maps.Clone(d.now)
	clear(d.dirty)
	d.mu.Unlock()
	d.at("after a sync")
	return nil
}

// Close does nothing.
func (d *Disk) Close() error { return nil }

// NextData tells where something else than zeros may be.
func (d *Disk) NextData(off int64) (block.Range, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	next := int64(-1)
	for p := range d.now {
		if p >= off/page && (next < 0 || p < next) {
			next = p
		}
	}
	if next < 0 {
		return block.Range{}, nil
	}
	return block.Range{Off: max(off, next*page), End: min((next+1)*page, d.size)}, nil
}

// Killed returns the disk as a process leaves it that is killed now.
func (d *Disk) Killed(f *Faults) *Disk {
	d.mu.Lock()
	defer d.mu.Unlock()
	return &Disk{Faults: f, size: d.size, now: maps.Clone(d.now), synced: maps.Clone(d.synced), dirty: maps.Clone(d.dirty)}
}

// Cut returns the disk as a power cut now would leave it: with all that was not
// synced, nothing of it, or some.
func (d *Disk) Cut(rnd *rand.Rand, f *Faults) *Disk {
	d.mu.Lock()
	defer d.mu.Unlock()
	left := NewDisk(d.size, f)
	left.synced = maps.Clone(d.synced)
	kind := rnd.IntN(4)
	for _, s := range slices.Sorted(maps.Keys(d.dirty)) { // the same for the same seed
		versions := d.dirty[s]
		i := rnd.IntN(len(versions) + 1)
		switch kind {
		case 0:
			i = 0
		case 1:
			i = len(versions)
		}
		if i > 0 {
			at := s * Sector
			q := make([]byte, page)
			copy(q, left.synced[at/page])
			copy(q[at%page:], versions[i-1])
			left.synced[at/page] = q
		}
	}
	left.now = maps.Clone(left.synced)
	return left
}
