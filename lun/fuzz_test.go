package lun

import (
	"bytes"
	"context"
	"encoding/binary"
	"flag"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/gostor/gotgt/pkg/api"
	"github.com/gostor/gotgt/pkg/scsi"

	"skylun/block"
)

// able is a device with all optional abilities.
type able struct{ quick }

func (a able) Space(context.Context) (block.Space, error) {
	return block.Space{Used: 1 << 20, Free: 1 << 30}, nil
}

func (a able) DataRanges(ctx context.Context, r block.Range, f func(block.Range) error) error {
	return ranged{a.memory}.DataRanges(ctx, r, f)
}

func (a able) Update(ctx context.Context, p []byte, off int64, f func([]byte) (bool, error)) error {
	return updatable{a.memory}.Update(ctx, p, off, f)
}

func (a able) Prefetch(ctx context.Context, off, n int64, wait bool) error {
	return distant{a.memory, new([]string)}.Prefetch(ctx, off, n, wait)
}

func (a able) CopyFrom(ctx context.Context, off int64, src block.Reader, from, n int64) (bool, error) {
	if s, ok := src.(able); ok {
		src = copying{s.memory, nil}
	}
	return copying{a.memory, new([]string)}.CopyFrom(ctx, off, src, from, n)
}

// hostile is a disk to be tormented: its device notes calls beyond the end,
// and two nexuses have it in their map.
type hostile struct {
	m     *memory
	d     *Disk
	units *Map
	nexus [2]*Nexus
}

const hostileSize = 16 << 10

