package blobstore

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"

	"skylun/block"
)

// Image reads one content of an image, also after the image was changed or
// deleted: then it fails rather than return other bytes.
//
// An error of ReadAt or DataRanges that is not the end of ctx and not
// block.ErrOutOfRange is block.ErrMedium and one of ErrChanged, ErrNotFound,
// ErrAuth, ErrUnavailable. It comes within Config.Timeout. The next call tries
// anew.
type Image struct {
	info    Info
	content content
	log     *slog.Logger
	told    atomic.Bool // that the content is gone
}

var (
	_ block.Reader     = (*Image)(nil)
	_ block.DataRanger = (*Image)(nil)
)

// content reads the bytes of a blob as they are in the store, pinned to one
// identity.
type content interface {
	// readAt fills p; the range lies within the blob.
	readAt(ctx context.Context, p []byte, off int64) error

	// dataRanges calls f for the ranges that may hold data, ascending,
	// without overlaps, possibly beyond in on both sides. in is not empty
	// and lies within the blob.
	dataRanges(ctx context.Context, in block.Range, f func(block.Range) error) error
}

// Info returns what the image is pinned to.
func (m *Image) Info() Info { return m.info }

// Size returns the size of the disk in bytes, a multiple of 512.
func (m *Image) Size() int64 { return m.info.Size }

// stored returns how many bytes of the disk are in the blob. The rest, less
// than a sector, are zeros.
func (m *Image) stored() int64 { return min(m.info.Size, m.info.BlobSize) }

// ReadAt implements block.Reader. It is one request to the store when all goes
// well, or one to each part of a striped image that has some of the range.
func (m *Image) ReadAt(ctx context.Context, p []byte, off int64) error {
	if err := block.CheckRange(off, int64(len(p)), m.info.Size); err != nil {
		return fmt.Errorf("image %s: %w", m.info.Name, err)
	}
	n := max(0, min(int64(len(p)), m.stored()-off))
	if n > 0 {
		if err := m.content.readAt(ctx, p[:n], off); err != nil {
			return m.wrap(ctx, fmt.Errorf("read image %s, %d+%d: %w", m.info.Name, off, n, err))
		}
	}
	clear(p[n:])
	return nil
}

// DataRanges implements block.DataRanger. When it fails, the ranges told so far
// are to be forgotten.
func (m *Image) DataRanges(ctx context.Context, in block.Range, f func(block.Range) error) error {
	if err := block.CheckRange(in.Off, in.Len(), m.info.Size); err != nil {
		return fmt.Errorf("image %s: %w", m.info.Name, err)
	}
	if in.End = min(in.End, m.stored()); in.Empty() {
		return ctx.Err()
	}
	var (
		run  block.Range // told when it is known where it ends
		stop error       // what f returned
	)
	tell := func() error {
		if !run.Empty() {
			stop = f(run)
		}
		return stop
	}
	err := m.content.dataRanges(ctx, in, func(r block.Range) error {
		if r = r.Intersect(in); r.Empty() {
			return nil
		}
		if r.Off == run.End && !run.Empty() {
			run.End = r.End
			return nil
		}
		err := tell()
		run = r
		return err
	})
	switch {
	case stop != nil:
		return stop
	case err != nil:
		return m.wrap(ctx, fmt.Errorf("find the data of image %s: %w", m.info.Name, err))
	}
	return tell()
}

// wrap makes err an error of the medium, unless it is the caller's own doing.
func (m *Image) wrap(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return err
	}
	if (errors.Is(err, ErrChanged) || errors.Is(err, ErrNotFound)) && !m.told.Swap(true) {
		m.log.Error("image is not what it was: parts that are not cached cannot be read",
			"image", m.info.Name, "identity", m.info.Identity, "error", err)
	}
	return mediumError{err}
}
