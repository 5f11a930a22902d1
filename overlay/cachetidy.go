package overlay

import (
	"fmt"

	"skylun/block"
)

// tidy begins what a cache that was opened has to do in the background: give back
// space that a crash has left, and make sums for copies that have none.
func (c *Cache) tidy(cfg CacheConfig) {
	c.unsummed.Store(cfg.Sums != nil && cfg.Unsummed)
	file, sparse := cfg.File.(interface {
		DataRanges(func(block.Range) error) error
	})
	if !sparse && !c.unsummed.Load() {
		return
	}
	c.fetches.run.Go(func() {
		if sparse {
			if err := c.sweep(file.DataRanges); err != nil && c.fetches.ctx.Err() == nil {
				c.log.Warn("cannot give back space that the cache does not need", "image", c.name, "error", err)
			}
		}
		if !c.unsummed.Load() {
			return
		}
		if err := c.sumUp(); err == nil {
			c.unsummed.Store(false)
			cfg.Summed()
		} else if c.fetches.ctx.Err() == nil {
			c.log.Warn("cannot make checksums for old copies; it is tried again after the next start", "image", c.name, "error", err)
		}
	})
}

// sweep gives back the space of blocks that are not present although the file
// has something there: a crash came after they had become absent and before the
// hole was punched, or after they were written and before they were recorded.
func (c *Cache) sweep(ranges func(func(block.Range) error) error) error {
	return ranges(func(r block.Range) error {
		r = r.Inward(block.Size)
		for off := r.Off; off < r.End; {
			if err := c.fetches.ctx.Err(); err != nil {
				return err
			}
			st, end := c.copy.at(off)
			part := block.Range{Off: off, End: min(end, r.End, off+punchMax)}
			if st != present {
				if err := c.punch(part); err != nil {
					return err
				}
			}
			off = part.End
		}
		return nil
	})
}

// sumUp makes a sum for each copy, durably.
func (c *Cache) sumUp() error {
	buf := make([]byte, regionSize)
	for off := int64(0); off < c.Size(); {
		if err := c.fetches.ctx.Err(); err != nil {
			return err
		}
		st, end := c.copy.at(off)
		if st != present {
			off = end
			continue
		}
		r := block.Range{Off: off, End: min(end, regionOf(off).End)}
		if err := c.sumRange(buf[:r.Len()], r); err != nil {
			return err
		}
		off = r.End
	}
	if err := c.sums.Sync(); err != nil {
		return localError(fmt.Errorf("sums: %w", err))
	}
	return nil
}

// sumRange makes sums for those copies of r, of one region, that have none.
// Copies that cannot be read are given up.
func (c *Cache) sumRange(p []byte, r block.Range) error {
	c.regions.own(r) // nothing is filled or punched
	defer c.regions.disown(r)
	sums, err := c.sumsOf(c.regions.at(r.Off), r.Off)
	if err != nil {
		return localError(err)
	}
	if _, err := c.copy.read(p, r.Off, true); err != nil {
		c.spoilt(r, err)
		return nil
	}
	_, i := sumsAt(r.Off)
	for n := int64(0); n < r.Len(); n += block.Size {
		if sums[i+int(n/block.Size)].Load() == 0 {
			if err := c.putRegionSums(p[n:n+block.Size], r.Off+n); err != nil {
				return err
			}
		}
	}
	return nil
}
