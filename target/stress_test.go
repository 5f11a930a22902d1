package target

import (
	"bytes"
	"context"
	"encoding/binary"
	"flag"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"

	"skylun/lun"
	"skylun/target/pdu"
	"skylun/test/initiator"
	"skylun/test/memdev"
)

var stressSeed = flag.Uint64("stress.seed", 0, "seed of TestStress; 0: a new one")

// Many sessions at once, of one connection or two, with and without digests,
// write and read, abort, reset each other's units, break their connections and
// come back. A write that ended well is there. One that was aborted is there or
// is not, and does not come later.
func TestStress(t *testing.T) {
	seed := *stressSeed
	if seed == 0 {
		seed = rand.Uint64()
	}
	t.Logf("-stress.seed %d", seed)
	const actors = 8
	dev := memdev.New(actors * actorSlots * slotSize)
	cfg := Config{MaxTransfer: 64 << 10, ConnectionBuffers: 32 << 10, ServerBuffers: 64 << 10, QueueDepth: 16, Workers: 4}
	s := start(t, cfg, reportingDisk{disk(t, &moodyDevice{Device: dev})})
	var wg sync.WaitGroup
	for i := range actors {
		wg.Go(func() {
			a := &actor{s: s, index: i, r: rand.New(rand.NewPCG(seed, uint64(i)))}
			for range 20 {
				if err := a.session(); err != nil {
					t.Errorf("initiator %d: %v", i, err)
					return
				}
			}
		})
	}
	wg.Wait()
	alive(t, s.login(t))
}

// reportingDisk ends commands that another session aborts with TASK ABORTED,
// so that every command has an end that its initiator sees.
type reportingDisk struct{ *lun.Disk }

func (reportingDisk) ReportsAborts() bool { return true }

// moodyDevice answers at once three times out of four.
type moodyDevice struct {
	*memdev.Device
	calls atomic.Uint32
}

func (d *moodyDevice) TryReadAt(p []byte, off int64) (bool, error) {
	return d.calls.Add(1)%4 != 0, d.ReadAt(context.Background(), p, off)
}

func (d *moodyDevice) TryWriteAt(p []byte, off int64) (bool, error) {
	if d.calls.Add(1)%4 == 0 {
		return false, nil
	}
	return true, d.WriteAt(context.Background(), p, off)
}

const (
	actorSlots = 8
	slotSize   = 4096
)

// actor is an initiator with a part of the disk for itself.
type actor struct {
	s     *server
	index int
	r     *rand.Rand
	value uint64 // written last

	slots [actorSlots]slot
	conns []*initiator.Conn
	cmdSN uint32
	itt   uint32
	busy  map[uint32]*operation // by task tag
	last  pdu.TaskFunction      // asked for last
}

// slot is what may be in a part of the disk.
type slot struct {
	is, maybe uint64 // maybe: of a write that has not ended well
	busy      int    // operations on it
	writing   bool   // one of them is a write
}

// operation is a command on its way.
type operation struct {
	conn  *initiator.Conn
	cmd   *initiator.PDU
	slot  int
	write bool
	loose bool // a read while a write goes on
	out   []byte
	in    []byte
}

// content returns what a slot holds after a write of v.
func (a *actor) content(v uint64) []byte {
	return bytes.Repeat(binary.BigEndian.AppendUint64(nil, v), slotSize/8)
}

// login opens a session, or takes the place of the one before.
func (a *actor) login() error {
	a.busy, a.conns, a.cmdSN = make(map[uint32]*operation), nil, 1
	tsih := uint16(0)
	for cid := range 1 + a.r.IntN(2) {
		c, err := initiator.Dial(a.s.addr)
		if err != nil {
			return err
		}
		c.ISID[5], c.CID, c.TSIH, c.CmdSN = byte(a.index), uint16(cid), tsih, a.cmdSN
		yes := func() string { return []string{"Yes", "No"}[a.r.IntN(2)] }
		keys := initiator.Keys(digestKeys(a.r.IntN(2) == 0, a.r.IntN(2) == 0, "MaxRecvDataSegmentLength", fmt.Sprint(512<<a.r.IntN(6))))
		if cid == 0 {
			keys = append(keys, "MaxConnections", "2", "InitialR2T", yes(), "ImmediateData", yes(),
				"MaxBurstLength", fmt.Sprint(1024<<a.r.IntN(4)), "FirstBurstLength", fmt.Sprint(512<<a.r.IntN(4)), "MaxOutstandingR2T", fmt.Sprint(1+a.r.IntN(3)))
		}
		if _, err := c.Login(initiator.Options{Initiator: testInitiator, Target: testTarget, Keys: keys}); err != nil {
			return fmt.Errorf("login: %w", err)
		}
		if cid > 0 { // of the session
			c.InitialR2T, c.ImmediateData, c.FirstBurst = a.conns[0].InitialR2T, a.conns[0].ImmediateData, a.conns[0].FirstBurst
		}
		tsih = c.TSIH
		a.conns = append(a.conns, c)
	}
	return nil
}

