package lun

import (
	"errors"
	"testing"
)

// TestReplace gives a disk another content and another size: every nexus hears
// of both, once.
func TestReplace(t *testing.T) {
	m := newMemory(64 << 10)
	p := newPair(t, able{quick{m}}, able{quick{newMemory(64 << 10)}})
	d := p.disks[0]
	a, b := testNexus(), testNexus()
	for _, n := range []*Nexus{a, b} {
		d.Attach(n)
		wantEnding(t, send(t, d, n, testUnitReady, nil), "02 6/29/00")
	}
	token := populate(t, d, p.nexus, extents{{8, 4}})
	use := func(want string) {
		t.Helper()
		wantEnding(t, tokenCommand(t, p.disks[1], p.nexus, 0x11, 3, writeList(0, 0, token, extents{{0, 4}})), want)
	}
	use("00")

	failed := errors.New("failed")
	if err := d.Replace(32<<10, func() error { return failed }); err != failed {
		t.Errorf("Replace: %v", err)
	}
	wantEnding(t, send(t, d, a, testUnitReady, nil), "02 6/2a/09")
	wantEnding(t, send(t, d, a, testUnitReady, nil), "00")
	if d.capacity() != 128 {
		t.Errorf("%d blocks after a replacement that failed", d.capacity())
	}

	err := d.Replace(128<<10, func() error {
		wantEnding(t, send(t, d, a, testUnitReady, nil), "02 2/04/01")
		wantEnding(t, send(t, d, a, "28 00 00000000 00 0001 00", make([]byte, 512)), "02 2/04/01")
		if d.capacity() != 128 {
			t.Errorf("%d blocks before they are there", d.capacity())
		}
		m.data = make([]byte, 128<<10)
		return nil
	})
	if err != nil || d.capacity() != 256 {
		t.Errorf("%d blocks, %v", d.capacity(), err)
	}
	use("02 5/23/06")
	for _, n := range []*Nexus{a, b} {
		wantEnding(t, send(t, d, n, testUnitReady, nil), "02 6/2a/09")
		wantEnding(t, send(t, d, n, testUnitReady, nil), "02 6/28/00")
		wantEnding(t, send(t, d, n, testUnitReady, nil), "00")
	}
	err = d.Replace(64<<10, func() error {
		if d.capacity() != 128 {
			t.Errorf("%d blocks while they go", d.capacity())
		}
		return nil
	})
	if err != nil || d.capacity() != 128 {
		t.Errorf("%d blocks, %v", d.capacity(), err)
	}

	if err := d.enter(errFormatting); err != nil {
		t.Fatal(err)
	}
	if err := d.Replace(64<<10, func() error { t.Error("called"); return nil }); err != errFormatting {
		t.Errorf("while it is formatted: %v", err)
	}
}
