package lun

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"

	"skylun/block"
)

// plastic is a Medium of memory that counts how often it was taken out.
type plastic struct {
	*memory
	name    string
	removed atomic.Int32
}

func (m *plastic) Removed() { m.removed.Add(1) }

// quickPlastic is one that answers without waiting.
type quickPlastic struct{ *plastic }

func (m quickPlastic) TryReadAt(p []byte, off int64) (bool, error) {
	return quick{m.memory}.TryReadAt(p, off)
}

// newPlastic returns a disc whose sectors begin with their number, and whose
// other bytes are b.
func newPlastic(size int, b byte) *plastic {
	m := &plastic{memory: newMemory(size), name: fmt.Sprintf("%02x", b)}
	for i := range m.data {
		m.data[i] = b
	}
	for i := 0; i+4 <= size; i += sectorSize {
		copy(m.data[i:], []byte{byte(i >> 35), byte(i >> 27), byte(i >> 19), byte(i >> 11)})
	}
	return m
}

// vast is a large Medium of zeros.
type vast int64

func (v vast) Size() int64                                       { return int64(v) }
func (v vast) ReadAt(_ context.Context, p []byte, _ int64) error { clear(p); return nil }
func (v vast) Removed()                                          {}

var (
	_ Medium          = (*plastic)(nil)
	_ block.TryReader = quickPlastic{}
)

func newTestDrive(m Medium) *CDROM {
	return NewCDROM(CDROMConfig{Name: "drive", ID: testID, Medium: m}, discardLog)
}

// nexuses returns nexuses that are attached to u and have heard everything.
func nexuses(t testing.TB, u Unit, n int) []*Nexus {
	all := make([]*Nexus, n)
	for i := range all {
		all[i] = testNexus()
		all[i].InitiatorName = fmt.Sprintf("iqn.1994-05.com.example:host%d", i)
		u.Attach(all[i])
		wantEnding(t, send(t, u, all[i], testUnitReady, nil), "02 6/29/00")
	}
	return all
}

const (
	openTray  = "1b 00 00 00 02 00"
	closeTray = "1b 00 00 00 03 00"
	prevent   = "1e 00 0000 01 00"
	allow     = "1e 00 0000 00 00"
	mediaPoll = "4a 01 0000 10 0000 0008 00"
)

// TestDriveOpcodes compares the drive's table with the codes of the standards.
func TestDriveOpcodes(t *testing.T) {
	const want = `
00 6 TEST UNIT READY
03 6 REQUEST SENSE
12 6 INQUIRY
15 6 MODE SELECT(6)
16 6 RESERVE(6)
17 6 RELEASE(6)
1a 6 MODE SENSE(6)
1b 6 START STOP UNIT
1d 6 SEND DIAGNOSTIC
1e 6 PREVENT ALLOW MEDIUM REMOVAL
23 10 READ FORMAT CAPACITIES
25 10 READ CAPACITY
28 10 READ(10)
2a 10 WRITE(10)
2b 10 SEEK(10)
2e 10 WRITE AND VERIFY(10)
42 10 READ SUB-CHANNEL
43 10 READ TOC/PMA/ATIP
46 10 GET CONFIGURATION
4a 10 GET EVENT STATUS NOTIFICATION
51 10 READ DISC INFORMATION
52 10 READ TRACK INFORMATION
55 10 MODE SELECT(10)
5a 10 MODE SENSE(10)
5c 10 READ BUFFER CAPACITY
a0 12 REPORT LUNS
a7 12 SET READ AHEAD
a8 12 READ(12)
aa 12 WRITE(12)
ac 12 GET PERFORMANCE
ad 12 READ DVD STRUCTURE
b6 12 SET STREAMING
b9 12 READ CD MSF
bb 12 SET CD SPEED
bd 12 MECHANISM STATUS
be 12 READ CD
`
	d := newTestDrive(nil)
	got := "\n"
	for code := range 256 {
		if op := d.ops.plain[code]; op != nil {
			got += fmt.Sprintf("%02x %d %s\n", code, len(op.usage), op.name)
		}
	}
	if got != want {
		t.Errorf("table:\n%s", got)
	}
}

