package node

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"

	"skylun/overlay"
)

// redoStore is where the redo log of a layer is: a plain file in the data
// directory, beside the database. That is where flushes go that are durable
// before the members have what was flushed, so they survive that a member fails.
type redoStore struct{ path string }

// redoDir is the directory of all redo logs.
func (n *Node) redoDir() string { return filepath.Join(n.cfg.DataDir, "redo") }

func (n *Node) redo(id uint64) redoStore {
	return redoStore{filepath.Join(n.redoDir(), strconv.FormatUint(id, 10))}
}

func (s redoStore) Open() (overlay.RedoFile, error) {
	f, err := os.OpenFile(s.path, os.O_RDWR, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	st, err := f.Stat()
	if err != nil {
		f.Close()
		return nil, err
	}
	return redoFile{f, st.Size()}, nil
}

// Create writes all of the file, so that its place on the disk is settled.
func (s redoStore) Create(size int64) (_ overlay.RedoFile, err error) {
	if err := os.MkdirAll(filepath.Dir(s.path), 0o700); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(s.path, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, err
	}
	zeros := make([]byte, 256<<10)
	for off := int64(0); off < size && err == nil; off += int64(len(zeros)) {
		_, err = f.WriteAt(zeros[:min(int64(len(zeros)), size-off)], off)
	}
	if err == nil {
		err = f.Sync()
	}
	for _, dir := range []string{filepath.Dir(s.path), filepath.Dir(filepath.Dir(s.path))} {
		if err == nil {
			err = syncDir(dir)
		}
	}
	if err != nil {
		return nil, errors.Join(err, f.Close(), os.Remove(s.path))
	}
	return redoFile{f, size}, nil
}

func (s redoStore) Remove() error {
	if err := os.Remove(s.path); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// redoFile syncs without what nobody needs to find the bytes again.
type redoFile struct {
	*os.File
	size int64
}

func (f redoFile) Size() int64 { return f.size }

func (f redoFile) ReadAt(p []byte, off int64) error {
	_, err := f.File.ReadAt(p, off)
	return err
}

func (f redoFile) WriteAt(p []byte, off int64) error {
	_, err := f.File.WriteAt(p, off)
	return err
}

func (f redoFile) Sync() error {
	if err := unix.Fdatasync(int(f.Fd())); err != nil {
		return &os.PathError{Op: "fdatasync", Path: f.Name(), Err: err}
	}
	return nil
}

func syncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// tidyRedo removes the redo logs of layers that are no more: what a crash left, or
// a database that is gone.
func (n *Node) tidyRedo() error {
	files, err := os.ReadDir(n.redoDir())
	if err != nil || len(files) == 0 {
		if errors.Is(err, fs.ErrNotExist) {
			err = nil
		}
		return err
	}
	tree, err := n.db.Tree()
	if err != nil {
		return err
	}
	for _, f := range files {
		id, err := strconv.ParseUint(f.Name(), 10, 64)
		if _, ok := tree.Layers[id]; ok || err != nil {
			continue
		}
		if err := n.redo(id).Remove(); err != nil {
			return err
		}
	}
	return nil
}
