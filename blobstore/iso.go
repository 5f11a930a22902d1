package blobstore

import (
	"bytes"
	"context"
	"encoding/binary"
	"strings"
	"unicode"
	"unicode/utf16"
)

// The volume recognition sequence of a disc begins at sector 16. With ISO 9660
// its first descriptor is the primary one, ECMA-119 8.4, which has the volume
// identifier. A disc that has UDF only begins with another one, ECMA-167 2/9.2;
// there the logical volume identifier is found by way of the anchor:
//
//	sector 256   anchor volume descriptor pointer: tag 2, extent at 16
//	extent       descriptors, a sector each, up to the one with tag 8
//	             logical volume descriptor: tag 6, identifier at 84
const (
	discSector    = 2048
	isoAt         = 16 * discSector
	isoLabelAt    = isoAt + 40
	isoLabelSize  = 32
	udfAnchorAt   = 256 * discSector
	udfAnchor     = 2
	udfVolume     = 6
	udfEnd        = 8
	udfLabelAt    = 84
	udfLabelSize  = 128
	udfSequence   = 16 * discSector // as long as it has to be, ECMA-167 3/8.4.2
	udfTagVersion = 3               // the largest
)

// isDisc tells whether an image that starts with head is one of a disc.
func isDisc(head []byte) bool {
	if len(head) <= isoMagicAt {
		return false
	}
	m := head[isoMagicAt:]
	return bytes.HasPrefix(m, []byte("CD001")) || bytes.HasPrefix(m, []byte("BEA01"))
}

// discLabel returns the volume label of a disc of size bytes that starts with
// head, "" if it has none that can be found.
func discLabel(ctx context.Context, head []byte, size int64, readAt func(ctx context.Context, p []byte, off int64) error) (string, error) {
	if len(head) >= isoLabelAt+isoLabelSize && string(head[isoMagicAt:isoMagicAt+5]) == "CD001" {
		return printable(string(head[isoLabelAt:][:isoLabelSize])), nil
	}
	if size < udfAnchorAt+discSector {
		return "", nil
	}
	anchor := make([]byte, discSector)
	if err := readAt(ctx, anchor, udfAnchorAt); err != nil {
		return "", err
	}
	if udfTag(anchor) != udfAnchor {
		return "", nil
	}
	length, at := int64(binary.LittleEndian.Uint32(anchor[16:])), int64(binary.LittleEndian.Uint32(anchor[20:]))*discSector
	length = min(length, udfSequence, size-at)
	if length < discSector {
		return "", nil
	}
	sequence := make([]byte, length)
	if err := readAt(ctx, sequence, at); err != nil {
		return "", err
	}
	for ; len(sequence) >= discSector; sequence = sequence[discSector:] {
		switch udfTag(sequence) {
		case udfVolume:
			return printable(udfString(sequence[udfLabelAt:][:udfLabelSize])), nil
		case udfEnd:
			return "", nil
		}
	}
	return "", nil
}

// udfTag returns the identifier of a descriptor, ECMA-167 3/7.2, or zero when
// its tag is not intact.
func udfTag(d []byte) uint16 {
	sum := byte(0)
	for i, b := range d[:16] {
		if i != 4 {
			sum += b
		}
	}
	if version := binary.LittleEndian.Uint16(d[2:]); sum != d[4] || version == 0 || version > udfTagVersion {
		return 0
	}
	return binary.LittleEndian.Uint16(d)
}

// udfString returns a dstring: its length is in the last byte, and the first
// of its bytes tells how many bits a character has, UDF 2.1.1.
func udfString(d []byte) string {
	n := int(d[len(d)-1])
	if n < 1 || n > len(d)-1 {
		return ""
	}
	text := d[1:n]
	switch d[0] {
	case 8:
		r := make([]rune, len(text))
		for i, b := range text {
			r[i] = rune(b)
		}
		return string(r)
	case 16:
		u := make([]uint16, len(text)/2)
		for i := range u {
			u[i] = binary.BigEndian.Uint16(text[2*i:])
		}
		return string(utf16.Decode(u))
	}
	return ""
}

// printable returns a label without what pads it and what a terminal would not
// print.
func printable(s string) string {
	s = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) || r == unicode.ReplacementChar {
			return -1
		}
		return r
	}, s)
	return strings.TrimSpace(s)
}
