package overlay

import (
	"context"

	"golang.org/x/sync/errgroup"

	"skylun/block"
)

// store writes copies of r, whole blocks that are absent, and makes them present.
func (c *Cache) store(p []byte, r block.Range) error {
	if err := c.copy.trouble.Load(); err != nil {
		return *err // until a round succeeds again: what cannot be recorded would only grow
	}
	if err := c.pool.reserve(r.Len()); err != nil {
		return err
	}
	c.regions.share(r)
	defer c.regions.unshare(r)
	err := c.copy.write(p, r.Off)
	if err == nil {
		err = c.putSums(p, r.Off)
	}
	if err != nil {
		c.pool.release(r.Len(), nil)
		return err
	}
	now := c.pool.clock.Load()
	for off := r.Off; off < r.End; off = regionOf(off).End {
		c.regions.at(off).touch(now)
	}
	c.pool.release(r.Len(), func() { c.copy.fill(r, present) })
	return nil
}

// Pin keeps everything that is here from leaving, until Unpin is called as often.
func (c *Cache) Pin() { c.pins.Add(1) }

// Unpin takes back one Pin.
func (c *Cache) Unpin() { c.pins.Add(-1) }

// Pinned tells whether nothing may leave.
func (c *Cache) Pinned() bool { return c.pins.Load() > 0 }

// Fill returns when all of the image is here, or with why not.
func (c *Cache) Fill(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(prefetchParallel)
	for off := int64(0); off < c.Size() && ctx.Err() == nil; {
		st, end := c.copy.at(off)
		if st == absent {
			end = min(end, block.Floor(off, prefetchWindow)+prefetchWindow)
			window := block.Range{Off: off, End: end}
			g.Go(func() error { return c.warm(ctx, window) })
		}
		off = end
	}
	return g.Wait()
}
