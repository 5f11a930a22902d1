package lun

import (
	"context"
	"encoding/binary"
	"fmt"
	"log/slog"
	"slices"

	"github.com/gostor/gotgt/pkg/api"
	"github.com/gostor/gotgt/pkg/scsi"
)

const ascRegistrationResources scsi.SCSISubError = 0x5504 // INSUFFICIENT REGISTRATION RESOURCES

// Conditions of PERSISTENT RESERVE OUT.
var (
	errInvalidRelease        = &condition{key: scsi.ILLEGAL_REQUEST, code: scsi.ASC_INVALID_RELEASE_OF_PERSISTENT_RESERVATION}
	errRegistrationResources = &condition{key: scsi.ILLEGAL_REQUEST, code: ascRegistrationResources}
)

// reservationOps returns RESERVE(6), RELEASE(6), PERSISTENT RESERVE IN and
// PERSISTENT RESERVE OUT of the unit u, which embeds s.
func (s *server) reservationOps(u Unit) []operation {
	ops := []operation{
		{name: "RESERVE(6)", usage: cdb(api.RESERVE, "11 0000 00 04"), flags: accessSelf, do: s.reserve6},
		{name: "RELEASE(6)", usage: cdb(api.RELEASE, "11 0000 00 04"), flags: inline | shared | accessSelf, do: s.release6},
	}
	for _, in := range []struct {
		action byte
		name   string
		data   func(*Nexus, *registrations) []byte
	}{
		{scsi.PR_IN_READ_KEYS, "READ KEYS", readKeys},
		{scsi.PR_IN_READ_RESERVATION, "READ RESERVATION", readReservation},
		{scsi.PR_IN_REPORT_CAPABILITIES, "REPORT CAPABILITIES", s.reservationCapabilities},
		{scsi.PR_IN_READ_FULL_STATUS, "READ FULL STATUS", readFullStatus},
	} {
		ops = append(ops, operation{
			name:   "PERSISTENT RESERVE IN, " + in.name,
			usage:  serviceAction(api.PERSISTENT_RESERVE_IN, api.SCSICommandType(in.action), "0000000000 ffff 04"),
			action: true, flags: inline | accessAll,
			do: func(_ context.Context, c *Command) error { return s.reserveIn(c, in.data) },
		})
	}
	for _, out := range []struct {
		action byte
		name   string
		mask   string // of the SCOPE and TYPE fields
	}{
		{scsi.PR_OUT_REGISTER, "REGISTER", "00"},
		{scsi.PR_OUT_RESERVE, "RESERVE", "ff"},
		{scsi.PR_OUT_RELEASE, "RELEASE", "ff"},
		{scsi.PR_OUT_CLEAR, "CLEAR", "00"},
		{scsi.PR_OUT_PREEMPT, "PREEMPT", "ff"},
		{scsi.PR_OUT_PREEMPT_AND_ABORT, "PREEMPT AND ABORT", "ff"},
		{scsi.PR_OUT_REGISTER_AND_IGNORE_EXISTING_KEY, "REGISTER AND IGNORE EXISTING KEY", "00"},
		{scsi.PR_OUT_REGISTER_AND_MOVE, "REGISTER AND MOVE", "00"},
	} {
		ops = append(ops, operation{
			name:   "PERSISTENT RESERVE OUT, " + out.name,
			usage:  serviceAction(api.PERSISTENT_RESERVE_OUT, api.SCSICommandType(out.action), out.mask+" 0000 ffffffff 04"),
			action: true, flags: accessSelf,
			do: func(ctx context.Context, c *Command) error { return s.reserveOut(ctx, u, c) },
		})
	}
	return ops
}

// reserveOut executes PERSISTENT RESERVE OUT, SPC-4 6.16. One such command at a
// time changes the unit:
//
//  1. the next state is computed from the current one
//  2. it is saved: what is answered with GOOD holds after a loss of power
//  3. it takes effect, for commands that come from now on, and others are told
//  4. PREEMPT AND ABORT aborts the commands that came before
//
// The other way round, 3 and 2, a reservation that is in effect could be gone
// after a crash; with 4 before 3, commands could slip in between.
func (s *server) reserveOut(ctx context.Context, u Unit, c *Command) error {
	q, err := s.reserveRequest(c)
	if err != nil {
		return err
	}
	done, err := s.takeTurn(ctx)
	if err != nil {
		return err
	}
	defer done()
	s.mu.Lock()
	current, reserved := s.persistent, s.reserved
	s.mu.Unlock()
	if reserved {
		return errReserved // by RESERVE(6), whoever has it, SPC-2 7.12
	}
	change, err := current.apply(q)
	if err != nil {
		return err
	}
	if err := s.saveReservations(&change.next); err != nil {
		return err
	}
	abort := s.changeReservations(change, q.action == scsi.PR_OUT_PREEMPT_AND_ABORT)
	done()
	level := slog.LevelInfo
	if change.next.sameAs(&current) {
		level = slog.LevelDebug // a sign of life, every few seconds
	}
	s.report(level, "persistent reservation", c, slog.Int("registrations", len(change.next.list)), slog.Int("type", int(change.next.kind)))
	for _, n := range abort {
		if err := n.Transport.AbortTasks(ctx, u, c); err != nil {
			return fmt.Errorf("abort commands of %s: %w", n.InitiatorName, err)
		}
	}
	if q.action == scsi.PR_OUT_PREEMPT_AND_ABORT {
		return s.endVisits(ctx, abort)
	}
	return nil
}

