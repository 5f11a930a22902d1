package overlay

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"

	"skylun/block"
	"skylun/overlay/prefetch"
)

// CacheConfig says what OpenCache opens.
type CacheConfig struct {
	Name  string       // of the image, for messages
	Image block.Reader // its content; need not be reachable now
	File  File         // where copies go, block.Ceil(Image.Size(), block.Size) bytes
	Map   Map          // what is in File
	Sums  File         // by which copies are checked, SumsSize(Image.Size()) bytes; nil: they are not
	Pool  *Pool        // bounds what is kept; nil: nothing does
	Log   *slog.Logger

	// Recency is what it was when the cache was closed; nil: not known.
	Recency Recency

	// Prefetcher fills the cache when somebody asks for that; nil: nobody can.
	Prefetcher *Prefetcher

	// Unsummed tells that File was filled when there were no sums: copies
	// without one are believed, until all have theirs and Summed is called.
	Unsummed bool
	Summed   func()
}

// Cache is an image with local copies of the blocks that were read. It is a
// block.Reader of the image's size rounded up to whole blocks; the rest of
// the last block reads as zeros. All volumes of the image on a node share one.
//
// A read of what is not here is answered as soon as its bytes have come;
// keeping the copy comes after that and is given up when it cannot keep up.
type Cache struct {
	name  string
	image block.Reader
	copy  *sparse
	log   *slog.Logger

	regions  cacheRegions
	pool     *Pool
	pins     atomic.Int32  // while there are any, nothing leaves
	left     []block.Range // guarded by the pool's evicting: absent, and not punched yet
	leaving  int64         // guarded by the pool's mu: bytes in left that were present
	sums     File          // nil: copies are not checked
	unsummed atomic.Bool   // copies without a sum are believed

	maxSums    int64 // regions that have their sums in memory
	sumsLoaded atomic.Int64
	sumsMu     sync.Mutex
	sumsHand   int64 // guarded by sumsMu: the region to be looked at next

	fetches    fetches
	prefetched prefetched
	guesses    guesses
	counts     cacheCounts
	trace      atomic.Pointer[Trace] // nil: nobody wants to know what is read

	fetchLog, keepLog, spoiltLog sparingly
}

type cacheCounts struct {
	hits, misses, fetches, fetched, dropped, failed, damaged, unreadable atomic.Int64
}

// CacheStats are the figures of a Cache. The first three are bytes and add up
// to its size.
type CacheStats struct {
	Cached int64 `json:"cached_bytes"` // local
	Zero   int64 `json:"zero_bytes"`   // known to be empty
	Absent int64 `json:"absent_bytes"` // only in the store

	Hits         int64 `json:"hits"`          // reads answered without the store
	Misses       int64 `json:"misses"`        // reads that waited for the store
	Fetches      int64 `json:"fetches"`       // ranged reads of the image
	FetchedBytes int64 `json:"fetched_bytes"` // bytes they brought
	Dropped      int64 `json:"dropped"`       // fetches that were not kept
	Failed       int64 `json:"failed"`        // fetches that failed
	Damaged      int64 `json:"damaged"`       // blocks that were not what had been stored
	Unreadable   int64 `json:"unreadable"`    // blocks that the local disk could not read
}

// OpenCache opens the cache of an image.
func OpenCache(cfg CacheConfig) (*Cache, error) {
	file := cfg.File
	if cfg.Sums != nil {
		file = summed{file, cfg.Sums}
	}
	s, err := openSparse(cfg.Image.Size(), file, cfg.Map)
	if err != nil {
		return nil, fmt.Errorf("cache of image %s: %w", cfg.Name, err)
	}
	s.lenient = true
	c := &Cache{name: cfg.Name, image: cfg.Image, copy: s, sums: cfg.Sums, maxSums: maxSums, pool: cfg.Pool, log: cfg.Log}
	if c.log == nil {
		c.log = slog.New(slog.DiscardHandler)
	}
	if c.pool == nil {
		c.pool = NewPool(0, c.log)
	}
	c.regions.init(c.Size())
	c.regions.recall(cfg.Recency)
	c.fetches.init()
	c.guesses.init(c.Size())
	c.prefetched.init(c, cfg.Prefetcher)
	c.pool.join(c)
	c.tidy(cfg)
	return c, nil
}

// Size returns the length in bytes, a multiple of block.Size.
func (c *Cache) Size() int64 { return c.copy.index.blocks * block.Size }

// ImageSize returns the length of the image in bytes.
func (c *Cache) ImageSize() int64 { return c.image.Size() }