// session is a login, some commands and what goes wrong with them, and the end
// of it, orderly or not.
func (a *actor) session() error {
	if err := a.login(); err != nil {
		return err
	}
	defer func() {
		for _, c := range a.conns {
			c.Close()
		}
	}()
	if err := a.settle(); err != nil {
		return err
	}
	for range 12 {
		for range 1 + a.r.IntN(5) {
			if err := a.issue(); err != nil {
				return err
			}
		}
		var err error
		switch n := a.r.IntN(20); {
		case n < 11:
			err = a.wait()
		case n < 14:
			err = a.abort()
		case n < 16:
			err = a.manage(pdu.AbortTaskSet, pdu.NoTag, 0)
		case n < 17:
			err = a.manage(pdu.ClearTaskSet, pdu.NoTag, 0)
		case n < 18:
			err = a.manage(pdu.LogicalUnitReset, pdu.NoTag, 0)
		case n < 19:
			err = a.manage(pdu.TargetWarmReset, pdu.NoTag, 0)
		default: // the commands of a session have ended when the next one begins
			for _, c := range a.conns {
				c.Close()
			}
			err = a.login()
		}
		if err != nil {
			return err
		}
		if err := a.settle(); err != nil {
			return err
		}
	}
	if a.r.IntN(2) == 0 {
		return a.conns[0].Logout()
	}
	return nil
}

// issue sends a read or a write.
func (a *actor) issue() error {
	c := a.conns[a.r.IntN(len(a.conns))]
	n := a.r.IntN(actorSlots)
	sl := &a.slots[n]
	op := &operation{conn: c, slot: n, write: a.r.IntN(2) == 0, loose: sl.writing}
	if op.write && sl.busy > 0 || int32(c.MaxCmdSN-a.cmdSN) < 0 {
		return nil
	}
	if sl.busy++; op.write {
		a.value++
		sl.maybe, sl.writing = a.value, true
		op.out = a.content(a.value)
	}
	return a.send(op)
}

func (a *actor) send(op *operation) error {
	c := op.conn
	cdb := make([]byte, 10)
	binary.BigEndian.PutUint32(cdb[2:], uint32((a.index*actorSlots+op.slot)*slotSize/512))
	cdb[0], cdb[8] = 0x28, slotSize/512
	if op.write {
		cdb[0] = 0x2a
	}
	c.CmdSN = a.cmdSN
	p := c.NewCommand(0, cdb)
	a.cmdSN = c.CmdSN
	a.itt++
	p.SetITT(a.itt)
	p.SetExpectedLen(slotSize)
	p.SetFlags(pdu.FlagFinal | pdu.FlagRead)
	if op.write {
		p.SetFlags(pdu.FlagFinal | pdu.FlagWrite)
		if c.ImmediateData {
			p.Data = op.out[:min(slotSize, c.FirstBurst, c.MaxSend)]
		}
	}
	op.cmd = p
	a.busy[p.ITT()] = op
	return c.Send(p)
}

// receive takes one PDU from c.
func (a *actor) receive(c *initiator.Conn) (*initiator.PDU, error) {
	p, err := c.Receive()
	if err != nil {
		return nil, err
	}
	op := a.busy[p.ITT()]
	switch p.Opcode() {
	case pdu.R2T:
		if op == nil {
			return nil, fmt.Errorf("%v on connection %d of %d for nobody, after function %d; tags to %#x", p, c.CID, len(a.conns), a.last, a.itt)
		}
		return p, c.Send(c.NewDataOut(p.ITT(), p.TTT(), 0, p.Offset(), op.out[p.Offset():p.Offset()+p.DesiredLen()], true))
	case pdu.DataIn:
		if op == nil {
			return nil, fmt.Errorf("%v on connection %d of %d for nobody, after function %d; tags to %#x", p, c.CID, len(a.conns), a.last, a.itt)
		}
		op.in = append(op.in, p.Data...)
		if p.Flags()&pdu.FlagStatus == 0 {
			return p, nil
		}
		return p, a.ended(op, p)
	case pdu.SCSIResponse:
		if op == nil {
			return nil, fmt.Errorf("%v on connection %d of %d for nobody, after function %d; tags to %#x", p, c.CID, len(a.conns), a.last, a.itt)
		}
		return p, a.ended(op, p)
	case pdu.Reject:
		return nil, fmt.Errorf("rejected for reason 0x%02x", byte(p.RejectReason()))
	}
	return p, nil
}

