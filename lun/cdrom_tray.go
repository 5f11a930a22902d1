package lun

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/gostor/gotgt/pkg/scsi"
)

// A move is what changes the drive for all: the tray opens or closes, or a
// disc is laid on it or taken from it. There is one at a time. Its steps, in
// this order:
//
//  1. may the tray open? If not, nothing has happened
//  2. save: what the initiators see of the move outlives a restart
//  3. events and unit attentions are raised
//  4. the new disc can be found
//
// With 3 behind 4 a command could read the new disc before its nexus has heard
// of it (holdDisc).

// ErrTrayLocked is why a drive does not take a medium or give one: initiators
// prevent its removal.
var ErrTrayLocked = errors.New("the tray is locked")

// LockedError is ErrTrayLocked and tells by whom.
type LockedError struct {
	Initiators []string // names, ascending
}

// Error implements error.
func (e *LockedError) Error() string {
	return fmt.Sprintf("%v by %s", ErrTrayLocked, strings.Join(e.Initiators, ", "))
}

// Unwrap returns ErrTrayLocked.
func (e *LockedError) Unwrap() error { return ErrTrayLocked }

// DriveState is a drive at one moment.
type DriveState struct {
	Medium   Medium   // in the drive, also on the open tray; nil: none
	Open     bool     // the tray is
	LockedBy []string // initiators that prevent removal, ascending
}

// State returns the state of the drive.
func (d *CDROM) State() DriveState {
	d.mu.Lock()
	defer d.mu.Unlock()
	s := DriveState{Open: d.open, LockedBy: d.lockedBy()}
	if d.disc != nil {
		s.Medium = d.disc.medium
	}
	return s
}

// Insert puts m into the drive, in place of what is there, and closes the tray.
// While prepare runs, if it is not nil, the drive is becoming ready. When an
// initiator prevents the removal of what is there, Insert fails with a
// LockedError and asks them to let go of it, unless force is set. After an
// error the drive is as it was, and m is the caller's.
func (d *CDROM) Insert(m Medium, force bool, prepare func()) error {
	if n := m.Size(); n <= 0 || n > MaxMedium {
		return fmt.Errorf("a disc of %d bytes: a drive reads 1 to %d", n, int64(MaxMedium))
	}
	d.moving.Lock()
	defer d.moving.Unlock()
	if err := d.unlocked(force); err != nil {
		return err
	}
	if err := d.keep(m, false); err != nil {
		return err
	}
	s := newDisc(m)
	d.mu.Lock()
	d.remove()
	d.disc, d.open = s, false
	d.mu.Unlock()
	if prepare != nil {
		prepare()
	}
	d.mu.Lock()
	d.spinUp()
	d.mu.Unlock()
	return nil
}

// Eject takes the medium out and leaves the tray open. That there is none is
// no error. Prevention and force are as in Insert.
func (d *CDROM) Eject(force bool) error {
	d.moving.Lock()
	defer d.moving.Unlock()
	if err := d.unlocked(force); err != nil {
		return err
	}
	if err := d.keep(nil, true); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.turn()
	d.remove()
	d.open = true
	d.free()
	return nil
}

// startStop executes START STOP UNIT, MMC-6 6.42. There is nothing that spins,
// so power conditions, starting and stopping change nothing.
func (d *CDROM) startStop(_ context.Context, c *Command) error {
	const (
		start = 0x01
		loej  = 0x02
		fl    = 0x04 // FORMAT LAYER, in byte 3
	)
	flags := c.CDB[4]
	if c.CDB[3]&fl != 0 {
		return invalidField(3, 2)
	}
	switch flags >> 4 { // POWER CONDITIONS
	case 0:
	case 1, 2, 3, 5: // active, idle, standby, sleep
		return nil
	default:
		return invalidField(4, 7)
	}
	if flags&loej == 0 {
		return nil
	}
	if !d.moving.TryLock() {
		return errBecomingReady
	}
	defer d.moving.Unlock()
	return d.slide(c.Nexus, flags&start == 0)
}

// slide opens or closes the tray with what is on it. The caller holds moving.
func (d *CDROM) slide(n *Nexus, open bool) error {
	d.mu.Lock()
	s, was, locked := d.disc, d.open, d.prevents(n)
	d.mu.Unlock()
	if open == was {
		return nil
	}
	if open && locked {
		return errRemovalPrevented
	}
	var m Medium
	if s != nil {
		m = s.medium
	}
	if err := d.keep(m, open); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.open = open
	switch {
	case s == nil:
		d.turn()
	case open:
		d.turn()
		d.ready.Store(nil)
		d.announce(mediaRemoval)
		d.free()
	default:
		d.spinUp()
	}
	return nil
}

// unlocked tells whether the tray may open for the operator. When it may not,
// the initiators are asked to open it.
func (d *CDROM) unlocked(force bool) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if force || d.operable() {
		return nil
	}
	d.announce(mediaEjectRequest)
	return &LockedError{d.lockedBy()}
}

func (d *CDROM) keep(m Medium, open bool) error {
	if d.save == nil {
		return nil
	}
	d.mu.Lock()
	next := d.generation + 1
	d.mu.Unlock()
	if err := d.save(m, open, next); err != nil {
		return fmt.Errorf("remember what is in the drive: %w", err)
	}
	return nil
}

// remove takes the disc out, if there is one. d.mu is held.
func (d *CDROM) remove() {
	s := d.disc
	if s == nil {
		return
	}
	d.disc = nil
	if d.ready.Swap(nil) != nil {
		d.announce(mediaRemoval)
	}
	s.release()
}

// spinUp makes the disc on the closed tray ready. d.mu is held.
func (d *CDROM) spinUp() {
	d.turn()
	d.announce(mediaNew)
	for _, st := range d.nexuses {
		d.push(st, scsi.ASC_NOT_READY_TO_TRANSITION) // MEDIUM MAY HAVE CHANGED
	}
	d.ready.Store(d.disc)
}