func newHostile(t testing.TB, readOnly bool) *hostile {
	h := &hostile{m: newMemory(hostileSize), units: NewMap()}
	h.d = NewDisk(able{quick{h.m}}, DiskConfig{ReadOnly: readOnly, Store: &shelf{}}, discardLog)
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
func (h *hostile) check(t testing.TB, lun [8]byte, nexus int, cdb, out []byte, inLimit int) {
	t.Helper()
	cdbBefore, outBefore, media := bytes.Clone(cdb), bytes.Clone(out), bytes.Clone(h.m.data)
	c := &Command{CDB: cdb, Nexus: h.nexus[nexus], Out: out, InLimit: inLimit}
	exec(t, h.units.Unit(lun), c)
	switch c.Status {
	case StatusGood, StatusConditionMet, StatusReservationConflict:
	case StatusCheckCondition:
		if n := len(c.Sense); n < 8 || n > MaxSense || c.Sense[7] != byte(n-8) {
			t.Fatalf("% x: sense % x", cdb, c.Sense)
		}
		if !legalSense(c.Sense) {
			t.Fatalf("% x: no sense data the standards know: % x", cdb, c.Sense)
		}
		if ending(c) == "02 4/44/00" {
			t.Fatalf("% x with %d bytes: internal failure", cdb, len(out))
		}
	default:
		t.Fatalf("% x: status %02x", cdb, c.Status)
	}
	if len(h.m.wrong) > 0 {
		t.Fatalf("% x: calls beyond the end %q", cdb, h.m.wrong)
	}
	if !bytes.Equal(cdb, cdbBefore) || !bytes.Equal(out, outBefore) {
		t.Fatalf("% x: the unit changed CDB or Data-Out", cdbBefore)
	}
	op, err := h.d.ops.find(cdb)
	if mayWrite := err == nil && (op.flags&writes != 0 || op.usage[0] == byte(extendedCopyCode)) && !h.d.readOnly; !mayWrite && !bytes.Equal(h.m.data, media) {
		t.Fatalf("% x: the medium changed", cdb)
	}
	h.m.calls = h.m.calls[:0]
}

// legalSense tells whether sense data are current ones, with a key that goes with
// CHECK CONDITION and an additional sense code, SPC-4 4.5.
func legalSense(sense []byte) bool {
	key, asc := sense[1], sense[2]
	switch sense[0] {
	case 0x72:
	case 0x70, 0xf0:
		if len(sense) < 18 {
			return false
		}
		key, asc = sense[2], sense[12]
	default:
		return false
	}
	switch key {
	case scsi.NOT_READY, scsi.MEDIUM_ERROR, scsi.HARDWARE_ERROR, scsi.ILLEGAL_REQUEST, scsi.UNIT_ATTENTION, scsi.DATA_PROTECT,
		scsi.COPY_ABORTED, scsi.ABORTED_COMMAND, scsi.MISCOMPARE:
		return asc != 0
	}
	return false
}

// States that a hostile disk can be in before a command comes.
var (
	hostileAccess     = []AccessState{ActiveOptimized, ActiveNonOptimized, Standby, Unavailable, Offline, Transitioning}
	hostileAttentions = []scsi.SCSISubError{ascBusDeviceReset, ascNexusLoss, ascCapacityChanged, ascSoftThreshold, scsi.ASC_RESERVATIONS_PREEMPTED}
)

// disturb puts the disk into one of its states.
func (h *hostile) disturb(t testing.TB, access, attention int) {
	if err := h.units.SetPortGroups(PortGroup{Tag: 1, State: hostileAccess[access%len(hostileAccess)]}); err != nil {
		t.Fatal(err)
	}
	if attention < len(hostileAttentions) {
		h.d.raiseAll(hostileAttentions[attention])
	}
}

// FuzzCommand runs arbitrary commands: none panics, touches anything beyond
// the end, or ends in another way than SAM-5 5.3.1 knows.
func FuzzCommand(f *testing.F) {
	h := newHostile(f, false)
	for i := range h.d.ops.rows {
		op := &h.d.ops.rows[i]
		cdb := bytes.Clone(op.usage)
		f.Add(uint16(1), byte(0), []byte(nil), cdb, make([]byte, 512), 512)
		f.Add(uint16(0), byte(1), cdb, cdb[:len(cdb)-1], []byte{}, 0)
		for j := range cdb[1:] {
			cdb[1+j] &= 0x12
		}
		f.Add(uint16(1), byte(1), []byte{byte(api.RESERVE), 0, 0, 0, 0, 0}, cdb, filled(1024, 0x18), 7)
	}
	for _, l := range h.copyLists() {
		f.Add(uint16(1), byte(0), []byte{byte(api.RESERVE), 0, 0, 0, 0, 0}, l.cdb, l.out, 512)
	}
	f.Fuzz(func(t *testing.T, lun uint16, nexus byte, before, cdb, out []byte, inLimit int) {
		h := newHostile(t, nexus&2 != 0)
		for range 2 { // the other nexus is first: to reserve, to stop, to protect
			h.check(t, encodeLUN(1), 1, before, out, len(out))
		}
		h.disturb(t, int(nexus>>2&7), int(nexus>>5))
		h.check(t, [8]byte{byte(lun >> 8), byte(lun)}, int(nexus&1), cdb, out, max(0, inLimit)%(1<<24))
		h.check(t, encodeLUN(1), 0, cdb, out, len(out)) // and without an attention in the way
		h.check(t, encodeLUN(1), 0, cdb, out, len(out))
	})
}

// copyLists returns CDBs of the third-party copy commands, each with a parameter
// list that does something; the last one has a token that is unknown.
func (h *hostile) copyLists() (all []parameterList) {
	add := func(cdb, list []byte) {
		binary.BigEndian.PutUint32(cdb[10:], uint32(len(list)))
		all = append(all, parameterList{cdb, list})
	}
	zero := make([]byte, tokenLength)
	copy(zero, []byte{0xff, 0xff, 0, 1})
	made := bytes.Clone(zero)
	copy(made, []byte{0, 0x80, 0, 1})
	h.d.appendIdentification(made[tokenCreator:tokenCreator])
	add(tokenCDB(0, 0, 0), copyParameterList(1, 0, names(h.d), slices.Concat(segment(0, 0, 3, 1, 9), segment(0, thisDisk, 8, 16, 4))))
	add(tokenCDB(0x10, 1, 0), populateList(0, 0, 0, extents{{2, 3}, {9, 1}}))
	add(tokenCDB(0x11, 1, 0), writeList(0, 0, zero, extents{{2, 3}, {9, 1}}))
	add(tokenCDB(0x11, 1, 0), writeList(2, 0, made, extents{{2, 3}, {9, 1}}))
	return all
}

var seed = flag.Uint64("seed", 0, "of the random commands; 0 takes another one each time")

// TestRandomCommands sends long sequences of likely and unlikely commands to
// one disk.
func TestRandomCommands(t *testing.T) {
	s := *seed
	if s == 0 {
		s = rand.Uint64()
	}
	t.Logf("-seed %d", s)
	rnd := rand.New(rand.NewPCG(s, 0))
	for _, readOnly := range []bool{false, true} {
		h := newHostile(t, readOnly)
		for range 10000 {
			op := &h.d.ops.rows[rnd.IntN(len(h.d.ops.rows))]
			cdb := make([]byte, rnd.IntN(261))
			if rnd.IntN(8) > 0 {
				cdb = make([]byte, max(len(op.usage), 16))
			}
			sparse := rnd.IntN(4)
			for i := range cdb {
				if rnd.IntN(1<<sparse) == 0 {
					cdb[i] = byte(rnd.Uint32()) >> rnd.IntN(8)
				}
			}
			if len(cdb) > 16-1 && rnd.IntN(8) > 0 {
				mask := 0xff &^ controlNACA
				cdb[len(op.usage)-1] &= byte(mask)
				cdb[0] = op.usage[0]
				if op.action {
					cdb[1] = op.usage[1]
				}
			}
			out := make([]byte, []int{0, 1, 8, 24, 511, 512, 1024, rnd.IntN(8192)}[rnd.IntN(8)])
			if rnd.IntN(2) == 0 {
				for i := range out {
					out[i] = byte(rnd.Uint32()) >> rnd.IntN(8)
				}
			}
			if lists := h.copyLists(); rnd.IntN(16) == 0 {
				l := lists[rnd.IntN(len(lists))]
				cdb, out = l.cdb, l.out
				if rnd.IntN(2) == 0 {
					out[rnd.IntN(len(out))] ^= byte(rnd.Uint32())
				}
			}
			limit := []int{0, 1, 7, 18, 512, 4096, 1 << 20}[rnd.IntN(7)]
			h.m.reluct = rnd.IntN(4) == 0
			h.check(t, encodeLUN(uint16(rnd.IntN(2))), rnd.IntN(2), cdb, out, limit)
			if rnd.IntN(100) == 0 {
				h.disturb(t, max(rnd.IntN(12)-6, 0), rnd.IntN(8))
			}
			if rnd.IntN(500) == 0 {
				h.units.Reset(1)
			}
			if rnd.IntN(500) == 0 {
				i := rnd.IntN(2)
				h.units.DetachNexus(h.nexus[i])
				h.units.AttachNexus(h.nexus[i])
			}
		}
	}
}

// parameterList is a command with Data-Out that has a form.
type parameterList struct{ cdb, out []byte }

func parameterLists(t *testing.T) []parameterList {
	list := unmapList([2]uint64{0, 8}, [2]uint64{8, 8})
	modes := unhex(t, "00000008 00000020 00000200 08 12 04 00000000000000000000000000000000 00 0a 0a 02 10 0000000000000000")
	return append(newHostile(t, false).copyLists()[:3], []parameterList{
		{unmapCDB(len(list)), list},
		{unhex(t, "15 11 0000 2c 00"), modes},
		{unhex(t, "55 10 0000000000 0028 00"), append(unhex(t, "0000000000000000"), modes[12:]...)},
		{unhex(t, "1d 10 00 0004 00"), unhex(t, "00000000")},
		{unhex(t, "04 10 00 0000 00"), unhex(t, "00000000")},
		{extentCDB(0x2a, 0, 0, 2), make([]byte, 1024)},
		{extentCDB(0x2e, 2, 0, 2), make([]byte, 1024)},
		{extentCDB(0x2f, 2, 0, 2), make([]byte, 1024)},
		{extentCDB(0x41, 0, 0, 2), make([]byte, 512)},
		{compareCDB(0, 0, 1), make([]byte, 1024)},
		{extentCDB(0x8b, 0, 0, 2), make([]byte, 1024)},
		{[]byte{0x04, 0x30, 0, 0, 0, 0}, make([]byte, 8)},
	}...)
}

// TestShortDataOut cuts the Data-Out of well-formed commands everywhere.
func TestShortDataOut(t *testing.T) {
	for _, c := range parameterLists(t) {
		h := newHostile(t, false)
		h.d.take(h.nexus[0])
		for n := range len(c.out) + 1 {
			h.check(t, encodeLUN(1), 0, c.cdb, c.out[:n], 0)
		}
		whole := exec(t, h.d, &Command{CDB: c.cdb, Nexus: h.nexus[0], Out: c.out})
		wantEnding(t, whole, "00") // what was cut is well-formed
	}
}
