package overlay

import (
	"context"

	"golang.org/x/sync/errgroup"

	"skylun/block"
)

// replayParallel is how many ranges of a replay are asked for at a time. It
// leaves half of fetchParallel to readers.
const replayParallel = fetchParallel / 2

// Replay brings ranges, of whole blocks within the cache, in their order. It
// returns when all of them are local, or with why not. What is here
// already costs nothing.
func (c *Cache) Replay(ctx context.Context, ranges []block.Range) error {
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(replayParallel)
	for _, r := range ranges {
		for off := r.Off; off < r.End && gctx.Err() == nil; {
			st, end := c.far(off, r.End)
			end = min(end, block.Floor(off, prefetchWindow)+prefetchWindow)
			if st == absent {
				window := block.Range{Off: off, End: end}
				g.Go(func() error { return c.warm(gctx, window) })
			}
			off = end
		}
	}
	if err := g.Wait(); err != nil {
		return err
	}
	return ctx.Err()
}
