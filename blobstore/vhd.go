package blobstore

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// A fixed VHD is the bytes of a disk followed by a footer. Numbers are
// big-endian. Virtual Hard Disk Image Format Specification, "Hard Disk Footer
// Format":
//
//	 0  cookie, "conectix"
//	 8  features
//	12  file format version, 1.0
//	16  data offset; all ones when fixed
//	24  time stamp, creator, versions, original size
//	48  current size: of the disk, in bytes
//	56  geometry
//	60  disk type: 2 fixed, 3 dynamic, 4 differencing
//	64  checksum: ones' complement of the sum of all other bytes
//	68  unique id, saved state, reserved
const (
	vhdFooterSize = 512
	vhdCookie     = "conectix"

	vhdVersionAt  = 12
	vhdSizeAt     = 48
	vhdTypeAt     = 60
	vhdChecksumAt = 64

	vhdFixed        = 2
	vhdDynamic      = 3
	vhdDifferencing = 4
)

// errNoFooter says that there is no footer, or none that is intact.
var errNoFooter = errors.New("no VHD footer")

// vhdSize returns the size of the disk in a fixed VHD of blobSize bytes that
// ends with tail. The error is errNoFooter when that is no VHD, else it tells
// what is wrong with the VHD.
func vhdSize(blobSize int64, tail []byte) (int64, error) {
	if len(tail) != vhdFooterSize || string(tail[:len(vhdCookie)]) != vhdCookie ||
		binary.BigEndian.Uint32(tail[vhdChecksumAt:]) != vhdChecksum(tail) {
		return 0, errNoFooter
	}
	if v := binary.BigEndian.Uint32(tail[vhdVersionAt:]); v>>16 != 1 {
		return 0, fmt.Errorf("has a VHD footer of version %d.%d, only 1.0 is known", v>>16, v&0xffff)
	}
	switch t := binary.BigEndian.Uint32(tail[vhdTypeAt:]); t {
	case vhdFixed:
	case vhdDynamic, vhdDifferencing:
		return 0, errors.New("is a dynamic or differencing VHD, which cannot be served: " + convert)
	default:
		return 0, fmt.Errorf("has a VHD footer of the unknown type %d", t)
	}
	size := binary.BigEndian.Uint64(tail[vhdSizeAt:])
	if size != uint64(blobSize-vhdFooterSize) {
		return 0, fmt.Errorf("has a VHD footer for a disk of %d bytes after %d bytes: it is truncated or damaged; upload it again", size, blobSize-vhdFooterSize)
	}
	if size == 0 || size%sector != 0 {
		return 0, fmt.Errorf("has a VHD footer for a disk of %d bytes, which is not a positive multiple of %d", size, sector)
	}
	return int64(size), nil
}

func vhdChecksum(footer []byte) uint32 {
	var sum uint32
	for i, b := range footer {
		if i < vhdChecksumAt || i >= vhdChecksumAt+4 {
			sum += uint32(b)
		}
	}
	return ^sum
}