// TestDriveInquiry checks what tells a drive from a disk.
func TestDriveInquiry(t *testing.T) {
	d := newTestDrive(nil)
	c := send(t, d, nil, "12 00 00 0060 00", nil)
	if wantEnding(t, c, "00"); c.In[0] != 5 || c.In[1] != 0x80 || string(c.In[8:36]) != "SKYLUN  VIRTUAL DVD-ROM 0001" {
		t.Errorf("INQUIRY %q", c.In)
	}
	if v := c.In[58:66]; !bytes.Contains(v, []byte{0x04, 0xe0}) {
		t.Errorf("version descriptors % x", v)
	}
	c = send(t, d, nil, "12 01 00 00ff 00", nil)
	if !bytes.Equal(c.In, []byte{5, 0, 0, 3, 0x00, 0x80, 0x83}) {
		t.Errorf("VPD pages % x", c.In)
	}
	for _, page := range []string{"80", "83"} {
		c := send(t, d, testNexus(), "12 01 "+page+" 00ff 00", nil)
		if wantEnding(t, c, "00"); len(c.In) < 20 || c.In[0] != 5 {
			t.Errorf("VPD page %s % x", page, c.In)
		}
	}
}

// TestDriveNeedsDisc checks which commands an empty drive refuses, and how.
func TestDriveNeedsDisc(t *testing.T) {
	needs := []string{
		testUnitReady, "28 00 00000000 00 0001 00", "a8 00 00000000 00000001 00 00", "be 00 00000000 000001 10 00 00",
		"b9 00 00 000200 000201 10 00 00", "25 00 00000000 0000 00 00", "2b 00 00000000 000000 00", "42 02 40 01 0000 00 0030 00",
		"43 00 00 000000 00 0030 00", "51 00 00 00000000 0030 00", "52 00 00000000 00 0030 00", "ad 00 00000000 00 00 0800 00 00",
		"ac 10 00000000 0000 0001 00 00", "a7 00 00000000 00000000 00 00", "b6 00 000000000000 00 001c 00",
	}
	works := []string{
		"12 00 00 00ff 00", "03 00 0000 ff 00", "1a 08 3f 00 ff 00", "5a 08 3f 00 000000 00ff 00", "1b 00 00 00 00 00", "1b 00 00 00 01 00",
		"1e 00 0000 01 00", "46 00 0000 000000 00ff 00", mediaPoll, "bd 00 000000000000 00ff 00 00",
		"23 00 0000000000 00ff 00", "bb 00 ffff ffff 0000000000 00", "5c 00 0000000000 000c 00", "1d 04 0000 00 00", "a0 00 00 000000 00000100 00 00",
	}
	d := newTestDrive(nil)
	n := nexuses(t, d, 1)[0]
	check := func(want string) {
		t.Helper()
		for _, cdb := range needs {
			wantEnding(t, send(t, d, n, cdb, make([]byte, 28)), want)
		}
		for _, cdb := range works {
			wantEnding(t, send(t, d, n, cdb, nil), "00")
		}
		wantEnding(t, send(t, d, n, allow, nil), "00")
	}
	check("02 2/3a/01")
	c := send(t, d, n, "03 00 0000 12 00", nil)
	if c.In[2] != 2 || c.In[12] != 0x3a || c.In[13] != 1 {
		t.Errorf("REQUEST SENSE of an empty drive % x", c.In)
	}
	wantEnding(t, send(t, d, n, openTray, nil), "00")
	check("02 2/3a/02")
	wantEnding(t, send(t, d, n, closeTray, nil), "00")
	check("02 2/3a/01")
	if err := d.Insert(newPlastic(4096, 1), false, func() { check("02 2/04/01") }); err != nil {
		t.Fatal(err)
	}
	wantEnding(t, send(t, d, n, testUnitReady, nil), "02 6/28/00")
	for _, cdb := range works {
		wantEnding(t, send(t, d, n, cdb, nil), "00")
	}
	wantEnding(t, send(t, d, n, testUnitReady, nil), "00")
}

