package lun

import (
	"context"
	"encoding/binary"
	"slices"
)

// Notification classes of GET EVENT STATUS NOTIFICATION, MMC-6 6.6.2.2, by
// their bit in the request and in the answer's list of those supported.
const (
	classOperational = 1
	classPower       = 2
	classMedia       = 4
	classBusy        = 6

	supportedClasses = 1<<classOperational | 1<<classPower | 1<<classMedia | 1<<classBusy
)

// Media events, MMC-6 6.6.2.6. Each nexus has its own in a queue.
const (
	mediaEjectRequest = 1
	mediaNew          = 2
	mediaRemoval      = 3
)

// announce queues a media event for all nexuses. At most a removal and the
// arrival after it wait: what came before is history. d.mu is held.
func (d *CDROM) announce(event byte) {
	for _, h := range d.hosts {
		switch event {
		case mediaEjectRequest:
			if slices.Contains(h.events, event) {
				continue
			}
		case mediaRemoval:
			h.events = h.events[:0]
		case mediaNew:
			h.events = slices.DeleteFunc(h.events, func(e byte) bool { return e != mediaRemoval })
		}
		h.events = append(h.events, event)
		if event != mediaEjectRequest {
			h.changed = true
		}
	}
}

// getEventStatus executes GET EVENT STATUS NOTIFICATION, MMC-6 6.6: what has
// happened since this nexus asked last, one event at a time, of the lowest
// class that has one.
func (d *CDROM) getEventStatus(_ context.Context, c *Command) error {
	const (
		polled = 0x01
		nea    = 0x80 // no event available: of none of the requested classes are there any
	)
	if c.CDB[1]&polled == 0 {
		return invalidField(1, 0)
	}
	request := c.CDB[4]
	allocation := uint64(binary.BigEndian.Uint16(c.CDB[7:]))
	class, event := d.nextEvent(c.Nexus, request&supportedClasses, allocation > 4)
	p := []byte{0, 2, nea, supportedClasses}
	if class > 0 {
		p[1], p[2] = 6, class
		p = append(p, event[:]...)
	}
	c.reply(p, allocation)
	return nil
}

// nextEvent returns the event to tell n of the requested classes, zero for
// none at all, and takes it from the queue if it is going to be seen.
func (d *CDROM) nextEvent(n *Nexus, classes byte, seen bool) (class byte, event [4]byte) {
	d.mu.Lock()
	defer d.mu.Unlock()
	h := d.hosts[n]
	if h == nil {
		h = &host{}
	}
	first := byte(0)
	for class := byte(1); class < 8; class++ {
		if classes&(1<<class) == 0 {
			continue
		}
		if first == 0 {
			first = class
		}
		switch {
		case class == classOperational && h.changed:
			h.changed = !seen
			return class, [4]byte{2, 0, 0, 1} // a change of features has occurred
		case class == classMedia && len(h.events) > 0:
			e := h.events[0]
			if seen {
				h.events = slices.Delete(h.events, 0, 1)
			}
			return class, [4]byte{e, d.mediaStatus()}
		}
	}
	switch first {
	case classPower:
		return first, [4]byte{0, 1} // active
	case classMedia:
		return first, [4]byte{0, d.mediaStatus()}
	}
	return first, [4]byte{}
}

// mediaStatus returns the MEDIA STATUS field, MMC-6 6.6.2.6. d.mu is held.
func (d *CDROM) mediaStatus() byte {
	const (
		trayOpen = 0x01
		present  = 0x02
	)
	switch {
	case d.open:
		return trayOpen
	case d.ready.Load() != nil:
		return present
	}
	return 0
}

// mechanismStatus executes MECHANISM STATUS, MMC-6 6.9: no changer, no slots,
// and nothing that moves.
func (d *CDROM) mechanismStatus(_ context.Context, c *Command) error {
	const doorOpen = 0x10
	var p [8]byte
	d.mu.Lock()
	if d.open {
		p[1] = doorOpen
	}
	d.mu.Unlock()
	c.reply(p[:], uint64(binary.BigEndian.Uint16(c.CDB[8:])))
	return nil
}
