package lun

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/gostor/gotgt/pkg/scsi"

	"skylun/block"
)

// TestDiagnose checks every error a handler can end with, SPC-4 4.5.
func TestDiagnose(t *testing.T) {
	for _, c := range []struct {
		err  error
		want string
	}{
		{invalidField(2, 7), "02 5/24/00"},
		{invalidParameter(2, 7), "02 5/26/00"},
		{errInvalidOpcode, "02 5/20/00"},
		{errNoSuchUnit, "02 5/25/00"},
		{errListLength, "02 5/1a/00"},
		{errSavingParams, "02 5/39/00"},
		{errDataOutSize, "02 5/0e/03"},
		{errWriteProtected, "02 7/27/00"},
		{outOfRange(7), "02 5/21/00"},
		{miscompare(7), "02 e/1d/00"},
		{errReserved, "18"},
		{block.ErrOutOfRange, "02 5/21/00"},
		{block.ErrReadOnly, "02 7/27/00"},
		{block.ErrNoSpace, "02 7/27/07"},
		{block.ErrNotReady, "02 2/04/01"},
		{block.ErrClosed, "02 2/04/00"},
		{readError(512, block.ErrMedium), "02 3/11/00"},
		{writeError(512, block.ErrMedium), "02 3/0c/00"},
		{block.ErrMedium, "02 3/11/00"},
		{context.Canceled, "40"},
		{context.DeadlineExceeded, "40"},
		{fmt.Errorf("fetch: %w: %w", block.ErrMedium, context.DeadlineExceeded), "02 3/11/00"},
		{errors.New("surprise"), "02 4/44/00"},
		{readError(0, errors.New("surprise")), "02 4/44/00"},
	} {
		for _, err := range []error{c.err, fmt.Errorf("volume: %w", c.err)} {
			for _, descriptors := range []bool{false, true} {
				var cmd Command
				cmd.fail(err, descriptors)
				if got := ending(&cmd); got != c.want {
					t.Errorf("%v, descriptors %v: %s, want %s", err, descriptors, got, c.want)
				}
			}
		}
	}
}

func TestSenseFormats(t *testing.T) {
	plain := *errWriteProtected
	field := *invalidField(0x102, 5).(*condition)
	whole := *invalidParameter(3, -1).(*condition)
	low := *outOfRange(0x01020304).(*condition)
	high := *outOfRange(0x0102030405060708).(*condition)
	full := condition{key: scsi.MEDIUM_ERROR, code: 0x1100, info: 9, hasInfo: true, specific: [3]byte{0x80, 1, 2}}
	for _, c := range []struct {
		name        string
		cond        condition
		fixed, desc string
	}{
		{"plain", plain, "70 00 07 00000000 0a 00000000 27 00 00 000000", "72 07 27 00 000000 00"},
		{"field pointer", field, "70 00 05 00000000 0a 00000000 24 00 00 cd0102", "72 05 24 00 000000 08 02 06 0000 cd0102 00"},
		{"whole byte", whole, "70 00 05 00000000 0a 00000000 26 00 00 800003", "72 05 26 00 000000 08 02 06 0000 800003 00"},
		{"information", low, "f0 00 05 01020304 0a 00000000 21 00 00 000000", "72 05 21 00 000000 0c 00 0a 80 00 0000000001020304"},
		{"too large for fixed", high, "70 00 05 00000000 0a 00000000 21 00 00 000000", "72 05 21 00 000000 0c 00 0a 80 00 0102030405060708"},
		{"both", full, "f0 00 03 00000009 0a 00000000 11 00 00 800102", "72 03 11 00 000000 14 00 0a 80 00 0000000000000009 02 06 0000 800102 00"},
	} {
		if got, want := c.cond.encode(nil, false), unhex(t, c.fixed); string(got) != string(want) {
			t.Errorf("%s: fixed\n% x, want\n% x", c.name, got, want)
		}
		got, want := c.cond.encode(nil, true), unhex(t, c.desc)
		if string(got) != string(want) {
			t.Errorf("%s: descriptors\n% x, want\n% x", c.name, got, want)
		}
		if len(got) > MaxSense {
			t.Errorf("%s: %d bytes", c.name, len(got))
		}
	}
}
