package overlay

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"sync/atomic"

	"skylun/block"
)

// The copies of a cache are checked whenever they are read: beside their file is
// one with a sum for each block, the CRC-32C of its bytes, little-endian, 0
// where there never was one:
//
//	copies  | block 0       | block 1       | block 2       | ...
//	sums    | 4 bytes | 4 bytes | 4 bytes | ...
//
// A fill writes bytes, then sums, then makes the blocks present. A round syncs
// both files before it appends to the map, so a block that is present after a
// crash has its bytes and its sum. The image never changes, so neither does the
// sum of a block, and a write of sums that was torn or lost leaves those of
// other blocks in the same sector what they were.
//
// A sum that does not match is damage of either file; which one does not matter.
// The block becomes absent and is fetched again, and both are written anew. So
// damage of the sums heals like damage of the copies, and neither is ever shown:
// where the store cannot be reached the read fails.
//
// That is also why a sync that failed does not end a cache as it ends a layer
// (sparse.lenient): what was lost of the copies is found when it is read.
//
// The sums of a region, 1 KiB, are read when the first of its blocks is, and
// stay in memory as long as there are not too many.

// SumsSize returns the length of the sums of a cache of size bytes.
func SumsSize(size int64) int64 {
	return block.Ceil(block.Ceil(size, block.Size)/block.Size*crc32.Size, block.Size)
}

type regionSums [regionSize / block.Size]atomic.Uint32

const (
	maxSums  = 64 << 10 // regions of a cache that have their sums in memory
	sumsLook = 4 << 10  // regions looked at to find one whose sums can go
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// blockSum returns the sum of a block, which is never 0.
func blockSum(p []byte) uint32 {
	if s := crc32.Checksum(p, castagnoli); s != 0 {
		return s
	}
	return 1
}

// summed is the file of a cache whose rounds make its sums durable too.
type summed struct {
	File
	sums File
}

func (f summed) Sync() error {
	if err := f.File.Sync(); err != nil {
		return err
	}
	if err := f.sums.Sync(); err != nil {
		return fmt.Errorf("sums: %w", err)
	}
	return nil
}

// Free is that of the file, if it has one.
func (f summed) Free() (int64, error) {
	if s, ok := f.File.(interface{ Free() (int64, error) }); ok {
		return s.Free()
	}
	return 0, errors.ErrUnsupported
}

func (f summed) Close() error { return errors.Join(f.File.Close(), f.sums.Close()) }

// sumsAt returns where the sum of the block at off is in the file, and in its
// region.
func sumsAt(off int64) (inFile int64, inRegion int) {
	b := off / block.Size
	return b * crc32.Size, int(b % (regionSize / block.Size))
}

// loadSums returns the sums of the region g, which the byte at off is in. The
// caller holds its lock of sums.
func (c *Cache) loadSums(g *cacheRegion, off int64) (*regionSums, error) {
	if s := g.sums.Load(); s != nil {
		return s, nil
	}
	r := regionOf(off).Intersect(block.Range{Off: 0, End: c.Size()})
	p := make([]byte, r.Len()/block.Size*crc32.Size)
	at, _ := sumsAt(r.Off)
	if err := c.sums.ReadAt(p, at); err != nil {
		return nil, fmt.Errorf("sums: %w", err)
	}
	s := new(regionSums)
	for i := range len(p) / crc32.Size {
		s[i].Store(binary.LittleEndian.Uint32(p[i*crc32.Size:]))
	}
	g.sums.Store(s)
	c.forgetSums(off)
	return s, nil
}

// sumsOf returns the sums of the region g, which the byte at off is in.
func (c *Cache) sumsOf(g *cacheRegion, off int64) (*regionSums, error) {
	if s := g.sums.Load(); s != nil {
		return s, nil
	}
	lock := &c.regions.sums[off/regionSize%regionLocks]
	lock.Lock()
	defer lock.Unlock()
	return c.loadSums(g, off)
}

// forgetSums sees to it that not too many sums are in memory, after those of the
// region of off have been loaded: it goes round the regions and drops what was
// not read since the clock last moved.
func (c *Cache) forgetSums(loaded int64) {
	if c.sumsLoaded.Add(1) <= c.maxSums {
		return
	}
	c.sumsMu.Lock()
	defer c.sumsMu.Unlock()
	now := c.pool.clock.Load()
	for range sumsLook {
		i := c.sumsHand
		if c.sumsHand++; c.sumsHand >= int64(len(c.regions.groups))*groupRegions {
			c.sumsHand = 0
		}
		group := c.regions.groups[i/groupRegions].Load()
		if group == nil || i == loaded/regionSize {
			continue
		}
		g := &group[i%groupRegions]
		// What is in memory is in the file; who is about to change it has
		// written it there first, so a copy that is dropped meanwhile is not
		// missed.
		if g.used.Load() < now && g.sums.Swap(nil) != nil {
			if c.sumsLoaded.Add(-1) <= c.maxSums {
				return
			}
		}
	}
}

// putSums writes the sums of p, whole blocks at off. The caller shares their
// regions.
func (c *Cache) putSums(p []byte, off int64) error {
	if c.sums == nil {
		return nil
	}
	for len(p) > 0 {
		n := min(int64(len(p)), regionOf(off).End-off)
		if err := c.putRegionSums(p[:n], off); err != nil {
			return err
		}
		p, off = p[n:], off+n
	}
	return nil
}

func (c *Cache) putRegionSums(p []byte, off int64) error {
	lock := &c.regions.sums[off/regionSize%regionLocks]
	lock.Lock()
	defer lock.Unlock()
	s, err := c.loadSums(c.regions.at(off), off)
	if err != nil {
		return localError(err)
	}
	at, first := sumsAt(off)
	enc := make([]byte, 0, len(p)/block.Size*crc32.Size)
	for i := 0; i < len(p); i += block.Size {
		enc = binary.LittleEndian.AppendUint32(enc, blockSum(p[i:i+block.Size]))
	}
	if err := c.sums.WriteAt(enc, at); err != nil {
		return localError(fmt.Errorf("sums: %w", err))
	}
	for i := range len(p) / block.Size {
		s[first+i].Store(binary.LittleEndian.Uint32(enc[i*crc32.Size:]))
	}
	return nil
}
