package lun

import (
	"context"
	"encoding/binary"
	"errors"
	"math"

	"skylun/block"
)

// unmap executes UNMAP, SBC-3 5.28. All descriptors are checked before the
// first one takes effect.
func (d *Disk) unmap(ctx context.Context, c *Command) error {
	const (
		anchor     = 0x01
		header     = 8
		descriptor = 16
	)
	if c.CDB[1]&anchor != 0 { // ANC_SUP is zero
		return invalidField(1, 0)
	}
	length := int(binary.BigEndian.Uint16(c.CDB[7:])) // PARAMETER LIST LENGTH
	if length == 0 {
		return nil
	}
	c.Transfer = int64(length)
	list := c.Out[:min(length, len(c.Out))]
	if len(list) < header {
		return errListLength
	}
	// The list ends where the first of three says: UNMAP BLOCK DESCRIPTOR
	// DATA LENGTH, the CDB, and the data that came. A descriptor that is
	// not all there is ignored.
	ranges := list[header:min(len(list), header+int(binary.BigEndian.Uint16(list[2:])))]
	ranges = ranges[:len(ranges)/descriptor*descriptor]
	if len(ranges)/descriptor > maxUnmapRanges {
		return invalidParameter(2, 7)
	}
	capacity, total := d.capacity(), uint64(0)
	for at := 0; at < len(ranges); at += descriptor {
		lba, blocks := unmapRange(ranges[at:])
		if lba > capacity || blocks > capacity-lba {
			return outOfRange(max(lba, capacity))
		}
		if total += blocks; total > maxUnmapBlocks {
			return invalidParameter(header+at+8, 7)
		}
	}
	for ; len(ranges) > 0; ranges = ranges[descriptor:] {
		if err := ctx.Err(); err != nil {
			return err
		}
		if lba, blocks := unmapRange(ranges); blocks > 0 {
			off, n := int64(lba)*logicalBlock, int64(blocks)*logicalBlock
			d.changing(block.Range{Off: off, End: off + n})
			if err := d.discard(ctx, off, n); err != nil {
				return err
			}
		}
	}
	return nil
}

// unmapRange decodes an UNMAP block descriptor, SBC-3 5.28.2.
func unmapRange(b []byte) (lba, blocks uint64) {
	return binary.BigEndian.Uint64(b), uint64(binary.BigEndian.Uint32(b[8:]))
}

// discard makes a range read as zeros.
func (d *Disk) discard(ctx context.Context, off, n int64) error {
	if err := d.dev.Discard(ctx, off, n); err != nil {
		return writeError(off, err)
	}
	if d.writeThrough.Load() {
		return d.flush(ctx, off)
	}
	return nil
}

// getLBAStatus executes GET LBA STATUS, SBC-3 5.4, for a device that knows
// where it holds nothing but zeros.
func (d *Disk) getLBAStatus(ctx context.Context, c *Command) error {
	const (
		header      = 8
		descriptor  = 16
		mapped      = 0
		deallocated = 1
		most        = 4096 // descriptors in one answer, whatever the initiator takes
	)
	lba := binary.BigEndian.Uint64(c.CDB[2:])
	allocation := binary.BigEndian.Uint32(c.CDB[10:])
	capacity := d.capacity()
	if lba >= capacity {
		return outOfRange(lba)
	}
	room := max(1, min(most, (int64(allocation)-header)/descriptor))

	p := make([]byte, header)
	// add appends what lies between lba and end, and tells whether there is
	// room for more.
	add := func(end uint64, status byte) bool {
		for lba < end && room > 0 {
			n := min(end-lba, math.MaxUint32)
			p = binary.BigEndian.AppendUint64(p, lba)
			p = binary.BigEndian.AppendUint32(p, uint32(n))
			p = append(p, status, 0, 0, 0)
			lba += n
			room--
		}
		return room > 0
	}
	errFull := errors.New("no room for more")
	asked := block.Range{Off: int64(lba) * logicalBlock, End: int64(capacity) * logicalBlock}
	err := d.dev.(block.DataRanger).DataRanges(ctx, asked, func(r block.Range) error {
		// A logical block that holds any data is mapped.
		first, end := uint64(r.Off)/logicalBlock, uint64(block.Ceil(r.End, logicalBlock))/logicalBlock
		if !add(min(first, capacity), deallocated) || !add(min(end, capacity), mapped) {
			return errFull
		}
		return nil
	})
	if err != nil && !errors.Is(err, errFull) {
		return readError(int64(lba)*logicalBlock, err)
	}
	if err == nil {
		add(capacity, deallocated)
	}
	binary.BigEndian.PutUint32(p, uint32(len(p)-4))
	c.reply(p, uint64(allocation))
	return nil
}
