package lun

import (
	"slices"
	"testing"
)

// TestToldOnce checks who hears of a power on, and who need not: an initiator
// port that knows what is in the drive, also by a drive that begins with what
// another one remembers.
func TestToldOnce(t *testing.T) {
	more := 0
	cfg := CDROMConfig{ID: testID, Medium: newPlastic(4096, 1), ToldMore: func() { more++ }}
	d := NewCDROM(cfg, discardLog)
	ready := func(n *Nexus, want string) {
		t.Helper()
		wantEnding(t, send(t, d, n, testUnitReady, nil), want)
	}
	a, other := testNexus(), testNexus()
	other.ISID[5]++
	d.Attach(a)
	if _, told := d.Told(); len(told) > 0 {
		t.Errorf("%q know before they have heard", told)
	}
	ready(a, "02 6/29/00")
	ready(a, "00")
	d.Detach(a)
	d.Attach(a) // its session came back
	ready(a, "00")
	d.Attach(other)
	ready(other, "02 6/29/00")
	if more != 2 {
		t.Errorf("told of %d more, want 2", more)
	}

	// Another drive that remembers.
	cfg.Generation, cfg.Told = d.Told()
	if want := []string{hostName(a), hostName(other)}; !slices.Equal(cfg.Told, want) {
		t.Errorf("know: %q, want %q", cfg.Told, want)
	}
	d = NewCDROM(cfg, discardLog)
	d.Attach(a)
	ready(a, "00")
	d.Reset() // that is news
	ready(a, "02 6/29/03")
	ready(a, "00")

	// A disc that comes is new to all, also to those who were away.
	if err := d.Insert(newPlastic(4096, 2), false, func() {
		// What one hears before the disc is there is not about the disc.
		d.Reset()
		ready(a, "02 6/29/03")
	}); err != nil {
		t.Fatal(err)
	}
	if generation, told := d.Told(); generation == cfg.Generation || len(told) > 0 {
		t.Errorf("generation %d as before, known to %q", generation, told)
	}
	d.Detach(a)
	d.Attach(a) // without having heard
	ready(a, "02 6/29/00")
	d.Attach(other)
	ready(other, "02 6/29/00")
	ready(other, "00")
	d.Detach(other)
	ready(a, "00")
	for _, cdb := range []string{openTray, closeTray} {
		wantEnding(t, send(t, d, a, cdb, nil), "00")
	}
	d.Attach(other) // which was away
	ready(other, "02 6/29/00")
	ready(a, "02 6/28/00")
	ready(a, "00")

	for i := range 2 * maxTold {
		n := testNexus()
		n.ISID[0], n.ISID[1] = byte(i), byte(i>>8)
		d.Attach(n)
		d.take(n)
		d.Detach(n)
	}
	if _, told := d.Told(); len(told) != maxTold {
		t.Errorf("%d are remembered", len(told))
	}
}
