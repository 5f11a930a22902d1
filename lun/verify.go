package lun

import (
	"bytes"
	"context"
)

// comparePiece is how much a comparison reads at once.
const comparePiece = 256 << 10

// The BYTCHK field in byte 1 of VERIFY and WRITE AND VERIFY, SBC-3 5.29.
const (
	bytchkNone  = 0 // check the medium alone
	bytchkAll   = 1 // compare with Data-Out
	bytchkBlock = 3 // compare each logical block with the one in Data-Out
)

func bytchk(c *Command) byte { return c.CDB[1] >> 1 & 3 }

// verify executes VERIFY(10), (12) and (16), SBC-3 5.29 to 5.31. Without a
// comparison only the range is checked: reading the medium would fetch an
// image from afar to learn what its layers check with every read.
func (d *Disk) verify(ctx context.Context, c *Command) error {
	mode := bytchk(c)
	if mode == bytchkNone {
		if err := unprotected(c.CDB); err != nil {
			return err
		}
		_, _, err := d.span(c)
		return err
	}
	off, n, err := d.transfer(c)
	if err != nil {
		return err
	}
	switch mode {
	case bytchkAll:
		c.Transfer = n
		want := received(c, n)
		return d.compare(ctx, want, off, int64(len(want)))
	case bytchkBlock:
		if n == 0 {
			return nil // no logical block, no Data-Out
		}
		if len(c.Out) != logicalBlock {
			return errDataOutSize
		}
		c.Transfer = logicalBlock
		return d.compare(ctx, c.Out, off, n)
	default:
		return invalidField(1, 2)
	}
}

// compare ends with MISCOMPARE, with the first logical block that differs,
// unless the n bytes at off are want, over and over. All lengths are whole
// logical blocks.
func (d *Disk) compare(ctx context.Context, want []byte, off, n int64) error {
	buf := make([]byte, min(n, comparePiece))
	for done := int64(0); done < n; {
		piece := buf[:min(n-done, int64(len(buf)))]
		if err := d.dev.ReadAt(ctx, piece, off+done); err != nil {
			return readError(off+done, err)
		}
		for ; len(piece) > 0; piece = piece[logicalBlock:] {
			if !bytes.Equal(piece[:logicalBlock], want[done%int64(len(want)):][:logicalBlock]) {
				return miscompare(uint64(off+done) / logicalBlock)
			}
			done += logicalBlock
		}
	}
	return nil
}

// writeAndVerify executes WRITE AND VERIFY(10), (12) and (16), SBC-3 5.37 to
// 5.39: what it verifies is the medium, so it flushes first.
func (d *Disk) writeAndVerify(ctx context.Context, c *Command) error {
	mode := bytchk(c)
	if mode != bytchkNone && mode != bytchkAll {
		return invalidField(1, 2)
	}
	off, n, err := d.transfer(c)
	if err != nil {
		return err
	}
	c.Transfer = n
	out := received(c, n)
	if err := d.store(ctx, out, off, true); err != nil || mode == bytchkNone {
		return err
	}
	return d.compare(ctx, out, off, int64(len(out)))
}
