package lun

import (
	"bytes"
	"math/rand/v2"
	"testing"
)

// tormented is a drive in the map of two nexuses, whose disc notes calls beyond
// its end.
type tormented struct {
	m     *plastic
	d     *CDROM
	units *Map
	nexus [2]*Nexus
}

func newTormented(t testing.TB) *tormented {
	h := &tormented{m: newPlastic(9*sectorSize-300, 0x33), units: NewMap()}
	h.d = newTestDrive(quickPlastic{h.m})
	if err := h.units.Add(1, h.d); err != nil {
		t.Fatal(err)
	}
	for i := range h.nexus {
		h.nexus[i] = testNexus()
		h.units.AttachNexus(h.nexus[i])
	}
	return h
}

// check runs one command and checks everything that holds for all.
func (h *tormented) check(t testing.TB, nexus int, cdb, out []byte, inLimit int) {
	t.Helper()
	cdbBefore, outBefore := bytes.Clone(cdb), bytes.Clone(out)
	c := exec(t, h.units.Unit(encodeLUN(1)), &Command{CDB: cdb, Nexus: h.nexus[nexus], Out: out, InLimit: inLimit})
	switch c.Status {
	case StatusGood, StatusReservationConflict:
	case StatusCheckCondition:
		if ending(c) == "02 4/44/00" {
			t.Fatalf("% x with %d bytes: internal failure", cdb, len(out))
		}
	default:
		t.Fatalf("% x: status %02x", cdb, c.Status)
	}
	if len(h.m.wrong) > 0 || len(h.m.calls) > 0 {
		t.Fatalf("% x: calls beyond the end %q, changes %q", cdb, h.m.wrong, h.m.calls)
	}
	if !bytes.Equal(cdb, cdbBefore) || !bytes.Equal(out, outBefore) {
		t.Fatalf("% x: the unit changed CDB or Data-Out", cdbBefore)
	}
}

// FuzzDriveCommand runs arbitrary commands on a drive.
func FuzzDriveCommand(f *testing.F) {
	h := newTormented(f)
	for i := range h.d.ops.rows {
		cdb := bytes.Clone(h.d.ops.rows[i].usage)
		f.Add(byte(0), cdb, make([]byte, 512), 512)
		f.Add(byte(1), cdb[:len(cdb)-1], []byte{}, 0)
		for j := range cdb[1:] {
			cdb[1+j] &= 0x12
		}
		f.Add(byte(1), cdb, filled(1024, 0x18), 7)
	}
	f.Fuzz(func(t *testing.T, nexus byte, cdb, out []byte, inLimit int) {
		h := newTormented(t)
		h.check(t, int(nexus&1), cdb, out, max(0, inLimit)%(1<<24))
		h.check(t, 0, cdb, out, len(out)) // and without an attention in the way
		h.check(t, 0, cdb, out, len(out))
	})
}

// TestRandomDriveCommands sends long sequences of likely and unlikely commands
// to a drive, whose disc is changed meanwhile.
func TestRandomDriveCommands(t *testing.T) {
	s := *seed
	if s == 0 {
		s = rand.Uint64()
	}
	t.Logf("-seed %d", s)
	rnd := rand.New(rand.NewPCG(s, 1))
	h := newTormented(t)
	for range 20000 {
		op := &h.d.ops.rows[rnd.IntN(len(h.d.ops.rows))]
		cdb := make([]byte, max(len(op.usage), 16))
		sparse := rnd.IntN(4)
		for i := range cdb {
			if rnd.IntN(1<<sparse) == 0 {
				cdb[i] = byte(rnd.Uint32()) >> rnd.IntN(8)
			}
			if i < len(op.usage) && rnd.IntN(8) > 0 {
				cdb[i] &= op.usage[i]
			}
		}
		mask := 0xff &^ controlNACA
		cdb[len(op.usage)-1] &= byte(mask)
		cdb[0] = op.usage[0]
		out := make([]byte, []int{0, 1, 8, 20, 28, 512, rnd.IntN(8192)}[rnd.IntN(7)])
		if rnd.IntN(2) == 0 {
			for i := range out {
				out[i] = byte(rnd.Uint32()) >> rnd.IntN(8)
			}
		}
		limit := []int{0, 1, 7, 18, 512, 4096, 1 << 20}[rnd.IntN(7)]
		h.m.reluct = rnd.IntN(4) == 0
		h.check(t, rnd.IntN(2), cdb, out, limit)
		switch rnd.IntN(500) {
		case 0:
			i := rnd.IntN(2)
			h.units.DetachNexus(h.nexus[i])
			h.units.AttachNexus(h.nexus[i])
		case 1:
			if err := h.d.Eject(true); err != nil {
				t.Fatal(err)
			}
		case 2, 3, 4:
			if err := h.d.Insert(quickPlastic{h.m}, true, nil); err != nil {
				t.Fatal(err)
			}
		}
	}
}
