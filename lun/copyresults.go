package lun

import (
	"context"
	"encoding/binary"
	"errors"
	"math"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/gostor/gotgt/pkg/api"
)

// What became of copies: third-party copy commands are answered when they have
// ended, and what they did can be asked for after that, and by other commands
// of the same nexus before. SPC-4 5.17.4.

const (
	extendedCopyCode api.SCSICommandType = 0x83
	receiveCopyCode  api.SCSICommandType = 0x84
)

// copiesKept is how many ended copies are remembered for each nexus.
const copiesKept = 32

// copies are the copies that a disk remembers, the oldest first.
type copies struct {
	mu      sync.Mutex
	records map[*Nexus][]*copyRecord // guarded by mu
}

// copyRecord is one copy. Its list identifier tells it from the others of its
// nexus that are of the same kind.
type copyRecord struct {
	id     uint32
	wide   bool // the list identifier has four bytes
	action byte // service action, when it has

	moved    atomic.Int64 // bytes
	segments atomic.Int32

	// Guarded by copies.mu.

	ended bool
	sense []byte // empty: no error
	token []byte // that was made
}

// errCopyRunning ends a copy with a list identifier that another one has.
var errCopyRunning = &condition{key: 0x05, code: 0x0016} // OPERATION IN PROGRESS

// begin remembers a copy. One of the same identifier that has ended is
// forgotten.
func (t *copies) begin(n *Nexus, r *copyRecord) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if old := t.find(n, r.id, r.wide); old != nil {
		if !old.ended {
			return errCopyRunning
		}
		t.forget(n, old)
	}
	ended := func(r *copyRecord) bool { return r.ended }
	if all := t.records[n]; len(all) >= copiesKept {
		if i := slices.IndexFunc(all, ended); i >= 0 {
			t.forget(n, all[i])
		}
	}
	if t.records == nil {
		t.records = make(map[*Nexus][]*copyRecord)
	}
	t.records[n] = append(t.records[n], r)
	return nil
}

// end notes how a copy ended: with sense data of a fixed format, and a token,
// if there are any.
func (t *copies) end(r *copyRecord, err error, token []byte) {
	var sense []byte
	if err != nil {
		if status, cond := diagnose(err); status == StatusCheckCondition {
			sense = cond.encode(nil, false)
		} else {
			sense = errCopyAborted.encode(nil, false)
		}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	r.ended, r.sense, r.token = true, sense, token
}

// find returns a copy, or nil. t.mu is held.
func (t *copies) find(n *Nexus, id uint32, wide bool) *copyRecord {
	for _, r := range t.records[n] {
		if r.id == id && r.wide == wide {
			return r
		}
	}
	return nil
}

// forget removes a copy. t.mu is held.
func (t *copies) forget(n *Nexus, r *copyRecord) {
	all := t.records[n]
	if i := slices.Index(all, r); i >= 0 {
		t.records[n] = slices.Delete(all, i, i+1)
	}
	if len(t.records[n]) == 0 {
		delete(t.records, n)
	}
}

// detach forgets all copies of n.
func (t *copies) detach(n *Nexus) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.records, n)
}

// Detach implements Unit.
func (d *Disk) Detach(n *Nexus) {
	d.server.Detach(n)
	d.copies.detach(n)
}

// get returns the state of a copy by its identifier in the CDB at byte at.
func (t *copies) get(c *Command, at int, id uint32, wide bool) (r *copyRecord, ended bool, sense, token []byte, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if r = t.find(c.Nexus, id, wide); r == nil {
		return nil, false, nil, nil, invalidField(at, 7)
	}
	return r, r.ended, r.sense, r.token, nil
}

// receiveCopyOps returns the rows of RECEIVE COPY RESULTS.
func (d *Disk) receiveCopyOps() []operation {
	row := func(name string, action api.SCSICommandType, mask string, class opFlags, do func(context.Context, *Command) error) operation {
		return operation{name: name, usage: serviceAction(receiveCopyCode, action, mask), action: true, flags: inline | class, do: do}
	}
	const short, long = "ff 00000000000000 ffffffff 00 04", "ffffffff 00000000 ffffffff 00 04"
	return []operation{
		row("RECEIVE COPY STATUS(LID1)", 0x00, short, accessWrite, d.copyStatus),
		row("RECEIVE COPY DATA(LID1)", 0x01, short, accessWrite, d.copyHeldData),
		row("RECEIVE COPY OPERATING PARAMETERS", 0x03, "0000000000000000 ffffffff 00 04", accessWrite, d.copyParameters),
		row("RECEIVE COPY FAILURE DETAILS(LID1)", 0x04, short, accessWrite, d.copyFailure),
		row("RECEIVE ROD TOKEN INFORMATION", 0x07, long, accessRead, d.rodInformation),
	}
}

