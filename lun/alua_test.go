package lun

import (
	"bytes"
	"testing"
)

const reportGroups = "a3 0a 00000000 00000100 00 00"

// TestReportGroups checks REPORT TARGET PORT GROUPS, SPC-4 6.37, and that the
// Device Identification and the SCSI Ports page agree with it.
func TestReportGroups(t *testing.T) {
	m := NewMap()
	d := newTestDisk(quick{newMemory(1 << 20)})
	if err := m.Add(0, d); err != nil {
		t.Fatal(err)
	}
	n := testNexus()
	n.PortalGroup = 2
	m.AttachNexus(n)
	d.take(n)
	for _, c := range []struct {
		groups            []PortGroup
		cdb, want, tagged string
	}{
		{nil, reportGroups, "0000000c 00 cf 0002 00 00 00 01 0000 0002", "02"},
		{nil, "a3 2a 00000000 00000100 00 00", "00000010 10 00 0000 00 cf 0002 00 00 00 01 0000 0002", "02"},
		{
			[]PortGroup{{Tag: 3, State: Standby}, {Tag: 1, State: ActiveNonOptimized, Preferred: true}}, reportGroups,
			"00000024 81 cf 0001 00 02 00 01 0000 0001 00 cf 0002 00 02 00 01 0000 0002 02 cf 0003 00 02 00 01 0000 0003", "01 02 03",
		},
		{
			[]PortGroup{{Tag: 2, State: ActiveNonOptimized}}, reportGroups,
			"0000000c 01 cf 0002 00 02 00 01 0000 0002", "02",
		},
	} {
		if err := m.SetPortGroups(c.groups...); err != nil {
			t.Fatal(err)
		}
		d.take(n)
		if cmd := send(t, d, n, c.cdb, nil); ending(cmd) != "00" || !bytes.Equal(cmd.In, unhex(t, c.want)) {
			t.Errorf("%v: %s\n% x, want\n% x", c.groups, ending(cmd), cmd.In, unhex(t, c.want))
		}
		var ports []byte
		page := vpd(t, d, n, 0x88)
		for len(page) >= 12 {
			ports = append(ports, page[3])
			page = page[12+int(page[10])<<8+int(page[11]):]
		}
		if len(page) > 0 || !bytes.Equal(ports, unhex(t, c.tagged)) {
			t.Errorf("%v: ports % x with % x left", c.groups, ports, page)
		}
	}
	if id := vpd(t, d, n, 0x83); !bytes.Contains(id, unhex(t, "5195 00 04 0000 0002")) || !bytes.Contains(id, unhex(t, "5194 00 04 0000 0002")) {
		t.Errorf("no designator of group and port: % x", id)
	}
	wantEnding(t, send(t, d, n, "a3 4a 00000000 00000100 00 00", nil), "02 5/24/00")
	if err := m.SetPortGroups(PortGroup{Tag: 1, State: 7}); err == nil {
		t.Error("took a state that does not exist")
	}
	if err := m.SetPortGroups(PortGroup{Tag: 1}, PortGroup{Tag: 1, State: Standby}); err == nil {
		t.Error("took a group twice")
	}
	wantEnding(t, send(t, d, n, "a4 0a 00000000 00000000 00 00", nil), "02 5/20/00") // SET TARGET PORT GROUPS
}

// TestAccessStates checks which commands run in which access state, SPC-4
// 5.15.2.4, and that initiators hear of changes.
func TestAccessStates(t *testing.T) {
	m := NewMap()
	d := newTestDisk(quick{newMemory(1 << 20)})
	if err := m.Add(0, d); err != nil {
		t.Fatal(err)
	}
	near, far := testNexus(), testNexus()
	far.PortalGroup = 2
	for _, n := range []*Nexus{near, far} {
		m.AttachNexus(n)
		d.take(n)
	}
	const ok = "00"
	commands := []string{
		"28 00 00000000 00 0001 00", "12 00 00 00ff 00", "a0 00 00 000000 00000100 00 00", reportGroups, "a3 0c 00 00 0000 00000100 00 00",
		"25 00 00000000 0000 00 00", "9e 10 0000000000000000 00000020 00 00", "9e 12 0000000000000000 00000020 00 00",
		"16 0000 0000 00", "17 0000 0000 00", "1a 00 3f 00 ff 00", testUnitReady,
	}
	for _, c := range []struct {
		state AccessState
		want  []string
	}{
		{ActiveNonOptimized, []string{ok, ok, ok, ok, ok, ok, ok, "02 5/24/00", ok, ok, ok, ok}},
		{Standby, []string{"02 2/04/0b", ok, ok, ok, ok, ok, ok, "02 5/24/00", ok, ok, ok, ok}},
		{Unavailable, []string{"02 2/04/0c", ok, ok, ok, ok, ok, ok, "02 5/24/00", ok, ok, "02 2/04/0c", ok}},
		{Offline, []string{"02 2/04/12", ok, ok, ok, "02 2/04/12", "02 2/04/12", "02 2/04/12", "02 5/24/00", "02 2/04/12", "02 2/04/12", "02 2/04/12", "02 2/04/12"}},
		{Transitioning, []string{"02 2/04/0a", ok, ok, ok, "02 2/04/0a", "02 2/04/0a", "02 2/04/0a", "02 5/24/00", "02 2/04/0a", "02 2/04/0a", "02 2/04/0a", "02 2/04/0a"}},
		{ActiveOptimized, []string{ok, ok, ok, ok, ok, ok, ok, "02 5/24/00", ok, ok, ok, ok}},
	} {
		if err := m.SetPortGroups(PortGroup{Tag: 2, State: c.state}); err != nil {
			t.Fatal(err)
		}
		for _, n := range []*Nexus{near, far} {
			wantEnding(t, send(t, d, n, testUnitReady, nil), "02 6/2a/06")
		}
		if err := m.SetPortGroups(PortGroup{Tag: 2, State: c.state}); err != nil { // no news
			t.Fatal(err)
		}
		for i, cdb := range commands {
			if got := ending(send(t, d, far, cdb, nil)); got != c.want[i] {
				t.Errorf("state %x: %s ended with %s, want %s", c.state, cdb, got, c.want[i])
			}
		}
		wantEnding(t, send(t, d, near, commands[0], nil), "00")
		sense := send(t, d, far, "03 00 0000 12 00", nil).In
		if restricted := c.state.restricts(); (sense[2] == 0x02) != restricted {
			t.Errorf("state %x: REQUEST SENSE % x", c.state, sense)
		}
	}
	// Who comes finds the state; who goes takes its reason to look along.
	if err := m.SetPortGroups(PortGroup{Tag: 2, State: Standby}); err != nil {
		t.Fatal(err)
	}
	m.DetachNexus(far)
	m.DetachNexus(near)
	if g := d.gate.Load(); g != 0 {
		t.Errorf("gate %d with nobody there", g)
	}
	m.AttachNexus(far)
	late := newTestDisk(quick{newMemory(1 << 20)})
	if err := m.Add(1, late); err != nil {
		t.Fatal(err)
	}
	for _, u := range []*Disk{d, late} {
		for u.take(far) != nil {
		}
		wantEnding(t, send(t, u, far, commands[0], nil), "02 2/04/0b")
	}
}
