package lun

import "encoding/binary"

// MaxLUN is the largest number a unit can have: flat space addressing has 14
// bits, SAM-5 4.7.7.3.
const MaxLUN = 1<<14 - 1

// maxPeripheral is the largest number written with peripheral device
// addressing, SAM-5 4.7.7.2. Above it flat space addressing begins; initiators
// may use either below.
const maxPeripheral = 1<<8 - 1

// The REPORT LUNS well known logical unit, SAM-5 4.7.7.5.1 and SPC-4 8.2.
var reportLUNsWellKnown = [8]byte{0xc1, 0x01}

// decodeLUN returns the number in a LUN field of a single level, SAM-5 4.7.
// Whatever addresses no unit that a target of this kind can have is not ok.
func decodeLUN(field [8]byte) (lun uint16, ok bool) {
	if binary.BigEndian.Uint64(field[:])&(1<<48-1) != 0 {
		return 0, false // a second level
	}
	first := binary.BigEndian.Uint16(field[:])
	switch first >> 14 {
	case 0: // peripheral device addressing: six bits of bus, eight of LUN
		return first, first <= maxPeripheral
	case 1: // flat space addressing
		return first & MaxLUN, true
	default:
		return 0, false
	}
}

// encodeLUN returns the LUN field of a number up to MaxLUN.
func encodeLUN(lun uint16) (field [8]byte) {
	if lun > maxPeripheral {
		lun |= 1 << 14
	}
	binary.BigEndian.PutUint16(field[:], lun)
	return field
}
