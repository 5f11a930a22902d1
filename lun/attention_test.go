package lun

import (
	"slices"
	"testing"

	"github.com/gostor/gotgt/pkg/scsi"
)

const testUnitReady = "00 00000000 00"

// TestUnitAttention checks SAM-5 5.14: one attention per nexus and cause,
// reported once, by any command but the exempt ones.
func TestUnitAttention(t *testing.T) {
	d := newTestDisk(quick{newMemory(1 << 20)})
	a, b := testNexus(), testNexus()
	d.Attach(a)
	d.Attach(b)
	d.Attach(a) // repeated, and no news

	for _, cdb := range []string{"12 00 00 00ff 00", "12 01 99 00ff 00", "a0 00 00 000000 00000100 00 00"} {
		if c := send(t, d, a, cdb, nil); len(c.Sense) > 0 && c.Sense[2] == scsi.UNIT_ATTENTION {
			t.Errorf("%s reports a unit attention", cdb)
		}
	}
	wantEnding(t, send(t, d, a, "28 00 00000000 00 0001 00", nil), "02 6/29/00")
	wantEnding(t, send(t, d, a, "28 00 00000000 00 0001 00", nil), "00")
	wantEnding(t, send(t, d, b, "fe", nil), "02 6/29/00") // before it is looked at further
	wantEnding(t, send(t, d, b, "fe", nil), "02 5/20/00")

	// REQUEST SENSE takes one as data.
	d.raise(a, scsi.ASC_MODE_PARAMETERS_CHANGED)
	d.raise(a, scsi.ASC_REPORTED_LUNS_DATA_HAS_CHANGED)
	d.raise(a, scsi.ASC_MODE_PARAMETERS_CHANGED)
	c := send(t, d, a, "03 00 0000 12 00", nil)
	if wantEnding(t, c, "00"); c.In[2] != 6 || c.In[12] != 0x2a || c.In[13] != 0x01 {
		t.Errorf("REQUEST SENSE % x", c.In)
	}
	c = send(t, d, a, "03 01 0000 12 00", nil)
	if wantEnding(t, c, "00"); c.In[0] != 0x72 || c.In[1] != 6 || c.In[2] != 0x3f || c.In[3] != 0x0e {
		t.Errorf("REQUEST SENSE in descriptor format % x", c.In)
	}
	c = send(t, d, a, "03 00 0000 12 00", nil)
	if wantEnding(t, c, "00"); c.In[0] != 0x70 || c.In[2] != 0 || len(c.In) != 18 {
		t.Errorf("REQUEST SENSE without anything % x", c.In)
	}

	d.raise(testNexus(), scsi.ASC_MODE_PARAMETERS_CHANGED) // of nobody we know
	d.raiseOthers(a, scsi.ASC_MODE_PARAMETERS_CHANGED)
	d.clear(a, scsi.ASC_MODE_PARAMETERS_CHANGED)
	wantEnding(t, send(t, d, a, testUnitReady, nil), "00")
	if g := d.gate.Load(); g != 1 {
		t.Errorf("gate %d with one attention pending", g)
	}
	d.Detach(b)
	d.Detach(b)
	if g := d.gate.Load(); g != 0 {
		t.Errorf("gate %d with nothing pending", g)
	}
	d.Attach(b) // came again
	wantEnding(t, send(t, d, b, testUnitReady, nil), "02 6/29/00")
}

// TestReserve checks RESERVE(6) and RELEASE(6), SPC-2 5.5.
func TestReserve(t *testing.T) {
	const reserve, release, read = "16 0000 0000 00", "17 0000 0000 00", "28 00 00000000 00 0001 00"
	d := newTestDisk(quick{newMemory(1 << 20)})
	a, b := testNexus(), testNexus()
	for _, n := range []*Nexus{a, b} {
		d.Attach(n)
		wantEnding(t, send(t, d, n, testUnitReady, nil), "02 6/29/00")
	}
	for range 2 {
		wantEnding(t, send(t, d, a, reserve, nil), "00")
	}
	wantEnding(t, send(t, d, a, read, nil), "00")
	for _, cdb := range []string{read, testUnitReady, reserve, "2a 00 00000000 00 0001 00", "35 00 00000000 00 0000 00", "1b 00 0000 00 00", "1e 00 0000 01 00", "1a 00 3f 00 ff 00"} {
		wantEnding(t, send(t, d, b, cdb, make([]byte, 512)), "18")
	}
	for _, cdb := range []string{"12 00 00 00ff 00", "03 00 0000 ff 00", "a0 00 00 000000 00000100 00 00", "25 00 00000000 0000 00 00", "1b 00 0000 01 00", "1e 00 0000 00 00", release} {
		wantEnding(t, send(t, d, b, cdb, nil), "00")
	}
	wantEnding(t, send(t, d, b, read, nil), "18") // it was not theirs to release
	wantEnding(t, send(t, d, a, release, nil), "00")
	wantEnding(t, send(t, d, b, read, nil), "00")
	wantEnding(t, send(t, d, b, reserve, nil), "00")
	d.Detach(b)
	wantEnding(t, send(t, d, a, read, nil), "00")
	wantEnding(t, send(t, d, b, reserve, nil), "40") // came too late
	wantEnding(t, send(t, d, a, read, nil), "00")
	wantEnding(t, send(t, d, a, "16 1000 0000 00", nil), "02 5/24/00")
	wantEnding(t, send(t, d, a, "16 0100 0000 00", nil), "02 5/24/00")
	if g := d.gate.Load(); g != 0 {
		t.Errorf("gate %d with nothing pending", g)
	}
}