// reserveRequest reads the CDB and the parameter list, SPC-4 6.16.1, 6.16.3 and
// 6.16.4.
func (s *server) reserveRequest(c *Command) (*prRequest, error) {
	const (
		basic     = 24
		specIPT   = 0x08
		allTgPt   = 0x04
		aptpl     = 0x01
		unreg     = 0x02
		aptplByte = 20
	)
	q := &prRequest{action: c.CDB[1] & actionMask, from: c.Nexus.name(), kind: reservationType(c.CDB[2] & 0x0f)}
	length := uint64(binary.BigEndian.Uint32(c.CDB[5:])) // PARAMETER LIST LENGTH
	c.Transfer = int64(min(length, uint64(len(c.Out))))
	list := c.Out[:c.Transfer]
	if length < basic || uint64(len(list)) < length {
		return nil, errListLength
	}
	q.key, q.actionKey = binary.BigEndian.Uint64(list), binary.BigEndian.Uint64(list[8:])
	if q.action == scsi.PR_OUT_REGISTER_AND_MOVE {
		q.persist, q.unregister = list[17]&aptpl != 0, list[17]&unreg != 0
		if q.persist && s.modes.store == nil {
			return nil, invalidParameter(17, 0)
		}
		return q, s.moveTarget(c, q, list)
	}
	q.specify = list[aptplByte]&specIPT != 0
	if q.specify && q.action != scsi.PR_OUT_REGISTER {
		return nil, invalidParameter(aptplByte, 3)
	}
	if !q.specify && length != basic {
		return nil, errListLength
	}
	switch q.action {
	case scsi.PR_OUT_REGISTER, scsi.PR_OUT_REGISTER_AND_IGNORE_EXISTING_KEY:
		q.persist = list[aptplByte]&aptpl != 0
		if q.persist && s.modes.store == nil {
			return nil, invalidParameter(aptplByte, 0)
		}
		q.groups = []uint16{q.from.Group}
		if list[aptplByte]&allTgPt != 0 {
			q.groups = targetPorts(c.Nexus)
		}
		if q.specify {
			return q, s.specified(q, list)
		}
	case scsi.PR_OUT_RESERVE, scsi.PR_OUT_RELEASE, scsi.PR_OUT_PREEMPT, scsi.PR_OUT_PREEMPT_AND_ABORT:
		if c.CDB[2]>>4 != scsi.PR_LU_SCOPE {
			return nil, invalidField(2, 7)
		}
		// A RELEASE of another type than the reservation's has an answer of
		// its own, and a PREEMPT may need none.
		if !q.kind.valid() && q.action != scsi.PR_OUT_RELEASE {
			return nil, invalidField(2, 3)
		}
	}
	return q, nil
}

// targetPorts returns the relative target port identifiers of the target that
// n is a nexus with. They are those of its portal groups.
func targetPorts(n *Nexus) (groups []uint16) {
	if n == nil {
		return []uint16{0}
	}
	for _, g := range n.inventory().portGroups(n) {
		groups = append(groups, g.Tag)
	}
	return groups
}

// specified reads the list of TransportIDs of REGISTER with SPEC_I_PT, SPC-4
// 6.16.3: each stands for a nexus with each of the target ports.
func (s *server) specified(q *prRequest, list []byte) error {
	const header = 28
	if len(list) < header {
		return errListLength
	}
	if n := uint64(binary.BigEndian.Uint32(list[24:])); n != uint64(len(list)-header) {
		return invalidParameter(24, -1)
	}
	for rest := list[header:]; len(rest) > 0; {
		at := len(list) - len(rest)
		id, behind, ok := cutTransportID(rest)
		if !ok {
			return invalidParameter(at, -1)
		}
		rest = behind
		ids := []isid{id.isid}
		if !id.port {
			// All its ports that are known. That none are would leave
			// unregistered whom the initiator means.
			if ids = s.knownPorts(id.initiator); len(ids) == 0 {
				return invalidParameter(at, -1)
			}
		}
		for _, i := range ids {
			for _, group := range q.groups {
				w := nexusName{id.initiator, i, q.from.Target, group}
				if w != q.from && len(q.also) <= maxRegistrations {
					q.also = append(q.also, w)
				}
			}
		}
	}
	return nil
}

// knownPorts returns the initiator ports of a node that have a session or a
// registration.
func (s *server) knownPorts(initiator string) []isid {
	s.mu.Lock()
	defer s.mu.Unlock()
	ids := s.persistent.known(initiator)
	for _, st := range s.nexuses {
		if st.name.Initiator == initiator && !slices.Contains(ids, st.name.ISID) {
			ids = append(ids, st.name.ISID)
		}
	}
	return ids
}

// moveTarget reads where REGISTER AND MOVE moves to, SPC-4 6.16.4.
func (s *server) moveTarget(c *Command, q *prRequest, list []byte) error {
	const header = 24
	if n := uint64(binary.BigEndian.Uint32(list[20:])); n != uint64(len(list)-header) {
		return errListLength
	}
	group := binary.BigEndian.Uint16(list[18:])
	if !slices.Contains(targetPorts(c.Nexus), group) {
		return invalidParameter(18, -1)
	}
	id, rest, ok := cutTransportID(list[header:])
	if !ok || !id.port || len(rest) > 0 {
		return invalidParameter(header, -1)
	}
	q.to = nexusName{id.initiator, id.isid, q.from.Target, group}
	return nil
}
