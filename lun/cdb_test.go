package lun

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"
)

// TestReservedBits sets every bit of every CDB that CDB USAGE DATA do not show
// as looked at: either it is refused, or it makes no difference.
func TestReservedBits(t *testing.T) {
	units := map[string]func() (Unit, *opTable){
		"disk": func() (Unit, *opTable) {
			d := NewDisk(able{quick{newMemory(64 << 10)}}, DiskConfig{ID: testID, Store: &shelf{}}, discardLog)
			return d, d.ops
		},
		"well known unit": func() (Unit, *opTable) {
			u := newWellKnown()
			return u, u.ops
		},
	}
	for name, fresh := range units {
		_, ops := fresh()
		for _, op := range ops.rows {
			plain := make([]byte, len(op.usage))
			plain[0] = op.usage[0]
			if op.action {
				plain[1] = op.usage[1] & actionMask
			}
			some := bytes.Clone(plain) // with something in the field before CONTROL
			for i := len(some) - 2; i > 1; i-- {
				if op.usage[i] == 0xff {
					some[i] = 0x10
					break
				}
			}
			for _, cdb := range [][]byte{plain, some} {
				run := func(cdb []byte) string {
					u, _ := fresh()
					c := exec(t, u, &Command{CDB: cdb, Out: make([]byte, 16*logicalBlock), InLimit: 1 << 20})
					return fmt.Sprintf("%s, %d bytes: % x", ending(c), c.Transfer, c.In)
				}
				want := run(cdb)
				for bit := 8; bit < 8*len(cdb); bit++ {
					mask := op.usage[bit/8]
					if bit/8 == 1 && op.action {
						mask |= actionMask
					}
					if mask>>(bit%8)&1 != 0 {
						continue
					}
					odd := bytes.Clone(cdb)
					odd[bit/8] |= 1 << (bit % 8)
					if got := run(odd); got != want && !strings.HasPrefix(got, "02 5/24/00") {
						t.Errorf("%s: %s: % x gives\n%.200s\n% x gives\n%.200s", name, op.name, odd, got, cdb, want)
					}
				}
			}
		}
	}
}

// Operations that move no data with a length of its own: either none, or as
// much as they always do.
var noLength = strings.Fields(`00 16 17 1b 1e 25 48/02 48/1f 35 91 34 90`)

// Operations that move as many logical blocks as they say. TestResiduals,
// TestExtents and TestVerify cut these.
var inBlocks = strings.Fields(`08 28 a8 88 0a 2a aa 8a 2e ae 8e 2f af 8f 41 93 89 8b`)

// Third-party copies have parameter lists and results that belong together.
// TestExtendedCopyChecks and what stands with it cut these.
var thirdPartyCodes = strings.Fields(`83 84`)

// TestReserveIn and TestReserveOutLists cut persistent reservations.
var reservationCodes = strings.Fields(`5e 5f`)

// TestAllCut checks that no operation of the table is missed by the tests that
// cut Data-In and Data-Out to every length.
func TestAllCut(t *testing.T) {
	d := NewDisk(able{quick{newMemory(1 << 20)}}, DiskConfig{Store: &shelf{}}, discardLog)
	elsewhere := slices.Concat(thirdPartyCodes, reservationCodes)
	cut := slices.Concat(noLength, inBlocks)
	for _, format := range allocationFormats {
		cut = append(cut, format[:2], format[:2]+"/"+format[3:5])
	}
	for _, c := range parameterLists(t) {
		cut = append(cut, fmt.Sprintf("%02x", c.cdb[0]), fmt.Sprintf("%02x/%02x", c.cdb[0], c.cdb[1]&actionMask))
	}
	for _, op := range d.ops.rows {
		code := fmt.Sprintf("%02x", op.usage[0])
		if op.action {
			code += fmt.Sprintf("/%02x", op.usage[1]&actionMask)
		}
		if !slices.Contains(cut, code) && !slices.Contains(elsewhere, code[:2]) {
			t.Errorf("nothing cuts what %s (%s) moves", op.name, code)
		}
	}
}
