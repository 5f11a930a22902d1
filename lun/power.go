package lun

import (
	"context"

	"github.com/gostor/gotgt/pkg/api"
	"github.com/gostor/gotgt/pkg/scsi"
)

// A disk has no power to save. What START STOP UNIT stops is therefore not the
// unit but what its initiator sees of it: until it starts it again, its
// commands find a stopped unit (SBC-3 4.20), and those of other nexuses go on. Of
// several machines that share a disk one may power down: Windows then stops
// its disks, and that must not take the disk away from the others.

// errStopped is LOGICAL UNIT NOT READY, INITIALIZING COMMAND REQUIRED.
var errStopped = &condition{key: scsi.NOT_READY, code: 0x0402}

func (d *Disk) startStopOp() operation {
	return operation{name: "START STOP UNIT", usage: cdb(api.START_STOP, "01 00 0f f7 04"), flags: shared | accessSelf, do: d.startStop}
}

// startStop executes START STOP UNIT, SBC-3 5.25. A unit that leaves the active
// condition flushes first. It has the idle and standby conditions in name only:
// it leaves them when there is something to do.
func (d *Disk) startStop(ctx context.Context, c *Command) error {
	const (
		start   = 0x01
		loej    = 0x02
		noFlush = 0x04

		startValid = 0x0 // POWER CONDITION: START says it
		active     = 0x1
		idle       = 0x2
		standby    = 0x3
	)
	flags, modifier := c.CDB[4], c.CDB[3]&0x0f
	if flags&0xf0 != startValid || flags&start == 0 {
		if err := d.excluded(c.Nexus, accessWrite); err != nil {
			return err
		}
	}
	if flags&loej != 0 {
		return invalidField(4, 1) // there is no medium to eject
	}
	stop, rest := false, false
	switch flags >> 4 {
	case startValid:
		stop = flags&start == 0
		rest = stop
		modifier = 0 // ignored
	case active:
		if modifier > 0 {
			return invalidField(3, 3)
		}
	case idle, standby: // idle_a, _b and _c; standby_z and _y
		if modifier > idle || modifier == idle && flags>>4 == standby {
			return invalidField(3, 3)
		}
		rest = true
	default: // timers that are not there
		return invalidField(4, 7)
	}
	if rest && flags&noFlush == 0 {
		if err := d.flush(ctx, 0); err != nil {
			return err
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if st := d.nexuses[c.Nexus]; st != nil {
		d.setStopped(st, stop)
	}
	return nil
}

// setStopped makes a nexus for which the unit is stopped a reason to look at
// the gate. s.mu is held.
func (s *server) setStopped(st *nexusState, stopped bool) {
	if st.stopped != stopped {
		st.stopped = stopped
		by := int32(1)
		if !stopped {
			by = -1
		}
		s.gate.Add(by)
	}
}

// stoppedFor tells whether n has stopped the unit.
func (s *server) stoppedFor(n *Nexus) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := s.nexuses[n]
	return st != nil && st.stopped
}

// runsStopped tells whether an operation runs while the unit is stopped: it
// needs no medium.
func runsStopped(op *operation) bool {
	switch api.SCSICommandType(op.usage[0]) {
	case api.START_STOP, api.SYNCHRONIZE_CACHE, api.SYNCHRONIZE_CACHE_16, api.ALLOW_MEDIUM_REMOVAL:
		return true
	case api.TEST_UNIT_READY:
		return false
	default:
		return runsIn(op, Standby)
	}
}
