package lun

import (
	"context"
	"errors"
	"log/slog"
	"runtime/debug"
	"sync"
	"sync/atomic"

	"github.com/gostor/gotgt/pkg/scsi"
)

// server is what all device servers (SAM-5 4.6.5) have in common: it finds
// the operation of a command, checks what has to be checked before any of
// them, runs it and turns its error into status and sense data. A unit embeds
// it, fills in what it is, and calls serve with its operations.
type server struct {
	unit       Unit // that it is part of
	log        *slog.Logger
	peripheral byte // PERIPHERAL QUALIFIER and PERIPHERAL DEVICE TYPE, SPC-4 6.6.2
	removable  bool // the medium is
	id         identity
	versions   []uint16  // version descriptors, at most 8
	pages      []vpdPage // ascending
	modes      modes
	logs       []logPage // ascending
	readOnly   bool      // as configured
	ops        *opTable

	// gate is not zero while a command may find something that keeps it from
	// running, or has to run aside: the number of reasons to take mu. It is the
	// only thing that commands of all nexuses share while there are none.
	gate atomic.Int32

	// attached, if not nil, is called when a nexus has come. It does not wait.
	attached func()

	// heard, if not nil, is told when a nexus has no unit attention left. mu is
	// held.
	heard func(*Nexus)

	mu       sync.Mutex
	nexuses  map[*Nexus]*nexusState // guarded by mu
	reserved bool                   // guarded by mu, SPC-2 5.5
	holder   *Nexus                 // guarded by mu, means something while reserved
	blocked  *condition             // guarded by mu, what most commands end with; nil: none

	visits map[*visit]struct{} // guarded by mu, copies to the unit that others manage

	// notice, if there is one, is called before a command that changes the
	// medium runs, while there is a reason to look at the gate.
	notice func(*Command, *operation)

	// turn is held by the one command that changes reservations. It is taken
	// before mu.
	turn              chan struct{}
	persistent        registrations // guarded by mu, changed by who has the turn
	savedReservations bool          // who has the turn may look: something is in the store

	protected       atomic.Bool   // commands that change the medium are refused
	descriptorSense atomic.Bool   // D_SENSE in the control mode page
	softProtected   atomic.Bool   // SWP there
	reportAborts    atomic.Bool   // TAS there
	qerr            atomic.Uint32 // QERR there
}

// serve makes s answer to ops, before its first command, and with missing to
// all others.
func (s *server) serve(ops []operation, missing error) {
	s.ops = newOpTable(ops, missing)
	s.nexuses = make(map[*Nexus]*nexusState)
	s.turn = make(chan struct{}, 1)
	s.loadReservations()
}

// Try implements Unit.
func (s *server) Try(c *Command) (done bool) {
	defer func() {
		if p := recover(); p != nil {
			s.panicked(c, p)
			done = true
		}
	}()
	c.begin()
	c.spare = nil
	op, err := s.admit(c, true)
	if err == errMustWait {
		return false
	}
	if err == nil {
		switch {
		case op.try != nil:
			if done, err = op.try(c); !done {
				return false
			}
		case op.flags&inline != 0:
			err = op.do(context.Background(), c)
		default:
			return false
		}
	}
	if err != nil {
		s.fail(c, err)
	}
	return true
}

// Execute implements Unit.
func (s *server) Execute(ctx context.Context, c *Command) {
	defer func() {
		if p := recover(); p != nil {
			s.panicked(c, p)
		}
	}()
	c.begin()
	op, err := s.admit(c, false)
	if err == nil {
		if err = op.do(ctx, c); err != nil && ctx.Err() != nil {
			err = ctx.Err() // whatever a layer below made of it
		}
	}
	c.spare = nil
	if err != nil {
		s.fail(c, err)
	}
	if c.Status == StatusCheckCondition && s.qerr.Load() != qerrNothing {
		s.afterError(ctx, c)
	}
}

// errMustWait says that a command is not for a caller that must not wait.
var errMustWait = errors.New("it may have to wait for others")

// admit finds the operation of c and checks what comes before it: unit
// attention, then reservation (SAM-5 5.3.3), then the CDB's length and
// CONTROL byte, then write protection.
func (s *server) admit(c *Command, try bool) (*operation, error) {
	op, err := s.ops.find(c.CDB)
	if s.gate.Load() != 0 {
		if try && s.qerr.Load() != qerrNothing {
			return nil, errMustWait
		}
		if err := s.checkGate(c, op); err != nil {
			return nil, err
		}
	}
	if err != nil {
		return nil, err
	}
	n := len(op.usage)
	if len(c.CDB) < n {
		return nil, invalidField(len(c.CDB), -1)
	}
	if c.CDB[n-1]&controlNACA != 0 {
		return nil, invalidField(n-1, 2) // NORMACA is zero, SAM-5 5.2
	}
	if op.flags&writes != 0 && s.protected.Load() {
		return nil, s.protection()
	}
	return op, nil
}

// protect sets or clears SWP.
func (s *server) protect(software bool) {
	s.softProtected.Store(software)
	s.protected.Store(software || s.readOnly)
}

// protection returns what a command ends with that may not write.
func (s *server) protection() error {
	if s.readOnly {
		return errWriteProtected
	}
	return errSoftwareProtected
}

// ReportsAborts implements AbortReporter.
func (s *server) ReportsAborts() bool { return s.reportAborts.Load() }

// controlNACA is the NACA bit of the CONTROL byte, SAM-5 5.2.
const controlNACA = 0x04

// fail ends c with err, and logs what is not the initiator's doing.
func (s *server) fail(c *Command, err error) {
	cond := c.fail(err, s.descriptorSense.Load())
	level := slog.LevelDebug
	switch {
	case cond.key == scsi.HARDWARE_ERROR, cond.code == ascSpaceAllocFailed:
		level = slog.LevelError
	case cond.code&^0xff == scsi.ASC_MEDIUM_NOT_PRESENT: // initiators ask an empty drive again and again
	case cond.key == scsi.MEDIUM_ERROR, cond.key == scsi.NOT_READY:
		level = slog.LevelWarn
	}
	s.report(level, "scsi command failed", c, slog.Any("err", err))
}

// panicked ends c after a handler panicked with p.
func (s *server) panicked(c *Command, p any) {
	c.fail(errInternalFailure, s.descriptorSense.Load())
	c.spare = nil
	s.report(slog.LevelError, "scsi command panicked", c, slog.Any("panic", p), slog.String("stack", string(debug.Stack())))
}

func (s *server) report(level slog.Level, msg string, c *Command, attrs ...slog.Attr) {
	ctx := context.Background()
	if !s.log.Enabled(ctx, level) {
		return
	}
	if len(c.CDB) > 0 {
		attrs = append(attrs, slog.String("command", s.ops.name(c.CDB)))
	}
	if c.Nexus != nil {
		attrs = append(attrs, slog.String("initiator", c.Nexus.InitiatorName), slog.String("target", c.Nexus.TargetName))
	}
	s.log.LogAttrs(ctx, level, msg, attrs...)
}
