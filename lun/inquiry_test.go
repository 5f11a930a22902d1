package lun

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"strings"
	"testing"
)

func testNexus() *Nexus {
	return &Nexus{InitiatorName: "iqn.1993-08.org.debian:01:a", TargetName: "iqn.2026-11.io.skylun:demo", PortalGroup: 1}
}

// TestStandardInquiry checks standard INQUIRY data, SPC-4 6.6.2.
func TestStandardInquiry(t *testing.T) {
	d := newTestDisk(newMemory(1 << 20))
	c := send(t, d, nil, "12 00 00 00ff 00", nil)
	want := unhex(t, "00 00 06 12 5b 18 10 02")
	if !bytes.HasPrefix(c.In, want) || len(c.In) != inquiryLength {
		t.Errorf("% x, want % x... of %d bytes", c.In, want, inquiryLength)
	}
	if got, want := string(c.In[8:36]), "SKYLUN  VIRTUAL DISK    0001"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	if want := unhex(t, "00a0 0960 0460 04c0 0000"); !bytes.Equal(c.In[58:68], want) {
		t.Errorf("version descriptors % x", c.In[58:68])
	}
	wantEnding(t, send(t, d, nil, "12 02 00 00ff 00", nil), "02 5/24/00")
	wantEnding(t, send(t, d, nil, "12 00 80 00ff 00", nil), "02 5/24/00")
	wantEnding(t, send(t, d, nil, "12 01 99 00ff 00", nil), "02 5/24/00")
}

// allocationFormats are CDBs with an ALLOCATION LENGTH field to fill in.
var allocationFormats = []string{
	"12 00 00 %04x 00", "12 01 00 %04x 00", "12 01 80 %04x 00", "12 01 83 %04x 00", "12 01 86 %04x 00", "12 01 87 %04x 00", "12 01 88 %04x 00",
	"84 03 0000000000000000 %08x 00 00",
	"12 01 b0 %04x 00", "12 01 b1 %04x 00", "12 01 b2 %04x 00",
	"03 00 0000 %02x 00", "03 01 0000 %02x 00",
	"1a 00 3f ff %02x 00", "5a 10 3f 00 000000 %04x 00",
	"9e 10 0000000000000000 %08x 00 00",
	"9e 12 0000000000000000 %08x 00 00",
	"4d 00 40 00 00 0000 %04x 00", "4d 00 40 ff 00 0000 %04x 00", "4d 00 4c 00 00 0000 %04x 00", "4d 00 50 00 00 0014 %04x 00", "4d 00 6f 00 00 0000 %04x 00",
	"1c 01 00 %04x 00", "37 00 18 00000000 %04x 00", "b7 18 00000000 %08x 00 00",
	"a3 0a 00000000 %08x 00 00", "a3 2a 00000000 %08x 00 00",
	"a3 0d 00 000000 %08x 00 00", "a3 0d 80 000000 %08x 00 00",
	"a3 0c 80 00 0000 %08x 00 00",
	"a3 0c 81 28 0000 %08x 00 00",
	"a0 00 00 000000 %08x 00 00",
}

// TestAllocationLength checks for every command with an ALLOCATION LENGTH
// field that what fits is a prefix of the whole, and that the lengths in it
// are not adjusted, SPC-4 4.2.5.6.
func TestAllocationLength(t *testing.T) {
	d := newTestDisk(able{quick{newMemory(1 << 20)}})
	for _, format := range allocationFormats {
		n := testNexus()
		whole := send(t, d, n, fmt.Sprintf(format, 0xff), nil)
		if whole.Status != StatusGood || len(whole.In) == 0 || len(whole.In) == 0xff && format[:2] != "a3" {
			t.Errorf("%s: %s, %d bytes", format, ending(whole), len(whole.In))
			continue
		}
		for length := range min(len(whole.In)+2, 0x100) {
			c := send(t, d, n, fmt.Sprintf(format, length), nil)
			if format[:2] == "a0" && length < 16 {
				wantEnding(t, c, "02 5/24/00")
				continue
			}
			want := whole.In[:min(length, len(whole.In))]
			if wantEnding(t, c, "00"); !bytes.Equal(c.In, want) || c.Transfer != int64(len(want)) {
				t.Errorf("%s of %d: Transfer %d, % x", format, length, c.Transfer, c.In)
			}
			// What the initiator takes cuts once more, and shows as a residual.
			c = exec(t, d, &Command{CDB: unhex(t, fmt.Sprintf(format, length)), Nexus: n, InLimit: 3})
			if !bytes.Equal(c.In, want[:min(3, len(want))]) || c.Transfer != int64(len(want)) {
				t.Errorf("%s of %d to 3: Transfer %d, % x", format, length, c.Transfer, c.In)
			}
		}
	}
}

