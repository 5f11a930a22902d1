package raid

import (
	"errors"
	"fmt"
	"os"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"skylun/block"
)

// File is a file of a given size. Its methods are safe for parallel calls,
// except that none may run when Close is called. Offsets are the caller's to
// check.
type File struct {
	f    *os.File
	fd   int // f's, for calls that package os does not have
	size atomic.Int64

	cannotTry atomic.Bool // the file system does not know reads that never wait
}

func newFile(f *os.File, size int64) *File {
	n := &File{f: f, fd: int(f.Fd())}
	n.size.Store(size)
	return n
}

// Size returns the length in bytes.
func (f *File) Size() int64 { return f.size.Load() }

// ReadAt fills p from off, or fails.
func (f *File) ReadAt(p []byte, off int64) error {
	if _, err := f.f.ReadAt(p, off); err != nil {
		return memberError(err)
	}
	return nil
}

// TryReadAt fills p from off when its bytes are in memory. Where the file
// system cannot tell, it reads.
func (f *File) TryReadAt(p []byte, off int64) (done bool, err error) {
	if !f.cannotTry.Load() {
		n, err := unix.Preadv2(f.fd, [][]byte{p}, off, unix.RWF_NOWAIT)
		switch {
		case err == nil:
			return n == len(p), nil
		case errors.Is(err, unix.EAGAIN), errors.Is(err, unix.EINTR):
			return false, nil
		case errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.ENOSYS), errors.Is(err, unix.EINVAL):
			f.cannotTry.Store(true)
		default:
			return true, memberError(&os.PathError{Op: "read", Path: f.f.Name(), Err: err})
		}
	}
	return true, f.ReadAt(p, off)
}

// WriteAt writes p at off, or fails. After an error any part of p may have
// been written.
func (f *File) WriteAt(p []byte, off int64) error {
	if off+int64(len(p)) > f.size.Load() {
		return fmt.Errorf("write %d+%d of %s: %w", off, len(p), f.f.Name(), block.ErrOutOfRange)
	}
	if _, err := f.f.WriteAt(p, off); err != nil {
		return memberError(err)
	}
	return nil
}

// CopyFrom copies n bytes of src at from to off without a way through memory,
// and shares their space where the file system can. done is false when src is
// no File, or the file systems cannot: then any part of it may be copied.
func (f *File) CopyFrom(off int64, src any, from, n int64) (done bool, err error) {
	s, ok := src.(*File)
	if !ok {
		return false, nil
	}
	if off+n > f.size.Load() {
		return true, fmt.Errorf("write %d+%d of %s: %w", off, n, f.f.Name(), block.ErrOutOfRange)
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
			return true, memberError(&os.PathError{Op: "copy to", Path: f.f.Name(), Err: err})
		}
	}
	return true, nil
}

// Punch makes [off, off+n) read as zeros and gives its space back where the
// file system can.
func (f *File) Punch(off, n int64) error {
	err := unix.Fallocate(f.fd, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, off, n)
	if err != nil && !errors.Is(err, unix.EOPNOTSUPP) {
		return memberError(&os.PathError{Op: "punch hole", Path: f.f.Name(), Err: err})
	}
	return nil
}

// Sync makes all writes and punched holes that have returned durable. After
// an error nothing is known about what was written since the last Sync, and
// a later Sync that succeeds does not change that.
func (f *File) Sync() error {
	if err := unix.Fdatasync(f.fd); err != nil {
		return memberError(&os.PathError{Op: "fdatasync", Path: f.f.Name(), Err: err})
	}
	return nil
}

// DataRanges calls f, in ascending order, for each range that may hold
// something else than zeros, until f fails.
func (f *File) DataRanges(fn func(block.Range) error) error {
	size := f.size.Load()
	for off := int64(0); off < size; {
		start, err := unix.Seek(f.fd, off, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) {
			return nil // nothing behind off
		}
		end := size
		if err == nil {
			end, err = unix.Seek(f.fd, start, unix.SEEK_HOLE)
		}
		if err != nil {
			return memberError(&os.PathError{Op: "seek", Path: f.f.Name(), Err: err})
		}
		if err := fn(block.Range{Off: start, End: min(end, size)}); err != nil {
			return err
		}
		off = end
	}
	return nil
}

// Clear makes all of the file zeros and gives its space back.
func (f *File) Clear() error {
	err := unix.Ftruncate(f.fd, 0)
	if err == nil {
		err = unix.Ftruncate(f.fd, f.size.Load())
	}
	if err != nil {
		return memberError(&os.PathError{Op: "truncate", Path: f.f.Name(), Err: err})
	}
	return nil
}

// Resize changes the size. What is new reads as zeros and is there, durably,
// when it returns. On disk a file never becomes shorter than its user may
// still know it to be: making it smaller gives nothing back, Punch does.
func (f *File) Resize(size int64) error {
	old := f.size.Load()
	if size > old {
		var st unix.Stat_t
		err := unix.Fstat(f.fd, &st)
		if err == nil && st.Size > old { // it was longer once
			err = unix.Ftruncate(f.fd, old)
		}
		if err == nil {
			err = unix.Ftruncate(f.fd, size)
		}
		if err == nil {
			err = unix.Fsync(f.fd)
		}
		if err != nil {
			return memberError(&os.PathError{Op: "resize", Path: f.f.Name(), Err: err})
		}
	}
	f.size.Store(size)
	return nil
}

// Allocated returns the bytes that the file occupies on its members.
func (f *File) Allocated() (int64, error) {
	var st unix.Stat_t
	if err := unix.Fstat(f.fd, &st); err != nil {
		return 0, memberError(&os.PathError{Op: "stat", Path: f.f.Name(), Err: err})
	}
	return st.Blocks * 512, nil
}

// Free returns the bytes that files on its members can still take.
func (f *File) Free() (int64, error) {
	var st unix.Statfs_t
	if err := unix.Fstatfs(f.fd, &st); err != nil {
		return 0, memberError(&os.PathError{Op: "statfs", Path: f.f.Name(), Err: err})
	}
	return int64(st.Bavail) * st.Bsize, nil
}

// Close closes the file without syncing it.
func (f *File) Close() error { return f.f.Close() }
