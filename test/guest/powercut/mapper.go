package main

import (
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// mapper is a device of the device mapper, which is spoken to directly
// (include/uapi/linux/dm-ioctl.h): a program that does so takes a tenth of a
// second in the guest to start, and there is a mark for each flush.
type mapper string

// Requests.
const (
	mapperCreate  = 3
	mapperRemove  = 4
	mapperResume  = 6
	mapperLoad    = 9
	mapperMessage = 14
)

// Where things are in the header of a request, and in the table that may follow.
const (
	mapperHeader = 312

	atSize  = 12
	atStart = 16
	atCount = 20
	atDev   = 40
	atName  = 48

	tableHeader = 40
	atLength    = 8
	atType      = 24
)

// do makes a request with what follows the header, and returns the number of the
// device.
func (m mapper) do(request int, tables int, payload []byte) (dev uint64, err error) {
	control, err := os.OpenFile("/dev/mapper/control", os.O_RDWR, 0)
	if err != nil {
		return 0, err
	}
	defer control.Close()
	p := make([]byte, mapperHeader, mapperHeader+len(payload)+8)
	p = append(p, payload...)
	p = append(p, make([]byte, cap(p)-len(p))...)
	order := binary.NativeEndian
	order.PutUint32(p, 4) // the version of the interface
	order.PutUint32(p[atSize:], uint32(len(p)))
	order.PutUint32(p[atStart:], mapperHeader)
	order.PutUint32(p[atCount:], uint32(tables))
	copy(p[atName:], m)
	number := uintptr(3<<30 | mapperHeader<<16 | 0xfd<<8 | request) // _IOWR
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, control.Fd(), number, uintptr(unsafe.Pointer(&p[0]))); errno != 0 {
		return 0, fmt.Errorf("device mapper: request %d for %s: %w", request, m, errno)
	}
	return order.Uint64(p[atDev:]), nil
}

// path returns the name of the device.
func (m mapper) path() string { return filepath.Join("/run", "mapper-"+string(m)) }

// create makes a device of that many sectors.
func (m mapper) create(sectors int64, kind string, args ...string) error {
	dev, err := m.do(mapperCreate, 0, nil)
	if err != nil {
		return err
	}
	table := make([]byte, tableHeader)
	binary.NativeEndian.PutUint64(table[atLength:], uint64(sectors))
	copy(table[atType:], kind)
	if _, err := m.do(mapperLoad, 1, append(table, strings.Join(args, " ")...)); err != nil {
		m.do(mapperRemove, 0, nil)
		return err
	}
	if _, err := m.do(mapperResume, 0, nil); err != nil {
		return err
	}
	return os.NewSyscallError("mknod", unix.Mknod(m.path(), unix.S_IFBLK|0o600, int(dev)))
}

// remove removes the device, which nobody uses any more.
func (m mapper) remove() error {
	if err := os.Remove(m.path()); err != nil {
		return err
	}
	_, err := m.do(mapperRemove, 0, nil)
	return err
}

// message says something to the device.
func (m mapper) message(text string) error {
	_, err := m.do(mapperMessage, 0, append(make([]byte, 8), text...)) // to its first sector
	return err
}
