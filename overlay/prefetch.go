package overlay

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sync/errgroup"

	"skylun/block"
)

// Prefetching asks for fetches before anybody reads, in the same list, so what
// is under way is not fetched twice. It goes in windows, a few at a time, so
// that reads find fetches free whatever is prefetched.
const (
	prefetchWindow   = fetchMax
	prefetchParallel = 4 // windows of one prefetch under way; all of them leave half of fetchParallel
	prefetchQueue    = 4 // prefetches that nobody waits for; more are dropped
)

// Prefetch implements block.Prefetcher: what the volume would read from the
// image is brought into the cache.
func (v *Volume) Prefetch(ctx context.Context, off, n int64, wait bool) error {
	w, err := v.enter(off, n)
	if err != nil {
		return err
	}
	w.leave() // a stop of the volume does not wait for the store
	if v.base == nil {
		return nil
	}
	r := block.Range{Off: off, End: min(off+n, v.base.Size())}
	if wait {
		return v.wrap(v.prefetch(ctx, r))
	}
	v.base.detach(func(ctx context.Context) {
		// Why not shows when it is read.
		_ = v.prefetch(ctx, r)
	})
	return nil
}

// prefetch returns when nothing of r is far away, or with why not.
func (v *Volume) prefetch(ctx context.Context, r block.Range) error {
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(prefetchParallel)
	for off := r.Off; off < r.End && gctx.Err() == nil; {
		_, st, end := v.view.Load().at(off)
		if st == absent {
			st, end = v.base.far(off, end)
		}
		if st == absent {
			end = min(end, block.Floor(off, prefetchWindow)+prefetchWindow)
			window := block.Range{Off: off, End: end}.Intersect(r)
			g.Go(func() error { return v.base.warm(gctx, window) })
		}
		off = end
	}
	if err := g.Wait(); err != nil {
		return err
	}
	return ctx.Err()
}

// follow tells what was read, so that more of the kind is here in time.
func (v *Volume) follow(off, n int64, waited bool) {
	if v.follower != nil {
		v.follower.read(off, n, waited, v.belowAll)
	}
}

// belowAll calls f with those parts of r that reads take from the image.
func (v *Volume) belowAll(r block.Range, f func(block.Range)) {
	for off := r.Off; off < r.End; {
		_, st, end := v.view.Load().at(off)
		end = min(end, r.End)
		if st == absent {
			f(block.Range{Off: off, End: end})
		}
		off = end
	}
}

// far returns the state of the copy of the byte at off, and until where, at most
// end, that is the same.
func (c *Cache) far(off, end int64) (state, int64) {
	st, e := c.copy.at(off)
	return st, min(end, e)
}

// warm returns when all of r is here, or with why not.
func (c *Cache) warm(ctx context.Context, r block.Range) error {
	for _, piece := range c.plan(r) {
		if piece.fetch == nil {
			continue
		}
		select {
		case <-piece.fetch.settled:
		case <-ctx.Done():
			return ctx.Err()
		}
		if err := errors.Join(piece.fetch.err, piece.fetch.lost); err != nil {
			return fmt.Errorf("prefetch image %s: %w", c.name, err)
		}
	}
	return nil
}

// detach runs f with a context that ends when the cache closes, unless too
// many such calls run already.
func (c *Cache) detach(f func(ctx context.Context)) {
	x := &c.fetches
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.closed || x.detached == prefetchQueue {
		return
	}
	x.detached++
	x.run.Go(func() {
		f(x.ctx)
		x.mu.Lock()
		x.detached--
		x.mu.Unlock()
	})
}
