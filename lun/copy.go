package lun

import (
	"context"
	"errors"

	"skylun/block"
)

// copyPiece is how much a copy moves at once, aligned to itself at the
// destination.
const copyPiece = 1 << 20

// copyFrom makes [off, off+n) of d what src has in [from, from+n), and calls
// moved with the number of bytes after each step. The device does it in its
// own way if it has one; otherwise the bytes go through a buffer, and what
// reads as zeros becomes that without going anywhere.
func (d *Disk) copyFrom(ctx context.Context, off int64, src *Disk, from, n int64, moved func(int64)) error {
	if d.dev == src.dev && off == from {
		moved(n)
		return nil
	}
	d.changing(block.Range{Off: off, End: off + n})
	overlap := d.dev == src.dev && off < from+n && from < off+n
	if c, ok := d.dev.(block.Copier); ok && !overlap {
		done, err := c.CopyFrom(ctx, off, src.dev, from, n)
		if err != nil {
			return writeError(off, err)
		}
		if done {
			moved(n)
			return nil
		}
	}
	if ranger, ok := src.dev.(block.DataRanger); ok && !overlap {
		return d.copyData(ctx, off, src, ranger, from, n, moved)
	}
	return d.copyBytes(ctx, off, src, from, n, moved)
}

// copyData is copyFrom of what may hold data; the rest is discarded.
func (d *Disk) copyData(ctx context.Context, off int64, src *Disk, ranger block.DataRanger, from, n int64, moved func(int64)) error {
	at := from // where the next byte to copy is in src
	zeros := func(end int64) error {
		if end <= at {
			return nil
		}
		if err := d.dev.Discard(ctx, off+at-from, end-at); err != nil {
			return writeError(off+at-from, err)
		}
		moved(end - at)
		at = end
		return nil
	}
	// The ranges are told while the source is held; it is not held while
	// they are copied.
	for at < from+n {
		data := block.Range{Off: from + n, End: from + n}
		err := ranger.DataRanges(ctx, block.Range{Off: at, End: from + n}, func(r block.Range) error {
			data = r
			return errFirst
		})
		if err != nil && !errors.Is(err, errFirst) {
			return readError(at, err)
		}
		if err := zeros(data.Off); err != nil {
			return err
		}
		if err := d.copyBytes(ctx, off+at-from, src, at, data.Len(), moved); err != nil {
			return err
		}
		at = data.End
	}
	return nil
}

var errFirst = errors.New("the first one is enough")

// copyBytes is copyFrom through a buffer. Like copy, it may overlap: it starts
// at the end that is not overwritten.
func (d *Disk) copyBytes(ctx context.Context, off int64, src *Disk, from, n int64, moved func(int64)) error {
	if n == 0 {
		return nil
	}
	buf := make([]byte, min(n, copyPiece))
	backwards := d.dev == src.dev && from < off
	for first, end := int64(0), n; first < end; { // what is still to be copied
		if err := ctx.Err(); err != nil {
			return err
		}
		var at, size int64
		if backwards {
			size = min(end-first, (off+end-1)%copyPiece+1)
			end -= size
			at = end
		} else {
			size = min(end-first, copyPiece-(off+first)%copyPiece)
			at = first
			first += size
		}
		if err := src.dev.ReadAt(ctx, buf[:size], from+at); err != nil {
			return readError(from+at, err)
		}
		if err := d.store(ctx, buf[:size], off+at, false); err != nil {
			return err
		}
		moved(size)
	}
	return nil
}

// mayCopy tells whether a copy for n may read d, or change it.
func (d *Disk) mayCopy(n *Nexus, change bool) error {
	if change && d.protected.Load() {
		return d.protection()
	}
	class := accessRead
	if change {
		class = accessWrite
	}
	if err := d.excluded(n, class); err != nil {
		return err
	}
	if d.stoppedFor(n) {
		return errStopped
	}
	if cond := d.blocking(nil); cond != nil {
		return cond
	}
	return nil
}
