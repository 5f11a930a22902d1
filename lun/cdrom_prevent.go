package lun

import (
	"context"
	"slices"

	"github.com/gostor/gotgt/pkg/scsi"
)

// host is what a drive keeps for one nexus.
type host struct {
	prevent    bool // PREVENT is set
	persistent bool // so is the persistent kind
	events     []byte
	changed    bool // its features are not what it was told last
}

// Attach implements Unit.
func (d *CDROM) Attach(n *Nexus) {
	d.server.Attach(n)
	d.mu.Lock()
	if d.hosts[n] == nil {
		d.hosts[n] = &host{}
	}
	knows := slices.Contains(d.told, hostName(n))
	d.mu.Unlock()
	if knows {
		d.clear(n, scsi.ASC_POWERON_RESET)
	}
}

// Detach implements Unit. What the nexus prevented it prevents no more.
func (d *CDROM) Detach(n *Nexus) {
	d.server.Detach(n)
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.hosts, n)
	d.free()
}

// Reset implements Resetter.
func (d *CDROM) Reset() {
	d.server.Reset()
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, h := range d.hosts {
		h.prevent, h.persistent = false, false
	}
	d.free()
	d.speed.Store(fullSpeed)
}

// preventAllow executes PREVENT ALLOW MEDIUM REMOVAL, MMC-6 6.16. Each nexus
// has both kinds of prevention for itself: one ends with the command that
// allows removal, the other with the one for its kind, and both with the
// nexus.
func (d *CDROM) preventAllow(_ context.Context, c *Command) error {
	const (
		prevent    = 0x01
		persistent = 0x02
	)
	d.mu.Lock()
	defer d.mu.Unlock()
	h := d.hosts[c.Nexus]
	switch {
	case h != nil:
	case c.Nexus != nil:
		return context.Canceled // it went meanwhile, and nobody would allow
	default:
		h = &host{}
		d.hosts[nil] = h
	}
	on := c.CDB[4]&prevent != 0
	if c.CDB[4]&persistent != 0 {
		h.persistent = on
	} else {
		h.prevent = on
	}
	if !on {
		d.free()
	}
	return nil
}

// Free waits until Insert and Eject would not fail with a LockedError, and
// tells whether that came before the end of ctx.
func (d *CDROM) Free(ctx context.Context) bool {
	for {
		d.mu.Lock()
		free, freed := d.operable(), d.freed
		d.mu.Unlock()
		if free {
			return true
		}
		select {
		case <-freed:
		case <-ctx.Done():
			return false
		}
	}
}

// free wakes those who wait for the tray. d.mu is held.
func (d *CDROM) free() {
	close(d.freed)
	d.freed = make(chan struct{})
}

// operable tells whether the operator may open the tray, or finds it open or
// empty. d.mu is held.
func (d *CDROM) operable() bool { return d.disc == nil || d.open || len(d.lockedBy()) == 0 }

// prevents tells whether the tray stays closed when n asks to open it. With
// its own persistent prevention a nexus keeps the operator from opening the
// tray, in order to be asked, and opens it itself. d.mu is held.
func (d *CDROM) prevents(n *Nexus) bool {
	for other, h := range d.hosts {
		if h.prevent || h.persistent && other != n {
			return true
		}
	}
	return false
}

// lockedBy returns the names of initiators that prevent removal, ascending.
// d.mu is held.
func (d *CDROM) lockedBy() []string {
	by := []string{}
	for n, h := range d.hosts {
		if !h.prevent && !h.persistent {
			continue
		}
		name := "an initiator"
		if n != nil {
			name = n.InitiatorName
		}
		by = append(by, name)
	}
	slices.Sort(by)
	return slices.Compact(by)
}