// TestReset checks what a logical unit reset does to a unit, SAM-5 6.3.3.
func TestReset(t *testing.T) {
	m := NewMap()
	d := newTestDisk(quick{newMemory(1 << 20)})
	if err := m.Add(3, d); err != nil {
		t.Fatal(err)
	}
	a, b := testNexus(), testNexus()
	m.AttachNexus(a)
	wantEnding(t, send(t, d, a, testUnitReady, nil), "02 6/29/00")
	m.AttachNexus(b)
	for _, c := range []struct {
		reset func() bool
		other []string // what the other nexus hears
	}{
		{func() bool { return m.Reset(3) }, []string{"02 6/29/00", "02 6/2a/01"}},
		{func() bool { m.ResetAll(); return true }, []string{"02 6/29/03", "02 6/2a/01"}},
	} {
		wantEnding(t, send(t, d, a, "16 0000 0000 00", nil), "00")
		wantEnding(t, send(t, d, a, "55 10 0000000000 0028 00", unhex(t, "0000000000000000 08 12 00 00000000000000000000000000000000 00 0a 0a 06 10 0800000000000000")), "00")
		if !c.reset() {
			t.Fatal("there is no unit")
		}
		if d.writeThrough.Load() || d.descriptorSense.Load() || d.protected.Load() || d.reserved {
			t.Error("something is left")
		}
		wantEnding(t, send(t, d, a, testUnitReady, nil), "02 6/29/03")
		wantEnding(t, send(t, d, a, testUnitReady, nil), "00")
		var heard []string
		for len(d.nexuses[b].attentions) > 0 && len(heard) < 9 {
			heard = append(heard, ending(send(t, d, b, testUnitReady, nil)))
		}
		if !slices.Equal(heard, c.other) {
			t.Errorf("the other nexus heard %q, want %q", heard, c.other)
		}
	}
	if m.Reset(4) {
		t.Error("reset a unit that is not there")
	}
}

// TestAttentionOrder checks which unit attentions wait, and in what order:
// SAM-5 5.14.
func TestAttentionOrder(t *testing.T) {
	for _, c := range []struct {
		raised []scsi.SCSISubError
		want   []string
	}{
		{[]scsi.SCSISubError{ascCapacityChanged, ascCapacityChanged, ascSoftThreshold}, []string{"02 6/2a/09", "02 6/38/07"}},
		{[]scsi.SCSISubError{ascLogChanged, ascNexusLoss, ascBusDeviceReset}, []string{"02 6/29/03", "02 6/29/07", "02 6/2a/02"}},
		{[]scsi.SCSISubError{scsi.ASC_POWERON_RESET, ascBusDeviceReset, ascNexusLoss}, []string{"02 6/29/00"}},
		{[]scsi.SCSISubError{ascRegistrationsPreempted, scsi.ASC_POWERON_RESET}, []string{"02 6/29/00", "02 6/2a/05"}},
	} {
		d := newTestDisk(quick{newMemory(1 << 20)})
		n := testNexus()
		d.Attach(n)
		d.take(n)
		for _, code := range c.raised {
			d.raiseAll(code)
		}
		if g := d.gate.Load(); g != int32(len(c.want)) {
			t.Errorf("gate %d with %d attentions", g, len(c.want))
		}
		for _, want := range append(c.want, "00") {
			wantEnding(t, send(t, d, n, testUnitReady, nil), want)
		}
	}
}
