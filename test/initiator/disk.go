package initiator

import (
	"context"
	"encoding/binary"
	"fmt"
	"sync"
	"sync/atomic"

	"skylun/block"
)

// Disk is a logical unit as a block.Device: the whole stack of a target behind
// the same contract as what is below it. Ranges need not be aligned to logical
// blocks; they are widened, and writes read what they do not cover.
type Disk struct {
	idle  chan *Conn    // connections without a command
	cmdSN atomic.Uint32 // of the session's next command
	lun   uint8
	bs    int64 // bytes of a logical block
	size  int64

	// mu is held exclusively while something is read to be written back.
	mu sync.RWMutex
}

var _ block.Device = (*Disk)(nil)

// maxTransfer is the most a Disk moves with one command, in bytes.
const maxTransfer = 1 << 20

// Disk returns the logical unit of a connection that is logged in, after it
// has fetched the unit attention that waits there. Others are further connections
// of its session: commands go through whichever has none at the moment, so that
// parallel calls use them all.
func (c *Conn) Disk(lun uint8, others ...*Conn) (*Disk, error) {
	d := &Disk{idle: make(chan *Conn, 1+len(others)), lun: lun, bs: 1}
	for range 4 { // TEST UNIT READY, until no unit attention is left
		if r, err := c.Do(lun, make([]byte, 6), 0, nil); err != nil || r.Status == 0 {
			break
		}
	}
	r, err := c.Do(lun, []byte{0: 0x9e, 1: 0x10, 13: 32, 15: 0}, 32, nil) // READ CAPACITY(16)
	if err != nil {
		return nil, err
	}
	if r.Status != 0 || len(r.Data) < 12 {
		return nil, fmt.Errorf("READ CAPACITY: status %d, sense %06x, %d bytes", r.Status, r.Key(), len(r.Data))
	}
	d.bs = int64(binary.BigEndian.Uint32(r.Data[8:]))
	d.size = int64(binary.BigEndian.Uint64(r.Data)+1) * d.bs
	d.cmdSN.Store(c.CmdSN)
	for _, c := range append([]*Conn{c}, others...) {
		d.idle <- c
	}
	return d, nil
}

// Size implements block.Reader.
func (d *Disk) Size() int64 { return d.size }

// cdb16 returns a 16 byte CDB for a range of bytes.
func (d *Disk) cdb16(opcode byte, off, n int64) []byte {
	cdb := make([]byte, 16)
	cdb[0] = opcode
	binary.BigEndian.PutUint64(cdb[2:], uint64(off/d.bs))
	binary.BigEndian.PutUint32(cdb[10:], uint32(n/d.bs))
	return cdb
}

func (d *Disk) do(ctx context.Context, cdb []byte, in int, out []byte) ([]byte, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	c := <-d.idle
	c.CmdSN = d.cmdSN.Add(1) - 1
	r, err := c.Do(d.lun, cdb, in, out)
	d.idle <- c
	if err != nil {
		return nil, err
	}
	if r.Status == 0 && len(r.Data) == in {
		return r.Data, nil
	}
	err = fmt.Errorf("opcode 0x%02x: status %d, sense %06x, %d of %d bytes", cdb[0], r.Status, r.Key(), len(r.Data), in)
	switch r.Key() {
	case 0x052100: // LBA out of range
		err = fmt.Errorf("%w: %w", err, block.ErrOutOfRange)
	case 0x072700: // write protected
		err = fmt.Errorf("%w: %w", err, block.ErrReadOnly)
	}
	return nil, err
}

// ReadAt implements block.Reader.
func (d *Disk) ReadAt(ctx context.Context, p []byte, off int64) error {
	if err := block.CheckRange(off, int64(len(p)), d.size); err != nil {
		return err
	}
	d.mu.RLock()
	defer d.mu.RUnlock()
	return d.readAt(ctx, p, off)
}

func (d *Disk) readAt(ctx context.Context, p []byte, off int64) error {
	for len(p) > 0 {
		r := block.Range{Off: off, End: off + min(int64(len(p)), maxTransfer)}
		wide := r.Outward(d.bs)
		data, err := d.do(ctx, d.cdb16(0x88, wide.Off, wide.Len()), int(wide.Len()), nil)
		if err != nil {
			return err
		}
		n := copy(p[:r.Len()], data[r.Off-wide.Off:])
		p, off = p[n:], off+int64(n)
	}
	return nil
}

// WriteAt implements block.Device.
func (d *Disk) WriteAt(ctx context.Context, p []byte, off int64) error {
	if err := block.CheckRange(off, int64(len(p)), d.size); err != nil {
		return err
	}
	defer d.lock((off|int64(len(p)))%d.bs != 0)()
	return d.writeAt(ctx, p, off)
}

// lock takes mu, exclusively or not, and returns what gives it back.
func (d *Disk) lock(exclusively bool) (unlock func()) {
	if exclusively {
		d.mu.Lock()
		return d.mu.Unlock
	}
	d.mu.RLock()
	return d.mu.RUnlock
}

func (d *Disk) writeAt(ctx context.Context, p []byte, off int64) error {
	for len(p) > 0 {
		r := block.Range{Off: off, End: off + min(int64(len(p)), maxTransfer)}
		wide := r.Outward(d.bs)
		out := p[:r.Len()]
		if wide != r {
			out = make([]byte, wide.Len())
			if err := d.readAt(ctx, out, wide.Off); err != nil {
				return err
			}
			copy(out[r.Off-wide.Off:], p[:r.Len()])
		}
		if _, err := d.do(ctx, d.cdb16(0x8a, wide.Off, wide.Len()), 0, out); err != nil {
			return err
		}
		p, off = p[r.Len():], r.End
	}
	return nil
}

// Discard implements block.Device: UNMAP for whole logical blocks, zeros for
// the rest.
func (d *Disk) Discard(ctx context.Context, off, n int64) error {
	if err := block.CheckRange(off, n, d.size); err != nil {
		return err
	}
	defer d.lock((off|n)%d.bs != 0)()
	all := block.Range{Off: off, End: off + n}
	whole := all.Inward(d.bs)
	if whole.Empty() {
		return d.writeAt(ctx, make([]byte, n), off)
	}
	for _, edge := range []block.Range{{Off: all.Off, End: whole.Off}, {Off: whole.End, End: all.End}} {
		if err := d.writeAt(ctx, make([]byte, edge.Len()), edge.Off); err != nil {
			return err
		}
	}
	list := make([]byte, 24)
	binary.BigEndian.PutUint16(list, 22)
	binary.BigEndian.PutUint16(list[2:], 16)
	binary.BigEndian.PutUint64(list[8:], uint64(whole.Off/d.bs))
	binary.BigEndian.PutUint32(list[16:], uint32(whole.Len()/d.bs))
	_, err := d.do(ctx, []byte{0: 0x42, 8: 24, 9: 0}, 0, list)
	return err
}

// Flush implements block.Device.
func (d *Disk) Flush(ctx context.Context) error {
	_, err := d.do(ctx, d.cdb16(0x91, 0, 0), 0, nil)
	return err
}
