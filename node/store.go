package node

import (
	"context"
	"errors"
	"log/slog"
	"strings"

	"skylun/blobstore"
)

// Store is the blob store of a configuration, for work on images that needs
// no node.
type Store struct{ s blobstore.Store }

// OpenStore opens the blob store of cfg. It reads credentials but sends
// nothing.
func OpenStore(ctx context.Context, cfg Config, log *slog.Logger) (*Store, error) {
	s, err := openStore(ctx, cfg, log)
	if err != nil {
		return nil, err
	}
	return &Store{s}, nil
}

// openStore opens the blob store; what is wrong with its configuration comes
// as Problems.
func openStore(ctx context.Context, cfg Config, log *slog.Logger) (blobstore.Store, error) {
	s, err := blobstore.Open(ctx, cfg.Blobstore, log)
	if errors.Is(err, blobstore.ErrConfig) {
		return nil, storeProblems(err)
	}
	return s, err
}

// storeProblems takes an error of package blobstore about its configuration
// apart.
func storeProblems(err error) Problems {
	var ps Problems
	for _, e := range unjoin(err) {
		if key, text, ok := strings.Cut(e.Error(), ": "); ok && strings.HasPrefix(key, "blobstore.") {
			ps.add(key, "%s", text)
		} else {
			ps.add("blobstore", "%v", e)
		}
	}
	return ps
}

// URL names the store.
func (s *Store) URL() string { return s.s.URL() }

// Close releases the store's connections.
func (s *Store) Close() error { return s.s.Close() }

// Images returns what is in the store.
func (s *Store) Images(ctx context.Context) ([]ImageStatus, error) { return listImages(ctx, s.s) }

// Image returns one image of the store.
func (s *Store) Image(ctx context.Context, name string) (ImageStatus, error) {
	return statImage(ctx, s.s, name)
}

// DeleteImage removes an image. The caller has made sure that nobody uses it.
func (s *Store) DeleteImage(ctx context.Context, name string) error {
	return storeError(s.s.Delete(ctx, name))
}

// ImportOptions says how to import.
type ImportOptions struct {
	Format     string                  // "auto", or what the file must be
	Stripes    int                     // objects to lay the image over; 0 or 1: one
	StripeSize Size                    // 0: a good number
	Progress   func(done, total int64) // is told how many of the total bytes are done
}

// Validate tells what is wrong with o.
func (o ImportOptions) Validate() error { return storeError(o.striping().Validate()) }

func (o ImportOptions) striping() blobstore.Striping {
	return blobstore.Striping{Parts: o.Stripes, Size: int64(o.StripeSize)}
}

// Import copies a file into the store. An unfinished import of the same file
// is continued.
func (s *Store) Import(ctx context.Context, src, name string, o ImportOptions) (ImageStatus, error) {
	opts := blobstore.ImportOptions{Progress: o.Progress, Striping: o.striping()}
	if o.Format != "auto" {
		opts.Format = blobstore.Format(o.Format)
	}
	info, err := blobstore.Import(ctx, s.s, src, name, opts)
	if err != nil {
		return ImageStatus{}, storeError(err)
	}
	return imageStatus(info), nil
}

// ImageFormats are the formats an image can be imported as.
func ImageFormats() []string {
	return []string{string(blobstore.Raw), string(blobstore.VHD), string(blobstore.ISO)}
}

// ValidImageName tells what is wrong with an image's name.
func ValidImageName(name string) error { return blobstore.CheckName(name) }

func listImages(ctx context.Context, s blobstore.Store) ([]ImageStatus, error) {
	infos, err := s.List(ctx)
	if err != nil {
		return nil, storeError(err)
	}
	list := make([]ImageStatus, len(infos))
	for i, info := range infos {
		list[i] = imageStatus(info)
	}
	return list, nil
}

func statImage(ctx context.Context, s blobstore.Store, name string) (ImageStatus, error) {
	info, err := s.Stat(ctx, name)
	if err != nil {
		return ImageStatus{}, storeError(err)
	}
	return imageStatus(info), nil
}

func imageStatus(info blobstore.Info) ImageStatus {
	st := info.Striping()
	return ImageStatus{Name: info.Name, Size: info.Size, Format: string(info.Format), Label: info.Label, Identity: info.Identity, Modified: info.Modified,
		Stripes: st.Parts, StripeSize: st.Size}
}

// storeError gives errors of the store the kinds of this package.
func storeError(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, blobstore.ErrNotFound):
		return Failure(ErrNotFound, err.Error())
	case errors.Is(err, blobstore.ErrExists):
		return Failure(ErrExists, err.Error())
	case errors.Is(err, blobstore.ErrBusy):
		return Failure(ErrInUse, err.Error())
	case errors.Is(err, blobstore.ErrName), errors.Is(err, blobstore.ErrFormat):
		return Failure(ErrInvalid, err.Error())
	}
	return err
}
