package lun

import (
	"encoding/binary"

	"skylun/block"
)

// What a disk tells of its limits and provisioning. Every limit here is
// checked where the command is executed.
const (
	maxTransferBlocks  = MaxTransfer / logicalBlock
	optimalBlocks      = 1 << 20 / logicalBlock   // initiators read ahead and cut requests by it
	granularityBlocks  = 1 << physicalExponent    // a block of the layers below, for transfers and for UNMAP
	maxUnmapBlocks     = 1 << 20                  // in one UNMAP command
	maxUnmapRanges     = 256                      // in one UNMAP command
	maxWriteSameBlocks = 256 << 20 / logicalBlock // bounds how long a pattern is written
	maxCompareBlocks   = 128                      // in one COMPARE AND WRITE command, at most a byte's worth
)

// blockLimits is the Block Limits page, SBC-3 6.5.3. With WSNZ, WRITE SAME of
// length zero is refused: to the end of the medium would be more than the
// maximum on any disk worth having.
func (d *Disk) blockLimits() vpdPage {
	var compare byte // MAXIMUM COMPARE AND WRITE LENGTH, zero: the command is not there
	if d.updater != nil {
		compare = maxCompareBlocks
	}
	return vpdPage{0xb0, func(*Nexus) []byte {
		d := make([]byte, 0x3c)
		p := d[:0]
		p = append(p, 0x01, compare) // WSNZ
		p = binary.BigEndian.AppendUint16(p, granularityBlocks)
		p = binary.BigEndian.AppendUint32(p, maxTransferBlocks)
		p = binary.BigEndian.AppendUint32(p, optimalBlocks)
		p = binary.BigEndian.AppendUint32(p, 0) // MAXIMUM PREFETCH LENGTH: no limit
		p = binary.BigEndian.AppendUint32(p, maxUnmapBlocks)
		p = binary.BigEndian.AppendUint32(p, maxUnmapRanges)
		p = binary.BigEndian.AppendUint32(p, granularityBlocks)
		p = binary.BigEndian.AppendUint32(p, 1<<31) // UGAVALID: ranges are aligned at zero
		binary.BigEndian.AppendUint64(p, maxWriteSameBlocks)
		return d
	}}
}

// blockCharacteristics is the Block Device Characteristics page, SBC-3 6.5.2.
var blockCharacteristics = vpdPage{0xb1, func(*Nexus) []byte {
	d := make([]byte, 0x3c)
	binary.BigEndian.PutUint16(d, 1) // MEDIUM ROTATION RATE: non-rotating
	d[3] = 1 << 6                    // WABEREQ: reads succeed after SANITIZE BLOCK ERASE
	d[4] = 0x01                      // VBULS: VERIFY compares unmapped blocks, as zeros
	return d
}}

// thresholdExponent says in which units the Logical Block Provisioning log
// page counts: sets of 2^thresholdExponent logical blocks, 1 MiB.
const thresholdExponent = 11

// logicalBlockProvisioning is the Logical Block Provisioning page, SBC-3
// 6.5.4. It tells of thresholds when the space left is known.
func (d *Disk) logicalBlockProvisioning() vpdPage {
	const (
		lbpu    = 0x80 // UNMAP
		lbpws   = 0x40 // WRITE SAME(16) with UNMAP
		lbpws10 = 0x20 // WRITE SAME(10) with UNMAP
		lbprz   = 0x04 // unmapped logical blocks read as zeros
	)
	page := []byte{0, lbpu | lbpws | lbpws10 | lbprz, 2 /* thin provisioned */, 0}
	if _, ok := d.dev.(block.SpaceReporter); ok {
		page[0] = thresholdExponent
	}
	return vpdPage{0xb2, func(*Nexus) []byte { return page }}
}
