package lun

import "github.com/gostor/gotgt/pkg/scsi"

// Which disks a nexus may name as source and destination of a copy: those of
// its own target, and those of the targets that SetPeers tells. Nothing else
// on the same server is found: who may not log in to a target must not read
// its disks by copying them.

// SetPeers says which other maps a nexus of m may name disks of. The function
// is called with every copy, from any goroutine; it has to return maps of
// targets only that n could log in to just as it logged in to this one.
func (m *Map) SetPeers(peers func(n *Nexus) []*Map) { m.peers.Store(&peers) }

// disk returns the disk that n calls by an NAA designator, or nil. A nexus that
// no map knows can name the disk it talks to, own.
func (n *Nexus) disk(own *Disk, naa []byte) *Disk {
	if string(own.id.naa[:]) == string(naa) {
		return own
	}
	m := n.inventory()
	if m == nil {
		return nil
	}
	maps := []*Map{m}
	if peers := m.peers.Load(); peers != nil {
		maps = append(maps, (*peers)(n)...)
	}
	for _, m := range maps {
		for _, u := range m.current.Load().units {
			if d, ok := u.(*Disk); ok && string(d.id.naa[:]) == string(naa) {
				return d
			}
		}
	}
	return nil
}

// identificationLength is the length of an Identification Descriptor CSCD
// descriptor, SPC-4 6.4.5.6:
//
//	 0      E4h
//	 1      LU ID TYPE and NUL, both obsolete; PERIPHERAL DEVICE TYPE
//	 2..3   relative initiator port identifier
//	 4..7   code set; association, designator type; reserved; designator length
//	 8..27  designator
//	28      PAD
//	29..31  logical block length, zero: whatever it is
const identificationLength = 32

const identificationType = 0xe4

// appendIdentification appends the CSCD descriptor that names d.
func (d *Disk) appendIdentification(b []byte) []byte {
	p := [identificationLength]byte{0: identificationType, 1: d.peripheral, 4: scsi.INQ_CODE_BIN,
		5: scsi.ASS_LU<<4 | scsi.DESG_NAA, 7: byte(len(d.id.naa)), 30: logicalBlock >> 8, 31: logicalBlock & 0xff}
	copy(p[8:], d.id.naa[:])
	return append(b, p[:]...)
}

// identify returns the disk that a CSCD descriptor names for n, or nil.
func (n *Nexus) identify(own *Disk, p []byte) *Disk {
	if p[1]&0x1f != own.peripheral&0x1f {
		return nil
	}
	if p[4]&0x0f != scsi.INQ_CODE_BIN || p[5]&0x3f != scsi.ASS_LU<<4|scsi.DESG_NAA || int(p[7]) != len(own.id.naa) {
		return nil
	}
	if length := int(p[29])<<16 | int(p[30])<<8 | int(p[31]); length != 0 && length != logicalBlock {
		return nil
	}
	return n.disk(own, p[8:8+len(own.id.naa)])
}
