package lun

import (
	"context"

	"skylun/block"
)

// MaxTransfer is the most data that one command moves, in bytes: the MAXIMUM
// TRANSFER LENGTH of the Block Limits page. A command that asks for more is
// refused before any buffer is taken.
const MaxTransfer = 8 << 20

// fua is the FUA bit in byte 1 of 10, 12 and 16-byte CDBs.
const fua = 0x08

// Short Data-Out. An initiator may announce less data than its CDB asks to
// write, and the command still ends with GOOD status and a residual overflow
// (RFC 7143 11.4.5.1). Then the whole logical blocks that came are written,
// and no part of a block: the rest of the medium stays as it was.

// span checks the extent of c against the capacity and returns it in bytes.
// That a length is zero is no error, SBC-3 5.11.
func (d *Disk) span(c *Command) (off, n int64, err error) {
	lba, blocks := c.extent()
	return d.within(lba, uint64(blocks))
}

// within is span for an extent that is elsewhere than in most CDBs.
func (d *Disk) within(lba, blocks uint64) (off, n int64, err error) {
	if capacity := d.capacity(); lba >= capacity || blocks > capacity-lba {
		return 0, 0, outOfRange(max(lba, capacity))
	}
	return int64(lba) * logicalBlock, int64(blocks) * logicalBlock, nil
}

// transfer is span for commands that move the logical blocks, and so have
// protection information (which there is none of) and a limit.
func (d *Disk) transfer(c *Command) (off, n int64, err error) {
	if err = unprotected(c.CDB); err != nil {
		return 0, 0, err
	}
	if off, n, err = d.span(c); err != nil {
		return 0, 0, err
	}
	if n > MaxTransfer {
		return 0, 0, invalidField(c.lengthField(), -1)
	}
	return off, n, nil
}

// unprotected refuses RDPROTECT, WRPROTECT and VRPROTECT, which a unit
// without protection information does, SBC-3 4.22. A 6-byte CDB has none.
func unprotected(cdb []byte) error {
	if cdb[1]&0xe0 != 0 && cdb[0]>>5 != 0 {
		return invalidField(1, 7)
	}
	return nil
}

// tryRead is read for when that takes no waiting. FUA and DPO ask a read for
// nothing that is not done anyway.
func (d *Disk) tryRead(c *Command) (bool, error) {
	if d.reader == nil {
		return false, nil
	}
	off, n, err := d.transfer(c)
	if err != nil {
		return true, err
	}
	if in := min(int(n), c.InLimit); in > 0 {
		buf := c.Alloc.Get(in)
		done, err := d.reader.TryReadAt(buf, off)
		if !done {
			c.spare = buf
			return false, nil
		}
		if err != nil {
			return true, readError(off, err)
		}
		c.In = buf
	}
	c.Transfer = n
	return true, nil
}

// read executes READ(6), READ(10), READ(12) and READ(16), SBC-3 5.11 to 5.13.
func (d *Disk) read(ctx context.Context, c *Command) error {
	off, n, err := d.transfer(c)
	if err != nil {
		return err
	}
	if in := min(int(n), c.InLimit); in > 0 {
		buf := c.buffer(in)
		if err := d.dev.ReadAt(ctx, buf, off); err != nil {
			return readError(off, err)
		}
		c.In = buf
	}
	c.Transfer = n
	return nil
}

// tryWrite is write for when that takes no waiting.
func (d *Disk) tryWrite(c *Command) (bool, error) {
	if d.writer == nil || d.forced(c) {
		return false, nil
	}
	off, n, err := d.transfer(c)
	if err != nil {
		return true, err
	}
	if out := received(c, n); len(out) > 0 {
		done, err := d.writer.TryWriteAt(out, off)
		if !done {
			return false, nil
		}
		if err != nil {
			return true, writeError(off, err)
		}
	}
	c.Transfer = n
	return true, nil
}

// write executes WRITE(6), WRITE(10), WRITE(12) and WRITE(16), SBC-3 5.33 to
// 5.35. FUA is a write and a flush.
func (d *Disk) write(ctx context.Context, c *Command) error {
	off, n, err := d.transfer(c)
	if err != nil {
		return err
	}
	c.Transfer = n
	return d.store(ctx, received(c, n), off, d.forced(c))
}

// forced tells whether c has to be durable before it ends.
func (d *Disk) forced(c *Command) bool {
	return d.writeThrough.Load() || c.CDB[1]&fua != 0 && c.CDB[0]>>5 != 0
}

// received returns the whole logical blocks of a command's n bytes that came.
func received(c *Command, n int64) []byte {
	return c.Out[:block.Floor(min(n, int64(len(c.Out))), logicalBlock)]
}

// store writes p at off and, when asked, makes it durable.
func (d *Disk) store(ctx context.Context, p []byte, off int64, durable bool) error {
	if len(p) > 0 {
		if err := d.dev.WriteAt(ctx, p, off); err != nil {
			return writeError(off, err)
		}
	}
	if durable {
		return d.flush(ctx, off)
	}
	return nil
}

// flush makes everything durable; off is for the error.
func (d *Disk) flush(ctx context.Context, off int64) error {
	if err := d.dev.Flush(ctx); err != nil {
		return writeError(off, err)
	}
	return nil
}

// synchronize executes SYNCHRONIZE CACHE(10) and (16), SBC-3 5.26 and 5.27. It
// flushes more than the range, and with IMMED ends later than it could. A
// length of zero means to the last logical block.
func (d *Disk) synchronize(ctx context.Context, c *Command) error {
	off, _, err := d.span(c)
	if err != nil {
		return err
	}
	return d.flush(ctx, off)
}

func readError(off int64, err error) error {
	return &accessError{lba: uint64(off / logicalBlock), err: err}
}

func writeError(off int64, err error) error {
	return &accessError{lba: uint64(off / logicalBlock), write: true, err: err}
}
