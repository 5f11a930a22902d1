package lun

import (
	"fmt"
	"slices"
)

// Linux takes any unit attention of a removable medium for another medium, and
// ends what it was about to read with an error. A session that was lost and
// comes back, or a server that was restarted, would cost a guest the read it is
// at, though the disc is the same. So a drive remembers who has heard all that
// there was to hear since the disc came, and spares them the unit attention that
// otherwise tells a new nexus of a power on (SAM-5 5.14): for an initiator that
// knows the disc there is nothing new.
//
// What is remembered belongs to one state of the tray, a generation. The next
// one begins with nobody: each nexus hears of the new disc, or of a power on.

// maxTold is how many initiators a drive remembers. Others hear more than they
// need to.
const maxTold = 256

// hostName names an initiator port, RFC 7143 4.2.7.1 and 10.12.5.
func hostName(n *Nexus) string { return fmt.Sprintf("%s,i,0x%x", n.InitiatorName, n.ISID) }

// Told returns the generation of what is in the drive, and the initiator ports
// that know of it. They may be kept for CDROMConfig.
func (d *CDROM) Told() (generation uint64, hosts []string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.generation, slices.Clone(d.told)
}

// hear notes that n knows what is in the drive. d.mu is held.
func (d *CDROM) hear(n *Nexus) {
	name := hostName(n)
	if slices.Contains(d.told, name) || len(d.told) >= maxTold {
		return
	}
	d.told = append(d.told, name)
	if d.toldMore != nil {
		d.toldMore()
	}
}

// turn begins the next generation. d.mu is held.
func (d *CDROM) turn() {
	d.generation++
	d.told = nil
}
