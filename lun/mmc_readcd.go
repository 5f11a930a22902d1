package lun

import (
	"context"
	"encoding/binary"

	"skylun/block"
)

// Main channel selection bits, byte 9 of READ CD, MMC-6 6.19.2.
const (
	selectSync      = 0x80
	selectSubHeader = 0x40 // there is none in mode 1
	selectHeader    = 0x20
	selectData      = 0x10
	selectEDC       = 0x08
	selectErrors    = 0x06
)

// mainChannel returns which bytes of a sector in mode 1 a selection means. It
// may name parts that follow each other.
func mainChannel(selection byte) (first, end int, ok bool) {
	has := func(bit byte) bool { return selection&bit != 0 }
	switch {
	case has(selectErrors):
		return 0, 0, false // none are found, and none can be told
	case has(selectSync) && has(selectData) && !has(selectHeader), has(selectEDC) && !has(selectData):
		return 0, 0, false
	}
	for _, part := range []struct {
		bit      byte
		off, end int
	}{
		{selectSync, 0, rawHeader}, {selectHeader, rawHeader, rawData},
		{selectData, rawData, rawEDC}, {selectEDC, rawEDC, rawSize},
	} {
		if has(part.bit) {
			if end == 0 {
				first = part.off
			}
			end = part.end
		}
	}
	return first, end, true
}

// sectors returns the sectors that a READ CD or READ CD MSF asks for.
func (c *Command) sectors() (lba uint64, n uint32, err error) {
	cdb := c.CDB
	if cdb[0] == byte(opReadCD) {
		return uint64(binary.BigEndian.Uint32(cdb[2:])), uint32(cdb[6])<<16 | uint32(cdb[7])<<8 | uint32(cdb[8]), nil
	}
	var at [2]int64
	for i := range at {
		p := cdb[3+3*i:]
		if p[1] >= 60 {
			return 0, 0, invalidField(4+3*i, 7)
		}
		if p[2] >= framesPerS {
			return 0, 0, invalidField(5+3*i, 7)
		}
		at[i] = (int64(p[0])*60+int64(p[1]))*framesPerS + int64(p[2]) - msfOffset
	}
	if at[1] < at[0] {
		return 0, 0, invalidField(6, 7)
	}
	return uint64(at[0]), uint32(at[1] - at[0]), nil // out of range, when before sector zero
}

// readCD executes READ CD and READ CD MSF, MMC-6 6.19 and 6.20. What a sector
// has around its data is made up as ECMA-130 defines it. A DVD has nothing
// around the data of its sectors.
func (d *CDROM) readCD(ctx context.Context, c *Command) error {
	const (
		anyType = 0
		mode1   = 2
	)
	s, err := d.holdDisc(c)
	if err != nil {
		return err
	}
	defer s.release()
	switch c.CDB[1] >> 2 & 0x07 { // EXPECTED SECTOR TYPE
	case anyType, mode1:
	default:
		return errIllegalTrackMode
	}
	if c.CDB[10]&0x07 != 0 { // SUB-CHANNEL SELECTION
		return invalidField(10, 2)
	}
	first, end, ok := mainChannel(c.CDB[9])
	if !ok {
		return invalidField(9, 7)
	}
	if s.profile() != profileCDROM && (first != end && first != rawData || end > rawEDC) {
		return errCannotReadMedium
	}
	lba, sectors, err := c.sectors()
	if err != nil {
		return err
	}
	if sectors == 0 {
		return nil
	}
	off, _, err := s.span(lba, sectors)
	if err != nil {
		return err
	}
	each := int64(end - first)
	n := each * int64(sectors)
	if n > MaxTransfer {
		return invalidField(6, -1)
	}
	c.Transfer = n
	in := min(int(n), c.InLimit)
	if in == 0 {
		return nil
	}
	buf := c.buffer(in)
	if first == rawData && end == rawEDC {
		err = s.readAt(ctx, buf, off)
	} else {
		err = s.readRaw(ctx, buf, uint32(lba), first, end)
	}
	if err == nil {
		c.In = buf
	}
	return err
}

// readRaw fills p with the bytes from first to end of the sectors from lba on.
func (s *disc) readRaw(ctx context.Context, p []byte, lba uint32, first, end int) error {
	const batch = 64
	sectors := int(block.Ceil(int64(len(p)), int64(end-first))) / (end - first)
	data := make([]byte, min(sectors, batch)*sectorSize)
	var raw [rawSize]byte
	for i := range sectors {
		if i%batch == 0 {
			data = data[:min(sectors-i, batch)*sectorSize]
			if err := s.readAt(ctx, data, (int64(lba)+int64(i))*sectorSize); err != nil {
				return err
			}
		}
		copy(raw[rawData:rawEDC], data[i%batch*sectorSize:])
		fillSector(raw[:], lba+uint32(i))
		p = p[copy(p, raw[first:end]):]
	}
	return nil
}
