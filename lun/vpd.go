package lun

import (
	"encoding/binary"
	"fmt"

	"github.com/gostor/gotgt/pkg/scsi"
)

// vpdPage is a vital product data page, SPC-4 7.8. The list of pages is
// derived from the same table, so it names exactly what exists.
type vpdPage struct {
	code byte
	body func(*Nexus) []byte // what follows the four bytes of header
}

// vpd returns the page of that code as n sees it.
func (s *server) vpd(n *Nexus, code byte) ([]byte, error) {
	for _, p := range s.pages {
		if p.code == code {
			body := p.body(n)
			d := append(make([]byte, 0, 4+len(body)), s.peripheral, code, byte(len(body)>>8), byte(len(body)))
			return append(d, body...), nil
		}
	}
	return nil, invalidField(2, 7)
}

// supportedPages is the Supported VPD Pages page, SPC-4 7.8.16.
func (s *server) supportedPages() vpdPage {
	return vpdPage{0x00, func(*Nexus) []byte {
		codes := make([]byte, len(s.pages))
		for i, p := range s.pages {
			codes[i] = p.code
		}
		return codes
	}}
}

// serialNumber is the Unit Serial Number page, SPC-4 7.8.15. A NUL ends the
// number, as other targets do it: Windows' compliance tests look for it.
func (s *server) serialNumber() vpdPage {
	return vpdPage{0x80, func(*Nexus) []byte { return append([]byte(s.id.serial), 0) }}
}

// deviceIdentification is the Device Identification page, SPC-4 7.8.6. The
// NAA designator comes first, because it is the one that all initiators
// understand: ESXi and Windows failover clusters know the disk by it.
func (s *server) deviceIdentification() vpdPage {
	return vpdPage{0x83, func(n *Nexus) []byte {
		vendor := make([]byte, 8, 8+len(s.id.serial))
		ascii(vendor, s.id.vendor)
		d := designator(nil, scsi.INQ_CODE_BIN, scsi.ASS_LU, scsi.DESG_NAA, s.id.naa[:])
		d = designator(d, scsi.INQ_CODE_ASCII, scsi.ASS_LU, scsi.DESG_T10, append(vendor, s.id.serial...))
		return s.portDesignators(d, n)
	}}
}

// portIdentification is the Device Identification page of a unit that belongs
// to a target as a whole, SPC-4 7.8.6.2.4.
func (s *server) portIdentification() vpdPage {
	return vpdPage{0x83, func(n *Nexus) []byte { return s.portDesignators(nil, n) }}
}

// portDesignators appends what tells of the port that n came through and of the
// target.
func (s *server) portDesignators(d []byte, n *Nexus) []byte {
	if n == nil {
		return d
	}
	port := binary.BigEndian.AppendUint32(nil, uint32(n.PortalGroup))
	d = designator(d, scsi.INQ_CODE_BIN, scsi.ASS_TGT_PORT, scsi.DESG_REL_TGT_PORT, port)
	if s.tellsGroups() {
		d = designator(d, scsi.INQ_CODE_BIN, scsi.ASS_TGT_PORT, scsi.DESG_TGT_PORT_GRP, port) // a group has one port
	}
	d = designator(d, scsi.INQ_CODE_UTF8, scsi.ASS_TGT_PORT, scsi.DESG_SCSI, portName(n.TargetName, n.PortalGroup))
	return designator(d, scsi.INQ_CODE_UTF8, scsi.ASS_TGT_DEV, scsi.DESG_SCSI, nameString(n.TargetName))
}

// portName returns the name of a target port as a SCSI name string, RFC 7143
// 4.4.7.
func portName(target string, tag uint16) []byte {
	return nameString(fmt.Sprintf("%s,t,0x%04x", target, tag))
}

// designator appends a designation descriptor to d, SPC-4 7.8.6.1. A name
// that is too long for its length field is left out.
func designator(d []byte, codeSet, association, kind byte, value []byte) []byte {
	if len(value) > 0xff {
		return d
	}
	head := []byte{codeSet, association<<4 | kind, 0, byte(len(value))}
	if association != scsi.ASS_LU {
		head[0] |= scsi.PIV_ISCSI << 4
		head[1] |= 0x80 // PIV: the protocol identifier is valid
	}
	return append(append(d, head...), value...)
}

// nameString returns a SCSI name string, SPC-4 7.8.6.11: ended and padded to a
// multiple of four bytes with NULs.
func nameString(s string) []byte {
	return append([]byte(s), make([]byte, 4-len(s)%4)...)
}

// extendedInquiry is the Extended INQUIRY Data page, SPC-4 7.8.7. ESXi asks
// for it.
func (s *server) extendedInquiry() vpdPage {
	return vpdPage{0x86, func(*Nexus) []byte {
		d := make([]byte, 0x3c)
		d[1] = 0x01 // SIMPSUP: simple task attribute
		d[2] = 0x01 // V_SUP: volatile cache
		d[3] = 0x01 // LUICLR: a unit that reports that the inventory changed does so for all
		d[9] = MaxSense
		return d
	}}
}

// modePagePolicy is the Mode Page Policy page, SPC-4 7.8.11: all nexuses share
// all mode pages.
func (s *server) modePagePolicy() vpdPage {
	return vpdPage{0x87, func(*Nexus) []byte { return []byte{allModePages, allSubpages, 0, 0} }}
}

// scsiPorts is the SCSI Ports page, SPC-4 7.8.14: the target ports that the
// unit can be reached through.
func (s *server) scsiPorts() vpdPage {
	return vpdPage{0x88, func(n *Nexus) []byte {
		var d []byte
		for _, g := range n.inventory().portGroups(n) {
			name := designator(nil, scsi.INQ_CODE_UTF8, scsi.ASS_TGT_PORT, scsi.DESG_SCSI, portName(n.TargetName, g.Tag))
			d = append(d, 0, 0, byte(g.Tag>>8), byte(g.Tag), 0, 0, 0, 0 /* no initiator port */, 0, 0)
			d = binary.BigEndian.AppendUint16(d, uint16(len(name)))
			d = append(d, name...)
		}
		return d
	}}
}
