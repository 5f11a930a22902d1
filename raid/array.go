package raid

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"skylun/block"
)

// ErrNotExist is the error of opening a file that the array does not hold.
var ErrNotExist = errors.New("no such file in the local array")

// Array is a set of members.
type Array struct {
	dir string
}

// Open opens an array over the directories named, creating them when they do
// not exist. It takes exactly one.
func Open(members []string) (*Array, error) {
	if len(members) != 1 {
		return nil, fmt.Errorf("%d members: an array has exactly one", len(members))
	}
	dir := members[0]
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, memberError(err)
	}
	if err := unix.Access(dir, unix.W_OK|unix.X_OK); err != nil {
		return nil, fmt.Errorf("member %s: cannot write: %w", dir, err)
	}
	return &Array{dir: dir}, nil
}

// Create makes a file of size bytes that reads as zeros, and makes its
// existence durable. What had the name before is gone.
func (a *Array) Create(name string, size int64) (*File, error) {
	path := a.path(name)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, memberError(err)
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, memberError(err)
	}
	err = errors.Join(f.Truncate(size), f.Sync(), syncDir(filepath.Dir(path)), syncDir(a.dir))
	if err != nil {
		f.Close()
		os.Remove(path)
		return nil, memberError(err)
	}
	return newFile(f, size), nil
}

// Open opens a file that Create made, as one of size bytes. It may have been
// longer; what is behind size is not to be seen. It fails with ErrNotExist when
// the array does not hold it.
func (a *Array) Open(name string, size int64) (*File, error) {
	path := a.path(name)
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("%s: %w", path, ErrNotExist)
	}
	if err != nil {
		return nil, memberError(err)
	}
	st, err := f.Stat()
	if err == nil && st.Size() < size {
		err = fmt.Errorf("%s has %d bytes instead of %d", path, st.Size(), size)
	}
	if err != nil {
		f.Close()
		return nil, memberError(err)
	}
	return newFile(f, size), nil
}

// Remove removes a file; one that does not exist is removed already.
func (a *Array) Remove(name string) error {
	if err := os.Remove(a.path(name)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return memberError(err)
	}
	return nil
}

// Close releases the array. Its files are closed by those who opened them.
func (a *Array) Close() error { return nil }

func (a *Array) path(name string) string { return filepath.Join(a.dir, filepath.FromSlash(name)) }

func syncDir(path string) error {
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	defer dir.Close()
	return dir.Sync()
}

// memberError says in the terms of package block what an error of the
// operating system means. The error names the path.
func memberError(err error) error {
	if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) || errors.Is(err, unix.EFBIG) {
		return fmt.Errorf("%w: %w", block.ErrNoSpace, err)
	}
	return fmt.Errorf("%w: %w", block.ErrMedium, err)
}
