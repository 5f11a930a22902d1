package lun

import (
	"slices"
	"testing"
)

// TestStartStop checks START STOP UNIT, SBC-3 5.25.
func TestStartStop(t *testing.T) {
	for _, c := range []struct {
		name, cdb, want string
		calls           []string
		stopped         bool
	}{
		{"stop", "1b 00 0000 00 00", "00", []string{"flush"}, true},
		{"stop at once", "1b 01 0000 00 00", "00", []string{"flush"}, true},
		{"stop without a flush", "1b 00 0000 04 00", "00", nil, true},
		{"start", "1b 00 0000 01 00", "00", nil, false},
		{"active", "1b 00 0000 10 00", "00", nil, false},
		{"active with modifier", "1b 00 0001 10 00", "02 5/24/00", nil, false},
		{"idle_c", "1b 00 0002 20 00", "00", []string{"flush"}, false},
		{"idle without a flush", "1b 00 0000 24 00", "00", nil, false},
		{"idle of no kind", "1b 00 0003 20 00", "02 5/24/00", nil, false},
		{"standby_y", "1b 00 0001 30 00", "00", []string{"flush"}, false},
		{"standby of no kind", "1b 00 0002 30 00", "02 5/24/00", nil, false},
		{"timers", "1b 00 0000 70 00", "02 5/24/00", nil, false},
		{"force idle", "1b 00 0000 a0 00", "02 5/24/00", nil, false},
		{"load", "1b 00 0000 03 00", "02 5/24/00", nil, false},
		{"eject", "1b 00 0000 02 00", "02 5/24/00", nil, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := newMemory(1 << 20)
			d := newTestDisk(quick{m})
			a, b := testNexus(), testNexus()
			for _, n := range []*Nexus{a, b} {
				d.Attach(n)
				d.take(n)
			}
			wantEnding(t, send(t, d, a, c.cdb, nil), c.want)
			if !slices.Equal(m.calls, c.calls) {
				t.Errorf("calls %q, want %q", m.calls, c.calls)
			}
			ready := "00"
			if c.stopped {
				ready = "02 2/04/02"
			}
			for _, cdb := range []string{testUnitReady, "28 00 00000000 00 0001 00", "2f 00 00000000 00 0001 00"} {
				wantEnding(t, send(t, d, a, cdb, nil), ready)
				wantEnding(t, send(t, d, b, cdb, nil), "00") // it is not theirs that was stopped
			}
			for _, cdb := range []string{"12 00 00 00ff 00", "1a 00 3f 00 ff 00", "35 00 00000000 00 0000 00"} {
				wantEnding(t, send(t, d, a, cdb, nil), "00")
			}
			if sense := send(t, d, a, "03 00 0000 12 00", nil).In; (sense[2] == 2 && sense[12] == 4 && sense[13] == 2) != c.stopped {
				t.Errorf("REQUEST SENSE % x", sense)
			}
			wantEnding(t, send(t, d, a, "1b 00 0000 01 00", nil), "00")
			wantEnding(t, send(t, d, a, testUnitReady, nil), "00")
			if g := d.gate.Load(); g != 0 {
				t.Errorf("gate %d with nothing pending", g)
			}
		})
	}

	// A reset starts, and so does a nexus that comes again.
	d := newTestDisk(quick{newMemory(1 << 20)})
	n := testNexus()
	for _, again := range []func(){d.Reset, func() { d.Detach(n); d.Attach(n) }} {
		d.Attach(n)
		d.take(n)
		wantEnding(t, send(t, d, n, "1b 00 0000 00 00", nil), "00")
		again()
		d.take(n)
		wantEnding(t, send(t, d, n, testUnitReady, nil), "00")
	}
	d.Detach(n)
	if g := d.gate.Load(); g != 0 {
		t.Errorf("gate %d with nobody there", g)
	}
}
