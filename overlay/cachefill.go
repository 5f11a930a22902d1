package overlay

import "errors"

// store writes what a fetch of absent blocks has brought, and makes it present.
//
// What is brought to have all of an image takes no space from what others read:
// an image that does not fit would be fetched again and again. A pinned one does.
func (c *Cache) store(o *fetch) error {
	if err := c.copy.trouble.Load(); err != nil {
		return *err // until a round succeeds again: what cannot be recorded would only grow
	}
	r := o.r
	if err := c.pool.reserve(r.Len(), o.why != forFill || c.Pinned()); err != nil {
		return err
	}
	err := c.write(o)
	if err != nil {
		c.pool.release(r.Len(), nil)
		// A part of it may be there, where nothing would ever look for it.
		if e := c.punch(r); e != nil {
			err = errors.Join(err, e)
		}
	}
	return err
}

// write writes what a fetch has brought, for which there is a reserve, and makes
// it present.
func (c *Cache) write(o *fetch) error {
	r := o.r
	c.regions.share(r)
	defer c.regions.unshare(r)
	if err := c.copy.write(o.data, r.Off); err != nil {
		return err
	}
	if err := c.putSums(o.data, r.Off); err != nil {
		return err
	}
	now := c.pool.clock.Load()
	for off := r.Off; off < r.End; off = regionOf(off).End {
		c.regions.at(off).touch(now)
	}
	c.pool.release(r.Len(), func() { c.copy.fill(r, present) })
	return nil
}

// Pin has all of the image brought here, if there is a Prefetcher, and keeps it
// from leaving, until Unpin is called as often.
func (c *Cache) Pin() {
	if c.pins.Add(1) == 1 {
		c.prefetched.want(c, PrefetchFull, false)
	}
}

// Unpin takes back one Pin.
func (c *Cache) Unpin() {
	if c.pins.Add(-1) == 0 {
		c.prefetched.want(c, PrefetchOff, false)
		c.pool.stale.Store(true)
	}
}

// Pinned tells whether nothing may leave.
func (c *Cache) Pinned() bool { return c.pins.Load() > 0 }
