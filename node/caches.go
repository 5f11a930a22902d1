package node

import (
	"context"
	"errors"
	"fmt"
	"syscall"

	"skylun/block"
	"skylun/meta"
	"skylun/overlay"
	"skylun/raid"
)

// The caches of a node share one pool, which bounds what they hold. Those whose
// image nothing uses are open too while the node serves or another image is read,
// or what they hold would not count, and could not leave.

// cachesDir begins the names of all files of caches.
const cachesDir = "caches/"

func cacheFile(id uint64) string { return fmt.Sprintf(cachesDir+"%d", id) }
func sumsFile(id uint64) string  { return fmt.Sprintf(cachesDir+"%d.sums", id) }

// cacheFiles are the files of a cache: the copies, and their checksums.
type cacheFiles struct{ copies, sums *raid.File }

func (f cacheFiles) close() error { return errors.Join(f.copies.Close(), f.sums.Close()) }

func (n *Node) openCacheFiles(c meta.Cache) (f cacheFiles, err error) {
	if f.copies, err = n.array.Open(cacheFile(c.Map), block.Ceil(c.Size, block.Size)); err != nil {
		return f, err
	}
	open := n.array.Open
	if !c.Sums { // of an earlier version, or they were not finished
		open = n.array.Create
	}
	if f.sums, err = open(sumsFile(c.Map), overlay.SumsSize(c.Size)); err != nil {
		f.copies.Close()
	}
	return f, err
}

func (n *Node) createCacheFiles(c meta.Cache) (f cacheFiles, err error) {
	// What is a copy the map tells, and the checksums do.
	copies, err := n.array.CreateAll([]raid.Spec{{Name: cacheFile(c.Map), Size: block.Ceil(c.Size, block.Size), Unzeroed: true}})
	if err != nil {
		return f, err
	}
	f.copies = copies[0]
	if f.sums, err = n.array.Create(sumsFile(c.Map), overlay.SumsSize(c.Size)); err != nil {
		f.copies.Close()
		n.removeCacheFiles(c.Map)
	}
	return f, err
}

func (n *Node) removeCacheFiles(id uint64) error {
	return errors.Join(n.array.Remove(cacheFile(id)), n.array.Remove(sumsFile(id)))
}

// removeCache forgets a cache, then removes its files.
func (n *Node) removeCache(id uint64) error {
	if err := n.db.DeleteCache(id); err != nil {
		return err
	}
	return n.removeCacheFiles(id)
}

// lasting tells whether a file that cannot be opened would not be opened another
// time either.
func lasting(err error) bool {
	return !errors.Is(err, syscall.EMFILE) && !errors.Is(err, syscall.ENFILE) && !errors.Is(err, syscall.ENOMEM)
}

// newCache opens a cache over its files, which it closes after an error.
func (n *Node) newCache(c meta.Cache, image block.Reader, p *overlay.Prefetcher, f cacheFiles) (*overlay.Cache, error) {
	cache, err := overlay.OpenCache(overlay.CacheConfig{
		Name:       c.Image,
		Image:      image,
		File:       f.copies,
		Sums:       f.sums,
		Map:        n.db.Map(c.Map),
		Pool:       n.pool,
		Recency:    n.recency[c.Map],
		Prefetcher: p,
		Log:        n.log,
		Unsummed:   !c.Sums,
		Summed: func() {
			if err := n.db.ChangeCache(c.Map, func(c *meta.Cache) { c.Sums = true }); err != nil {
				n.log.Warn("database", "image", c.Image, "err", err)
			}
		},
	})
	if err != nil {
		f.close()
		return nil, err
	}
	return cache, nil
}

// openIdle opens the caches whose images nothing uses. The caller holds changes.
func (n *Node) openIdle() error {
	n.idleOpen = true
	all, err := n.db.Caches()
	if err != nil {
		return err
	}
	for _, c := range all {
		n.mu.Lock()
		open := n.images[c.Map] != nil
		n.mu.Unlock()
		if !open {
			n.addIdle(c)
		}
	}
	return nil
}

// idleCache is a cache whose image nothing uses.
type idleCache struct {
	*overlay.Cache
	cacheFiles
}

// addIdle opens a cache whose image nothing uses. One that cannot be opened is
// dropped when its image is used.
func (n *Node) addIdle(c meta.Cache) {
	f, err := n.openCacheFiles(c)
	if err != nil {
		n.log.Warn("the local copies of an image cannot be opened", "image", c.Image, "err", err)
		return
	}
	cache, err := n.newCache(c, sized(c.Size), nil, f)
	if err != nil {
		n.log.Warn("the local copies of an image cannot be opened", "image", c.Image, "err", err)
		return
	}
	n.mu.Lock()
	n.idle[c.Map] = &idleCache{cache, f}
	n.mu.Unlock()
}

// closeIdle closes the cache of that map if it is idle. The caller holds changes.
func (n *Node) closeIdle(id uint64) error {
	n.mu.Lock()
	c := n.idle[id]
	delete(n.idle, id)
	n.mu.Unlock()
	if c == nil {
		return nil
	}
	return n.closeCache(id, c.Cache)
}

// keepFree lets copies leave when they are more than they may be, or when less
// than local.low_space is left.
func (n *Node) keepFree(ctx context.Context) {
	n.pool.Trim(ctx)
	free, err := n.cacheSpace()
	switch {
	case errors.Is(err, errNowhere): // nothing is cached
	case err != nil:
		n.log.Debug("free space", "err", err)
	default:
		n.pool.KeepFree(free, int64(n.cfg.Local.LowSpace))
	}
}

// cacheSpace returns how many bytes are free where caches are.
func (n *Node) cacheSpace() (int64, error) {
	n.changes.Lock() // no file is closed
	defer n.changes.Unlock()
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, m := range n.images {
		return m.copies.Free()
	}
	for _, c := range n.idle {
		return c.copies.Free()
	}
	return 0, errNowhere
}