func vpd(t *testing.T, u Unit, n *Nexus, code byte) []byte {
	t.Helper()
	c := send(t, u, n, fmt.Sprintf("12 01 %02x ffff 00", code), nil)
	wantEnding(t, c, "00")
	if len(c.In) < 4 || c.In[1] != code || int(binary.BigEndian.Uint16(c.In[2:])) != len(c.In)-4 {
		t.Fatalf("page %02x: % x", code, c.In)
	}
	return c.In[4:]
}

// TestSupportedPages checks that the list names what exists and nothing else.
func TestSupportedPages(t *testing.T) {
	d := newTestDisk(newMemory(1 << 20))
	list := vpd(t, d, nil, 0)
	if want := unhex(t, "00 80 83 86 87 88 8f b0 b1 b2"); !bytes.Equal(list, want) {
		t.Errorf("% x, want % x", list, want)
	}
	for code := range 256 {
		c := send(t, d, nil, fmt.Sprintf("12 01 %02x ffff 00", code), nil)
		if (c.Status == StatusGood) != bytes.Contains(list, []byte{byte(code)}) {
			t.Errorf("page %02x: %s", code, ending(c))
		}
	}
}

func TestIdentity(t *testing.T) {
	d := newTestDisk(newMemory(1 << 20))
	if got, want := string(vpd(t, d, nil, 0x80)), "5c1e0f0405060708090a0b0c0d0e0f10\x00"; got != want {
		t.Errorf("serial number %q, want %q", got, want)
	}
	// SPC-4 7.8.6: NAA first, then T10, relative port, port group, port name, target name.
	id := vpd(t, d, testNexus(), 0x83)
	var kinds []string
	for p := id; len(p) > 0; p = p[4+int(p[3]):] {
		kinds = append(kinds, fmt.Sprintf("%02x%02x %q", p[0], p[1], p[4:4+int(p[3])]))
	}
	wantKinds := []string{
		fmt.Sprintf("0103 %q", id[4:20]),
		`0201 "SKYLUN  5c1e0f0405060708090a0b0c0d0e0f10"`,
		`5194 "\x00\x00\x00\x01"`,
		`5195 "\x00\x00\x00\x01"`,
		`5398 "iqn.2026-11.io.skylun:demo,t,0x0001\x00"`,
		`53a8 "iqn.2026-11.io.skylun:demo\x00\x00"`,
	}
	if fmt.Sprint(kinds) != fmt.Sprint(wantKinds) {
		t.Errorf("designators\n%s, want\n%s", strings.Join(kinds, "\n"), strings.Join(wantKinds, "\n"))
	}
	// These bytes are what initiators know a disk by. They never change.
	if got, want := hex.EncodeToString(id[4:20]), "602534bd305566c668a816a61cbd72ea"; got != want {
		t.Errorf("NAA %s, want %s", got, want)
	}

	again := NewDisk(newMemory(2<<20), DiskConfig{Name: "renamed", ID: testID}, discardLog)
	if !bytes.Equal(vpd(t, again, testNexus(), 0x83), id) {
		t.Error("the identity is not a function of the ID alone")
	}
	for bit := range 128 {
		other := testID
		other[bit/8] ^= 1 << (bit % 8)
		o := NewDisk(newMemory(1<<20), DiskConfig{Name: "vol", ID: other}, discardLog)
		if bytes.Equal(o.id.naa[:], d.id.naa[:]) || o.id.serial == d.id.serial {
			t.Errorf("bit %d of the ID makes no difference", bit)
		}
	}
}

// TestLongTargetName checks that a name that fits no designator is left out.
func TestLongTargetName(t *testing.T) {
	d := newTestDisk(newMemory(1 << 20))
	n := &Nexus{TargetName: "iqn.2026-11.io.skylun:" + strings.Repeat("x", 240)}
	var got int
	for p := vpd(t, d, n, 0x83); len(p) > 0; p = p[4+int(p[3]):] {
		got++
	}
	if got != 4 {
		t.Errorf("%d designators, want 4", got)
	}
}

