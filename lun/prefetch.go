package lun

import (
	"context"
	"errors"

	"github.com/gostor/gotgt/pkg/api"

	"skylun/block"
)

// prefetchOps returns the rows of PRE-FETCH.
func (d *Disk) prefetchOps() []operation {
	return []operation{
		{name: "PRE-FETCH(10)", usage: cdb(api.PRE_FETCH_10, "02 ffffffff 00 ffff 04"), flags: accessRead, do: d.prefetch},
		{name: "PRE-FETCH(16)", usage: cdb(api.PRE_FETCH_16, "02 ffffffffffffffff ffffffff 00 04"), flags: accessRead, do: d.prefetch},
	}
}

// prefetch executes PRE-FETCH(10) and (16), SBC-3 5.8 and 5.9: a length of
// zero means to the last logical block. CONDITION MET says that the logical
// blocks are here, or with IMMED that they are being fetched; a device that is
// no block.Prefetcher has them here always. GOOD says that there is no room
// for them.
func (d *Disk) prefetch(ctx context.Context, c *Command) error {
	const immed = 0x02
	off, n, err := d.span(c)
	if err != nil {
		return err
	}
	if n == 0 {
		n = int64(d.capacity())*logicalBlock - off
	}
	if p, ok := d.dev.(block.Prefetcher); ok {
		if err := p.Prefetch(ctx, off, n, c.CDB[1]&immed == 0); err != nil {
			if errors.Is(err, block.ErrNoSpace) {
				return nil
			}
			return readError(off, err)
		}
	}
	c.Status = StatusConditionMet
	return nil
}
