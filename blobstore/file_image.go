package blobstore

import (
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"

	"golang.org/x/sys/unix"

	"skylun/block"
)

// fileContent reads one content of a file.
//
// The file is opened by its name for every read: so a file that was replaced
// or deleted is noticed like a blob that was, no descriptor is kept for images
// nobody reads, and a file system that was away and came back is simply found
// again. The identity is checked on the open file after the bytes are here: a
// write changes the modification time before it changes bytes, so bytes of
// another content come with another identity.
type fileContent struct {
	s       *fileStore
	what    string // for errors
	name    string
	id      identity
	ours    bool // the Info was made by such a store
	counted bool // as reads that somebody wanted
}

// readAt implements content.
func (c *fileContent) readAt(ctx context.Context, p []byte, off int64) error {
	return c.readInto(ctx, [][]byte{p}, off)
}

// readInto implements partContent.
func (c *fileContent) readInto(ctx context.Context, pieces [][]byte, off int64) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if c.counted {
		c.s.n.gets.Add(1)
	} else {
		c.s.n.others.Add(1)
	}
	c.s.n.inFlight.Add(1)
	defer c.s.n.inFlight.Add(-1)
	f, err := c.open()
	if err != nil {
		return err
	}
	defer f.Close()
	for _, p := range pieces {
		if err := readUnchanged(f, c.id, p, off); err != nil {
			return c.s.fail(err, c.what)
		}
		off += int64(len(p))
		if c.counted {
			c.s.n.getBytes.Add(int64(len(p)))
		}
	}
	return nil
}

// open opens the file, and fails when it is not what it was.
func (c *fileContent) open() (*os.File, error) {
	if !c.ours {
		return nil, errChanged(c.what)
	}
	f, err := c.s.open(c.name)
	if err != nil {
		return nil, c.s.fail(err, c.what)
	}
	if err := checkIdentity(f, c.id); err != nil {
		f.Close()
		return nil, c.s.fail(err, c.what)
	}
	return f, nil
}

func (c *fileContent) dataRanges(ctx context.Context, in block.Range, f func(block.Range) error) error {
	c.s.n.others.Add(1)
	file, err := c.open()
	if err != nil {
		return err
	}
	defer file.Close()
	for off := in.Off; ; {
		if err := ctx.Err(); err != nil {
			return err
		}
		r, err := nextData(file, off, in.End)
		if err == nil {
			// Before a hole is believed in.
			err = checkIdentity(file, c.id)
		}
		if err != nil {
			return c.s.fail(err, c.what)
		}
		if r.Empty() {
			return nil
		}
		if err := f(r); err != nil {
			return err
		}
		off = r.End
	}
}

// readUnchanged fills p from f and makes sure that the bytes are those of id.
func readUnchanged(f *os.File, id identity, p []byte, off int64) error {
	_, err := f.ReadAt(p, off)
	changed := checkIdentity(f, id)
	if changed != nil {
		return changed // the better reason for a short read
	}
	return err
}

func checkIdentity(f *os.File, id identity) error {
	now, err := identityOf(f)
	if err != nil {
		return err
	}
	if now != id {
		return errChanged(f.Name())
	}
	return nil
}

func errChanged(what string) *fault {
	return &fault{ErrChanged, fmt.Sprintf("%s was changed, replaced or removed in the store: what was not read before is lost", what)}
}

// nextData returns the first range of f at or after off, and before limit, that
// may hold data. It is empty when there is none.
func nextData(f *os.File, off, limit int64) (block.Range, error) {
	if off >= limit {
		return block.Range{}, nil
	}
	start, err := f.Seek(off, unix.SEEK_DATA)
	if errors.Is(err, syscall.ENXIO) {
		return block.Range{}, nil
	}
	if errors.Is(err, syscall.EINVAL) || errors.Is(err, syscall.EOPNOTSUPP) { // it cannot tell, as block devices
		return block.Range{Off: off, End: limit}, nil
	}
	if err != nil || start >= limit {
		return block.Range{}, err
	}
	end, err := f.Seek(start, unix.SEEK_HOLE)
	if err != nil {
		return block.Range{}, err
	}
	return block.Range{Off: start, End: min(end, limit)}, nil
}