// Scan asks the image which of its ranges are empty, if it can tell, so that
// they are never fetched. It returns when the answer is durable.
func (c *Cache) Scan(ctx context.Context) error {
	image, ok := c.image.(block.DataRanger)
	if !ok {
		return nil
	}
	end := int64(0)
	empty := func(r block.Range) {
		if r = r.Inward(block.Size); !r.Empty() {
			c.copy.fill(r, zero)
		}
	}
	err := image.DataRanges(ctx, block.Range{Off: 0, End: c.ImageSize()}, func(r block.Range) error {
		empty(block.Range{Off: end, End: min(r.Off, c.Size())})
		end = r.End
		return nil
	})
	if err == nil {
		empty(block.Range{Off: end, End: c.Size()})
		err = c.copy.commit(ctx)
	}
	if err != nil {
		return fmt.Errorf("scan image %s for empty ranges: %w", c.name, err)
	}
	return nil
}

// ReadAt implements block.Reader.
func (c *Cache) ReadAt(ctx context.Context, p []byte, off int64) error {
	_, err := c.readAt(ctx, p, off)
	return err
}

// readAt is ReadAt. It tells whether something was not here.
func (c *Cache) readAt(ctx context.Context, p []byte, off int64) (missed bool, err error) {
	if err := block.CheckRange(off, int64(len(p)), c.Size()); err != nil {
		return false, err
	}
	c.note(off, len(p))
	if c.here(p, off, true) {
		c.hit()
		return false, nil
	}
	pieces := c.plan(block.Range{Off: off, End: off + int64(len(p))})
	for _, piece := range pieces { // while fetches are under way
		if piece.fetch != nil {
			missed = true
			continue
		}
		q := p[piece.r.Off-off : piece.r.End-off]
		if piece.state == zero {
			clear(q)
		} else if !c.here(q, piece.r.Off, true) { // it has left meanwhile, or is damaged
			if err := c.ReadAt(ctx, q, piece.r.Off); err != nil {
				return false, err
			}
		}
	}
	if !missed { // another read's fetch came in meanwhile
		c.hit()
		return false, nil
	}
	c.counts.misses.Add(1)
	c.waits(off)
	defer c.waited(int64(len(p)))
	for _, piece := range pieces {
		if piece.fetch == nil {
			continue
		}
		if piece.fetch.why != forReader {
			c.prefetched.late.Add(1)
		}
		if err := piece.fetch.wait(ctx); err != nil {
			return true, fmt.Errorf("image %s: %w", c.name, err)
		}
		copy(p[piece.r.Off-off:], piece.fetch.data[piece.r.Off-piece.fetch.r.Off:piece.r.End-piece.fetch.r.Off])
	}
	return true, nil
}

// TryReadAt implements block.TryReader.
func (c *Cache) TryReadAt(p []byte, off int64) (done bool, err error) {
	if err := block.CheckRange(off, int64(len(p)), c.Size()); err != nil {
		return true, err
	}
	c.note(off, len(p))
	if !c.here(p, off, false) {
		return false, nil
	}
	c.hit()
	return true, nil
}

// hit counts a read that was answered without the store.
func (c *Cache) hit() {
	if c.counts.hits.Add(1)%tickReads == 0 {
		c.pool.clock.Add(1)
	}
}

// Stats returns the figures now.
func (c *Cache) Stats() CacheStats {
	s := CacheStats{
		Hits: c.counts.hits.Load(), Misses: c.counts.misses.Load(), Fetches: c.counts.fetches.Load(),
		FetchedBytes: c.counts.fetched.Load(), Dropped: c.counts.dropped.Load(), Failed: c.counts.failed.Load(),
		Damaged: c.counts.damaged.Load(), Unreadable: c.counts.unreadable.Load(),
	}
	s.Cached, s.Zero, s.Absent = c.copy.counts()
	return s
}

// Close ends fetches that are under way, records what is here, and closes the
// file. No volume may use the cache any more.
func (c *Cache) Close() error {
	c.prefetched.leave()
	c.fetches.close()
	c.pool.leave(c)
	if err := c.copy.close(); err != nil && !errors.Is(err, block.ErrClosed) {
		return fmt.Errorf("cache of image %s: %w", c.name, err)
	}
	return nil
}

var (
	_ block.Reader    = (*Cache)(nil)
	_ block.TryReader = (*Cache)(nil)
)

// fetches are those under way for one image.
type fetches struct {
	mu     sync.Mutex
	list   []*fetch // guarded by mu, sorted by offset, without overlaps
	closed bool     // guarded by mu

	detached int            // guarded by mu: prefetches that nobody waits for
	sizer    prefetch.Sizer // guarded by mu

	ctx    context.Context // ends when the cache closes: fetches belong to it, not to the readers who wait
	cancel context.CancelFunc
	run    sync.WaitGroup
	slots  chan struct{} // one for each fetch that may be reading the store
	kept   atomic.Int64  // bytes fetched and not yet stored
}
