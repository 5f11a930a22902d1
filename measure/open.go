package measure

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"skylun/block"
)

// direct opens with O_DIRECT, or without it where that cannot be.
func direct(open func(flags int) (*os.File, error)) (f *os.File, cached bool, err error) {
	if f, err = open(unix.O_DIRECT); errors.Is(err, unix.EINVAL) {
		f, err = open(0)
		cached = true
	}
	return f, cached, err
}

// openDir makes the file to work on in a directory.
func openDir(dir string, o *Options) (*run, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return nil, err
	}
	free := int64(st.Bavail) * st.Bsize
	if o.Space > free/2 {
		return nil, fmt.Errorf("has %d MiB left: not enough to write %d MiB and leave as much", free>>20, o.Space>>20)
	}
	f, cached, err := direct(func(flags int) (*os.File, error) {
		return os.OpenFile(dir, os.O_RDWR|unix.O_TMPFILE|flags, 0o600)
	})
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EISDIR) || errors.Is(err, unix.ENOENT) {
		// The file system has no files without a name: take the name away.
		f, cached, err = direct(func(flags int) (*os.File, error) {
			named, err := os.CreateTemp(dir, ".skylun-bench-*")
			if err != nil {
				return nil, err
			}
			defer os.Remove(named.Name())
			defer named.Close()
			return os.OpenFile(named.Name(), os.O_RDWR|flags, 0)
		})
	}
	if err != nil {
		return nil, err
	}
	return &run{f: f, Result: Result{Size: free, Cached: cached}, clean: func() error { return nil }}, nil
}

// openDevice opens a device, or a file, and makes sure that nothing is lost by
// using a stretch in its middle.
func openDevice(ctx context.Context, path string, o *Options) (*run, error) {
	f, cached, err := direct(func(flags int) (*os.File, error) {
		fi, err := os.Stat(path)
		if err == nil && !fi.Mode().IsRegular() {
			flags |= os.O_EXCL // of a block device: nobody has mounted it, or made it a part of something
		}
		f, err := os.OpenFile(path, os.O_RDWR|flags, 0)
		if errors.Is(err, unix.EBUSY) {
			err = errors.New("is in use: it is mounted, or a part of an array or a volume group")
		}
		if err == nil && unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) != nil {
			f.Close()
			err = errors.New("is in use: another process has locked it, as a running node does with its members")
		}
		return f, err
	})
	if err != nil {
		return nil, err
	}
	r := &run{f: f, Result: Result{Cached: cached}}
	if err = r.prepare(ctx, o); err != nil {
		f.Close()
		return nil, err
	}
	r.clean = func() error { return r.zero(o.Space) }
	return r, nil
}

func (r *run) prepare(ctx context.Context, o *Options) (err error) {
	if r.Size, err = r.f.Seek(0, io.SeekEnd); err != nil {
		return err
	}
	o.Space = block.Floor(min(o.Space, r.Size), large)
	if o.Space < minSpace {
		return fmt.Errorf("has %d bytes: too small to be measured", r.Size)
	}
	r.at = block.Floor((r.Size-o.Space)/2, large)
	if o.Force {
		return nil
	}
	// Where partition tables, file systems and whatever else begin and end, and
	// all that will be written to.
	ends := block.Floor(min(large, r.Size), block.Size)
	for _, look := range []block.Range{{Off: 0, End: ends}, {Off: block.Floor(r.Size-ends, block.Size), End: r.Size}, {Off: r.at, End: r.at + o.Space}} {
		if at, err := r.data(ctx, look); err != nil {
			return err
		} else if at >= 0 {
			return fmt.Errorf("%w: there is something in the MiB at %d; --force overwrites what is in %v", ErrNotEmpty, at, block.Range{Off: r.at, End: r.at + o.Space})
		}
	}
	return nil
}

// data returns where in look something begins that is no zeros, to the MiB, or
// -1.
func (r *run) data(ctx context.Context, look block.Range) (int64, error) {
	p, err := unix.Mmap(-1, 0, large, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		return 0, err
	}
	defer unix.Munmap(p)
	for off := look.Off; off < look.End; off += large {
		if err := ctx.Err(); err != nil {
			return 0, err
		}
		found, err := r.dataIn(p[:min(large, block.Ceil(look.End-off, block.Size))], off)
		if err != nil {
			return 0, err
		}
		if found {
			return off, nil
		}
	}
	return -1, nil
}

// dataIn reads into p, whose length is a multiple of block.Size as O_DIRECT wants
// it, also where the device ends within.
func (r *run) dataIn(p []byte, off int64) (bool, error) {
	for len(p) > 0 && off < r.Size {
		n, err := unix.Pread(int(r.f.Fd()), p, off)
		switch {
		case err == unix.EINTR:
			continue
		case err != nil:
			return false, &os.PathError{Op: "read", Path: r.f.Name(), Err: err}
		case n == 0:
			return false, io.ErrUnexpectedEOF
		}
		for _, b := range p[:n] {
			if b != 0 {
				return true, nil
			}
		}
		p, off = p[n:], off+int64(n)
	}
	return false, nil
}

// zero makes the stretch zeros again.
func (r *run) zero(n int64) error {
	if unix.Fallocate(int(r.f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, r.at, n) == nil {
		return r.sync()
	}
	p, err := unix.Mmap(-1, 0, large, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		return err
	}
	defer unix.Munmap(p)
	for off := r.at; off < r.at+n; off += large {
		if _, err := r.f.WriteAt(p, off); err != nil {
			return err
		}
	}
	return r.sync()
}