// ended draws the conclusions from the status of an operation.
func (a *actor) ended(op *operation, p *initiator.PDU) error {
	delete(a.busy, op.cmd.ITT())
	sl := &a.slots[op.slot]
	sl.busy--
	if op.write {
		sl.writing = false
	}
	switch status := lun.Status(p.SCSIStatus()); {
	case status == lun.StatusGood && op.write:
		sl.is, sl.maybe = sl.maybe, 0
	case status == lun.StatusGood:
		return a.check(op)
	case status == lun.StatusTaskAborted: // by a reset of another
	case len(p.Data) > 4 && p.Data[2+1]&0xf == 6, len(p.Data) > 4 && p.Data[2+2]&0xf == 6: // UNIT ATTENTION, not executed
		if op.write {
			sl.maybe = 0
		}
	default:
		return fmt.Errorf("status %d with % x", status, p.Data)
	}
	return nil
}

// check compares what was read with what may be there.
func (a *actor) check(op *operation) error {
	sl := &a.slots[op.slot]
	if len(op.in) != slotSize {
		return fmt.Errorf("read %d bytes", len(op.in))
	}
	got := binary.BigEndian.Uint64(op.in)
	if op.loose {
		return nil
	}
	if !bytes.Equal(op.in, a.content(got)) || got != sl.is && (sl.maybe == 0 || got != sl.maybe) {
		return fmt.Errorf("slot %d holds %d, want %d or %d", op.slot, got, sl.is, sl.maybe)
	}
	return nil
}

// wait waits until all operations have ended.
func (a *actor) wait() error {
	for len(a.busy) > 0 {
		for _, op := range a.busy {
			if _, err := a.receive(op.conn); err != nil {
				return err
			}
			break
		}
	}
	return nil
}

// abort aborts one of the operations.
func (a *actor) abort() error {
	for itt, op := range a.busy {
		return a.manage(pdu.AbortTask, itt, op.cmd.CmdSN())
	}
	return nil
}

// manage sends a task management request and waits for the response. The
// operations it concerns have ended then, with an answer or without.
func (a *actor) manage(f pdu.TaskFunction, itt, refCmdSN uint32) error {
	c := a.conns[0]
	if op := a.busy[itt]; op != nil {
		c = op.conn
	}
	c.CmdSN, a.last = a.cmdSN, f
	p := c.NewRequest(pdu.TaskRequest)
	a.itt++
	p.SetITT(a.itt)
	p.SetFlags(pdu.FlagFinal | byte(f))
	p.SetRefTag(itt)
	p.SetRefCmdSN(refCmdSN)
	if err := c.Send(p); err != nil {
		return err
	}
	for {
		r, err := a.receive(c)
		if err != nil {
			return fmt.Errorf("function %d: %w", f, err)
		}
		if r.Opcode() == pdu.TaskResponse {
			if code := r.ResponseCode(); code != pdu.TaskComplete && (f != pdu.AbortTask || code != pdu.TaskNotFound) {
				return fmt.Errorf("function %d: response %d", f, code)
			}
			break
		}
	}
	// What has been answered on any connection is here before the answer to a
	// ping; all else that is concerned has no answer.
	for _, c := range a.conns {
		ping := c.NewRequest(pdu.NOPOut)
		a.itt++
		ping.SetITT(a.itt)
		if err := c.Send(ping); err != nil {
			return err
		}
		for {
			r, err := a.receive(c)
			if err != nil {
				return err
			}
			if r.Opcode() == pdu.NOPIn && r.ITT() == ping.ITT() {
				break
			}
		}
	}
	if f == pdu.AbortTask {
		if op := a.busy[itt]; op != nil {
			sl := &a.slots[op.slot]
			sl.busy, sl.writing = sl.busy-1, sl.writing && !op.write
			delete(a.busy, itt)
		}
		return a.wait()
	}
	a.forget()
	return nil
}

// forget drops the operations that get no answer.
func (a *actor) forget() {
	clear(a.busy)
	for i := range a.slots {
		a.slots[i].busy, a.slots[i].writing = 0, false
	}
}

// settle finds out what is in the slots of which that is not known, once and
// for all: a write that was aborted does not happen later.
func (a *actor) settle() error {
	a.forget()
	for range 2 {
		for n := range a.slots {
			sl := &a.slots[n]
			if sl.maybe == 0 {
				continue
			}
			op := &operation{conn: a.conns[0], slot: n}
			for op.in = nil; len(op.in) == 0; { // unit attentions and resets come in between
				sl.busy = 1
				if err := a.send(op); err != nil {
					return err
				}
				if err := a.wait(); err != nil {
					return err
				}
			}
			if got := binary.BigEndian.Uint64(op.in); got == sl.maybe {
				sl.is = got
			}
			sl.maybe = 0
		}
	}
	return nil
}
