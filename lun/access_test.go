package lun

import (
	"fmt"
	"strings"
	"testing"
)

// accessTable says which operations a persistent reservation of another nexus
// keeps away, as SPC-4 5.13.1 and SBC-3 4.17 (MMC-6 4.5 for drives) list them:
//
//	operation code[/service action]: what Write Exclusive, then what
//	Exclusive Access does: a, it is allowed, c, it conflicts; ? when that
//	depends on more than the operation code
//
// The standards' three other columns follow from these two: a registered nexus
// is allowed everything by a reservation of registrants, and one that is not
// registered finds it like the others.
const accessTable = `
00 aa TEST UNIT READY
03 aa REQUEST SENSE
04 cc FORMAT UNIT
08 ac READ(6)
0a cc WRITE(6)
12 aa INQUIRY
15 cc MODE SELECT(6)
16 ?? RESERVE(6)
17 ?? RELEASE(6)
1a ac MODE SENSE(6)
1b ?? START STOP UNIT
1c ac RECEIVE DIAGNOSTIC RESULTS
1d cc SEND DIAGNOSTIC
1e ?? PREVENT ALLOW MEDIUM REMOVAL
23 aa READ FORMAT CAPACITIES
25 aa READ CAPACITY(10)
28 ac READ(10)
2a cc WRITE(10)
2b aa SEEK(10)
2e cc WRITE AND VERIFY(10)
2f ac VERIFY(10)
34 ac PRE-FETCH(10)
35 cc SYNCHRONIZE CACHE(10)
37 ac READ DEFECT DATA(10)
3b cc WRITE BUFFER
3c ac READ BUFFER
41 cc WRITE SAME(10)
42 cc UNMAP
43 ac READ TOC/PMA/ATIP
46 aa GET CONFIGURATION
48/01 cc SANITIZE OVERWRITE
48/02 cc SANITIZE BLOCK ERASE
48/03 cc SANITIZE CRYPTOGRAPHIC ERASE
48/1f cc SANITIZE EXIT FAILURE MODE
4a aa GET EVENT STATUS NOTIFICATION
4c cc LOG SELECT
4d aa LOG SENSE
51 ac READ DISC INFORMATION
52 ac READ TRACK INFORMATION
55 cc MODE SELECT(10)
5a ac MODE SENSE(10)
5e/00 aa PERSISTENT RESERVE IN READ KEYS
5e/01 aa PERSISTENT RESERVE IN READ RESERVATION
5e/02 aa PERSISTENT RESERVE IN REPORT CAPABILITIES
5e/03 aa PERSISTENT RESERVE IN READ FULL STATUS
5f/00 ?? PERSISTENT RESERVE OUT REGISTER
5f/01 ?? PERSISTENT RESERVE OUT RESERVE
5f/02 ?? PERSISTENT RESERVE OUT RELEASE
5f/03 ?? PERSISTENT RESERVE OUT CLEAR
5f/04 ?? PERSISTENT RESERVE OUT PREEMPT
5f/05 ?? PERSISTENT RESERVE OUT PREEMPT AND ABORT
5f/06 ?? PERSISTENT RESERVE OUT REGISTER AND IGNORE EXISTING KEY
5f/07 ?? PERSISTENT RESERVE OUT REGISTER AND MOVE
83/00 cc EXTENDED COPY(LID1)
83/10 ac POPULATE TOKEN
83/11 cc WRITE USING TOKEN
83/1c cc COPY OPERATION ABORT
84/00 cc RECEIVE COPY STATUS(LID1)
84/01 cc RECEIVE COPY DATA(LID1)
84/03 cc RECEIVE COPY OPERATING PARAMETERS
84/04 cc RECEIVE COPY FAILURE DETAILS(LID1)
84/07 ac RECEIVE ROD TOKEN INFORMATION
88 ac READ(16)
89 cc COMPARE AND WRITE
8a cc WRITE(16)
8b cc ORWRITE(16)
8e cc WRITE AND VERIFY(16)
8f ac VERIFY(16)
90 ac PRE-FETCH(16)
91 cc SYNCHRONIZE CACHE(16)
93 cc WRITE SAME(16)
9c cc WRITE ATOMIC(16)
9e/10 aa READ CAPACITY(16)
9e/12 ac GET LBA STATUS
a0 aa REPORT LUNS
a3/05 aa REPORT IDENTIFYING INFORMATION
a3/0a aa REPORT TARGET PORT GROUPS
a3/0c ac REPORT SUPPORTED OPERATION CODES
a3/0d ac REPORT SUPPORTED TASK MANAGEMENT FUNCTIONS
a3/0f aa REPORT TIMESTAMP
a4/06 cc SET IDENTIFYING INFORMATION
a4/0a cc SET TARGET PORT GROUPS
a8 ac READ(12)
aa cc WRITE(12)
ac ac GET PERFORMANCE
ad ac READ DISC STRUCTURE
ae cc WRITE AND VERIFY(12)
af ac VERIFY(12)
b7 ac READ DEFECT DATA(12)
bb cc SET CD SPEED
bd aa MECHANISM STATUS
be ac READ CD
b9 ac READ CD MSF
`

