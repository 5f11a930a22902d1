package lun

import (
	"context"
	"encoding/binary"

	"github.com/gostor/gotgt/pkg/api"
	"github.com/gostor/gotgt/pkg/scsi"
)

// Commands that look at logical blocks and change them with nothing in
// between. They are block.Updater.Update, which is atomic against every other
// access whatever unit or nexus it comes through. A disk over a device that
// has no such thing does not have the commands: initiators do without them,
// and none survives ones that are almost atomic.

// atomicOps returns the rows of the commands that need a block.Updater.
func (d *Disk) atomicOps() []operation {
	if d.updater == nil {
		return nil
	}
	return []operation{
		{name: "COMPARE AND WRITE", usage: cdb(api.COMPARE_AND_WRITE, "f8 ffffffffffffffff 000000 ff 00 04"), flags: writes | accessWrite, do: d.compareAndWrite},
		{name: "ORWRITE(16)", usage: cdb(api.ORWRITE_16, "f8 ffffffffffffffff ffffffff 00 04"), flags: writes | accessWrite, do: d.orWrite},
	}
}

// compareAndWrite executes COMPARE AND WRITE, SBC-3 5.2. Data-Out is what to
// compare with, then what to write. Data-Out of another length than the CDB
// asks for changes nothing: which half is short cannot be known.
func (d *Disk) compareAndWrite(ctx context.Context, c *Command) error {
	if err := unprotected(c.CDB); err != nil {
		return err
	}
	off, n, err := d.within(binary.BigEndian.Uint64(c.CDB[2:]), uint64(c.CDB[13]))
	if err != nil {
		return err
	}
	if n > maxCompareBlocks*logicalBlock || int64(len(c.Out)) != 2*n {
		return invalidField(13, 7)
	}
	c.Transfer = 2 * n
	if n == 0 {
		return nil
	}
	want, replacement := c.Out[:n], c.Out[n:]
	err = d.updater.Update(ctx, c.Alloc.Get(int(n)), off, func(p []byte) (bool, error) {
		if at := difference(p, want); at >= 0 {
			return false, miscompare(uint64(at))
		}
		copy(p, replacement)
		return true, nil
	})
	if err != nil {
		return writeError(off, err)
	}
	if d.forced(c) {
		return d.flush(ctx, off)
	}
	return nil
}

// difference returns where p and q, of one length, first differ, -1 if they
// do not.
func difference(p, q []byte) int {
	for i := range p {
		if p[i] != q[i] {
			return i
		}
	}
	return -1
}

// miscompare is MISCOMPARE DURING VERIFY OPERATION; where says what the
// command has in the INFORMATION field.
func miscompare(where uint64) error {
	return &condition{key: scsi.MISCOMPARE, code: scsi.ASC_MISCOMPARE_DURING_VERIFY_OPERATION, info: where, hasInfo: true}
}

// orWrite executes ORWRITE(16), SBC-3 5.5.
func (d *Disk) orWrite(ctx context.Context, c *Command) error {
	off, n, err := d.transfer(c)
	if err != nil {
		return err
	}
	c.Transfer = n
	out := received(c, n)
	if len(out) > 0 {
		err = d.updater.Update(ctx, c.Alloc.Get(len(out)), off, func(p []byte) (bool, error) {
			for i, b := range out {
				p[i] |= b
			}
			return true, nil
		})
		if err != nil {
			return writeError(off, err)
		}
	}
	if d.forced(c) {
		return d.flush(ctx, off)
	}
	return nil
}
