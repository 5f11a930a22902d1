package blobstore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync/atomic"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/blob"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/pageblob"

	"skylun/block"
)

// azureContent reads one content of a blob: every request demands its ETag,
// and every answer is checked to be what was asked for.
type azureContent struct {
	s     *azureStore
	what  string // for errors
	name  string
	bad   error // of the name
	size  int64
	etag  azcore.ETag
	match *blob.AccessConditions // If-Match: etag
	blob  *blob.Client
	count *atomic.Int64 // where requests are counted
}

// Image implements Store.
func (s *azureStore) Image(info Info) *Image {
	m := &Image{info: info, log: s.log}
	if info.Layout == "" {
		m.content = s.content(info)
	} else {
		m.content = contentOfStriped(s, info)
	}
	return m
}

func (s *azureStore) content(info Info) *azureContent {
	c := s.object("image "+info.Name, info.Name, info.BlobSize, info.Identity)
	c.bad = CheckName(info.Name)
	return c
}

// part implements striper.
func (s *azureStore) part(p part, what string, counted bool) partContent {
	c := s.object(what, p.Name, p.Size, p.Identity)
	if !counted {
		c.count = &s.n.others
	}
	return c
}

func (s *azureStore) object(what, name string, size int64, id string) *azureContent {
	c := &azureContent{s: s, what: what, name: name, size: size,
		etag: etagFromIdentity(id), blob: s.blob(name), count: &s.n.gets}
	c.match = &blob.AccessConditions{ModifiedAccessConditions: &blob.ModifiedAccessConditions{IfMatch: &c.etag}}
	return c
}

// ours tells whether the identity can be an ETag of Azure's: an Info of another
// store must not make a condition that is never checked.
func (c *azureContent) ours() error {
	if !strings.HasPrefix(string(c.etag), `"0x`) {
		return errChanged(c.what)
	}
	return c.bad
}

// readAt implements content.
func (c *azureContent) readAt(ctx context.Context, p []byte, off int64) error {
	return c.readInto(ctx, [][]byte{p}, off)
}

// readInto implements partContent. When an answer breaks off, what has come
// stays and the rest is asked for.
func (c *azureContent) readInto(ctx context.Context, pieces [][]byte, off int64) error {
	if err := c.ours(); err != nil {
		return err
	}
	return c.s.do(ctx, c.s.readTotal, c.count, c.what, func(ctx context.Context) error {
		n, err := c.get(ctx, pieces, off)
		pieces, off = skip(pieces, n), off+n
		if c.count == &c.s.n.gets {
			c.s.n.getBytes.Add(n)
		}
		return err
	})
}

// get is one request: it fills the pieces from their start and returns how far
// it got.
func (c *azureContent) get(ctx context.Context, pieces [][]byte, off int64) (done int64, err error) {
	want := (&slice{pieces: pieces}).len()
	r, err := c.blob.DownloadStream(ctx, &blob.DownloadStreamOptions{
		Range:            blob.HTTPRange{Offset: off, Count: want},
		AccessConditions: c.match,
	})
	if err != nil {
		return 0, err
	}
	defer r.Body.Close()
	if err := c.check(r.DownloadResponse, want, off); err != nil {
		return 0, err
	}
	for _, p := range pieces {
		n, err := io.ReadFull(r.Body, p)
		done += int64(n)
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			err = errAnswer(fmt.Sprintf("%d bytes instead of %d", done, want))
		}
		if err != nil {
			return done, err
		}
	}
	return done, nil
}

// check makes sure that an answer holds n bytes at off of the pinned content.
func (c *azureContent) check(r blob.DownloadResponse, n, off int64) error {
	switch {
	case r.ETag == nil || *r.ETag != c.etag:
		return errChanged(c.what)
	case r.ContentLength == nil || *r.ContentLength != n:
		return errAnswer(fmt.Sprintf("another length than the %d bytes asked for", n))
	case r.ContentRange == nil && (off != 0 || n != c.size):
		return errAnswer("the whole blob instead of a range")
	case r.ContentRange != nil && *r.ContentRange != fmt.Sprintf("bytes %d-%d/%d", off, off+n-1, c.size):
		return errAnswer("the range " + *r.ContentRange + " instead of the one asked for")
	}
	return nil
}

// dataRanges implements content: a page blob knows its pages, any other blob
// is data from end to end.
func (c *azureContent) dataRanges(ctx context.Context, in block.Range, f func(block.Range) error) error {
	if err := c.ours(); err != nil {
		return err
	}
	pages := c.s.client.NewPageBlobClient(c.s.loc.prefix + c.name)
	opts := &pageblob.GetPageRangesOptions{AccessConditions: c.match}
	if in != (block.Range{Off: 0, End: c.size}) {
		opts.Range = blob.HTTPRange{Offset: in.Off, Count: in.Len()}
	}
	for {
		var list pageblob.GetPageRangesResponse
		err := c.s.other(ctx, c.what, func(ctx context.Context) (err error) {
			list, err = pages.NewGetPageRangesPager(opts).NextPage(ctx)
			return err
		})
		if errors.Is(err, errBlobType) {
			return f(in)
		}
		if err != nil {
			return err
		}
		for _, r := range list.PageRange {
			if r.Start == nil || r.End == nil {
				continue
			}
			if err := f(block.Range{Off: *r.Start, End: *r.End + 1}); err != nil { // theirs are inclusive
				return err
			}
		}
		if list.NextMarker == nil || *list.NextMarker == "" {
			return nil
		}
		opts.Marker = list.NextMarker
	}
}
