package lun

import (
	"cmp"
	"context"
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/gostor/gotgt/pkg/api"
	"github.com/gostor/gotgt/pkg/scsi"
)

// Asymmetric logical unit access, SPC-4 5.15. A target port group is one
// portal group of the target: its tag is the TARGET PORT GROUP, and the one
// target port in it has the same number as RELATIVE TARGET PORT IDENTIFIER. Who
// serves the target says how the groups stand (Map.SetPortGroups); initiators
// are told, and can ask, but cannot change it.

// AccessState is a target port asymmetric access state.
type AccessState byte

// The access states, SPC-4 6.37. In the active ones all commands run.
const (
	ActiveOptimized    AccessState = 0x0
	ActiveNonOptimized AccessState = 0x1
	Standby            AccessState = 0x2 // no medium access, and soon could be
	Unavailable        AccessState = 0x3 // not even parameters
	Offline            AccessState = 0xe // use another port
	Transitioning      AccessState = 0xf // wait
)

// PortGroup is how a target port group stands, for all units of a Map.
type PortGroup struct {
	Tag       uint16 // target portal group tag
	State     AccessState
	Preferred bool // initiators should use it, if they can
}

// restricts tells whether there are commands that do not run in a state.
func (a AccessState) restricts() bool { return a > ActiveNonOptimized }

// notReady returns what commands end with that do not run in a state, SPC-4
// 5.15.2.4.
func (a AccessState) notReady() *condition {
	switch a {
	case Standby:
		return errStandby
	case Unavailable:
		return errUnavailable
	case Transitioning:
		return errTransition
	default:
		return errOffline
	}
}

// Conditions of port groups.
var (
	errTransition  = &condition{key: scsi.NOT_READY, code: 0x040a} // ASYMMETRIC ACCESS STATE TRANSITION
	errStandby     = &condition{key: scsi.NOT_READY, code: 0x040b} // TARGET PORT IN STANDBY STATE
	errUnavailable = &condition{key: scsi.NOT_READY, code: 0x040c} // TARGET PORT IN UNAVAILABLE STATE
	errOffline     = &condition{key: scsi.NOT_READY, code: 0x0412} // OFFLINE
)

