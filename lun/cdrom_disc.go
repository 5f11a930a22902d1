package lun

import (
	"context"
	"encoding/binary"
	"sync/atomic"

	"github.com/gostor/gotgt/pkg/scsi"

	"skylun/block"
)

// sectorSize is the logical block length of a drive in bytes: the user data of
// a sector.
const sectorSize = 2048

// disc is a medium in a drive. Each command that reads it holds it, so that it
// is not given back under a reader: a read that began before the tray moved
// ends with bytes of the old disc, never with those of two.
type disc struct {
	medium  Medium
	quick   block.TryReader // the medium, when it is one
	size    int64           // bytes, at most MaxMedium
	sectors uint32
	holders atomic.Int64 // the drive, and commands; the last one out gives the medium back
}

func newDisc(m Medium) *disc {
	s := &disc{medium: m, size: m.Size()}
	s.sectors = uint32(block.Ceil(s.size, sectorSize) / sectorSize)
	s.quick, _ = m.(block.TryReader)
	s.holders.Store(1)
	return s
}

// hold keeps the disc from being given back until release. It fails when that
// has happened already.
func (s *disc) hold() bool {
	for {
		n := s.holders.Load()
		if n == 0 {
			return false
		}
		if s.holders.CompareAndSwap(n, n+1) {
			return true
		}
	}
}

func (s *disc) release() {
	if s.holders.Add(-1) == 0 {
		s.medium.Removed()
	}
}

// Conditions of a drive without a disc that can be read.
var (
	errTrayClosed    = &condition{key: scsi.NOT_READY, code: ascNoMediumTrayClosed}
	errTrayOpen      = &condition{key: scsi.NOT_READY, code: ascNoMediumTrayOpen}
	errBecomingReady = &condition{key: scsi.NOT_READY, code: scsi.ASC_BECOMING_READY}
)

// holdDisc returns the disc in the drive, held, or what c ends with. A disc that
// has just come is kept back from a nexus that has not heard of it: its unit
// attention was raised before it could be found here, and admit may have
// looked before that.
func (d *CDROM) holdDisc(c *Command) (*disc, error) {
	for {
		s := d.ready.Load()
		if s == nil {
			return nil, d.notReady()
		}
		if !s.hold() {
			continue // it has just gone
		}
		if d.gate.Load() != 0 {
			if attention := d.take(c.Nexus); attention != nil {
				s.release()
				return nil, attention
			}
		}
		return s, nil
	}
}

// notReady returns why there is no disc to read.
func (d *CDROM) notReady() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case d.open:
		return errTrayOpen
	case d.disc != nil: // or it has come since the caller looked
		return errBecomingReady
	}
	return errTrayClosed
}

// loaded returns the disc that c is about, for commands that only tell of it.
func (d *CDROM) loaded(c *Command) (*disc, error) {
	s, err := d.holdDisc(c)
	if err != nil {
		return nil, err
	}
	s.release()
	return s, nil
}

// testUnitReady executes TEST UNIT READY, MMC-6 6.48.
func (d *CDROM) testUnitReady(_ context.Context, c *Command) error {
	_, err := d.loaded(c)
	return err
}

// senseNow is what REQUEST SENSE tells: a unit attention, or why the drive is
// not ready.
func (d *CDROM) senseNow(c *Command) *condition {
	if cond := d.pending(c.Nexus); cond != nil {
		return cond
	}
	if d.ready.Load() == nil {
		if cond, ok := d.notReady().(*condition); ok {
			return cond
		}
	}
	return nil
}

// sendDiagnostic executes SEND DIAGNOSTIC, SPC-4 6.42, for the default self
// test, which has nothing to find, and for nothing.
func (d *CDROM) sendDiagnostic(_ context.Context, c *Command) error {
	if c.CDB[1]&0xe0 != 0 { // SELF-TEST CODE
		return invalidField(1, 7)
	}
	if binary.BigEndian.Uint16(c.CDB[3:]) != 0 { // PARAMETER LIST LENGTH
		return invalidField(3, 7)
	}
	return nil
}
