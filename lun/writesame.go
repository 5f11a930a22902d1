package lun

import (
	"bytes"
	"context"

	"github.com/gostor/gotgt/pkg/api"
)

// patternPiece is how much WRITE SAME writes at once, aligned to itself.
const patternPiece = 1 << 20

// writeSame executes WRITE SAME(10) and (16), SBC-3 5.43 and 5.44.
//
//	                    zeros, or NDOB    anything else
//	UNMAP = 0           discard           write
//	UNMAP = 1           discard           write: LBPRZ is one, so the blocks
//	                                      could not be unmapped and read as that
//
// A length of zero is refused, because WSNZ is one.
func (d *Disk) writeSame(ctx context.Context, c *Command) error {
	const (
		ndob   = 0x01
		anchor = 0x10
		old    = 0x06 // PBDATA and LBDATA, obsolete
	)
	wide := c.CDB[0] == byte(api.WRITE_SAME_16)
	if err := unprotected(c.CDB); err != nil {
		return err
	}
	if c.CDB[1]&anchor != 0 { // ANC_SUP is zero
		return invalidField(1, 4)
	}
	if c.CDB[1]&old != 0 {
		return invalidField(1, 2)
	}
	if !wide && c.CDB[1]&ndob != 0 {
		return invalidField(1, 0)
	}
	off, n, err := d.span(c)
	if err != nil {
		return err
	}
	if n == 0 || n > maxWriteSameBlocks*logicalBlock {
		return invalidField(c.lengthField(), -1)
	}
	if c.CDB[1]&ndob != 0 {
		return d.discard(ctx, off, n)
	}
	if len(c.Out) != logicalBlock {
		return errDataOutSize
	}
	c.Transfer = logicalBlock
	if allZero(c.Out) {
		return d.discard(ctx, off, n)
	}
	return d.fill(ctx, c.Out, off, n)
}

// fill repeats a logical block over n bytes at off.
func (d *Disk) fill(ctx context.Context, pattern []byte, off, n int64) error {
	start := off
	pieces := bytes.Repeat(pattern, int(min(n, patternPiece)/logicalBlock))
	for n > 0 {
		if err := ctx.Err(); err != nil {
			return err
		}
		// The first piece ends where the others are aligned.
		piece := pieces[:min(n, int64(len(pieces)), patternPiece-off%patternPiece)]
		if err := d.store(ctx, piece, off, false); err != nil {
			return err
		}
		off += int64(len(piece))
		n -= int64(len(piece))
	}
	if d.writeThrough.Load() {
		return d.flush(ctx, start)
	}
	return nil
}

func allZero(p []byte) bool {
	for _, b := range p {
		if b != 0 {
			return false
		}
	}
	return true
}
