package lun

import (
	"slices"

	"github.com/gostor/gotgt/pkg/scsi"
)

// Persistent reservations, SPC-4 5.13. This file holds what they are and how
// each service action of PERSISTENT RESERVE OUT changes them: functions from
// one state and a request to the next state and what others are to be told.
// They know no sessions, no locks and no storage. prout.go runs the command,
// prin.go shows the state, prstore.go keeps it.
//
// A registration belongs to an I_T nexus by its names. It outlives sessions,
// and a unit shown by several targets has one state for all of them.

// registrations is the state of a unit: who is registered with which key, and
// which persistent reservation there is. It is replaced, never changed.
type registrations struct {
	generation uint32 // PRGENERATION
	list       []registration
	kind       reservationType
	holder     nexusName // registered, and means something, when one holds the reservation
	persist    bool      // APTPL
}

type registration struct {
	Who nexusName `json:"nexus"`
	Key uint64    `json:"key"`
}

// maxRegistrations bounds the registrations of a unit: a cluster of 64 nodes
// with eight paths each has half of them.
const maxRegistrations = 1024

// reservationType is the TYPE of a persistent reservation, SPC-4 6.15.3.4;
// zero means that there is none.
type reservationType byte

const (
	writeExclusive                reservationType = 1
	exclusiveAccess               reservationType = 3
	writeExclusiveRegistrants     reservationType = 5
	exclusiveAccessRegistrants    reservationType = 6
	writeExclusiveAllRegistrants  reservationType = 7
	exclusiveAccessAllRegistrants reservationType = 8
)

// valid tells whether t can be asked for.
func (t reservationType) valid() bool {
	switch t {
	case writeExclusive, exclusiveAccess, writeExclusiveRegistrants, exclusiveAccessRegistrants,
		writeExclusiveAllRegistrants, exclusiveAccessAllRegistrants:
		return true
	}
	return false
}

// ofAll tells whether all who are registered hold the reservation.
func (t reservationType) ofAll() bool {
	return t == writeExclusiveAllRegistrants || t == exclusiveAccessAllRegistrants
}

// ofRegistrants tells whether all who are registered have the holder's access.
func (t reservationType) ofRegistrants() bool { return t >= writeExclusiveRegistrants }

// key returns the reservation key of w.
func (r *registrations) key(w nexusName) (key uint64, registered bool) {
	if i := r.index(w); i >= 0 {
		return r.list[i].Key, true
	}
	return 0, false
}

func (r *registrations) index(w nexusName) int {
	return slices.IndexFunc(r.list, func(g registration) bool { return g.Who == w })
}

// sameAs tells whether the same are registered, whatever their keys, and have
// the same reservation.
func (r *registrations) sameAs(o *registrations) bool {
	return r.kind == o.kind && r.holder == o.holder &&
		slices.EqualFunc(r.list, o.list, func(a, b registration) bool { return a.Who == b.Who })
}

// holds tells whether w is a persistent reservation holder, SPC-4 5.13.10.
func (r *registrations) holds(w nexusName) bool {
	switch {
	case r.kind == 0:
		return false
	case r.kind.ofAll():
		return r.index(w) >= 0
	}
	return r.holder == w
}

// access tells whether w has the access of a holder.
func (r *registrations) access(w nexusName) bool {
	return r.holds(w) || r.kind.ofRegistrants() && r.index(w) >= 0
}

// denies returns the access classes of operations that w may not execute.
func (r *registrations) denies(w nexusName) opFlags {
	if r.kind == 0 || r.access(w) {
		return 0
	}
	switch r.kind {
	case writeExclusive, writeExclusiveRegistrants, writeExclusiveAllRegistrants:
		return accessWrite
	}
	return accessRead | accessWrite
}

// prChange is what a service action does.
type prChange struct {
	next registrations

	// attentions are unit attentions for others, by nexus.
	attentions map[nexusName]scsi.SCSISubError

	// preempted are those whose commands PREEMPT AND ABORT aborts.
	preempted []nexusName
}

// change begins a change of r.
func (r *registrations) change() *prChange {
	c := &prChange{next: *r, attentions: map[nexusName]scsi.SCSISubError{}}
	c.next.list = slices.Clone(r.list)
	return c
}

// put registers w with a key, or changes its key.
func (c *prChange) put(w nexusName, key uint64) error {
	if i := c.next.index(w); i >= 0 {
		c.next.list[i].Key = key
		return nil
	}
	if len(c.next.list) >= maxRegistrations {
		return errRegistrationResources
	}
	c.next.list = append(c.next.list, registration{w, key})
	return nil
}

// drop removes the registration of w, if there is one, and nothing else.
func (c *prChange) drop(w nexusName) {
	if i := c.next.index(w); i >= 0 {
		c.next.list = slices.Delete(c.next.list, i, i+1)
	}
}

// unregister removes the registration of w. The reservation goes with its
// holder, and with the last of all registrants, SPC-4 5.13.11.3.
func (c *prChange) unregister(w nexusName) {
	held := c.next.holds(w)
	c.drop(w)
	if held && (!c.next.kind.ofAll() || len(c.next.list) == 0) {
		c.release()
	}
}

// release ends the reservation. Where others have access by it, they are told.
func (c *prChange) release() {
	if c.next.kind.ofRegistrants() {
		c.tellRegistered(scsi.ASC_RESERVATIONS_RELEASED)
	}
	c.next.kind, c.next.holder = 0, nexusName{}
}

func (c *prChange) tellRegistered(code scsi.SCSISubError) {
	for _, g := range c.next.list {
		c.attentions[g.Who] = code
	}
}

// done completes a change that from has asked for: who asks hears of it by the
// status of the command.
func (c *prChange) done(from nexusName, counts bool) *prChange {
	delete(c.attentions, from)
	if counts {
		c.next.generation++
	}
	return c
}
