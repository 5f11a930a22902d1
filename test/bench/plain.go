package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"

	"skylun/block"
	"skylun/lun"
	"skylun/target"
)

// startPlain runs our own target over plain files in dir: what is left of our
// side when the overlay is taken away.
func startPlain(dir string, o options) (*side, error) {
	addr, err := freeAddr()
	if err != nil {
		return nil, err
	}
	s := &side{name: "plain", addr: addr, lun: map[unit]int{ownUnit: 0, freshUnit: 1}, fresh: o.freshUnits()}
	if err := writeScattered(filepath.Join(dir, "plain-0.img"), o.size); err != nil {
		return nil, err
	}
	for i := range s.fresh {
		f, err := os.Create(filepath.Join(dir, fmt.Sprintf("plain-%d.img", i+1)))
		if err != nil {
			return nil, err
		}
		if err := errors.Join(f.Truncate(o.size), f.Close()); err != nil {
			return nil, err
		}
	}
	return s, s.start(dir, exec.Command("/proc/self/exe", "plain", addr, dir, strconv.Itoa(s.fresh+1)))
}

// plainMain is the main of the process that startPlain starts. It serves until
// it is killed.
func plainMain(addr, dir, count string) error {
	n, err := strconv.Atoi(count)
	if err != nil {
		return err
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	units := lun.NewMap()
	for i := range n {
		f, err := os.OpenFile(filepath.Join(dir, fmt.Sprintf("plain-%d.img", i)), os.O_RDWR, 0)
		if err != nil {
			return err
		}
		st, err := f.Stat()
		if err != nil {
			return err
		}
		disk := lun.NewDisk(&plainFile{f, st.Size()}, lun.DiskConfig{Name: f.Name(), ID: [16]byte{15: byte(i)}}, log)
		if err := units.Add(uint16(i), disk); err != nil {
			return err
		}
	}
	server, err := target.New(target.Config{Portals: target.At(addr)}, log)
	if err != nil {
		return err
	}
	if err := server.AddTarget(target.Target{Name: iqn, Units: units}); err != nil {
		return err
	}
	if err := server.Listen(); err != nil {
		return err
	}
	return server.Serve(context.Background())
}

// plainFile is a file as a device. It tries like the layers of a volume do:
// reads when the bytes are in memory, writes always.
type plainFile struct {
	f    *os.File
	size int64
}

var (
	_ block.Device    = (*plainFile)(nil)
	_ block.TryReader = (*plainFile)(nil)
	_ block.TryWriter = (*plainFile)(nil)
)

func (d *plainFile) Size() int64 { return d.size }

func (d *plainFile) ReadAt(_ context.Context, p []byte, off int64) error {
	if _, err := d.f.ReadAt(p, off); err != nil && err != io.EOF {
		return err
	}
	return nil
}

func (d *plainFile) TryReadAt(p []byte, off int64) (bool, error) {
	n, err := unix.Preadv2(int(d.f.Fd()), [][]byte{p}, off, unix.RWF_NOWAIT)
	if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EOPNOTSUPP) || err == nil && n < len(p) {
		return false, nil
	}
	return true, err
}

func (d *plainFile) WriteAt(_ context.Context, p []byte, off int64) error {
	_, err := d.f.WriteAt(p, off)
	return err
}

func (d *plainFile) TryWriteAt(p []byte, off int64) (bool, error) {
	_, err := d.f.WriteAt(p, off)
	return true, err
}

func (d *plainFile) Discard(_ context.Context, off, n int64) error {
	return unix.Fallocate(int(d.f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, off, n)
}

func (d *plainFile) Flush(context.Context) error { return unix.Fdatasync(int(d.f.Fd())) }
