package lun

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
)

// TestOpcodes compares the disk's table with the codes of the standards,
// written down here once more: gotgt's constants are variables.
func TestOpcodes(t *testing.T) {
	const want = `
00 6 TEST UNIT READY
03 6 REQUEST SENSE
04 6 FORMAT UNIT
08 6 READ(6)
0a 6 WRITE(6)
12 6 INQUIRY
15 6 MODE SELECT(6)
16 6 RESERVE(6)
17 6 RELEASE(6)
1a 6 MODE SENSE(6)
1b 6 START STOP UNIT
1c 6 RECEIVE DIAGNOSTIC RESULTS
1d 6 SEND DIAGNOSTIC
1e 6 PREVENT ALLOW MEDIUM REMOVAL
25 10 READ CAPACITY(10)
28 10 READ(10)
2a 10 WRITE(10)
2e 10 WRITE AND VERIFY(10)
2f 10 VERIFY(10)
34 10 PRE-FETCH(10)
35 10 SYNCHRONIZE CACHE(10)
37 10 READ DEFECT DATA(10)
41 10 WRITE SAME(10)
42 10 UNMAP
48/02 10 SANITIZE BLOCK ERASE
48/1f 10 SANITIZE EXIT FAILURE MODE
4d 10 LOG SENSE
55 10 MODE SELECT(10)
5a 10 MODE SENSE(10)
5e/00 10 PERSISTENT RESERVE IN, READ KEYS
5e/01 10 PERSISTENT RESERVE IN, READ RESERVATION
5e/02 10 PERSISTENT RESERVE IN, REPORT CAPABILITIES
5e/03 10 PERSISTENT RESERVE IN, READ FULL STATUS
5f/00 10 PERSISTENT RESERVE OUT, REGISTER
5f/01 10 PERSISTENT RESERVE OUT, RESERVE
5f/02 10 PERSISTENT RESERVE OUT, RELEASE
5f/03 10 PERSISTENT RESERVE OUT, CLEAR
5f/04 10 PERSISTENT RESERVE OUT, PREEMPT
5f/05 10 PERSISTENT RESERVE OUT, PREEMPT AND ABORT
5f/06 10 PERSISTENT RESERVE OUT, REGISTER AND IGNORE EXISTING KEY
5f/07 10 PERSISTENT RESERVE OUT, REGISTER AND MOVE
83/00 16 EXTENDED COPY(LID1)
83/10 16 POPULATE TOKEN
83/11 16 WRITE USING TOKEN
84/00 16 RECEIVE COPY STATUS(LID1)
84/01 16 RECEIVE COPY DATA(LID1)
84/03 16 RECEIVE COPY OPERATING PARAMETERS
84/04 16 RECEIVE COPY FAILURE DETAILS(LID1)
84/07 16 RECEIVE ROD TOKEN INFORMATION
88 16 READ(16)
89 16 COMPARE AND WRITE
8a 16 WRITE(16)
8b 16 ORWRITE(16)
8e 16 WRITE AND VERIFY(16)
8f 16 VERIFY(16)
90 16 PRE-FETCH(16)
91 16 SYNCHRONIZE CACHE(16)
93 16 WRITE SAME(16)
9e/10 16 READ CAPACITY(16)
9e/12 16 GET LBA STATUS
a0 12 REPORT LUNS
a3/0a 12 REPORT TARGET PORT GROUPS
a3/0c 12 REPORT SUPPORTED OPERATION CODES
a3/0d 12 REPORT SUPPORTED TASK MANAGEMENT FUNCTIONS
a8 12 READ(12)
aa 12 WRITE(12)
ae 12 WRITE AND VERIFY(12)
af 12 VERIFY(12)
b7 12 READ DEFECT DATA(12)
`
	d := newTestDisk(able{quick{newMemory(4096)}})
	var got strings.Builder
	got.WriteByte('\n')
	for code := range 256 {
		if op := d.ops.plain[code]; op != nil {
			fmt.Fprintf(&got, "%02x %d %s\n", code, len(op.usage), op.name)
		}
		actions := slices.SortedFunc(slices.Values(d.ops.actions[byte(code)]), func(a, b *operation) int { return cmp.Compare(a.usage[1]&actionMask, b.usage[1]&actionMask) })
		for _, op := range actions {
			fmt.Fprintf(&got, "%02x/%02x %d %s\n", code, op.usage[1]&actionMask, len(op.usage), op.name)
		}
	}
	if got.String() != want {
		t.Errorf("table:\n%s", got.String())
	}
	for _, op := range d.ops.rows {
		if op.usage[len(op.usage)-1] != controlNACA {
			t.Errorf("%s: CONTROL usage %02x", op.name, op.usage[len(op.usage)-1])
		}
		if op.try != nil && op.flags&inline != 0 {
			t.Errorf("%s: has a try and is inline", op.name)
		}
	}
}

