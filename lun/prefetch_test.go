package lun

import (
	"context"
	"fmt"
	"slices"
	"testing"

	"skylun/block"
)

// distant is a memory some of whose bytes are far away. It notes what is to
// be fetched.
type distant struct {
	*memory
	asked *[]string
}

// Prefetch implements block.Prefetcher.
func (m distant) Prefetch(_ context.Context, off, n int64, wait bool) error {
	if err := m.enter("read", off, n); err != nil {
		return err
	}
	*m.asked = append(*m.asked, fmt.Sprintf("%d+%d %v", off, n, wait))
	return nil
}

// TestPrefetch checks SBC-3 5.8 and 5.9.
func TestPrefetch(t *testing.T) {
	const capacity = 64
	for _, c := range []struct {
		cdb   []byte
		want  string
		asked string
	}{
		{extentCDB(0x34, 0, 1, 8), "04", "512+4096 true"},
		{extentCDB(0x90, 0, 1, 8), "04", "512+4096 true"},
		{extentCDB(0x90, 2, 1, 8), "04", "512+4096 false"},
		{extentCDB(0x34, 2, 63, 1), "04", "32256+512 false"},
		{extentCDB(0x34, 0, 62, 0), "04", "31744+1024 true"},
		{extentCDB(0x90, 0, 0, 0), "04", "0+32768 true"},
		{extentCDB(0x34, 0, 63, 2), "02 5/21/00", ""},
		{extentCDB(0x34, 0, 64, 0), "02 5/21/00", ""},
		{extentCDB(0x90, 0, 1<<64-1, 2), "02 5/21/00", ""},
	} {
		var asked, want []string
		if c.asked != "" {
			want = []string{c.asked}
		}
		m := newMemory(capacity * logicalBlock)
		cmd := exec(t, newTestDisk(distant{m, &asked}), &Command{CDB: c.cdb, InLimit: 512})
		if wantEnding(t, cmd, c.want); !slices.Equal(asked, want) || cmd.Transfer != 0 {
			t.Errorf("% x: asked for %q, want %q; moved %d", c.cdb, asked, want, cmd.Transfer)
		}
		// Where nothing is far away, it is here already.
		wantEnding(t, exec(t, newTestDisk(m), &Command{CDB: c.cdb}), c.want)
	}
	for _, c := range []struct {
		err  error
		want string
	}{
		{block.ErrNoSpace, "00"}, // nothing is wrong, but it is not here
		{block.ErrMedium, "02 3/11/00"},
		{context.Canceled, "40"},
	} {
		m, asked := newMemory(4096), []string(nil)
		m.fault = c.err
		wantEnding(t, exec(t, newTestDisk(distant{m, &asked}), &Command{CDB: extentCDB(0x34, 0, 0, 1)}), c.want)
	}
}

// TestReadDefectData checks SBC-3 5.17 and 5.18.
func TestReadDefectData(t *testing.T) {
	d := newTestDisk(newMemory(4096))
	for _, c := range []struct {
		cdb, want, data string
	}{
		{"37 00 18 00000000 00ff 00", "00", "00 18 0000"},
		{"37 00 0d 00000000 00ff 00", "00", "00 0d 0000"},
		{"37 00 15 00000000 0003 00", "00", "00 15 00"},
		{"37 00 1a 00000000 00ff 00", "02 5/24/00", ""},
		{"b7 18 00000000 000000ff 00 00", "00", "00 18 0000 00000000"},
		{"b7 0b 00000000 000000ff 00 00", "00", "00 0b 0000 00000000"},
		{"b7 1b 00000000 00000005 00 00", "00", "00 1b 0000 00"},
		{"b7 1f 00000000 000000ff 00 00", "02 5/24/00", ""},
	} {
		cmd := send(t, d, nil, c.cdb, nil)
		if wantEnding(t, cmd, c.want); string(cmd.In) != string(unhex(t, c.data)) {
			t.Errorf("%s: % x", c.cdb, cmd.In)
		}
	}
}