// rowName returns an operation as accessTable writes it.
func rowName(op *operation) string {
	if op.action {
		return fmt.Sprintf("%02x/%02x", op.usage[0], op.usage[1]&actionMask)
	}
	return fmt.Sprintf("%02x", op.usage[0])
}

// accessRows returns accessTable by operation.
func accessRows(t testing.TB) map[string]string {
	t.Helper()
	rows := map[string]string{}
	for line := range strings.Lines(strings.TrimSpace(accessTable)) {
		f := strings.Fields(line)
		if rows[f[0]] != "" {
			t.Errorf("%s is listed twice", f[0])
		}
		rows[f[0]] = f[1]
	}
	return rows
}

// TestAccessClasses checks that every operation of every unit says which
// persistent reservations keep it away, and that it says what the standards do.
func TestAccessClasses(t *testing.T) {
	classes := map[opFlags]string{accessAll: "aa", accessRead: "ac", accessWrite: "cc", accessSelf: "??"}
	want := accessRows(t)
	m := NewMap()
	const drive = "drive" // MMC uses some operation codes for other commands
	for unit, rows := range map[string][]operation{
		"disk": newTestDisk(able{quick{newMemory(4096)}}).ops.rows, drive: newTestDrive(nil).ops.rows,
		"absent": m.absent.ops.rows, "well known": m.wellKnown.ops.rows,
	} {
		for i := range rows {
			op := &rows[i]
			got, one := classes[op.flags&accessClass]
			if !one {
				t.Errorf("%s: %s: not exactly one access class in flags %b", unit, op.name, op.flags)
			} else if w := want[rowName(op)]; unit != drive && got != w {
				t.Errorf("%s: %s (%s): access class %s, the standards have %q", unit, op.name, rowName(op), got, w)
			}
			if op.flags&writes != 0 && got != "cc" {
				t.Errorf("%s: %s changes the medium with access class %s", unit, op.name, got)
			}
		}
	}
}

// TestAccessByReservation tries every operation of a disk under every type of
// reservation, from every kind of nexus, and compares with accessTable.
func TestAccessByReservation(t *testing.T) {
	table := accessRows(t)
	for kind := reservationType(1); kind <= 8; kind++ {
		if !kind.valid() {
			continue
		}
		p := newReserving(t)
		p.run(fmt.Sprintf(`
			h register 0 1	00
			r register 0 2	00
			h reserve %d 1	00`, kind))
		write := strings.Contains("1 5 7", fmt.Sprint(byte(kind)))
		registrants := kind >= 5
		for i := range p.d.ops.rows {
			op := &p.d.ops.rows[i]
			row := table[rowName(op)]
			if row == "??" {
				continue
			}
			cdb := make([]byte, len(op.usage))
			if cdb[0] = op.usage[0]; op.action {
				cdb[1] = op.usage[1] & actionMask
			}
			conflict := row[1] == 'c'
			if write {
				conflict = row[0] == 'c'
			}
			for name, want := range map[string]bool{"h": false, "r": conflict && !registrants, "u": conflict, "": conflict} {
				var n *Nexus
				if name != "" {
					n = p.nexus(name)
				}
				_, err := p.d.admit(&Command{CDB: cdb, Nexus: n}, false)
				if got := err == errReserved; got != want || err != nil && !got {
					t.Errorf("type %d: %s from %q: %v, want a conflict: %v", kind, op.name, name, err, want)
				}
			}
		}
	}
}

// TestAccessBySelf checks the operations whose fields decide, SBC-3 4.17.
func TestAccessBySelf(t *testing.T) {
	for kind := range map[int]bool{1: true, 3: true, 5: true, 6: true, 7: true, 8: true} {
		p := newReserving(t)
		p.run(fmt.Sprintf(`
			h register 0 1	00
			h reserve %d 1	00`, kind))
		for cdb, want := range map[string]string{
			"1b 00 0000 01 00": "00",
			"1b 00 0000 00 00": "18",
			"1b 00 0000 11 00": "18",
			"1e 00 0000 00 00": "00",
			"1e 00 0000 01 00": "18",
		} {
			wantEnding(t, send(t, p.d, p.nexus("u"), cdb, nil), want)
			if c := send(t, p.d, p.nexus("h"), cdb, nil); c.Status == StatusReservationConflict {
				t.Errorf("type %d: %s from the holder: conflict", kind, cdb)
			}
		}
	}
}
