package lun

import (
	"bytes"
	"context"
	"errors"
	"testing"

	"skylun/block"
)

// spacious is a device that knows its space.
type spacious struct {
	*memory
	space block.Space
	err   error
}

func (s spacious) Space(context.Context) (block.Space, error) { return s.space, s.err }

// TestLogSense checks LOG SENSE, SPC-4 6.7 and 7.3.
func TestLogSense(t *testing.T) {
	d := newTestDisk(spacious{memory: newMemory(1 << 20), space: block.Space{Used: 5<<20 + 1, Free: 7<<20 - 1}})
	const none = "00 00 0000000000000000 00000000 0000"
	for _, c := range []struct {
		cdb, want, ending string
	}{
		{"4d 00 40 00 00 0000 00ff 00", "00 00 0004 00 0c 10 2f", "00"},
		{"4d 00 40 ff 00 0000 00ff 00", "40 ff 000a 0000 00ff 0c00 1000 2f00", "00"},
		{"4d 00 4c 00 00 0000 00ff 00", "8c 00 0018 0001 03 08 00000006 02 000000 0002 03 08 00000006 01 000000", "00"},
		{"4d 00 0c 00 00 0002 00ff 00", "8c 00 000c 0002 03 08 00000006 01 000000", "00"},
		{"4d 00 6f 00 00 0000 00ff 00", "af 00 0008 0000 03 04 00 00 ff 00", "00"},
		{"4d 00 50 00 00 0014 00ff 00", "90 00 0014 0014 03 10" + none, "00"},
		{"4d 00 50 00 00 0015 00ff 00", "", "02 5/24/00"},
		{"4d 00 40 00 00 0001 00ff 00", "", "02 5/24/00"},
		{"4d 01 40 00 00 0000 00ff 00", "", "02 5/24/00"}, // SP
		{"4d 00 4d 00 00 0000 00ff 00", "", "02 5/24/00"},
		{"4d 00 4c 01 00 0000 00ff 00", "", "02 5/24/00"},
		{"4d 00 40 01 00 0000 00ff 00", "", "02 5/24/00"},
	} {
		cmd := send(t, d, nil, c.cdb, nil)
		wantEnding(t, cmd, c.ending)
		if want := unhex(t, c.want); !bytes.Equal(cmd.In, want) {
			t.Errorf("%s\n% x, want\n% x", c.cdb, cmd.In, want)
		}
	}
	if b2 := vpd(t, d, nil, 0xb2); b2[0] != thresholdExponent {
		t.Errorf("threshold exponent %d", b2[0])
	}

	for _, c := range []struct {
		space block.Space
		want  string
	}{
		{block.Space{Used: 1 << 60, Free: -1}, "8c 00 0018 0001 03 08 00000000 02 000000 0002 03 08 ffffffff 01 000000"},
		{block.Space{}, "8c 00 0018 0001 03 08 00000000 02 000000 0002 03 08 00000000 01 000000"},
	} {
		d := newTestDisk(spacious{memory: newMemory(1 << 20), space: c.space})
		if cmd := send(t, d, nil, "4d 00 4c 00 00 0000 00ff 00", nil); !bytes.Equal(cmd.In, unhex(t, c.want)) {
			t.Errorf("%+v: % x", c.space, cmd.In)
		}
	}
	broken := newTestDisk(spacious{memory: newMemory(1 << 20), err: errors.New("surprise")})
	wantEnding(t, send(t, broken, nil, "4d 00 4c 00 00 0000 00ff 00", nil), "02 4/44/00")

	// A device that does not know has no such page.
	plain := newTestDisk(newMemory(1 << 20))
	wantEnding(t, send(t, plain, nil, "4d 00 4c 00 00 0000 00ff 00", nil), "02 5/24/00")
	if b2 := vpd(t, plain, nil, 0xb2); b2[0] != 0 {
		t.Errorf("threshold exponent %d without a log page", b2[0])
	}
}