// TestCDBChecks checks what comes before any operation.
func TestCDBChecks(t *testing.T) {
	d := newTestDisk(ranged{newMemory(1 << 20)})
	for _, op := range d.ops.rows {
		whole := make([]byte, len(op.usage))
		whole[0] = op.usage[0]
		if op.action {
			whole[1] = op.usage[1] & actionMask
		}
		for n := range whole {
			want := "02 5/24/00"
			if n == 0 || op.action && n == 1 {
				want = "02 5/20/00"
			}
			c := exec(t, d, &Command{CDB: whole[:n], InLimit: 512})
			if ending(c) != want {
				t.Errorf("%s cut to %d: %s", op.name, n, ending(c))
			}
		}
		long := append(bytes.Clone(whole), make([]byte, 260-len(whole))...)
		if a, b := exec(t, d, &Command{CDB: long, Out: make([]byte, 512), InLimit: 512}), exec(t, d, &Command{CDB: whole, Out: make([]byte, 512), InLimit: 512}); ending(a) != ending(b) {
			t.Errorf("%s: %s in a long CDB, %s in a whole one", op.name, ending(a), ending(b))
		}
		whole[len(whole)-1] = controlNACA
		c := exec(t, d, &Command{CDB: whole, InLimit: 512})
		if ending(c) != "02 5/24/00" || !bytes.Equal(c.Sense[15:18], []byte{0xca, 0, byte(len(whole) - 1)}) {
			t.Errorf("%s with NACA: %s, field % x", op.name, ending(c), c.Sense[15:])
		}
	}
	for code := range 256 {
		if d.ops.plain[code] == nil && d.ops.actions[byte(code)] == nil {
			wantEnding(t, exec(t, d, &Command{CDB: append([]byte{byte(code)}, make([]byte, 31)...)}), "02 5/20/00")
		}
	}
}

// TestReportSupportedOpcodes checks SPC-4 6.35 against the table.
func TestReportSupportedOpcodes(t *testing.T) {
	d := newTestDisk(ranged{newMemory(1 << 20)})
	for _, timeouts := range []int{0, 1} {
		step := 8 + 12*timeouts
		all := send(t, d, nil, fmt.Sprintf("a3 0c %02x 00 0000 00002000 00 00", timeouts<<7), nil)
		wantEnding(t, all, "00")
		if n := int(binary.BigEndian.Uint32(all.In)); n != len(all.In)-4 || n != step*len(d.ops.rows) {
			t.Fatalf("length %d of %d bytes for %d rows", n, len(all.In), len(d.ops.rows))
		}
		for i, op := range d.ops.rows {
			p := all.In[4+step*i:][:step]
			action := 0
			if op.action {
				action = int(op.usage[1] & actionMask)
			}
			if p[0] != op.usage[0] || int(p[3]) != action || p[5]&1 != 0 != op.action || p[5]&2 != 0 != (timeouts == 1) || int(p[7]) != len(op.usage) {
				t.Errorf("%s: % x", op.name, p)
			}
			for options, supported := range map[int]bool{1: !op.action, 2: op.action, 3: true} {
				c := send(t, d, nil, fmt.Sprintf("a3 0c %02x %02x %04x 00002000 00 00", timeouts<<7|options, op.usage[0], action), nil)
				if !supported {
					wantEnding(t, c, "02 5/24/00")
					continue
				}
				want := append([]byte{0, byte(3 | timeouts<<7), 0, byte(len(op.usage))}, op.usage...)
				want = append(want, noTimeouts[:12*timeouts]...)
				if wantEnding(t, c, "00"); !bytes.Equal(c.In, want) {
					t.Errorf("%s: % x, want % x", op.name, c.In, want)
				}
			}
		}
	}
	for _, cdb := range []string{"a3 0c 01 ff 0000 00002000 00 00", "a3 0c 02 9e 0001 00002000 00 00", "a3 0c 02 9e 0110 00002000 00 00", "a3 0c 03 28 0001 00002000 00 00", "a3 0c 03 ff 0001 00002000 00 00"} {
		c := send(t, d, nil, cdb, nil)
		if wantEnding(t, c, "00"); !bytes.Equal(c.In, []byte{0, 1, 0, 0}) {
			t.Errorf("%s: % x", cdb, c.In)
		}
	}
	wantEnding(t, send(t, d, nil, "a3 0c 04 00 0000 00002000 00 00", nil), "02 5/24/00")
	wantEnding(t, send(t, d, nil, "a3 0b 00 00 0000 00002000 00 00", nil), "02 5/24/00")
}

