package lun

import (
	"context"
	"encoding/binary"
)

// A disc has one session with one data track, from its first sector to its
// last. It is complete: nothing can be added.
//
//	lead-in | track 1: sectors 0 to n-1 | lead-out at n
const (
	dataTrack  = 0x14 // ADR 1: position; CONTROL 4: data, uninterrupted
	leadOut    = 0xaa // its track number
	msfBit     = 0x02 // in byte 1 of CDBs
	msfOffset  = 150  // sector 0 is at 00:02:00
	framesPerS = 75
)

// appendMSF appends the address of a sector in minutes, seconds and frames.
// What is too far out for that is at FF:3B:4B, as MMC-6 6.25.3 has it for DVDs.
func appendMSF(p []byte, lba uint32) []byte {
	frames := uint64(lba) + msfOffset
	if frames >= 100*60*framesPerS {
		return append(p, 0, 0xff, 59, 74)
	}
	return append(p, 0, byte(frames/(60*framesPerS)), byte(frames/framesPerS%60), byte(frames%framesPerS))
}

// appendAddress appends an address, in MSF form if the CDB asks for it.
func appendAddress(p, cdb []byte, lba uint32) []byte {
	if cdb[1]&msfBit != 0 {
		return appendMSF(p, lba)
	}
	return binary.BigEndian.AppendUint32(p, lba)
}

// readTOC executes READ TOC/PMA/ATIP, MMC-6 6.25. Old initiators have the
// format in the last byte of the CDB.
func (d *CDROM) readTOC(_ context.Context, c *Command) error {
	s, err := d.loaded(c)
	if err != nil {
		return err
	}
	const (
		formatTOC      = 0
		formatSession  = 1
		formatFullTOC  = 2
		formatInByte9  = 6 // shift
		descriptorSize = 8
	)
	format, track := c.CDB[2]&0x0f, c.CDB[6]
	if format == 0 {
		format = c.CDB[9] >> formatInByte9
	}
	p := make([]byte, 4, 4+4*11)
	p[2], p[3] = 1, 1 // first and last track, or session
	switch format {
	case formatTOC:
		if track > 1 && track != leadOut {
			return invalidField(6, 7)
		}
		if track != leadOut {
			p = append(p, 0, dataTrack, 1, 0)
			p = appendAddress(p, c.CDB, 0)
		}
		p = append(p, 0, dataTrack, leadOut, 0)
		p = appendAddress(p, c.CDB, s.sectors)
	case formatSession:
		p = append(p, 0, dataTrack, 1, 0) // the first track of the last session
		p = appendAddress(p, c.CDB, 0)
	case formatFullTOC:
		if track > 1 {
			return invalidField(6, 7)
		}
		// Session, ADR and CONTROL, TNO, POINT, MIN, SEC, FRAME, then
		// zero and what POINT is about.
		point := func(n byte) { p = append(p, 1, dataTrack, 0, n, 0, 0, 0) }
		point(0xa0)
		p = append(p, 0, 1, 0, 0) // the first track, the disc type: CD-ROM
		point(0xa1)
		p = append(p, 0, 1, 0, 0) // the last track
		point(0xa2)
		p = appendMSF(p, s.sectors)
		point(1)
		p = appendMSF(p, 0)
	default: // PMA, ATIP and CD-TEXT are of other kinds of media
		return invalidField(2, 3)
	}
	binary.BigEndian.PutUint16(p, uint16(len(p)-2))
	c.reply(p, uint64(binary.BigEndian.Uint16(c.CDB[7:])))
	return nil
}

// readDiscInformation executes READ DISC INFORMATION, MMC-6 6.21.
func (d *CDROM) readDiscInformation(_ context.Context, c *Command) error {
	s, err := d.loaded(c)
	if err != nil {
		return err
	}
	if c.CDB[1]&0x07 != 0 { // DATA TYPE: standard disc information
		return invalidField(1, 2)
	}
	_ = s
	const (
		complete     = 0x0e // the last session and the disc are
		unrestricted = 0x20
	)
	p := make([]byte, 34)
	p[1] = byte(len(p) - 2)
	p[2] = complete
	p[3], p[4], p[5], p[6] = 1, 1, 1, 1 // first track, sessions, first and last track of the last one
	p[7] = unrestricted
	for i := 16; i < 24; i++ { // LAST SESSION LEAD-IN and LAST POSSIBLE LEAD-OUT: there is no more room
		p[i] = 0xff
	}
	c.reply(p, uint64(binary.BigEndian.Uint16(c.CDB[7:])))
	return nil
}

// readTrackInformation executes READ TRACK INFORMATION, MMC-6 6.26.
func (d *CDROM) readTrackInformation(_ context.Context, c *Command) error {
	const (
		byAddress = 0
		byTrack   = 1
		bySession = 2
	)
	s, err := d.loaded(c)
	if err != nil {
		return err
	}
	where := binary.BigEndian.Uint32(c.CDB[2:])
	switch c.CDB[1] & 0x07 { // OPEN, ADDRESS/NUMBER TYPE
	case byAddress:
		if where >= s.sectors {
			return outOfRange(uint64(where))
		}
	case byTrack, bySession:
		if where != 1 {
			return invalidField(2, 7)
		}
	default:
		return invalidField(1, 2)
	}
	p := make([]byte, 36)
	p[1] = byte(len(p) - 2)
	p[2], p[3] = 1, 1                             // track, session
	p[5] = dataTrack & 0x0f                       // TRACK MODE
	p[6] = 0x01                                   // DATA MODE: mode 1
	binary.BigEndian.PutUint32(p[24:], s.sectors) // TRACK SIZE, from sector zero
	c.reply(p, uint64(binary.BigEndian.Uint16(c.CDB[7:])))
	return nil
}

// readSubChannel executes READ SUB-CHANNEL, MMC-3 6.24: nothing plays, and the
// disc has no numbers.
func (d *CDROM) readSubChannel(_ context.Context, c *Command) error {
	const (
		subQ       = 0x40
		position   = 1
		catalogue  = 2
		isrc       = 3
		notPlaying = 0x15
	)
	if _, err := d.loaded(c); err != nil {
		return err
	}
	format := c.CDB[3]
	p := []byte{0, notPlaying, 0, 0}
	if c.CDB[2]&subQ != 0 {
		switch format {
		case position:
			p = append(p, format, dataTrack, 1, 1)
			p = appendAddress(p, c.CDB, 0)
			p = appendAddress(p, c.CDB, 0)
		case catalogue:
			p = append(p, format)
			p = append(p, make([]byte, 19)...)
		case isrc:
			if c.CDB[6] != 1 {
				return invalidField(6, 7)
			}
			p = append(p, format, dataTrack, 1)
			p = append(p, make([]byte, 17)...)
		default:
			return invalidField(3, 7)
		}
	}
	binary.BigEndian.PutUint16(p[2:], uint16(len(p)-4))
	c.reply(p, uint64(binary.BigEndian.Uint16(c.CDB[7:])))
	return nil
}