// SetPortGroups says how the groups stand from now on. A group that it does not
// name is active and optimized. Nexuses find a unit attention when anything
// has changed, SPC-4 5.15.2.
func (m *Map) SetPortGroups(groups ...PortGroup) error {
	groups = slices.Clone(groups)
	slices.SortFunc(groups, func(a, b PortGroup) int { return cmp.Compare(a.Tag, b.Tag) })
	for i, g := range groups {
		if g.State.restricts() && g.State.notReady() == errOffline && g.State != Offline {
			return fmt.Errorf("target port group %d: there is no access state %#x", g.Tag, byte(g.State))
		}
		if i > 0 && groups[i-1].Tag == g.Tag {
			return fmt.Errorf("target port group %d is there twice", g.Tag)
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if slices.Equal(groups, m.portGroups(nil)) {
		return nil
	}
	m.groups.Store(&groups)
	for _, u := range m.current.Load().units {
		if a, ok := u.(attentive); ok {
			for n := range m.nexuses {
				a.setAccess(n, m.access(n))
				a.raise(n, ascAccessStateChanged)
			}
		}
	}
	return nil
}

// portGroups returns the groups of a target, ascending, with that of n. A nil
// Map has no other.
func (m *Map) portGroups(n *Nexus) []PortGroup {
	var groups []PortGroup
	if m != nil {
		if g := m.groups.Load(); g != nil {
			groups = *g
		}
	}
	if n == nil {
		return groups
	}
	i, found := slices.BinarySearchFunc(groups, n.PortalGroup, func(g PortGroup, tag uint16) int { return cmp.Compare(g.Tag, tag) })
	if found {
		return groups
	}
	return slices.Insert(slices.Clone(groups), i, PortGroup{Tag: n.PortalGroup})
}

// access returns the state of the group that n came through.
func (m *Map) access(n *Nexus) AccessState {
	for _, g := range m.portGroups(n) {
		if g.Tag == n.PortalGroup {
			return g.State
		}
	}
	return ActiveOptimized
}

// setAccess takes over the state of the group that n came through.
func (s *server) setAccess(n *Nexus, state AccessState) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if st := s.nexuses[n]; st != nil {
		s.countAccess(st.access, -1)
		st.access = state
		s.countAccess(st.access, 1)
	}
}

// countAccess makes a restricted nexus a reason to look at the gate. s.mu is
// held.
func (s *server) countAccess(state AccessState, by int32) {
	if state.restricts() {
		s.gate.Add(by)
	}
}

// accessOf returns the access state as n has it.
func (s *server) accessOf(n *Nexus) AccessState {
	s.mu.Lock()
	defer s.mu.Unlock()
	if st := s.nexuses[n]; st != nil {
		return st.access
	}
	return ActiveOptimized
}

// checkAccess returns what keeps op from running for n. op is nil when there
// is no such operation.
func (s *server) checkAccess(n *Nexus, op *operation) error {
	if state := s.accessOf(n); op != nil && state.restricts() && !runsIn(op, state) {
		return state.notReady()
	}
	return nil
}

// runsIn tells whether an operation runs in a state that is not active, SPC-4
// 5.15.2.4. TEST UNIT READY, READ CAPACITY and RESERVE are more than it asks
// for: VMware's initiators give a path up where they fail.
func runsIn(op *operation, state AccessState) bool {
	code := api.SCSICommandType(op.usage[0])
	var action api.SCSICommandType
	if op.action {
		action = api.SCSICommandType(op.usage[1] & actionMask)
	}
	switch code {
	case api.INQUIRY, api.REPORT_LUNS, api.REQUEST_SENSE:
		return true
	case api.MAINT_PROTOCOL_IN:
		return action == reportGroupsAction || state == Standby || state == Unavailable
	case api.TEST_UNIT_READY, api.READ_CAPACITY, api.RESERVE, api.RELEASE:
		return state == Standby || state == Unavailable
	case api.SERVICE_ACTION_IN:
		return action == api.SAI_READ_CAPACITY_16 && (state == Standby || state == Unavailable)
	case api.MODE_SENSE, api.MODE_SENSE_10, api.MODE_SELECT, api.MODE_SELECT_10, api.LOG_SENSE, api.LOG_SELECT,
		api.SEND_DIAGNOSTIC, api.RECEIVE_DIAGNOSTIC, api.PERSISTENT_RESERVE_IN, api.PERSISTENT_RESERVE_OUT:
		return state == Standby
	default:
		return false
	}
}

const reportGroupsAction api.SCSICommandType = 0x0a

func (s *server) reportGroupsOp() operation {
	return operation{
		name: "REPORT TARGET PORT GROUPS", usage: cdb(api.MAINT_PROTOCOL_IN, "ea 00000000 ffffffff 00 04"),
		action: true, flags: shared | inline | accessAll, do: s.reportGroups,
	}
}

// tellsGroups tells whether the unit has REPORT TARGET PORT GROUPS.
func (s *server) tellsGroups() bool {
	return pick(s.ops.actions[byte(api.MAINT_PROTOCOL_IN)], byte(reportGroupsAction)) != nil
}

// reportGroups executes REPORT TARGET PORT GROUPS, SPC-4 6.37.
func (s *server) reportGroups(_ context.Context, c *Command) error {
	const (
		extended  = 1
		pref      = 0x80
		supported = 0x80 | 0x40 | 0x08 | 0x04 | 0x02 | 0x01 // all but LBA dependent
		implicit  = 2                                       // what the state has been changed by
	)
	p := make([]byte, 4, 32)
	switch format := c.CDB[1] >> 5; format { // PARAMETER DATA FORMAT
	case 0:
	case extended:
		p = append(p, extended<<4, 0, 0, 0) // without an IMPLICIT TRANSITION TIME
	default:
		return invalidField(1, 7)
	}
	m := c.Nexus.inventory()
	for _, g := range m.portGroups(c.Nexus) {
		d := [12]byte{byte(g.State), supported, byte(g.Tag >> 8), byte(g.Tag), 0, 0, 0, 1 /* port */}
		if g.Preferred {
			d[0] |= pref
		}
		if m != nil && m.groups.Load() != nil {
			d[5] = implicit
		}
		binary.BigEndian.PutUint16(d[10:], g.Tag)
		p = append(p, d[:]...)
	}
	binary.BigEndian.PutUint32(p, uint32(len(p)-4))
	c.reply(p, uint64(binary.BigEndian.Uint32(c.CDB[6:])))
	return nil
}
