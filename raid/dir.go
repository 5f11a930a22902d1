package raid

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"skylun/block"
)

// dir is a member that is a directory: its pieces are sparse files, and the
// host's file system allocates.
type dir struct {
	path string
	lock *os.File // nil: not locked
}

// openDir opens a directory, making it when it does not exist.
func openDir(path string) (*dir, error) {
	if err := MakeDir(path); err != nil {
		return nil, memberError(err)
	}
	if err := unix.Access(path, unix.W_OK|unix.X_OK); err != nil {
		return nil, fmt.Errorf("member %s: cannot write: %w", path, err)
	}
	return &dir{path: path}, nil
}

func (d *dir) file(name string) string { return filepath.Join(d.path, filepath.FromSlash(name)) }

func (d *dir) Create(name string, size int64) (Piece, error) {
	path := d.file(name)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, memberError(err)
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, memberError(err)
	}
	err = errors.Join(f.Truncate(size), f.Sync(), syncDir(filepath.Dir(path)), syncDir(d.path))
	if err != nil {
		f.Close()
		os.Remove(path)
		return nil, memberError(err)
	}
	return newDirPiece(f), nil
}

func (d *dir) Open(name string, size int64) (Piece, error) {
	f, has, err := d.open(name)
	if err != nil {
		return nil, err
	}
	if has < size {
		f.Close()
		return nil, memberError(fmt.Errorf("%s has %d bytes instead of %d", d.file(name), has, size))
	}
	return newDirPiece(f), nil
}

func (d *dir) open(name string) (f *os.File, size int64, err error) {
	path := d.file(name)
	f, err = os.OpenFile(path, os.O_RDWR, 0)
	if errors.Is(err, os.ErrNotExist) {
		return nil, 0, fmt.Errorf("%s: %w", path, ErrNotExist)
	}
	if err != nil {
		return nil, 0, memberError(err)
	}
	st, err := f.Stat()
	if err != nil {
		f.Close()
		return nil, 0, memberError(err)
	}
	return f, st.Size(), nil
}

func (d *dir) Remove(name string) error {
	if err := os.Remove(d.file(name)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return memberError(err)
	}
	return nil
}

func (d *dir) Space() (total, free int64, err error) {
	var st unix.Statfs_t
	if err := unix.Statfs(d.path, &st); err != nil {
		return 0, 0, memberError(&os.PathError{Op: "statfs", Path: d.path, Err: err})
	}
	return int64(st.Blocks) * st.Bsize, int64(st.Bavail) * st.Bsize, nil
}

func (d *dir) Close() error {
	if d.lock != nil {
		return d.lock.Close()
	}
	return nil
}

// dirPiece is a file of a directory.
type dirPiece struct {
	f  *os.File
	fd int // f's, for calls that package os does not have

	cannotTry atomic.Bool // the file system does not know reads that never wait
}

func newDirPiece(f *os.File) *dirPiece { return &dirPiece{f: f, fd: int(f.Fd())} }

func (f *dirPiece) failed(op string, err error) error {
	return memberError(&os.PathError{Op: op, Path: f.f.Name(), Err: err})
}

func (f *dirPiece) ReadAt(p []byte, off int64) error {
	if err := readFull(f.fd, p, off); err != nil {
		return f.failed("read", err)
	}
	return nil
}

// readFull fills p. It takes some tens of nanoseconds less than os.File, which
// has to reckon with Close.
func readFull(fd int, p []byte, off int64) error {
	for len(p) > 0 {
		n, err := unix.Pread(fd, p, off)
		switch {
		case err == unix.EINTR:
		case err != nil:
			return err
		case n == 0:
			return io.ErrUnexpectedEOF
		default:
			p, off = p[n:], off+int64(n)
		}
	}
	return nil
}

// writeFull writes all of p.
func writeFull(fd int, p []byte, off int64) error {
	for len(p) > 0 {
		n, err := unix.Pwrite(fd, p, off)
		switch {
		case err == unix.EINTR:
		case err != nil:
			return err
		case n == 0:
			return io.ErrShortWrite
		default:
			p, off = p[n:], off+int64(n)
		}
	}
	return nil
}

func (f *dirPiece) TryReadAt(p []byte, off int64) (done bool, err error) {
	if !f.cannotTry.Load() {
		done, can, err := tryRead(f.fd, p, off)
		if err != nil {
			return true, f.failed("read", err)
		}
		if can {
			return done, nil
		}
		f.cannotTry.Store(true)
	}
	return true, f.ReadAt(p, off)
}

// tryRead reads what is in memory. can is false when the kernel cannot tell.
func tryRead(fd int, p []byte, off int64) (done, can bool, err error) {
	n, err := unix.Preadv2(fd, [][]byte{p}, off, unix.RWF_NOWAIT)
	switch {
	case err == nil:
		return n == len(p), true, nil
	case errors.Is(err, unix.EAGAIN), errors.Is(err, unix.EINTR):
		return false, true, nil
	case errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.ENOSYS), errors.Is(err, unix.EINVAL):
		return false, false, nil
	}
	return false, true, err
}

