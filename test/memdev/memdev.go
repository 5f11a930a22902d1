// Package memdev is a block device in memory: the reference against which
// other devices are compared, simple enough to be obviously right.
package memdev

import (
	"context"
	"sync"

	"skylun/block"
)

// Device is an array of bytes. Everything is durable at once.
type Device struct {
	mu   sync.RWMutex
	data []byte
}

// New returns a device of size bytes of zeros.
func New(size int64) *Device { return &Device{data: make([]byte, size)} }

// Of returns a device that holds data, which it keeps.
func Of(data []byte) *Device { return &Device{data: data} }

// Size implements block.Reader.
func (d *Device) Size() int64 { return int64(len(d.data)) }

// ReadAt implements block.Reader.
func (d *Device) ReadAt(_ context.Context, p []byte, off int64) error {
	if err := block.CheckRange(off, int64(len(p)), d.Size()); err != nil {
		return err
	}
	d.mu.RLock()
	defer d.mu.RUnlock()
	copy(p, d.data[off:])
	return nil
}

// WriteAt implements block.Device.
func (d *Device) WriteAt(_ context.Context, p []byte, off int64) error {
	if err := block.CheckRange(off, int64(len(p)), d.Size()); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	copy(d.data[off:], p)
	return nil
}

// Discard implements block.Device.
func (d *Device) Discard(_ context.Context, off, n int64) error {
	if err := block.CheckRange(off, n, d.Size()); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	clear(d.data[off : off+n])
	return nil
}

// Flush implements block.Device.
func (d *Device) Flush(context.Context) error { return nil }

// TryReadAt implements block.TryReader.
func (d *Device) TryReadAt(p []byte, off int64) (bool, error) {
	return true, d.ReadAt(context.Background(), p, off)
}

// TryWriteAt implements block.TryWriter.
func (d *Device) TryWriteAt(p []byte, off int64) (bool, error) {
	return true, d.WriteAt(context.Background(), p, off)
}

var (
	_ block.Device    = (*Device)(nil)
	_ block.TryReader = (*Device)(nil)
	_ block.TryWriter = (*Device)(nil)
)
