package lun

import (
	"encoding/binary"

	"github.com/gostor/gotgt/pkg/scsi"
)

// reserveIn executes a PERSISTENT RESERVE IN command, SPC-4 6.15, whose
// parameter data is what data returns.
func (s *server) reserveIn(c *Command, data func(*Nexus, *registrations) []byte) error {
	s.mu.Lock()
	current, reserved := s.persistent, s.reserved
	s.mu.Unlock()
	if reserved {
		return errReserved // by RESERVE(6), whoever has it, SPC-2 7.12
	}
	c.reply(data(c.Nexus, &current), uint64(binary.BigEndian.Uint16(c.CDB[7:])))
	return nil
}

// prHeader returns PRGENERATION and a length that prLength fills in.
func prHeader(r *registrations) []byte {
	return binary.BigEndian.AppendUint32(make([]byte, 0, 64), r.generation)[:8]
}

func prLength(p []byte) []byte {
	binary.BigEndian.PutUint32(p[4:], uint32(len(p)-8))
	return p
}

// readKeys returns the parameter data of READ KEYS, SPC-4 6.15.2.
func readKeys(_ *Nexus, r *registrations) []byte {
	p := prHeader(r)
	for _, g := range r.list {
		p = binary.BigEndian.AppendUint64(p, g.Key)
	}
	return prLength(p)
}

// readReservation returns the parameter data of READ RESERVATION, SPC-4 6.15.3.
// A reservation of all registrants has no key.
func readReservation(_ *Nexus, r *registrations) []byte {
	p := prHeader(r)
	if r.kind != 0 {
		key, _ := r.key(r.holder)
		if r.kind.ofAll() {
			key = 0
		}
		p = binary.BigEndian.AppendUint64(p, key)
		p = append(p, 0, 0, 0, 0, 0, scsi.PR_LU_SCOPE<<4|byte(r.kind), 0, 0)
	}
	return prLength(p)
}

// reservationCapabilities returns the parameter data of REPORT CAPABILITIES,
// SPC-4 6.15.4.
func (s *server) reservationCapabilities(_ *Nexus, r *registrations) []byte {
	const (
		crh   = 0x10 // RESERVE(6) and RELEASE(6) are compatible, 5.13.3
		sipC  = 0x08
		atpC  = 0x04
		ptplC = 0x01
		tmv   = 0x80
		allow = 3 << 4 // TEST UNIT READY always, MODE SENSE and the like through Write Exclusive
		ptplA = 0x01
	)
	p := [8]byte{1: 8, 2: crh | sipC | atpC, 3: tmv | allow, 4: 0xea, 5: 0x01 /* all six types */}
	if s.modes.store != nil {
		p[2] |= ptplC
	}
	if r.persist {
		p[3] |= ptplA
	}
	return p[:]
}

// readFullStatus returns the parameter data of READ FULL STATUS, SPC-4 6.15.5.
// Its target ports are those of the target that it is asked through; what is
// registered through another target is shown with the numbers it has there.
func readFullStatus(_ *Nexus, r *registrations) []byte {
	const rHolder = 0x01
	p := prHeader(r)
	for _, g := range r.list {
		id := appendTransportID(nil, g.Who)
		var d [24]byte
		binary.BigEndian.PutUint64(d[:], g.Key)
		if r.holds(g.Who) {
			d[12], d[13] = rHolder, scsi.PR_LU_SCOPE<<4|byte(r.kind)
		}
		binary.BigEndian.PutUint16(d[18:], g.Who.Group)
		binary.BigEndian.PutUint32(d[20:], uint32(len(id)))
		p = append(append(p, d[:]...), id...)
	}
	return prLength(p)
}
