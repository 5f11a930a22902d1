package overlay

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"

	"skylun/block"
)

// Config says what Open opens.
type Config struct {
	Name string // for messages
	Size int64  // bytes; at least that of the image
	File File   // the layer's bytes, block.Ceil(Size, block.Size) of them
	Map  Map    // what is in File
	Base *Cache // what lies below; nil: zeros
	Log  *slog.Logger

	// Notes, where they are given, let what was written and not flushed
	// outlive the process, as long as the system named Boot runs.
	Notes Notes
	Boot  string
}

// Volume is a disk that can be written, over the cache of an image or over
// zeros. It is a block.Device.
type Volume struct {
	name  string
	size  atomic.Int64
	layer *sparse
	base  *Cache
	log   *slog.Logger

	resizing sync.Mutex // held by Resize

	gate   sync.RWMutex // held shared by every call, exclusively by Close
	closed bool         // guarded by gate

	// regions serialise what decides by a block's state and then changes it.
	// A write that covers whole blocks, or parts of blocks that are present,
	// holds its regions shared, so such writes run in parallel. Filling up a
	// block, discarding and punching hold theirs exclusively. They are taken
	// in ascending order.
	regions [regionLocks]sync.RWMutex
	number  uint64  // regions of several volumes are taken in ascending order of it
	changes changes // that reads must not see half of

	punchLog sparingly
}

// Stats are figures of a Volume in bytes; the first three add up to its size
// in whole blocks.
type Stats struct {
	Owned  int64 `json:"owned_bytes"`  // in its layer
	Zero   int64 `json:"zero_bytes"`   // discarded
	Absent int64 `json:"absent_bytes"` // below: in the image's cache, in the store, or blank
}

// Open opens a volume.
func Open(cfg Config) (*Volume, error) {
	if cfg.Base != nil && cfg.Base.ImageSize() > cfg.Size {
		return nil, fmt.Errorf("volume %s: its size %d is less than the %d of its image", cfg.Name, cfg.Size, cfg.Base.ImageSize())
	}
	layer, err := openSparse(cfg.Size, cfg.File, cfg.Map)
	if err != nil {
		return nil, fmt.Errorf("volume %s: %w", cfg.Name, err)
	}
	if cfg.Notes != nil {
		if err := layer.takeNotes(cfg.Notes, cfg.Boot); err != nil {
			return nil, fmt.Errorf("volume %s: %w", cfg.Name, err)
		}
	}
	v := &Volume{name: cfg.Name, number: volumes.Add(1), layer: layer, base: cfg.Base, log: cfg.Log}
	v.size.Store(cfg.Size)
	layer.punch = v.punch
	// A process that was killed may have written what nobody has synced, also
	// without a change of states: the first flush makes up for it.
	layer.wrote.Store(true)
	return v, nil
}

// Size implements block.Reader.
func (v *Volume) Size() int64 { return v.size.Load() }

// Stats returns the figures now.
func (v *Volume) Stats() (s Stats) {
	s.Owned, s.Zero, s.Absent = v.layer.counts()
	return s
}

// Flush implements block.Device.
func (v *Volume) Flush(ctx context.Context) error {
	leave, err := v.enter(0, 0)
	if err != nil {
		return err
	}
	defer leave()
	return v.wrap(v.layer.commit(ctx))
}

// Close makes everything durable and closes the layer. Calls under way end
// first, calls after it fail with block.ErrClosed.
func (v *Volume) Close() error {
	v.gate.Lock()
	defer v.gate.Unlock()
	if v.closed {
		return nil
	}
	v.closed = true
	return v.wrap(v.layer.close())
}

// enter begins a call on [off, off+n); leave ends it.
func (v *Volume) enter(off, n int64) (leave func(), err error) {
	v.gate.RLock()
	if err := v.admit(off, n); err != nil {
		v.gate.RUnlock()
		return nil, err
	}
	return v.gate.RUnlock, nil
}

// admit tells whether a call on [off, off+n) may go on. The caller holds gate.
func (v *Volume) admit(off, n int64) error {
	if v.closed {
		return v.wrap(block.ErrClosed)
	}
	if err := block.CheckRange(off, n, v.size.Load()); err != nil {
		return v.wrap(err)
	}
	return nil
}

// within tells whether r is within the volume now. The caller holds r's
// regions, so it stays that way until they are given back.
func (v *Volume) within(r block.Range) error { return block.CheckRange(r.Off, r.Len(), v.size.Load()) }

func (v *Volume) wrap(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("volume %s: %w", v.name, err)
}

var (
	_ block.Device     = (*Volume)(nil)
	_ block.TryReader  = (*Volume)(nil)
	_ block.TryWriter  = (*Volume)(nil)
	_ block.DataRanger = (*Volume)(nil)

	_ block.Updater       = (*Volume)(nil)
	_ block.Copier        = (*Volume)(nil)
	_ block.Prefetcher    = (*Volume)(nil)
	_ block.SpaceReporter = (*Volume)(nil)
)
