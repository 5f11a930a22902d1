package lun

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
)

func field(t testing.TB, s string) (f [8]byte) {
	t.Helper()
	copy(f[:], unhex(t, s))
	return f
}

// TestLUNAddressing checks which unit a LUN field finds, SAM-5 4.7.
func TestLUNAddressing(t *testing.T) {
	m := NewMap()
	units := map[uint16]Unit{}
	for _, lun := range []uint16{1, 255, 256, 300, MaxLUN} {
		units[lun] = newTestDisk(newMemory(4096))
		if err := m.Add(lun, units[lun]); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		field string
		want  Unit
	}{
		{"0001", units[1]},
		{"4001", units[1]}, // flat space
		{"00ff", units[255]},
		{"40ff", units[255]},
		{"4100", units[256]},
		{"412c", units[300]},
		{"7fff", units[MaxLUN]},
		{"0000", m.zero},
		{"4000", m.zero},
		{"0002", m.absent},
		{"0101", m.absent}, // another bus
		{"012c", m.absent},
		{"3fff", m.absent},
		{"0001 0001", m.absent}, // a second level
		{"0001 0000 0000 0001", m.absent},
		{"8001", m.absent}, // logical unit addressing
		{"c101", m.wellKnown},
		{"c100", m.absent},
		{"c102", m.absent},
		{"c101 0001", m.absent},
		{"ffff ffff ffff ffff", m.absent},
	} {
		if got := m.Unit(field(t, c.field)); got != c.want {
			t.Errorf("%s finds %v", c.field, got)
		}
	}
	for lun := range uint16(MaxLUN + 1) {
		if got, ok := decodeLUN(encodeLUN(lun)); !ok || got != lun {
			t.Fatalf("LUN %d comes back as %d, %v", lun, got, ok)
		}
	}
	if err := m.Add(1, units[1]); err == nil || !strings.Contains(err.Error(), "LUN 1") {
		t.Errorf("a number in use: %v", err)
	}
	if err := m.Add(MaxLUN+1, units[1]); err == nil {
		t.Error("a number beyond 14 bits is taken")
	}
	if got, want := m.LUNs(), []uint16{1, 255, 256, 300, MaxLUN}; !slices.Equal(got, want) {
		t.Errorf("LUNs %v, want %v", got, want)
	}
	m.Remove(300)
	m.Remove(300)
	if got := m.Unit(field(t, "412c")); got != m.absent {
		t.Errorf("a removed number finds %v", got)
	}
}

// TestVacancies checks what answers for numbers without a unit: SAM-5 5.11 and
// SPC-4 6.6.2, and for LUN 0 what Windows expects.
func TestVacancies(t *testing.T) {
	m := NewMap()
	if err := m.Add(5, newTestDisk(newMemory(4096))); err != nil {
		t.Fatal(err)
	}
	n := testNexus()
	m.AttachNexus(n)
	const list = "00000008 00000000 0005000000000000"
	for _, c := range []struct {
		field      string
		peripheral byte
		other      string // how TEST UNIT READY ends
		sense      string // what REQUEST SENSE reports
	}{
		{"0000", 0x3f, "02 5/25/00", "5/25/00"},
		{"0007", 0x7f, "02 5/25/00", "5/25/00"},
		{"ffff", 0x7f, "02 5/25/00", "5/25/00"},
		{"c101", 0x1e, "00", "0/00/00"},
	} {
		u := m.Unit(field(t, c.field))
		inq := send(t, u, n, "12 00 00 00ff 00", nil)
		if wantEnding(t, inq, "00"); inq.In[0] != c.peripheral || strings.TrimSpace(string(inq.In[8:16])) == "" {
			t.Errorf("%s: % x", c.field, inq.In)
		}
		pages, id := []byte{c.peripheral, 0, 0, 1, 0}, "02 5/24/00"
		if c.field == "c101" { // it belongs to the target, SPC-4 7.8.6.2.4
			pages, id = []byte{c.peripheral, 0, 0, 2, 0, 0x83}, "00"
		}
		if got := send(t, u, n, "12 01 00 00ff 00", nil).In; !bytes.Equal(got, pages) {
			t.Errorf("%s: supported pages % x", c.field, got)
		}
		if page := send(t, u, n, "12 01 83 00ff 00", nil); ending(page) != id || id == "00" && !bytes.HasSuffix(page.In, append([]byte{0x53, 0xa8, 0, 28}, nameString(n.TargetName)...)) {
			t.Errorf("%s: device identification %s, % x", c.field, ending(page), page.In)
		}
		if got := send(t, u, n, "a0 00 00 000000 00000100 00 00", nil).In; !bytes.Equal(got, unhex(t, list)) {
			t.Errorf("%s: REPORT LUNS % x", c.field, got)
		}
		s := send(t, u, n, "03 00 0000 ff 00", nil)
		if got := fmt.Sprintf("%x/%02x/%02x", s.In[2], s.In[12], s.In[13]); got != c.sense {
			t.Errorf("%s: REQUEST SENSE %s, want %s", c.field, got, c.sense)
		}
		wantEnding(t, send(t, u, n, "00 00000000 00", nil), c.other)
		for _, cdb := range []string{"28 00 00000000 00 0001 00", "ff"} {
			want := "02 5/25/00"
			if c.field == "c101" {
				want = "02 5/20/00"
			}
			wantEnding(t, send(t, u, n, cdb, nil), want)
		}
		wantEnding(t, send(t, u, n, "", nil), map[bool]string{true: "02 5/20/00", false: "02 5/25/00"}[c.field == "c101"])
	}
}

