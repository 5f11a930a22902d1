package lun

import (
	"slices"

	"github.com/gostor/gotgt/pkg/scsi"
)

// prRequest is a PERSISTENT RESERVE OUT command whose fields have been
// checked, as far as they can be without the state of the unit.
type prRequest struct {
	action byte // service action, SPC-4 6.16.2
	from   nexusName
	kind   reservationType

	key       uint64 // RESERVATION KEY
	actionKey uint64 // SERVICE ACTION RESERVATION KEY
	persist   bool   // APTPL

	groups  []uint16    // REGISTER: the target ports it is for
	specify bool        // REGISTER: SPEC_I_PT
	also    []nexusName // REGISTER with SPEC_I_PT: further nexuses

	to         nexusName // REGISTER AND MOVE
	unregister bool      // REGISTER AND MOVE: UNREG
}

// apply returns what q does to r.
func (r *registrations) apply(q *prRequest) (*prChange, error) {
	switch q.action {
	case scsi.PR_OUT_REGISTER, scsi.PR_OUT_REGISTER_AND_IGNORE_EXISTING_KEY:
		return r.register(q)
	}
	// All other service actions are for those who are registered, with
	// their key, SPC-4 5.13.1 and 6.16.3.
	if key, registered := r.key(q.from); !registered || key != q.key {
		return nil, errReserved
	}
	switch q.action {
	case scsi.PR_OUT_RESERVE:
		return r.reserve(q)
	case scsi.PR_OUT_RELEASE:
		return r.release(q)
	case scsi.PR_OUT_CLEAR:
		return r.clear(q)
	case scsi.PR_OUT_PREEMPT, scsi.PR_OUT_PREEMPT_AND_ABORT:
		return r.preempt(q)
	default:
		return r.move(q)
	}
}

// register is REGISTER and REGISTER AND IGNORE EXISTING KEY, SPC-4 5.13.7. With
// several target ports it does what the same request would do through each.
func (r *registrations) register(q *prRequest) (*prChange, error) {
	c := r.change()
	for _, group := range q.groups {
		w := q.from
		w.Group = group
		key, registered := r.key(w)
		if q.action == scsi.PR_OUT_REGISTER {
			if key != q.key { // zero for who is not registered
				return nil, errReserved
			}
			if q.specify && (registered || q.actionKey == 0) {
				return nil, invalidField(1, 4)
			}
		}
		switch {
		case q.actionKey != 0:
			if err := c.put(w, q.actionKey); err != nil {
				return nil, err
			}
		case registered:
			c.unregister(w)
		}
	}
	for _, w := range q.also {
		if _, registered := r.key(w); registered {
			continue
		}
		if err := c.put(w, q.actionKey); err != nil {
			return nil, err
		}
	}
	c.next.persist = q.persist
	return c.done(q.from, true), nil
}

// reserve is RESERVE, SPC-4 5.13.9.
func (r *registrations) reserve(q *prRequest) (*prChange, error) {
	c := r.change()
	switch {
	case r.kind == 0:
		c.next.kind, c.next.holder = q.kind, q.from
		if q.kind.ofAll() {
			c.next.holder = nexusName{}
		}
	case !r.holds(q.from) || r.kind != q.kind:
		return nil, errReserved
	}
	return c.done(q.from, false), nil
}

// release is RELEASE, SPC-4 5.13.11.2.
func (r *registrations) release(q *prRequest) (*prChange, error) {
	c := r.change()
	if r.holds(q.from) {
		if r.kind != q.kind {
			return nil, errInvalidRelease
		}
		c.release()
	}
	return c.done(q.from, false), nil
}

// clear is CLEAR, SPC-4 5.13.11.6.
func (r *registrations) clear(q *prRequest) (*prChange, error) {
	c := r.change()
	c.tellRegistered(scsi.ASC_RESERVATIONS_PREEMPTED)
	c.next.list, c.next.kind, c.next.holder = nil, 0, nexusName{}
	return c.done(q.from, true), nil
}

// preempt is PREEMPT and PREEMPT AND ABORT, SPC-4 5.13.11.4 and 5.13.11.5. By
// the key it takes away registrations, and if that is a holder's (or zero, when
// all registrants hold the reservation), also the reservation. Who preempts
// keeps its registration when it gets the reservation.
func (r *registrations) preempt(q *prRequest) (*prChange, error) {
	everybody := r.kind.ofAll() && q.actionKey == 0
	if q.actionKey == 0 && !everybody {
		return nil, invalidParameter(8, -1)
	}
	takes := everybody
	if r.kind != 0 && !r.kind.ofAll() {
		key, _ := r.key(r.holder)
		takes = key == q.actionKey
	}
	c := r.change()
	for _, g := range r.list {
		if g.Key != q.actionKey && (!everybody || g.Who == q.from) {
			continue
		}
		c.preempted = append(c.preempted, g.Who)
		if takes && g.Who == q.from {
			continue
		}
		c.attentions[g.Who] = ascRegistrationsPreempted
		c.drop(g.Who)
	}
	if len(c.preempted) == 0 && !everybody {
		return nil, errReserved // nobody has that key
	}
	if takes {
		if r.kind != q.kind {
			c.tellRegistered(scsi.ASC_RESERVATIONS_RELEASED)
		}
		c.next.kind, c.next.holder = q.kind, q.from
		if q.kind.ofAll() {
			c.next.holder = nexusName{}
		}
	} else if len(c.next.list) == 0 {
		c.next.kind = 0 // of all registrants, and who preempted was the last
	}
	return c.done(q.from, true), nil
}

// move is REGISTER AND MOVE, SPC-4 5.13.8.
func (r *registrations) move(q *prRequest) (*prChange, error) {
	switch {
	case r.kind == 0:
		return nil, invalidField(1, 4)
	case r.kind.ofAll() || !r.holds(q.from):
		return nil, errReserved
	case q.actionKey == 0:
		return nil, invalidParameter(8, -1)
	case q.to == q.from:
		return nil, invalidParameter(24, -1)
	}
	c := r.change()
	if err := c.put(q.to, q.actionKey); err != nil {
		return nil, err
	}
	c.next.holder = q.to
	if q.unregister {
		c.drop(q.from)
	}
	c.next.persist = q.persist
	return c.done(q.from, true), nil
}

// known returns the initiator ports of a node that r has heard of.
func (r *registrations) known(initiator string) (ids []isid) {
	for _, g := range r.list {
		if g.Who.Initiator == initiator && !slices.Contains(ids, g.Who.ISID) {
			ids = append(ids, g.Who.ISID)
		}
	}
	return ids
}
