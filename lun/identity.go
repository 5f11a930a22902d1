package lun

import (
	"crypto/sha256"
	"encoding/hex"
)

// What all units say of their origin, SPC-4 6.6.2.
const (
	vendorID = "SKYLUN"
	revision = "0001" // raised when what a unit shows changes in a way initiators should notice
)

// companyID is the IEEE company identifier in NAA designators. It is not one
// that was assigned: its locally administered bit (02h of the first byte) is
// set, so that it cannot meet an assigned one. It reads as "SK" behind that.
const companyID = 0x02534b

// identity is who a unit is.
type identity struct {
	vendor, product, revision string // at most 8, 16 and 4 ASCII characters

	serial string   // ASCII
	naa    [16]byte // NAA IEEE Registered Extended, SPC-4 7.8.6.6.5
}

// diskIdentity returns the identity of the disk of a volume. Both the serial
// number and the NAA designator are functions of the volume's ID alone, so
// they stay over restarts, renames and moves to another node.
func diskIdentity(id [16]byte) identity {
	return identity{
		vendor:   vendorID,
		product:  "VIRTUAL DISK",
		revision: revision,
		serial:   hex.EncodeToString(id[:]),
		naa:      naa(id),
	}
}

// driveIdentity returns the identity of a CD-ROM drive.
func driveIdentity(id [16]byte) identity {
	d := diskIdentity(id)
	d.product = "VIRTUAL DVD-ROM"
	return d
}

// naa derives a designator from an ID:
//
//	bits   4  NAA, 6: IEEE Registered Extended
//	      24  company identifier
//	      36  vendor specific identifier       \  the first 100 bits of
//	      64  vendor specific identifier ext.  /  SHA-256("skylun naa", ID)
//
// The hash makes designators differ early, also for IDs that are not random:
// some initiators show or compare the first characters only.
func naa(id [16]byte) (d [16]byte) {
	sum := sha256.Sum256(append([]byte("skylun naa"), id[:]...))
	copy(d[3:], sum[:])
	d[0] = 6<<4 | companyID>>20
	d[1] = companyID >> 12 & 0xff
	d[2] = companyID >> 4 & 0xff
	d[3] = companyID&0x0f<<4 | d[3]&0x0f
	return d
}
