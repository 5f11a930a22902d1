package raid

import (
	"errors"
	"fmt"
	"os"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"skylun/block"
)

// Device is a row of bytes of fixed length, a member that does not allocate by
// itself: skylun hands out its space. Its methods are safe for parallel calls.
type Device interface {
	Size() int64
	ReadAt(p []byte, off int64) error
	TryReadAt(p []byte, off int64) (done bool, err error) // done is false when it would have to wait
	WriteAt(p []byte, off int64) error
	// Zero makes a range read as zeros, by giving its space back where that is
	// as good.
	Zero(off, n int64) error
	Sync() error
	Close() error
}

// headSize is what is kept at the beginning of a device for stamp and tables.
const headSize = 1 << 20

// MinDevice is how long a device has to be to become a member.
const MinDevice = 4 * headSize

// osDevice is a block device or a file of the host.
type osDevice struct {
	f    *os.File
	fd   int
	size int64
	keep bool // all space is allocated, and is to stay so

	cannotTry  atomic.Bool
	cannotZero atomic.Bool
}

// openDevice opens a block device or a file for this process alone.
func openDevice(path string) (*osDevice, error) {
	flags := os.O_RDWR
	if st, err := os.Stat(path); err == nil && st.Mode()&os.ModeDevice != 0 {
		flags |= unix.O_EXCL // not while it is mounted, or part of something else
	}
	f, err := os.OpenFile(path, flags, 0)
	if errors.Is(err, unix.EBUSY) {
		return nil, fmt.Errorf("%w: %s is in use by the system: it is mounted, or part of something else; free it, or name another", ErrMember, path)
	}
	if err != nil {
		return nil, memberError(err)
	}
	d := &osDevice{f: f, fd: int(f.Fd())}
	if d.size, err = f.Seek(0, 2); err != nil {
		f.Close()
		return nil, memberError(err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(d.fd, &st); err == nil && st.Mode&unix.S_IFMT == unix.S_IFREG {
		d.keep = st.Blocks*512 >= d.size
	}
	return d, nil
}

func (d *osDevice) failed(op string, err error) error {
	return memberError(&os.PathError{Op: op, Path: d.f.Name(), Err: err})
}

func (d *osDevice) Size() int64 { return d.size }

func (d *osDevice) ReadAt(p []byte, off int64) error {
	if err := readFull(d.fd, p, off); err != nil {
		return d.failed("read", err)
	}
	return nil
}

func (d *osDevice) TryReadAt(p []byte, off int64) (done bool, err error) {
	if !d.cannotTry.Load() {
		done, can, err := tryRead(d.fd, p, off)
		if err != nil {
			return true, d.failed("read", err)
		}
		if can {
			return done, nil
		}
		d.cannotTry.Store(true)
	}
	return true, d.ReadAt(p, off)
}

func (d *osDevice) WriteAt(p []byte, off int64) error {
	if err := writeFull(d.fd, p, off); err != nil {
		return d.failed("write", err)
	}
	return nil
}

// Zero lets the system do it, which is fast where the device knows how; else it
// writes zeros.
func (d *osDevice) Zero(off, n int64) error {
	if d.cannotZero.Load() {
		return writeZeros(d.WriteAt, off, n)
	}
	var mode uint32 = unix.FALLOC_FL_PUNCH_HOLE | unix.FALLOC_FL_KEEP_SIZE
	if d.keep {
		mode = unix.FALLOC_FL_ZERO_RANGE | unix.FALLOC_FL_KEEP_SIZE
	}
	switch err := unix.Fallocate(d.fd, mode, off, n); {
	case err == nil:
		return nil
	case errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.ENODEV), errors.Is(err, unix.ENOSYS):
		d.cannotZero.Store(true)
		return writeZeros(d.WriteAt, off, n)
	case errors.Is(err, unix.EINVAL): // no whole logical blocks
		return writeZeros(d.WriteAt, off, n)
	default:
		return d.failed("zero", err)
	}
}

// ZeroesFast tells whether Zero is more than writing zeros, as far as is known.
func (d *osDevice) ZeroesFast() bool { return !d.cannotZero.Load() }

func (d *osDevice) Sync() error {
	if err := unix.Fdatasync(d.fd); err != nil {
		return d.failed("fdatasync", err)
	}
	return nil
}

// NextData returns where data is, as far as the file system of a file knows.
func (d *osDevice) NextData(off int64) (block.Range, error) {
	p := dirPiece{f: d.f, fd: d.fd}
	r, err := p.NextData(off)
	if err != nil {
		return block.Range{Off: off, End: d.size}, nil // a block device does not tell
	}
	return r, nil
}

func (d *osDevice) Close() error { return d.f.Close() }
