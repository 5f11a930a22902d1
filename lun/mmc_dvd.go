package lun

import (
	"context"
	"encoding/binary"
	"slices"
)

// dvdFirstSector is the physical number of the first sector of data, and
// dvdLastSector is the last number there can be.
const (
	dvdFirstSector = 0x030000
	dvdLastSector  = 0xffffff
)

type dvdStructure struct {
	format byte
	length int
	fill   func(*disc, []byte)
}

// dvdStructures are the formats that READ DVD STRUCTURE has, ascending, with
// the length of what follows the header.
var dvdStructures = []dvdStructure{
	{0x00, 2048, (*disc).physicalFormat},
	{0x01, 4, nil},    // copyright: no protection, all regions
	{0x04, 2048, nil}, // manufacturing information: none
}

// dvdStructureList is the format that lists the others.
const dvdStructureList = 0xff

// physicalFormat fills in physical format information, MMC-6 6.22.3.1. Where
// the disc is larger than a DVD can be, its last sector is the last there can
// be.
func (s *disc) physicalFormat(p []byte) {
	const (
		rom       = 0x0 << 4 // BOOK TYPE: DVD-ROM
		version   = 0x01
		size120   = 0x0 << 4
		unlimited = 0x0f // MAXIMUM RATE: not specified
		embossed  = 0x01 // LAYER TYPE
	)
	p[0] = rom | version
	p[1] = size120 | unlimited
	p[2] = embossed // one layer
	binary.BigEndian.PutUint32(p[4:], dvdFirstSector)
	binary.BigEndian.PutUint32(p[8:], uint32(min(dvdFirstSector+uint64(s.sectors)-1, dvdLastSector)))
}

// readDVDStructure executes READ DVD STRUCTURE, which MMC-6 6.22 calls READ
// DISC STRUCTURE.
func (d *CDROM) readDVDStructure(_ context.Context, c *Command) error {
	s, err := d.loaded(c)
	if err != nil {
		return err
	}
	format, allocation := c.CDB[7], uint64(binary.BigEndian.Uint16(c.CDB[8:]))
	if c.CDB[1]&0x0f != 0 { // MEDIA TYPE: DVD
		return errCannotReadMedium
	}
	if format == dvdStructureList {
		const readable = 0x40 // RDS
		p := make([]byte, 4)
		if s.profile() == profileDVDROM {
			for _, f := range dvdStructures {
				p = append(p, f.format, readable, byte((f.length+4)>>8), byte(f.length+4))
			}
		}
		binary.BigEndian.PutUint16(p, uint16(len(p)-2))
		c.reply(p, allocation)
		return nil
	}
	if s.profile() != profileDVDROM {
		return errCannotReadMedium
	}
	i := slices.IndexFunc(dvdStructures, func(x dvdStructure) bool { return x.format == format })
	if i < 0 {
		return invalidField(7, 7)
	}
	if layer := c.CDB[6]; layer != 0 {
		return invalidField(6, 7)
	}
	p := make([]byte, 4+dvdStructures[i].length)
	binary.BigEndian.PutUint16(p, uint16(len(p)-2))
	if fill := dvdStructures[i].fill; fill != nil {
		fill(s, p[4:])
	}
	c.reply(p, allocation)
	return nil
}