// TestDriveRefusesWrites checks that they fail in any state of the drive.
func TestDriveRefusesWrites(t *testing.T) {
	m := newPlastic(4096, 1)
	for _, d := range []*CDROM{newTestDrive(nil), newTestDrive(m)} {
		for _, cdb := range []string{"2a 00 00000000 00 0001 00", "aa 00 00000000 00000001 00 00", "2e 00 00000000 00 0001 00"} {
			wantEnding(t, send(t, d, nil, cdb, make([]byte, 2048)), "02 7/27/00")
		}
		for _, cdb := range []string{"04 00 0000 00 00", "a1 00 00000000 00000000 00 00", "35 00 00000000 00 0000 00", "5b 00 00 00000000 0000 00", "54 00 00 00000000 0000 00"} {
			wantEnding(t, send(t, d, nil, cdb, nil), "02 5/20/00")
		}
	}
	if len(m.calls) > 0 {
		t.Errorf("the medium was written: %q", m.calls)
	}
}

// TestDriveRead reads with both commands, with and without waiting, to the
// last sector, which the medium does not have all of.
func TestDriveRead(t *testing.T) {
	m := newPlastic(3*sectorSize+512, 0xab)
	want := append(bytes.Clone(m.data), make([]byte, sectorSize-512)...)
	for name, medium := range map[string]Medium{"slow": m, "quick": quickPlastic{m}} {
		t.Run(name, func(t *testing.T) {
			d := newTestDrive(medium)
			for _, c := range []struct {
				cdb    string
				ending string
				data   []byte
			}{
				{"28 00 00000000 00 0004 00", "00", want},
				{"28 18 00000003 00 0001 00", "00", want[3*sectorSize:]},
				{"a8 00 00000001 00000002 00 00", "00", want[sectorSize : 3*sectorSize]},
				{"28 00 00000001 00 0000 00", "00", nil},
				{"28 00 00000003 00 0002 00", "02 5/21/00", nil},
				{"28 00 00000004 00 0000 00", "02 5/21/00", nil},
				{"a8 00 ffffffff ffffffff 00 00", "02 5/21/00", nil},
			} {
				got := send(t, d, nil, c.cdb, nil)
				wantEnding(t, got, c.ending)
				if !bytes.Equal(got.In, c.data) || c.ending == "00" && got.Transfer != int64(len(c.data)) {
					t.Errorf("%s: %d of %d bytes, want %d", c.cdb, len(got.In), got.Transfer, len(c.data))
				}
			}
			// Less than the whole is asked for: the last sector ends in zeros anyway.
			for _, limit := range []int{0, 1, 511, 513, 2047} {
				got := exec(t, d, &Command{CDB: unhex(t, "28 00 00000003 00 0001 00"), InLimit: limit})
				if wantEnding(t, got, "00"); got.Transfer != sectorSize || !bytes.Equal(got.In, want[3*sectorSize:][:limit]) {
					t.Errorf("limit %d: %d of %d bytes", limit, len(got.In), got.Transfer)
				}
			}
		})
	}
	if len(m.wrong) > 0 {
		t.Errorf("calls beyond the end %q", m.wrong)
	}
	d := newTestDrive(vast(MaxMedium))
	wantEnding(t, send(t, d, nil, "a8 00 00000000 00001001 00 00", nil), "02 5/24/00") // more than MaxTransfer
	wantEnding(t, send(t, d, nil, "28 00 fffffffe 00 0001 00", nil), "00")
	c := send(t, d, nil, "25 00 00000000 0000 00 00", nil)
	if wantEnding(t, c, "00"); !bytes.Equal(c.In, unhex(t, "fffffffe 00000800")) {
		t.Errorf("READ CAPACITY % x", c.In)
	}
	m.fault = fmt.Errorf("gone: %w", block.ErrMedium)
	c = send(t, newTestDrive(m), nil, "28 00 00000002 00 0001 00", nil)
	if wantEnding(t, c, "02 3/11/00"); fixedInfo(t, c.Sense) != 2 {
		t.Errorf("sense % x", c.Sense)
	}
}

