package guest

import (
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// disk is a disk of the guest: memory of ours, which goes when we do.
type disk struct{ f *os.File }

type disks []disk

// newDisks makes disks of these sizes.
func newDisks(sizes []int64) (made disks, err error) {
	for i, size := range sizes {
		fd, err := unix.MemfdCreate(fmt.Sprintf("disk%d", i), unix.MFD_CLOEXEC)
		if err != nil {
			made.close()
			return nil, os.NewSyscallError("memfd_create", err)
		}
		d := disk{os.NewFile(uintptr(fd), "disk of the guest")}
		made = append(made, d)
		if err := d.f.Truncate(size); err != nil {
			made.close()
			return nil, err
		}
	}
	return made, nil
}

// path returns the name by which another process can open the disk.
func (d disk) path() string { return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), d.f.Fd()) }

func (d disks) close() {
	for _, d := range d {
		d.f.Close()
	}
}

// copyFile copies a file, with the right to run it.
func copyFile(to, from string) (err error) {
	src, err := os.Open(from)
	if err != nil {
		return err
	}
	defer src.Close()
	dst, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o755)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, dst.Close()) }()
	_, err = io.Copy(dst, src)
	return err
}
