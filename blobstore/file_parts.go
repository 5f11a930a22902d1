package blobstore

import (
	"context"
	"errors"
	"os"
	"strings"
)

var _ striper = (*fileStore)(nil)

// part implements striper.
func (s *fileStore) part(p part, what string, counted bool) partContent {
	c := s.object(what, p.Name, p.Identity)
	c.counted = counted
	return c
}

// statObject implements striper.
func (s *fileStore) statObject(ctx context.Context, name string) (string, int64, error) {
	s.n.others.Add(1)
	f, err := s.open(name)
	if err != nil {
		return "", 0, s.fail(err, "part "+name)
	}
	defer f.Close()
	id, err := settledIdentity(ctx, f)
	return id.String(), id.size, s.fail(err, "part "+name)
}

// dropParts implements striper. A part is removed under the lock that an upload
// would hold, and only while there is no image that it could belong to: so it is
// nobody's then, whatever was sure before.
func (s *fileStore) dropParts(ctx context.Context, image string, from int, _ func(context.Context) error) (bool, error) {
	folder := s.path(partsFolder(image))
	found, err := s.dropPartsIn(ctx, image, folder, from)
	return found, s.fail(err, "image "+image)
}

func (s *fileStore) dropPartsIn(ctx context.Context, image, folder string, from int) (found bool, err error) {
	entries, err := os.ReadDir(folder)
	if isAbsent(err) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	for _, e := range entries {
		if err := ctx.Err(); err != nil {
			return found, err
		}
		name := partsFolder(image) + strings.TrimSuffix(e.Name(), ".json")
		if i := partIndex(name); i < from {
			continue
		}
		gone, err := s.dropPart(image, name)
		if err != nil {
			return found, err
		}
		found = found || gone
	}
	return found, nil
}

func (s *fileStore) dropPart(image, name string) (bool, error) {
	f, err := s.lockPart(name, 0)
	switch {
	case isAbsent(err):
		return false, (&fileUpload{s: s, name: name}).dropState()
	case errors.Is(err, ErrBusy): // an upload's
		return false, nil
	case err != nil:
		return false, err
	}
	u := &fileUpload{s: s, name: name, f: f}
	if f, err := s.open(image); err == nil {
		f.Close()
		return false, u.Close()
	} else if !isAbsent(err) {
		return false, errors.Join(err, u.Close())
	}
	return true, u.drop()
}
