package lun

import (
	"encoding/binary"
	"testing"
)

// TestSetSize checks that a new size is there at once, and that every nexus
// hears of it once, SBC-3 4.10.
func TestSetSize(t *testing.T) {
	m := newMemory(1 << 20)
	d := newTestDisk(ranged{m})
	a, b := testNexus(), testNexus()
	for _, n := range []*Nexus{a, b} {
		d.Attach(n)
		wantEnding(t, send(t, d, n, testUnitReady, nil), "02 6/29/00")
	}
	last := func() uint32 { return binary.BigEndian.Uint32(send(t, d, nil, "25 00 00000000 0000 00 00", nil).In) }
	d.SetSize(1 << 20)
	wantEnding(t, send(t, d, a, testUnitReady, nil), "00") // nothing has changed
	m.data = make([]byte, 2<<20)
	if got := last(); got != 2047 {
		t.Errorf("the device grew, and the last block is %d before anybody has said so", got)
	}
	wantEnding(t, send(t, d, a, "28 00 00000800 00 0001 00", nil), "02 5/21/00")
	d.SetSize(2 << 20)
	if got := last(); got != 4095 {
		t.Errorf("last block %d, want 4095", got)
	}
	for _, n := range []*Nexus{a, b} {
		wantEnding(t, send(t, d, n, "2a 00 00000fff 00 0001 00", make([]byte, 512)), "02 6/2a/09")
		wantEnding(t, send(t, d, n, "2a 00 00000fff 00 0001 00", make([]byte, 512)), "00")
	}
	d.SetSize(512 << 10)
	d.SetSize(256 << 10)
	wantEnding(t, send(t, d, a, testUnitReady, nil), "02 6/2a/09")
	for _, cdb := range []string{"28 00 00000200 00 0001 00", "2a 00 000001ff 00 0002 00", "91 00 0000000000000200 00000001 00 00", "9e 12 0000000000000200 00000018 00 00"} {
		wantEnding(t, send(t, d, a, cdb, make([]byte, 1024)), "02 5/21/00")
	}
	if c := send(t, d, a, "1a 00 0a 00 ff 00", nil); binary.BigEndian.Uint32(c.In[4:]) != 512 {
		t.Errorf("block descriptor % x", c.In[:12])
	}
	if len(m.wrong) > 0 {
		t.Errorf("calls beyond the end: %q", m.wrong)
	}
}
