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
		p = thirdPartyDescriptor(p, 0x0001, d.thirdPartyCommands()...)
		p = thirdPartyDescriptor(p, 0x0004, parameters...)
		p = thirdPartyDescriptor(p, 0x0008, 2, blockToBlockType, identificationType)
		p = thirdPartyDescriptor(p, 0x000c, 0, 2, thisDisk>>8, thisDisk&0xff)
		return thirdPartyDescriptor(p, 0x8001, operations...)
	}}
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
