package main

import (
	"context"
	"os"

	"skylun/block"
)

// device is a file; reads and writes never wait.
type device struct {
	f    *os.File
	size int64
}

// open returns the named file, or an unnamed one in memory.
func open(name string, size int64) (*device, error) {
	flags := os.O_RDWR | os.O_CREATE
	temporary := name == ""
	if temporary {
		name = "/dev/shm/memtarget"
	}
	f, err := os.OpenFile(name, flags, 0o600)
	if err != nil {
		return nil, err
	}
	if temporary {
		os.Remove(name)
	}
	if err := f.Truncate(size); err != nil {
		return nil, err
	}
	return &device{f, size}, nil
}

func (d *device) Size() int64 { return d.size }

func (d *device) ReadAt(_ context.Context, p []byte, off int64) error {
	if err := block.CheckRange(off, int64(len(p)), d.size); err != nil {
		return err
	}
	_, err := d.f.ReadAt(p, off)
	return err
}

func (d *device) WriteAt(_ context.Context, p []byte, off int64) error {
	if err := block.CheckRange(off, int64(len(p)), d.size); err != nil {
		return err
	}
	_, err := d.f.WriteAt(p, off)
	return err
}

func (d *device) TryReadAt(p []byte, off int64) (bool, error) {
	return true, d.ReadAt(context.Background(), p, off)
}

func (d *device) TryWriteAt(p []byte, off int64) (bool, error) {
	return true, d.WriteAt(context.Background(), p, off)
}

func (d *device) Discard(ctx context.Context, off, n int64) error {
	zeros := make([]byte, min(n, 1<<20))
	for ; n > 0; n, off = n-int64(len(zeros)), off+int64(len(zeros)) {
		zeros = zeros[:min(n, int64(len(zeros)))]
		if err := d.WriteAt(ctx, zeros, off); err != nil {
			return err
		}
	}
	return nil
}

func (d *device) Flush(context.Context) error { return nil }
