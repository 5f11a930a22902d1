package blobstore

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"golang.org/x/sync/errgroup"
)

// object is an upload of a backend, of an image or of a part.
type object interface {
	Upload

	// seal makes what was written durable and returns the identity that the
	// object has as long as nobody writes to it. Only Close may follow.
	seal(ctx context.Context) (string, error)

	// held tells whether nobody else has taken the object since.
	held(ctx context.Context) error

	// uncounted says that what is written is not what somebody wanted to be
	// stored.
	uncounted()
}

// errTaken says that parts are somebody's.
var errTaken = errors.New("in use")

// create is Create of both backends.
func create(ctx context.Context, s striper, name string, size int64, source string) (Upload, error) {
	if err := checkUpload(name, size); err != nil {
		return nil, err
	}
	u, err := s.createObject(ctx, name, size, source)
	if err != nil {
		return nil, err
	}
	// What a striped upload has left is in nobody's way: who may not list is
	// not kept from importing.
	if _, err := s.dropParts(ctx, name, 0, u.held); err != nil && !errors.Is(err, ErrAuth) {
		u.Close()
		return nil, err
	}
	return u, nil
}

// stripedUpload fills the parts of a striped image. The head is the upload of
// the manifest, under the image's name: it keeps others out.
type stripedUpload struct {
	geometry
	s       striper
	name    string
	head    object
	objects []object // the parts
	start   int64
	buffers sync.Pool // of *[]byte
}

var _ Upload = (*stripedUpload)(nil)

// createStriped is CreateStriped of both backends.
func createStriped(ctx context.Context, s striper, name string, size int64, source string, st Striping) (Upload, error) {
	if st.Parts <= 1 {
		return create(ctx, s, name, size, source)
	}
	if err := checkUpload(name, size); err != nil {
		return nil, err
	}
	if err := st.Validate(); err != nil {
		return nil, err
	}
	if size > maxImage {
		return nil, &fault{ErrFormat, fmt.Sprintf("image %s: %d bytes are more than %d", name, size, int64(maxImage))}
	}
	st = st.withDefaults(size)
	g, err := newGeometry(size, st.Size, st.Parts)
	if err != nil {
		return nil, err
	}
	u := &stripedUpload{geometry: g, s: s, name: name}
	if source != "" { // what is stored can be gone on with in the same layout only
		source = fmt.Sprintf("%s in %d stripes of %d of %d bytes", source, st.Parts, st.Size, size)
	}
	if u.head, err = s.createObject(ctx, name, manifestSize, source); err != nil {
		return nil, err
	}
	u.head.uncounted()
	if err := u.open(ctx, source); err != nil {
		u.Close()
		return nil, err
	}
	return u, nil
}

// open makes the parts, or finds them.
func (u *stripedUpload) open(ctx context.Context, source string) error {
	u.objects = make([]object, len(u.sizes))
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(16)
	for i := range u.objects {
		g.Go(func() (err error) {
			u.objects[i], err = u.s.createObject(gctx, partName(u.name, i), u.sizes[i], source)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	if _, err := u.s.dropParts(ctx, u.name, len(u.objects), u.head.held); err != nil {
		return err
	}
	u.start = u.size
	for i, p := range u.objects {
		if n := p.Stored(); n < u.sizes[i] {
			u.start = min(u.start, u.position(i, n))
		}
	}
	return nil
}

// each calls f for all parts, several at a time.
func (u *stripedUpload) each(ctx context.Context, f func(ctx context.Context, i int, p object) error) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(16)
	for i, p := range u.objects {
		g.Go(func() error { return f(ctx, i, p) })
	}
	return g.Wait()
}

// Stored implements Upload.
func (u *stripedUpload) Stored() int64 { return u.start }

// WriteAt implements Upload. What p has for one part goes there at once.
func (u *stripedUpload) WriteAt(ctx context.Context, p []byte, off int64) error {
	if err := checkWrite(u.name, p, off, u.size); err != nil {
		return err
	}
	slices := u.split(p, off)
	if len(slices) == 1 {
		return u.write(ctx, &slices[0])
	}
	g, ctx := errgroup.WithContext(ctx)
	for i := range slices {
		g.Go(func() error { return u.write(ctx, &slices[i]) })
	}
	return g.Wait()
}

func (u *stripedUpload) write(ctx context.Context, s *slice) error {
	if len(s.pieces) == 1 {
		return u.objects[s.part].WriteAt(ctx, s.pieces[0], s.off)
	}
	buf, _ := u.buffers.Get().(*[]byte)
	if buf == nil {
		buf = new([]byte)
	}
	defer u.buffers.Put(buf)
	*buf = (*buf)[:0]
	for _, p := range s.pieces {
		*buf = append(*buf, p...)
	}
	return u.objects[s.part].WriteAt(ctx, *buf, s.off)
}

// Checkpoint implements Upload.
func (u *stripedUpload) Checkpoint(ctx context.Context, off int64) error {
	return u.each(ctx, func(ctx context.Context, i int, p object) error {
		return p.Checkpoint(ctx, u.share(i, off))
	})
}

// Commit implements Upload: parts, then the manifest, which is of no use to
// anybody before the head's Commit.
func (u *stripedUpload) Commit(ctx context.Context) (Info, error) {
	m := &manifest{Name: u.name, Size: u.size, StripeSize: u.Stripe(), Parts: make([]part, len(u.objects))}
	err := u.each(ctx, func(ctx context.Context, i int, p object) error {
		id, err := p.seal(ctx)
		m.Parts[i] = part{Name: partName(u.name, i), Size: u.sizes[i], Identity: id}
		return err
	})
	if err != nil {
		return Info{}, err
	}
	info := Info{Name: u.name, BlobSize: u.size}
	c, err := stripes(u.s, u.name, m, false)
	if err != nil {
		return Info{}, err
	}
	err = probe(ctx, &info, c.readAt)
	if err != nil && !errors.Is(err, ErrFormat) { // Stat says what is wrong with it
		return Info{}, err
	}
	m.Format = info.Format
	layout, err := m.layout()
	if err != nil {
		return Info{}, err
	}
	doc, err := manifestDocument(layout)
	if err != nil {
		return Info{}, err
	}
	if err := u.head.WriteAt(ctx, doc, 0); err != nil {
		return Info{}, err
	}
	info, err = u.head.Commit(ctx)
	if err == nil {
		u.Close()
	}
	return info, err
}

// Abort implements Upload.
func (u *stripedUpload) Abort(ctx context.Context) error {
	err := u.each(ctx, func(ctx context.Context, _ int, p object) error { return p.Abort(ctx) })
	if err == nil {
		err = u.head.Abort(ctx)
	}
	return errors.Join(err, u.Close())
}

// Close implements Upload.
func (u *stripedUpload) Close() error {
	var errs []error
	for _, p := range u.objects {
		if p != nil {
			errs = append(errs, p.Close())
		}
	}
	return errors.Join(append(errs, u.head.Close())...)
}

// contentOfStriped returns the content of a striped image, pinned to info.
func contentOfStriped(s striper, info Info) content {
	m, err := info.striped()
	if err == nil {
		err = CheckName(info.Name)
	}
	if err != nil {
		return lost{err}
	}
	c, err := stripes(s, info.Name, m, true)
	if err != nil {
		return lost{err}
	}
	return c
}