// copyAllocation is the ALLOCATION LENGTH of all of them.
func copyAllocation(c *Command) uint64 { return uint64(binary.BigEndian.Uint32(c.CDB[10:])) }

// copyStatus executes RECEIVE COPY STATUS(LID1), SPC-4 6.26. Asked twice, it
// answers twice.
func (d *Disk) copyStatus(_ context.Context, c *Command) error {
	r, ended, sense, _, err := d.copies.get(c, 2, uint32(c.CDB[2]), false)
	if err != nil {
		return err
	}
	const (
		inProgress = 0
		completed  = 1
		failed     = 2
		mebibytes  = 2 // TRANSFER COUNT UNITS
	)
	p := make([]byte, 12)
	p[3] = byte(len(p) - 4)
	switch {
	case !ended:
		p[4] = inProgress
	case len(sense) > 0:
		p[4] = failed
	default:
		p[4] = completed
	}
	binary.BigEndian.PutUint16(p[5:], uint16(r.segments.Load()))
	moved := r.moved.Load()
	if moved > math.MaxUint32 {
		p[7], moved = mebibytes, moved>>20
	}
	binary.BigEndian.PutUint32(p[8:], uint32(moved))
	c.reply(p, copyAllocation(c))
	return nil
}

// copyHeldData executes RECEIVE COPY DATA(LID1), SPC-4 6.19: no copy between
// disks holds any data.
func (d *Disk) copyHeldData(_ context.Context, c *Command) error {
	if _, _, _, _, err := d.copies.get(c, 2, uint32(c.CDB[2]), false); err != nil {
		return err
	}
	c.reply(make([]byte, 4), copyAllocation(c))
	return nil
}

// copyFailure executes RECEIVE COPY FAILURE DETAILS(LID1), SPC-4 6.21. Without
// a failure there is nothing to tell.
func (d *Disk) copyFailure(_ context.Context, c *Command) error {
	_, ended, sense, _, err := d.copies.get(c, 2, uint32(c.CDB[2]), false)
	switch {
	case err != nil:
		return err
	case !ended:
		return invalidField(2, 7)
	}
	p := make([]byte, 60)
	if len(sense) > 0 {
		p[56] = byte(StatusCheckCondition)
		binary.BigEndian.PutUint16(p[58:], uint16(len(sense)))
		p = append(p, sense...)
		binary.BigEndian.PutUint32(p, uint32(len(p)-4))
	}
	c.reply(p, copyAllocation(c))
	return nil
}

// Limits of third-party copies. Those of descriptors are small, because one
// command holds a worker for as long as it copies.
const (
	maxCSCDs         = 16
	maxSegments      = 32
	maxCopyList      = maxCSCDs*identificationLength + maxSegments*blockToBlockLength
	maxSegmentBlocks = math.MaxUint16
	maxCopies        = 255
)

// copyParameters executes RECEIVE COPY OPERATING PARAMETERS, SPC-4 6.22.
func (d *Disk) copyParameters(_ context.Context, c *Command) error {
	p := make([]byte, 44, 46)
	p[4] = 0x01 // SNLID: a copy may go without list identifier
	binary.BigEndian.PutUint16(p[8:], maxCSCDs)
	binary.BigEndian.PutUint16(p[10:], maxSegments)
	binary.BigEndian.PutUint32(p[12:], maxCopyList)
	binary.BigEndian.PutUint32(p[16:], maxSegmentBlocks*logicalBlock)
	binary.BigEndian.PutUint16(p[34:], maxCopies) // TOTAL CONCURRENT COPIES
	p[36] = maxCopies                             // MAXIMUM CONCURRENT COPIES
	p[37] = logicalBlockExponent                  // DATA SEGMENT GRANULARITY
	p = append(p, blockToBlockType, identificationType)
	p[43] = 2 // IMPLEMENTED DESCRIPTOR LIST LENGTH
	binary.BigEndian.PutUint32(p, uint32(len(p)-4))
	c.reply(p, copyAllocation(c))
	return nil
}

// errCopyAborted is what is told of a copy whose command was aborted.
var errCopyAborted = &condition{key: 0x0b, code: 0x0000}

// errNotCopied is told of a copy that ended without saying how.
var errNotCopied = errors.New("the copy did not run to its end")
