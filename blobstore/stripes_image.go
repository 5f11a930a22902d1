package blobstore

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sync/errgroup"

	"skylun/block"
)

// partContent is content that can be read into several buffers at once.
type partContent interface {
	content

	// readInto fills the pieces, one after the other, with what is at off.
	readInto(ctx context.Context, pieces [][]byte, off int64) error
}

// stripedContent reads the parts of a striped image, in parallel.
type stripedContent struct {
	geometry
	contents []partContent
}

// readAt implements content: one request to each part that has some of it.
func (c *stripedContent) readAt(ctx context.Context, p []byte, off int64) error {
	slices := c.split(p, off)
	if len(slices) == 1 {
		return c.contents[slices[0].part].readInto(ctx, slices[0].pieces, slices[0].off)
	}
	g, ctx := errgroup.WithContext(ctx)
	for _, s := range slices {
		g.Go(func() error { return c.contents[s.part].readInto(ctx, s.pieces, s.off) })
	}
	return g.Wait()
}

// dataRanges implements content. Each part tells its ranges, of its own
// offsets; they are merged as they come, so that the memory it takes does not
// grow with the image.
func (c *stripedContent) dataRanges(ctx context.Context, in block.Range, f func(block.Range) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	g, gctx := errgroup.WithContext(ctx)
	parts := make([]*partRanges, len(c.contents))
	for i, content := range c.contents {
		p := &partRanges{c: make(chan block.Range, 64)}
		parts[i] = p
		within := c.within(i, in)
		g.Go(func() error {
			defer close(p.c)
			if within.Empty() {
				return nil
			}
			return content.dataRanges(gctx, within, func(r block.Range) error {
				if r = r.Intersect(within); r.Empty() {
					return nil
				}
				select {
				case p.c <- r:
					return nil
				case <-gctx.Done():
					return gctx.Err()
				}
			})
		})
	}
	stop := c.merge(parts, f)
	cancel()
	if err := g.Wait(); stop == nil {
		return err
	}
	return stop
}

// partRanges is what a part tells, and what of it was not told on.
type partRanges struct {
	c    chan block.Range
	next block.Range
}

// more makes sure that next is not empty. It returns false when there is no
// more data.
func (p *partRanges) more() bool {
	for p.next.Empty() {
		r, ok := <-p.c
		if !ok {
			return false
		}
		p.next = r
	}
	return true
}

// merge calls f with the ranges of the image that the parts' ranges are.
func (c *stripedContent) merge(parts []*partRanges, f func(block.Range) error) error {
	for {
		// The first byte of data in the image is in one of the parts' first.
		first, at, n := -1, int64(0), int64(0)
		rows := block.Range{Off: 0, End: c.size} // in parts: where all have data
		for i, p := range parts {
			if !p.more() {
				rows.End = 0
				continue
			}
			rows = rows.Intersect(p.next)
			if pos := c.position(i, p.next.Off); first < 0 || pos < at {
				first, at = i, pos
			}
		}
		if first < 0 {
			return nil
		}
		// Where every part has whole stripes of data, all rows at once.
		if rows = rows.Inward(c.Stripe()); !rows.Empty() && at == c.position(0, rows.Off) {
			n = rows.Len() * int64(len(parts))
			for _, p := range parts {
				p.next.Off = rows.End
			}
		} else {
			p := parts[first]
			n = min(p.next.End, block.Floor(p.next.Off, c.Stripe())+c.Stripe()) - p.next.Off
			p.next.Off += n
		}
		if err := f(block.Range{Off: at, End: at + n}); err != nil {
			return err
		}
	}
}

// striper is what a backend does for striped images.
type striper interface {
	Stat(ctx context.Context, name string) (Info, error)

	// createObject is Create for an image or a part.
	createObject(ctx context.Context, name string, size int64, source string) (object, error)

	// statObject returns the identity and the size of an object.
	statObject(ctx context.Context, name string) (id string, size int64, err error)

	// dropParts removes the parts of an image from number from on, and tells
	// whether there were any. They are found first, then sure has to say that
	// they are nobody's, or nothing is removed; those that somebody takes after
	// that stay.
	dropParts(ctx context.Context, image string, from int, sure func(context.Context) error) (bool, error)

	// part returns a reader of a part. Of is the image; counted says that
	// what is read is what somebody wanted.
	part(p part, of string, counted bool) partContent
}

// stripes returns the content of a striped image.
func stripes(s striper, name string, m *manifest, counted bool) (*stripedContent, error) {
	g, err := m.geometry()
	if err != nil {
		return nil, err
	}
	c := &stripedContent{geometry: g, contents: make([]partContent, len(m.Parts))}
	for i, p := range m.Parts {
		c.contents[i] = s.part(p, fmt.Sprintf("part %d of %d of image %s", i, len(m.Parts), name), counted)
	}
	return c, nil
}

// completeStriped completes info, which is of the object of a manifest with
// the content that readAt reads, and looks at all parts.
func completeStriped(ctx context.Context, s striper, info *Info, readAt func(ctx context.Context, p []byte, off int64) error) error {
	bad := func(err error) error { return &fault{ErrFormat, "image " + info.Name + " " + err.Error()} }
	if info.BlobSize > manifestSize {
		return bad(errors.New("has a manifest that is too large"))
	}
	doc := make([]byte, info.BlobSize)
	if err := readAt(ctx, doc, 0); err != nil {
		return err
	}
	layout, err := parseDocument(doc)
	if err != nil {
		return bad(err)
	}
	m, err := parseLayout(layout)
	if err != nil {
		return bad(err)
	}
	if err := checkParts(ctx, s, info.Name, m); err != nil {
		return err
	}
	info.BlobSize, info.Layout, info.Identity = m.Size, layout, stripedIdentity(info.Identity, layout)
	c, err := stripes(s, info.Name, m, false)
	if err == nil {
		err = probe(ctx, info, c.readAt)
	}
	if err == errManifest {
		err = bad(errors.New("is a manifest in the parts of another"))
	}
	if err == nil && m.Format != "" && m.Format != info.Format {
		return bad(fmt.Errorf("has a manifest that says %.16q, and is %s", m.Format, info.Format))
	}
	return err
}

// checkParts makes sure that the parts are what the manifest says.
func checkParts(ctx context.Context, s striper, name string, m *manifest) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(16)
	for i, p := range m.Parts {
		g.Go(func() error {
			id, size, err := s.statObject(ctx, p.Name)
			what := ""
			switch {
			case errors.Is(err, ErrNotFound):
				what = "is missing"
			case err != nil:
				return err
			case id != p.Identity || size != p.Size:
				what = "was changed"
			default:
				return nil
			}
			return &fault{ErrChanged, fmt.Sprintf("image %s: part %d of %d (%s) %s: remove the image and import it again", name, i, len(m.Parts), p.Name, what)}
		})
	}
	return g.Wait()
}

// lost is the content of an image that cannot be read any more.
type lost struct{ err error }

func (l lost) readAt(context.Context, []byte, int64) error { return l.err }
func (l lost) dataRanges(context.Context, block.Range, func(block.Range) error) error {
	return l.err
}
