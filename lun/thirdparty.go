package lun

import (
	"encoding/binary"
)

// thirdPartyCopy is the Third-Party Copy page, SPC-4 7.8.17: a list of
// descriptors, of which the one with the supported commands is derived from
// the table by which they are dispatched.
func (d *Disk) thirdPartyCopy() vpdPage {
	return vpdPage{0x8f, func(*Nexus) []byte {
		be := binary.BigEndian
		parameters := make([]byte, 0x1c)
		be.PutUint16(parameters[4:], maxCSCDs)
		be.PutUint16(parameters[6:], maxSegments)
		be.PutUint32(parameters[8:], maxCopyList)

		operations := make([]byte, 0x20)
		be.PutUint32(operations[0:], maxCopies) // TOTAL CONCURRENT COPIES
		be.PutUint32(operations[4:], maxCopies) // MAXIMUM IDENTIFIED CONCURRENT COPIES
		be.PutUint32(operations[8:], maxSegmentBlocks*logicalBlock)
		operations[12] = logicalBlockExponent // DATA SEGMENT GRANULARITY

		var p []byte
		p = thirdPartyDescriptor(p, 0x0000, tokenLimits()...)
		p = thirdPartyDescriptor(p, 0x0001, d.thirdPartyCommands()...)
		p = thirdPartyDescriptor(p, 0x0004, parameters...)
		p = thirdPartyDescriptor(p, 0x0008, 2, blockToBlockType, identificationType)
		p = thirdPartyDescriptor(p, 0x000c, 0, 2, thisDisk>>8, thisDisk&0xff)
		p = thirdPartyDescriptor(p, 0x0106, tokenFeatures()...)
		p = thirdPartyDescriptor(p, 0x0108, rodTypes()...)
		return thirdPartyDescriptor(p, 0x8001, operations...)
	}}
}

// tokenLimits is the body of the Block Device ROD Token Limits descriptor,
// SBC-3 6.5.7.2. Windows looks for it, and for nothing else in the page.
func tokenLimits() []byte {
	p := make([]byte, 0x20)
	be := binary.BigEndian
	be.PutUint16(p[6:], maxTokenRanges)
	be.PutUint32(p[8:], maxTokenTime)
	be.PutUint32(p[12:], defaultTokenTime)
	be.PutUint64(p[16:], maxTokenBlocks)
	be.PutUint64(p[24:], optimalTokenBlocks)
	return p
}

// tokenFeatures is the body of the ROD Token Features descriptor, with that of
// block devices in it.
func tokenFeatures() []byte {
	const blockFeatures = 0x30
	p := make([]byte, 0x2c+blockFeatures)
	be := binary.BigEndian
	be.PutUint32(p[12:], 1)             // MINIMUM TOKEN LIFETIME
	be.PutUint32(p[16:], 1<<32-1)       // MAXIMUM TOKEN LIFETIME
	be.PutUint32(p[20:], maxTokenTime)  // MAXIMUM TOKEN INACTIVITY TIMEOUT
	be.PutUint16(p[42:], blockFeatures) // length of what follows
	b := p[0x2c:]
	be.PutUint16(b[2:], blockFeatures-4)
	be.PutUint16(b[6:], 1<<physicalExponent)              // OPTIMAL BLOCK ROD LENGTH GRANULARITY
	be.PutUint64(b[8:], maxTokenBlocks*logicalBlock)      // MAXIMUM BYTES IN BLOCK ROD
	be.PutUint64(b[16:], optimalTokenBlocks*logicalBlock) // OPTIMAL BYTES IN BLOCK ROD TRANSFER
	be.PutUint64(b[24:], maxTokenBlocks*logicalBlock)     // OPTIMAL BYTES TO TOKEN PER SEGMENT
	be.PutUint64(b[32:], optimalTokenBlocks*logicalBlock) // OPTIMAL BYTES FROM TOKEN PER SEGMENT
	return p
}

// rodTypes is the body of the Supported ROD Token and ROD Types descriptor.
func rodTypes() []byte {
	const (
		tokenIn  = 0x02 // can be written from
		tokenOut = 0x01 // can be made
		length   = 64
	)
	types := []struct {
		kind  uint32
		flags byte
	}{{rodVulnerable, tokenIn | tokenOut}, {rodZero, tokenIn}}
	p := make([]byte, 4, 4+len(types)*length)
	binary.BigEndian.PutUint16(p[2:], uint16(len(types)*length))
	for _, t := range types {
		var d [length]byte
		binary.BigEndian.PutUint32(d[:], t.kind)
		d[4] = t.flags
		p = append(p, d[:]...)
	}
	return p
}

// thirdPartyCommands is the body of the Supported Commands descriptor.
func (d *Disk) thirdPartyCommands() []byte {
	var p []byte
	for _, code := range []byte{byte(extendedCopyCode), byte(receiveCopyCode)} {
		actions := d.ops.actions[code]
		p = append(p, code, byte(len(actions)))
		for _, op := range actions {
			p = append(p, op.usage[1]&actionMask)
		}
	}
	return append([]byte{byte(len(p))}, p...)
}

// thirdPartyDescriptor appends a descriptor, padded to a multiple of four
// bytes.
func thirdPartyDescriptor(p []byte, kind uint16, body ...byte) []byte {
	for len(body)%4 != 0 {
		body = append(body, 0)
	}
	p = binary.BigEndian.AppendUint16(p, kind)
	p = binary.BigEndian.AppendUint16(p, uint16(len(body)))
	return append(p, body...)
}
