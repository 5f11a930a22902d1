package lun

import (
	"context"
	"encoding/binary"
)

// Profiles, MMC-6 5.3.1.
const (
	profileCDROM  = 0x0008
	profileDVDROM = 0x0010
)

// maxCDSectors is the most sectors that addresses of minutes, seconds and
// frames reach: the lead-out of a CD begins at 99:59:74 at the latest.
const maxCDSectors = 100*60*75 - msfOffset - 1

// profile returns what the disc makes of the drive; without one it is neither.
func (s *disc) profile() uint16 {
	switch {
	case s == nil:
		return 0
	case s.sectors <= maxCDSectors:
		return profileCDROM
	default:
		return profileDVDROM
	}
}

// feature is a feature descriptor, MMC-6 5.2.
type feature struct {
	code       uint16
	version    byte
	persistent bool
	current    bool
	data       []byte // a multiple of four bytes
}

// features returns what the drive can do with a disc, nil for none, ascending
// by code.
func (d *CDROM) features(s *disc) []feature {
	profile := s.profile()
	cd, dvd := profile == profileCDROM, profile == profileDVDROM
	profiles := binary.BigEndian.AppendUint16(nil, profileDVDROM)
	profiles = append(profiles, bit(dvd), 0)
	profiles = binary.BigEndian.AppendUint16(profiles, profileCDROM)
	profiles = append(profiles, bit(cd), 0)
	blocking := byte(1) // sectors that are read at once: a CD has no ECC blocks
	if dvd {
		blocking = 16
	}
	serial := []byte(d.id.serial)
	for len(serial)%4 != 0 {
		serial = append(serial, ' ')
	}
	const (
		scsiFamily = 1
		inq2, dbe  = 0x02, 0x01 // EVPD and long allocation lengths work, device busy events too
		ocEvent    = 0x02
		tray       = 0x20
		canLoad    = 0x10
		canEject   = 0x08
		canLock    = 0x01
		pp         = 0x01 // the error recovery page is there
		rbcb       = 0x10 // READ BUFFER CAPACITY in blocks
		scs        = 0x08 // SET CD SPEED
		mp2a       = 0x04 // mode page 2A
	)
	return []feature{
		{code: 0x0000, persistent: true, current: true, data: profiles},                                                         // profile list
		{code: 0x0001, version: 2, persistent: true, current: true, data: []byte{0, 0, 0, scsiFamily, inq2 | dbe, 0, 0, 0}},     // core
		{code: 0x0002, version: 1, persistent: true, current: true, data: []byte{ocEvent, 0, 0, 0}},                             // morphing
		{code: 0x0003, version: 2, persistent: true, current: true, data: []byte{tray | canLoad | canEject | canLock, 0, 0, 0}}, // removable medium
		{code: 0x0010, current: s != nil, data: []byte{0, 0, sectorSize >> 8, sectorSize & 0xff, 0, blocking, pp, 0}},           // random readable
		{code: 0x001d, current: cd},                                                             // multi-read
		{code: 0x001e, version: 2, current: cd, data: make([]byte, 4)},                          // CD read
		{code: 0x001f, version: 1, current: dvd, data: make([]byte, 4)},                         // DVD read
		{code: 0x0100, persistent: true, current: true},                                         // power management
		{code: 0x0105, version: 1, persistent: true, current: true, data: make([]byte, 4)},      // timeout
		{code: 0x0107, version: 4, current: s != nil, data: []byte{rbcb | scs | mp2a, 0, 0, 0}}, // real-time streaming
		{code: 0x0108, persistent: true, current: true, data: serial},                           // drive serial number
	}
}

func bit(on bool) byte {
	if on {
		return 1
	}
	return 0
}

// getConfiguration executes GET CONFIGURATION, MMC-6 6.5.
func (d *CDROM) getConfiguration(_ context.Context, c *Command) error {
	const (
		all     = 0
		current = 1 // only those that are
		one     = 2
	)
	rt := c.CDB[1] & 0x03
	start := binary.BigEndian.Uint16(c.CDB[2:])
	if rt > one {
		return invalidField(1, 1)
	}
	s := d.ready.Load()
	p := make([]byte, 8, 160)
	binary.BigEndian.PutUint16(p[6:], s.profile())
	for _, f := range d.features(s) {
		if f.code < start || rt == one && f.code != start || rt == current && !f.current {
			continue
		}
		p = binary.BigEndian.AppendUint16(p, f.code)
		p = append(p, f.version<<2|bit(f.persistent)<<1|bit(f.current), byte(len(f.data)))
		p = append(p, f.data...)
	}
	binary.BigEndian.PutUint32(p, uint32(len(p)-4))
	c.reply(p, uint64(binary.BigEndian.Uint16(c.CDB[7:])))
	return nil
}