// TestDriveReadAllocates checks that a read that need not wait takes nothing
// from the heap.
func TestDriveReadAllocates(t *testing.T) {
	d := newTestDrive(quickPlastic{newPlastic(1<<20, 1)})
	a, b := testNexus(), testNexus()
	d.Attach(a)
	send(t, d, a, testUnitReady, nil)
	for _, quiet := range []bool{true, false} {
		c := &Command{CDB: extentCDB(0x28, 0, 8, 2), Nexus: a, InLimit: 4096, Alloc: onePool(make([]byte, 4096))}
		if allocs := testing.AllocsPerRun(100, func() {
			if !d.Try(c) || c.Status != StatusGood {
				t.Fatal(ending(c))
			}
		}); allocs != 0 {
			t.Errorf("quiet %v: allocates %v times", quiet, allocs)
		}
		d.Attach(b) // and has heard nothing
	}
}

// TestDriveCapacities checks READ CAPACITY, READ FORMAT CAPACITIES and SEEK.
func TestDriveCapacities(t *testing.T) {
	d := newTestDrive(newPlastic(10*sectorSize-1, 1))
	for _, c := range []struct{ cdb, ending, in string }{
		{"25 00 00000000 0000 00 00", "00", "00000009 00000800"},
		{"25 00 00000005 0000 01 00", "00", "00000009 00000800"},
		{"25 00 00000005 0000 00 00", "02 5/24/00", ""},
		{"23 00 0000000000 0100 00", "00", "00000008 0000000a 02000800"},
		{"23 00 0000000000 0006 00", "00", "00000008 0000"},
		{"2b 00 00000009 000000 00", "00", ""},
		{"2b 00 0000000a 000000 00", "02 5/21/00", ""},
	} {
		got := send(t, d, nil, c.cdb, nil)
		if wantEnding(t, got, c.ending); !bytes.Equal(got.In, unhex(t, c.in)) {
			t.Errorf("%s: % x", c.cdb, got.In)
		}
	}
	got := send(t, newTestDrive(nil), nil, "23 00 0000000000 0100 00", nil)
	if wantEnding(t, got, "00"); !bytes.Equal(got.In, unhex(t, "00000008 00000000 03000800")) {
		t.Errorf("READ FORMAT CAPACITIES of an empty drive % x", got.In)
	}
}

// TestDriveInsert checks what an operator can do, and that discs are given back.
func TestDriveInsert(t *testing.T) {
	one, two := newPlastic(4096, 1), newPlastic(8192, 2)
	var saved []string
	var fail error
	d := NewCDROM(CDROMConfig{Name: "drive", ID: testID, Save: func(m Medium, open bool, _ uint64) error {
		name := "none"
		if m != nil {
			name = m.(*plastic).name
		}
		saved = append(saved, fmt.Sprintf("%s %v", name, open))
		return fail
	}}, discardLog)
	if err := d.Insert(newPlastic(0, 0), false, nil); err == nil {
		t.Error("took a disc without a byte")
	}
	if err := d.Insert(vast(MaxMedium+1), true, nil); err == nil {
		t.Error("took a disc that is too large")
	}
	for _, m := range []*plastic{one, two} {
		if err := d.Insert(m, false, nil); err != nil {
			t.Fatal(err)
		}
		if s := d.State(); s.Medium != m || s.Open {
			t.Errorf("state %+v", s)
		}
	}
	if one.removed.Load() != 1 || two.removed.Load() != 0 {
		t.Errorf("given back %d and %d times", one.removed.Load(), two.removed.Load())
	}
	fail = errors.New("disk full")
	if err := d.Eject(false); !errors.Is(err, fail) {
		t.Errorf("eject ended with %v", err)
	}
	if err := d.Insert(one, false, nil); !errors.Is(err, fail) {
		t.Errorf("insert ended with %v", err)
	}
	wantEnding(t, send(t, d, nil, openTray, nil), "02 4/44/00")
	if s := d.State(); s.Medium != two || s.Open || two.removed.Load() != 0 {
		t.Errorf("state %+v after moves that failed", s)
	}
	fail = nil
	for range 2 { // an empty drive can be emptied
		if err := d.Eject(false); err != nil {
			t.Fatal(err)
		}
	}
	if s := d.State(); s.Medium != nil || !s.Open || two.removed.Load() != 1 {
		t.Errorf("state %+v, given back %d times", s, two.removed.Load())
	}
	got := strings.Join(saved, ", ")
	if want := "01 false, 02 false, none true, 01 false, 02 true, none true, none true"; got != want {
		t.Errorf("saved %s, want %s", got, want)
	}
}
