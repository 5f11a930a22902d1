package lun

import (
	"context"
	"maps"
	"slices"

	"github.com/gostor/gotgt/pkg/scsi"
)

// Values of the QERR field of the Control page, SPC-4 7.5.8: what happens to
// the other commands of the unit when one ends with CHECK CONDITION.
const (
	qerrNothing = 0
	qerrAll     = 1 // all of them are aborted
	qerrNexus   = 3 // those of the same nexus are

	qerrShift, qerrMask = 1, 0x06 // Control page, byte 3
)

// setQERR takes over QERR. Unless it is zero, commands run where they may wait
// for others to end, so it is one reason more to look at the gate.
func (s *server) setQERR(value uint32) {
	switch old := s.qerr.Swap(value); {
	case old == qerrNothing && value != qerrNothing:
		s.gate.Add(1)
	case old != qerrNothing && value == qerrNothing:
		s.gate.Add(-1)
	}
}

// afterError aborts what QERR says, before c ends with CHECK CONDITION. Those
// of other nexuses end as TAS says; those of its own do so too, but an
// initiator need not be told that there is somebody who aborts.
func (s *server) afterError(ctx context.Context, c *Command) {
	var nexuses []*Nexus
	switch s.qerr.Load() {
	case qerrAll:
		s.mu.Lock()
		nexuses = slices.Collect(maps.Keys(s.nexuses))
		s.mu.Unlock()
	case qerrNexus:
		nexuses = []*Nexus{c.Nexus}
	}
	for _, n := range nexuses {
		if n == nil || n.Transport == nil {
			continue
		}
		if err := n.Transport.AbortTasks(ctx, s.unit, c); err != nil {
			return // c is being aborted itself
		}
		if n == c.Nexus {
			s.clear(n, scsi.ASC_CMDS_CLEARED_BY_ANOTHER_INI)
		}
	}
}