// TestReportLUNs checks SPC-4 6.33.
func TestReportLUNs(t *testing.T) {
	m := NewMap()
	for _, lun := range []uint16{300, 0, 7} {
		if err := m.Add(lun, newTestDisk(newMemory(4096))); err != nil {
			t.Fatal(err)
		}
	}
	n := testNexus()
	m.AttachNexus(n)
	const (
		units = "0000000000000000 0007000000000000 412c000000000000"
		known = "c101000000000000"
	)
	u := m.Unit(field(t, "0007"))
	for _, c := range []struct {
		sel  byte
		want string
	}{
		{0x00, "00000018 00000000" + units},
		{0x01, "00000008 00000000" + known},
		{0x02, "00000020 00000000" + known + units},
		{0x10, "00000000 00000000"},
		{0x11, "00000018 00000000" + units},
		{0x12, "00000000 00000000"},
	} {
		cmd := send(t, u, n, fmt.Sprintf("a0 00 %02x 000000 00000100 00 00", c.sel), nil)
		if wantEnding(t, cmd, "00"); !bytes.Equal(cmd.In, unhex(t, c.want)) {
			t.Errorf("select %02x: % x", c.sel, cmd.In)
		}
	}
	for _, sel := range []byte{0x03, 0x0f, 0x13, 0xf8, 0xff} {
		wantEnding(t, send(t, u, n, fmt.Sprintf("a0 00 %02x 000000 00000100 00 00", sel), nil), "02 5/24/00")
	}
	cmd := send(t, u, n, "a0 00 00 000000 00000010 00 00", nil)
	if want := unhex(t, "00000018 00000000 0000000000000000"); !bytes.Equal(cmd.In, want) {
		t.Errorf("cut list % x", cmd.In)
	}
	alone := send(t, newTestDisk(newMemory(4096)), nil, "a0 00 00 000000 00000100 00 00", nil)
	if want := unhex(t, "00000008 00000000 0000000000000000"); !bytes.Equal(alone.In, want) {
		t.Errorf("a unit in no map reports % x", alone.In)
	}
}

// TestInventoryChange checks REPORTED LUNS DATA HAS CHANGED, SAM-5 5.14.
func TestInventoryChange(t *testing.T) {
	const tur, report = "00 00000000 00", "a0 00 00 000000 00000100 00 00"
	m := NewMap()
	disks := [3]*Disk{}
	for i := range disks {
		disks[i] = newTestDisk(newMemory(4096))
	}
	for lun := range uint16(2) {
		if err := m.Add(lun, disks[lun]); err != nil {
			t.Fatal(err)
		}
	}
	a, b := testNexus(), testNexus()
	m.AttachNexus(a)
	m.AttachNexus(b)
	for _, n := range []*Nexus{a, b} {
		for _, d := range disks[:2] {
			wantEnding(t, send(t, d, n, tur, nil), "02 6/29/00")
			wantEnding(t, send(t, d, n, tur, nil), "00")
		}
	}
	if err := m.Add(2, disks[2]); err != nil {
		t.Fatal(err)
	}
	// a hears it once, from one unit; b asks by itself. The new unit has its
	// own news for both.
	wantEnding(t, send(t, disks[1], a, tur, nil), "02 6/3f/0e")
	wantEnding(t, send(t, disks[0], a, tur, nil), "00")
	wantEnding(t, send(t, disks[0], b, report, nil), "00")
	for _, d := range disks[:2] {
		wantEnding(t, send(t, d, b, tur, nil), "00")
	}
	for _, n := range []*Nexus{a, b} {
		wantEnding(t, send(t, disks[2], n, tur, nil), "02 6/29/00")
	}
	m.Remove(0)
	wantEnding(t, send(t, disks[0], a, tur, nil), "00") // what still runs there is let be
	wantEnding(t, send(t, disks[2], a, tur, nil), "02 6/3f/0e")
	wantEnding(t, send(t, disks[1], a, tur, nil), "00")
	m.DetachNexus(a)
	m.DetachNexus(b)
	for i, d := range disks {
		if g := d.gate.Load(); g != 0 || len(d.nexuses) != 0 {
			t.Errorf("unit %d keeps %d nexuses, gate %d", i, len(d.nexuses), g)
		}
	}
}

// TestMapRace lets everything happen at once; the race detector looks on.
func TestMapRace(t *testing.T) {
	m := NewMap()
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			for range 50 {
				n := testNexus()
				m.AttachNexus(n)
				for _, cdb := range []string{"00 00000000 00", "a0 00 00 000000 00000100 00 00", "28 00 00000000 00 0001 00", "16 0000 0000 00", "12 00 00 00ff 00"} {
					send(t, m.Unit(encodeLUN(uint16(i%2))), n, cdb, nil)
				}
				m.DetachNexus(n)
			}
		})
	}
	for lun := range uint16(2) {
		wg.Go(func() {
			for range 50 {
				if err := m.Add(lun, newTestDisk(quick{newMemory(4096)})); err != nil {
					t.Error(err)
				}
				m.LUNs()
				m.Remove(lun)
			}
		})
	}
	wg.Wait()
}