// TestReportFunctions checks REPORT SUPPORTED TASK MANAGEMENT FUNCTIONS, SPC-4
// 6.36.
func TestReportFunctions(t *testing.T) {
	d := newTestDisk(newMemory(1 << 20))
	for cdb, want := range map[string]string{
		"a3 0d 00 000000 00000020 00 00": "da 00 00 00",
		"a3 0d 80 000000 00000020 00 00": "da 00 00 0c 00000000 00000000 00000000",
	} {
		if c := send(t, d, nil, cdb, nil); ending(c) != "00" || !bytes.Equal(c.In, unhex(t, want)) {
			t.Errorf("%s: %s, % x", cdb, ending(c), c.In)
		}
	}
}

// TestBasics checks the commands that do little.
func TestBasics(t *testing.T) {
	m := newMemory(1 << 20)
	d := newTestDisk(m)
	for _, c := range []struct{ cdb, want, calls string }{
		{"00 00000000 00", "00", ""},
		{"1e 00 0000 01 00", "00", ""},
		{"1e 00 0000 00 00", "00", ""},
		{"1e 00 0000 02 00", "02 5/24/00", ""},
		{"91 00 0000000000000000 00000000 00 00", "00", "flush"},
	} {
		m.calls = nil
		wantEnding(t, send(t, d, nil, c.cdb, nil), c.want)
		if got := strings.Join(m.calls, " "); got != c.calls {
			t.Errorf("%s: calls %q, want %q", c.cdb, got, c.calls)
		}
	}
}

// panicking is a device that has a bug.
type panicking struct{ quick }

func (panicking) TryReadAt([]byte, int64) (bool, error) { panic("out of my depth") }

func (panicking) ReadAt(context.Context, []byte, int64) error { panic("out of my depth") }

// TestPanic checks that a handler's panic ends its command and no more.
func TestPanic(t *testing.T) {
	var log bytes.Buffer
	d := NewDisk(panicking{quick{newMemory(4096)}}, DiskConfig{Name: "vol"}, slog.New(slog.NewTextHandler(&log, nil)))
	n := testNexus()
	for _, run := range []func(*Command){
		func(c *Command) {
			if !d.Try(c) {
				t.Error("Try leaves a command that panicked")
			}
		},
		func(c *Command) { d.Execute(context.Background(), c) },
	} {
		log.Reset()
		c := &Command{CDB: unhex(t, "28 00 00000000 00 0001 00"), Nexus: n, InLimit: 512, Alloc: heap{}}
		run(c)
		wantEnding(t, c, "02 4/44/00")
		for _, want := range []string{"level=ERROR", "volume=vol", "panicking", "READ(10)", n.InitiatorName} {
			if !strings.Contains(log.String(), want) {
				t.Errorf("the log line lacks %q: %s", want, log.String())
			}
		}
	}
}

// TestLogLevels checks what an operator gets to see of failed commands.
func TestLogLevels(t *testing.T) {
	var log bytes.Buffer
	m := newMemory(1 << 20)
	d := NewDisk(m, DiskConfig{Name: "vol"}, slog.New(slog.NewTextHandler(&log, nil)))
	for _, c := range []struct {
		cdb, want string
		fault     error
	}{
		{"28 00 ffffffff 00 0001 00", "", nil},
		{"28 00 00000000 00 0001 00", "level=ERROR", fmt.Errorf("surprise")},
	} {
		log.Reset()
		m.fault = c.fault
		send(t, d, nil, c.cdb, nil)
		if got := log.String(); (got == "") != (c.want == "") || !strings.Contains(got, c.want) {
			t.Errorf("%s logs %q, want %q", c.cdb, got, c.want)
		}
	}
}
