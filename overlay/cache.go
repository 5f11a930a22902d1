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
	Log   *slog.Logger

	// Prefetcher fills the cache when somebody asks for that; nil: nobody can.
	Prefetcher *Prefetcher
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

	fetches    fetches
	prefetched prefetched
	counts     cacheCounts
	trace      atomic.Pointer[Trace] // nil: nobody wants to know what is read

	fetchLog, keepLog sparingly
}

type cacheCounts struct {
	hits, misses, fetches, fetched, dropped, failed atomic.Int64
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
}

// OpenCache opens the cache of an image.
func OpenCache(cfg CacheConfig) (*Cache, error) {
	s, err := openSparse(cfg.Image.Size(), cfg.File, cfg.Map)
	if err != nil {
		return nil, fmt.Errorf("cache of image %s: %w", cfg.Name, err)
	}
	c := &Cache{name: cfg.Name, image: cfg.Image, copy: s, log: cfg.Log}
	c.fetches.init()
	c.prefetched.init(c, cfg.Prefetcher)
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
	if err := block.CheckRange(off, int64(len(p)), c.Size()); err != nil {
		return err
	}
	c.note(off, len(p))
	if done, err := c.local(p, off, true); done {
		return err
	}
	pieces := c.plan(block.Range{Off: off, End: off + int64(len(p))})
	missed := false
	for _, piece := range pieces { // while fetches are under way
		q := p[piece.r.Off-off : piece.r.End-off]
		switch {
		case piece.fetch != nil:
			missed = true
		case piece.state == present:
			if _, err := c.copy.read(q, piece.r.Off, true); err != nil {
				return fmt.Errorf("image %s: %w", c.name, err)
			}
		default:
			clear(q)
		}
	}
	if !missed { // another read's fetch came in meanwhile
		c.counts.hits.Add(1)
		return nil
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
			return fmt.Errorf("image %s: %w", c.name, err)
		}
		copy(p[piece.r.Off-off:], piece.fetch.data[piece.r.Off-piece.fetch.r.Off:piece.r.End-piece.fetch.r.Off])
	}
	return nil
}

// TryReadAt implements block.TryReader.
func (c *Cache) TryReadAt(p []byte, off int64) (done bool, err error) {
	if err := block.CheckRange(off, int64(len(p)), c.Size()); err != nil {
		return true, err
	}
	c.note(off, len(p))
	return c.local(p, off, false)
}

// local reads p when all of it is here. It waits for the local disk only if
// wait says so; done is false when it would have to, or something is absent.
func (c *Cache) local(p []byte, off int64, wait bool) (done bool, err error) {
	for rest := p; len(rest) > 0; {
		st, end := c.copy.at(off)
		n := min(int64(len(rest)), end-off)
		switch st {
		case absent:
			return false, nil
		case zero:
			clear(rest[:n])
		default:
			if done, err := c.copy.read(rest[:n], off, wait); !done || err != nil {
				if err != nil {
					err = fmt.Errorf("image %s: %w", c.name, err)
				}
				return done, err
			}
		}
		rest, off = rest[n:], off+n
	}
	c.counts.hits.Add(1)
	return true, nil
}

// Stats returns the figures now.
func (c *Cache) Stats() CacheStats {
	s := CacheStats{
		Hits: c.counts.hits.Load(), Misses: c.counts.misses.Load(), Fetches: c.counts.fetches.Load(),
		FetchedBytes: c.counts.fetched.Load(), Dropped: c.counts.dropped.Load(), Failed: c.counts.failed.Load(),
	}
	s.Cached, s.Zero, s.Absent = c.copy.counts()
	return s
}

// Close ends fetches that are under way, records what is here, and closes the
// file. No volume may use the cache any more.
func (c *Cache) Close() error {
	c.prefetched.leave(c)
	c.fetches.close()
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
