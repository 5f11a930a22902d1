package blobstore

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
)

// fileStore keeps images as files below a directory, in folders where names
// have slashes. What is not finished is in the folder .uploads; see
// file_upload.go. Parts of striped images are in the folder .stripes.
type fileStore struct {
	dir string
	log *slog.Logger
	n   counters
}

var _ Store = (*fileStore)(nil)

const uploadsDir = ".uploads"

func openFile(cfg Config, log *slog.Logger) (Store, error) {
	dir, err := parseFileURL(strings.TrimPrefix(cfg.URL, "file:"))
	if err != nil {
		return nil, err
	}
	if dir, err = filepath.Abs(dir); err != nil {
		return nil, err
	}
	switch fi, err := os.Stat(dir); {
	case err == nil && !fi.IsDir():
		return nil, &fault{ErrConfig, fmt.Sprintf("blobstore.url: %s is not a directory", dir)}
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return nil, &fault{ErrConfig, "blobstore.url: " + err.Error()}
	}
	return &fileStore{dir: dir, log: log}, nil
}

func (s *fileStore) URL() string  { return "file:" + s.dir }
func (s *fileStore) Stats() Stats { return s.n.stats() }
func (s *fileStore) Close() error { return nil }

// path returns where the image of that name is.
func (s *fileStore) path(name string) string {
	return filepath.Join(s.dir, filepath.FromSlash(name))
}

// Stat implements Store.
func (s *fileStore) Stat(ctx context.Context, name string) (Info, error) {
	if err := CheckName(name); err != nil {
		return Info{}, err
	}
	if err := ctx.Err(); err != nil {
		return Info{}, err
	}
	info, err := s.stat(ctx, name)
	return info, s.fail(err, "image "+name)
}

func (s *fileStore) stat(ctx context.Context, name string) (Info, error) {
	s.n.others.Add(1)
	f, err := s.open(name)
	if err != nil {
		return Info{}, err
	}
	defer f.Close()
	id, err := settledIdentity(ctx, f)
	if err != nil {
		return Info{}, err
	}
	info := Info{Name: name, BlobSize: id.size, Identity: id.String(), Modified: time.Unix(0, id.mtime).UTC()}
	err = probe(ctx, &info, func(_ context.Context, p []byte, off int64) error {
		return readUnchanged(f, id, p, off)
	})
	if err == errManifest {
		err = completeStriped(ctx, s, &info, func(_ context.Context, p []byte, off int64) error {
			return readUnchanged(f, id, p, off)
		})
	}
	return info, err
}

// open opens the file of an image for reading.
func (s *fileStore) open(name string) (*os.File, error) {
	f, err := os.Open(s.path(name))
	if err != nil {
		return nil, err
	}
	fi, err := f.Stat()
	if err == nil && !fi.Mode().IsRegular() {
		err = fs.ErrNotExist // a folder is no image, and nothing else belongs here
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// List implements Store.
func (s *fileStore) List(ctx context.Context) ([]Info, error) {
	s.n.others.Add(1)
	names, err := s.names(ctx)
	if errors.Is(err, fs.ErrNotExist) {
		s.log.Warn("directory of images does not exist, the first import creates it", "url", s.URL())
		return nil, nil
	}
	if err != nil {
		return nil, s.fail(err, "list")
	}
	return collect(ctx, s.log, names, func(ctx context.Context, name string) (Info, error) {
		info, err := s.stat(ctx, name)
		return info, s.fail(err, "image "+name)
	})
}

// names returns the names of all files that can be images.
func (s *fileStore) names(ctx context.Context) ([]string, error) {
	var names []string
	err := filepath.WalkDir(s.dir, func(path string, d fs.DirEntry, err error) error {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			if path != s.dir && (errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission)) {
				return nil // gone since, or not for us
			}
			return err
		}
		if path == s.dir {
			return nil
		}
		if strings.HasPrefix(d.Name(), ".") {
			if d.IsDir() {
				return fs.SkipDir
			}
			return nil
		}
		name, err := filepath.Rel(s.dir, path)
		if err != nil {
			return err
		}
		name = filepath.ToSlash(name)
		// A symbolic link may be an image: stat decides.
		if d.Type()&fs.ModeSymlink == 0 && !d.Type().IsRegular() || CheckName(name) != nil {
			return nil
		}
		names = append(names, name)
		return nil
	})
	return names, err
}

// collect looks at every name with stat, several at a time, and returns what
// is an image, in ascending order of names. It skips what stat refuses.
func collect(ctx context.Context, log *slog.Logger, names []string, stat func(context.Context, string) (Info, error)) ([]Info, error) {
	slices.Sort(names)
	found := make([]*Info, len(names))
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(16)
	for i, name := range names {
		g.Go(func() error {
			info, err := stat(ctx, name)
			switch {
			case err == nil:
				found[i] = &info
			case errors.Is(err, ErrFormat), errors.Is(err, ErrChanged):
				log.Info("not listed", "error", err)
			case errors.Is(err, ErrNotFound): // deleted since, or an upload
			default:
				return err
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	infos := make([]Info, 0, len(names))
	for _, info := range found {
		if info != nil {
			infos = append(infos, *info)
		}
	}
	return infos, nil
}

// Image implements Store.
func (s *fileStore) Image(info Info) *Image {
	m := &Image{info: info, log: s.log}
	if info.Layout == "" {
		c := s.object("image "+info.Name, info.Name, info.Identity)
		c.ours = c.ours && CheckName(info.Name) == nil
		m.content = c
	} else {
		m.content = contentOfStriped(s, info)
	}
	return m
}

func (s *fileStore) object(what, name, identity string) *fileContent {
	id, err := parseIdentity(identity)
	return &fileContent{s: s, what: what, name: name, id: id, ours: err == nil, counted: true}
}

// Delete implements Store.
func (s *fileStore) Delete(ctx context.Context, name string) error {
	if err := CheckName(name); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	s.n.others.Add(1)
	return dropDocuments(s.deleteImage(ctx, name), func(k Kind) error { return s.dropDocument(name, k) })
}

// deleteImage removes an image and what an unfinished upload left. Parts come
// last: without them the image would be one that cannot be read.
func (s *fileStore) deleteImage(ctx context.Context, name string) error {
	leftover, err := s.dropUpload(name)
	if err != nil {
		return s.fail(err, "image "+name)
	}
	err = s.remove(name)
	if err != nil && !isAbsent(err) {
		return s.fail(err, "image "+name)
	}
	parts, e := s.dropParts(ctx, name, 0, nil)
	if e != nil || leftover || parts {
		return e
	}
	return s.fail(err, "image "+name)
}

// remove removes the file of an image, and folders that are empty then.
func (s *fileStore) remove(name string) error {
	f, err := s.open(name) // refuses folders
	if err == nil {
		f.Close()
		err = os.Remove(s.path(name))
	}
	if err == nil {
		err = syncDir(filepath.Dir(s.path(name)))
	}
	if err != nil {
		return err
	}
	for dir := filepath.Dir(s.path(name)); dir != s.dir; dir = filepath.Dir(dir) {
		if os.Remove(dir) != nil { // not empty
			break
		}
	}
	return nil
}