func (f *dirPiece) WriteAt(p []byte, off int64) error {
	if err := writeFull(f.fd, p, off); err != nil {
		return f.failed("write", err)
	}
	return nil
}

func (f *dirPiece) CopyFrom(off int64, src Piece, from, n int64) (done bool, err error) {
	s, ok := src.(*dirPiece)
	if !ok {
		return false, nil
	}
	for n > 0 {
		c, err := unix.CopyFileRange(s.fd, &from, f.fd, &off, int(min(n, 1<<30)), 0)
		switch {
		case err == nil && c > 0:
			n -= int64(c)
		case err == nil:
			return false, nil // src ends: reading says so better
		case errors.Is(err, unix.EINTR):
		case errors.Is(err, unix.EXDEV), errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.ENOSYS), errors.Is(err, unix.EINVAL):
			return false, nil
		default:
			return true, f.failed("copy to", err)
		}
	}
	return true, nil
}

func (f *dirPiece) Punch(off, n int64) error {
	err := unix.Fallocate(f.fd, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, off, n)
	if err != nil && !errors.Is(err, unix.EOPNOTSUPP) {
		return f.failed("punch hole", err)
	}
	return nil
}

func (f *dirPiece) Zero(off, n int64) error {
	err := unix.Fallocate(f.fd, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, off, n)
	if errors.Is(err, unix.EOPNOTSUPP) {
		return writeZeros(f.WriteAt, off, n)
	}
	if err != nil {
		return f.failed("punch hole", err)
	}
	return nil
}

func (f *dirPiece) Sync() error {
	if err := unix.Fdatasync(f.fd); err != nil {
		return f.failed("fdatasync", err)
	}
	return nil
}

func (f *dirPiece) NextData(off int64) (block.Range, error) {
	start, err := unix.Seek(f.fd, off, unix.SEEK_DATA)
	if errors.Is(err, unix.ENXIO) {
		return block.Range{}, nil // nothing behind off
	}
	var end int64
	if err == nil {
		end, err = unix.Seek(f.fd, start, unix.SEEK_HOLE)
	}
	if err != nil {
		return block.Range{}, f.failed("seek", err)
	}
	return block.Range{Off: start, End: end}, nil
}

func (f *dirPiece) Clear() error {
	var st unix.Stat_t
	err := unix.Fstat(f.fd, &st)
	if err == nil {
		err = unix.Ftruncate(f.fd, 0)
	}
	if err == nil {
		err = unix.Ftruncate(f.fd, st.Size)
	}
	if err != nil {
		return f.failed("truncate", err)
	}
	return nil
}

func (f *dirPiece) Resize(size int64) error {
	var st unix.Stat_t
	err := unix.Fstat(f.fd, &st)
	if err == nil && st.Size < size {
		err = unix.Ftruncate(f.fd, size)
	}
	if err == nil {
		err = unix.Fsync(f.fd)
	}
	if err != nil {
		return f.failed("resize", err)
	}
	return nil
}

func (f *dirPiece) Allocated() (int64, error) {
	var st unix.Stat_t
	if err := unix.Fstat(f.fd, &st); err != nil {
		return 0, f.failed("stat", err)
	}
	return st.Blocks * 512, nil
}

func (f *dirPiece) Close() error { return f.f.Close() }

var zeros = make([]byte, 1<<20)

// writeZeros writes zeros to [off, off+n).
func writeZeros(write func([]byte, int64) error, off, n int64) error {
	for n > 0 {
		p := zeros[:min(n, int64(len(zeros)))]
		if err := write(p, off); err != nil {
			return err
		}
		off, n = off+int64(len(p)), n-int64(len(p))
	}
	return nil
}

// MakeDir makes a directory and those that lead to it, if they are not there, and
// makes that durable: who remembers that there is one must find it again.
func MakeDir(path string) error {
	var changed []string
	for dir := path; ; dir = filepath.Dir(dir) {
		if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
			break
		}
		changed = append(changed, filepath.Dir(dir))
	}
	if err := os.MkdirAll(path, 0o700); err != nil {
		return err
	}
	for _, dir := range changed {
		if err := syncDir(dir); err != nil {
			return err
		}
	}
	return nil
}

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
	if errors.Is(err, block.ErrNoSpace) || errors.Is(err, block.ErrMedium) {
		return err
	}
	if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) || errors.Is(err, unix.EFBIG) {
		return fmt.Errorf("%w: %w", block.ErrNoSpace, err)
	}
	return fmt.Errorf("%w: %w", block.ErrMedium, err)
}
