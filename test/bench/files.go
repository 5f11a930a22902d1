package main

import (
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// writeRandom makes a file of size random bytes, the same at every call.
func writeRandom(name string, size int64) error {
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := io.CopyN(f, rand.NewChaCha8([32]byte{1}), size); err != nil {
		return err
	}
	return f.Sync()
}

// writeScattered makes a file of size bytes by 4 KiB writes in scattered
// order, as an initiator would.
func writeScattered(name string, size int64) error {
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := f.Truncate(size); err != nil {
		return err
	}
	const block = 4096
	buf, src := make([]byte, block), rand.NewChaCha8([32]byte{2})
	n, at := size/block, int64(0)
	step := scatter(n)
	for range n {
		src.Read(buf)
		at = (at + step) % n
		if _, err := f.WriteAt(buf, at*block); err != nil {
			return err
		}
	}
	return f.Sync()
}

// warm writes size bytes to a file in dir and removes it. Memory that a virtual
// machine touches for the first time is slow; whoever is measured first would
// pay for it.
func warm(dir string, size int64) error {
	f, err := os.CreateTemp(dir, "warm")
	if err != nil {
		return err
	}
	defer f.Close()
	defer os.Remove(f.Name())
	buf := make([]byte, 1<<20)
	for ; size > 0; size -= int64(len(buf)) {
		if _, err := f.Write(buf); err != nil {
			return err
		}
	}
	return nil
}

// copyData copies the data of a file to another one that is all zeros.
func copyData(to *os.File, name string) error {
	from, err := os.Open(name)
	if err != nil {
		return err
	}
	defer from.Close()
	for end := int64(0); ; {
		off, err := unix.Seek(int(from.Fd()), end, unix.SEEK_DATA)
		if err != nil {
			return nil // ENXIO: no more data
		}
		if end, err = unix.Seek(int(from.Fd()), off, unix.SEEK_HOLE); err != nil {
			return err
		}
		if _, err := io.Copy(io.NewOffsetWriter(to, off), io.NewSectionReader(from, off, end-off)); err != nil {
			return err
		}
	}
}

// settle drops the files below path from the page cache and reads their data
// back in one sweep, so that all sides' pages got there the same way.
func settle(path string) error {
	return filepath.WalkDir(path, func(name string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		f, err := os.Open(name)
		if err != nil {
			return err
		}
		defer f.Close()
		if err := unix.Fsync(int(f.Fd())); err != nil {
			return err
		}
		if err := unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED); err != nil {
			return err
		}
		return readData(f)
	})
}

// readData reads f from its first to its last byte, but for its holes.
func readData(f *os.File) error {
	buf := make([]byte, 1<<20)
	for end := int64(0); ; {
		off, err := unix.Seek(int(f.Fd()), end, unix.SEEK_DATA)
		if err != nil {
			return nil // ENXIO: no more data
		}
		if end, err = unix.Seek(int(f.Fd()), off, unix.SEEK_HOLE); err != nil {
			return err
		}
		for off < end {
			n, err := f.ReadAt(buf[:min(int64(len(buf)), end-off)], off)
			if n == 0 {
				return err
			}
			off += int64(n)
		}
	}
}