// TestLimitsAgree checks that VPD B0, B1, B2 and READ CAPACITY(16) tell the
// same story.
func TestLimitsAgree(t *testing.T) {
	d := newTestDisk(newMemory(1 << 20))
	b0 := vpd(t, d, nil, 0xb0)
	if len(b0) != 0x3c {
		t.Fatalf("Block Limits page of %#x bytes", len(b0))
	}
	be := binary.BigEndian
	for _, c := range []struct {
		name      string
		got, want uint64
	}{
		{"WSNZ", uint64(b0[0]), 1},
		{"optimal transfer granularity", uint64(be.Uint16(b0[2:])), 8},
		{"maximum transfer", uint64(be.Uint32(b0[4:])), 16384},
		{"maximum unmap", uint64(be.Uint32(b0[16:])), 1 << 20},
		{"maximum unmap descriptors", uint64(be.Uint32(b0[20:])), 256},
		{"unmap granularity", uint64(be.Uint32(b0[24:])), 8},
		{"unmap alignment", uint64(be.Uint32(b0[28:])), 1 << 31},
		{"maximum write same", be.Uint64(b0[32:]), 524288},
	} {
		if c.got != c.want {
			t.Errorf("%s %d, want %d", c.name, c.got, c.want)
		}
	}
	if b1 := vpd(t, d, nil, 0xb1); len(b1) != 0x3c || be.Uint16(b1) != 1 || b1[3] != 0x40 || b1[4] != 1 {
		t.Errorf("Block Device Characteristics % x", b1)
	}
	if b2 := vpd(t, d, nil, 0xb2); !bytes.Equal(b2, []byte{0, 0xe4, 2, 0}) {
		t.Errorf("Logical Block Provisioning % x", b2)
	}
	c := send(t, d, nil, "9e 10 0000000000000000 00000020 00 00", nil)
	if want := unhex(t, "00000000000007ff 00000200 00 03 c000"); !bytes.Equal(c.In[:16], want) || len(c.In) != 32 {
		t.Errorf("READ CAPACITY(16) % x", c.In)
	}
}

func TestReadCapacity(t *testing.T) {
	d := newTestDisk(newMemory(1<<20 + 511))
	c := send(t, d, nil, "25 00 00000000 0000 00 00", nil)
	if want := unhex(t, "000007ff 00000200"); !bytes.Equal(c.In, want) || c.Transfer != 8 {
		t.Errorf("READ CAPACITY(10) % x", c.In)
	}
	wantEnding(t, send(t, d, nil, "25 00 00000001 0000 00 00", nil), "02 5/24/00")
	wantEnding(t, send(t, d, nil, "25 00 00000001 0000 01 00", nil), "00")
	wantEnding(t, send(t, d, nil, "9e 10 0000000000000001 00000020 00 00", nil), "02 5/24/00")
	wantEnding(t, send(t, d, nil, "9e 1f 0000000000000000 00000020 00 00", nil), "02 5/24/00")

	huge := newTestDisk(sized{newMemory(0), 3 << 40})
	c = send(t, huge, nil, "25 00 00000000 0000 00 00", nil)
	if want := unhex(t, "ffffffff 00000200"); !bytes.Equal(c.In, want) {
		t.Errorf("READ CAPACITY(10) of 3 TiB % x", c.In)
	}
	c = send(t, huge, nil, "9e 10 0000000000000000 00000020 00 00", nil)
	if want := unhex(t, "000000017fffffff"); !bytes.Equal(c.In[:8], want) {
		t.Errorf("READ CAPACITY(16) of 3 TiB % x", c.In)
	}

	empty := newTestDisk(newMemory(511))
	for _, cdb := range []string{"00 00000000 00", "25 00 00000000 0000 00 00", "9e 10 0000000000000000 00000020 00 00"} {
		wantEnding(t, send(t, empty, nil, cdb, nil), "02 2/04/01")
	}
}

// sized is a device of another size than it has bytes.
type sized struct {
	*memory
	size int64
}

func (s sized) Size() int64 { return s.size }
