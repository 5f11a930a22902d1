package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"skylun/blobstore"
	"skylun/meta"
	"skylun/overlay"
)

// image is one content of an image with its cache, shared by the volumes that
// are open over it and the drives it is in.
type image struct {
	info  blobstore.Info
	meta  meta.Cache
	cache *overlay.Cache
	boots *boots // nil: nothing is exported
	cacheFiles

	settled chan struct{} // closed when it is known what is empty in it, or cannot be known now
	hurry   func()        // ends waiting for the store to tell that

	users int // guarded by Node.mu
}

// Recency is that of its cache.
func (m *image) Recency() overlay.Recency { return m.cache.Recency() }

// Close closes its cache.
func (m *image) Close() error {
	m.hurry()
	<-m.settled
	m.boots.end()
	return m.cache.Close()
}

// wait waits until it is known what is empty in an image. Who reads it before that
// fetches what is empty like all else.
func (m *image) wait(ctx context.Context) error {
	select {
	case <-m.settled:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// openImage returns the image with one more user. What is empty in it, if it was
// not open before, is learnt beside that. The caller holds changes.
func (n *Node) openImage(info blobstore.Info) (*image, error) {
	n.mu.Lock()
	for _, m := range n.images {
		if m.info.Name == info.Name && m.info.Identity == info.Identity {
			m.users++
			n.mu.Unlock()
			return m, nil
		}
	}
	n.mu.Unlock()

	if n.server == nil && !n.idleOpen { // what they hold counts
		if err := n.openIdle(); err != nil {
			return nil, err
		}
	}
	c, found, err := n.findCache(info)
	if err != nil {
		return nil, err
	}
	var files cacheFiles
	if found {
		if err := n.closeIdle(c.Map); err != nil {
			n.log.Warn("the local copies of an image", "image", info.Name, "err", err)
		}
		if files, err = n.openCacheFiles(c); err != nil && lasting(err) {
			n.log.Warn("the local copies of an image are gone; it is read from the store again", "image", info.Name, "err", err)
			err = n.removeCache(c.Map)
			found = false
		}
	}
	if !found && err == nil {
		// Copies of what the image was before are of use to nobody.
		if err = n.dropCaches(info.Name); err == nil {
			c, files, err = n.createCache(info)
		}
	}
	if err != nil {
		return nil, localError("cache of image "+info.Name, err)
	}
	m := &image{info: info, meta: c, cacheFiles: files, users: 1, settled: make(chan struct{})}
	if m.cache, err = n.newCache(c, n.store.Image(info), n.prefetcher, files); err != nil {
		return nil, err
	}
	n.watchBoots(m)
	scan, hurry := context.WithTimeout(context.Background(), scanTime)
	m.hurry = hurry
	go func() {
		defer close(m.settled)
		defer hurry()
		n.settle(scan, m)
	}()
	n.mu.Lock()
	n.images[c.Map] = m
	n.mu.Unlock()
	return m, nil
}

// settle learns what is empty in an image that has just been opened.
func (n *Node) settle(ctx context.Context, m *image) {
	n.scan(ctx, m)
	s := m.status()
	n.log.Info("image", "name", m.info.Name, "format", m.info.Format, "size", Size(m.info.Size).Human(),
		"local", Percent(s.Local()), "cached", Size(s.Cached).Human(), "empty", Size(s.Zero).Human())
}

// scanTime bounds how long the store may take to tell what is empty in an image.
const scanTime = 20 * time.Second

// scan asks once per image which of its ranges are empty.
func (n *Node) scan(ctx context.Context, m *image) {
	if m.meta.Scanned {
		return
	}
	if err := m.cache.Scan(ctx); err != nil {
		if errors.Is(err, context.Canceled) {
			return // the image is closed again
		}
		n.log.Warn("the store did not tell which parts of the image are empty; they are read like others until the next start",
			"image", m.info.Name, "err", err)
		return
	}
	m.meta.Scanned = true
	if err := n.db.ChangeCache(m.meta.Map, func(c *meta.Cache) { c.Scanned = true }); err != nil {
		n.log.Warn("database", "image", m.info.Name, "err", err)
	}
}

func (n *Node) findCache(info blobstore.Info) (c meta.Cache, found bool, err error) {
	all, err := n.db.Caches()
	i := slices.IndexFunc(all, func(c meta.Cache) bool {
		return c.Image == info.Name && c.Identity == info.Identity && c.Size == info.Size
	})
	if err != nil || i < 0 {
		return meta.Cache{}, false, err
	}
	return all[i], true, nil
}

// createCache makes a cache: its files first, so that a crash leaves files
// that nobody knows and not a cache without them.
func (n *Node) createCache(info blobstore.Info) (c meta.Cache, files cacheFiles, err error) {
	id, err := n.db.NewMap()
	if err != nil {
		return c, files, err
	}
	c = meta.Cache{Image: info.Name, Identity: info.Identity, Size: info.Size, Map: id, Sums: true}
	if files, err = n.createCacheFiles(c); err != nil {
		return c, files, err
	}
	if err := n.db.PutCache(c); err != nil {
		files.close()
		n.removeCacheFiles(id)
		return c, files, err
	}
	return c, files, nil
}

// releaseImage takes one user from m and closes it when there is none left. The
// caller holds changes.
func (n *Node) releaseImage(m *image) error {
	if m == nil {
		return nil
	}
	n.mu.Lock()
	m.users--
	last := m.users == 0
	if last {
		delete(n.images, m.meta.Map)
	}
	n.mu.Unlock()
	if !last {
		return nil
	}
	if n.stopping() { // it is closed
		return nil
	}
	err := n.closeCache(m.meta.Map, m)
	n.addIdle(m.meta)
	return err
}

// dropCaches removes the local copies of an image, as far as no volume and no
// snapshot is made of the content that they are of, no drive has it and nobody
// reads it. The caller holds changes.
func (n *Node) dropCaches(name string) error {
	caches, err := n.unusedCaches(name)
	if err != nil {
		return err
	}
	for _, c := range caches {
		if err := errors.Join(n.closeIdle(c.Map), n.removeCache(c.Map)); err != nil {
			return err
		}
		n.log.Info("local copies of an image removed", "image", c.Image, "identity", c.Identity)
	}
	return nil
}

func (n *Node) unusedCaches(name string) ([]meta.Cache, error) {
	all, err := n.db.Caches()
	if err != nil {
		return nil, err
	}
	tree, err := n.db.Tree()
	if err != nil {
		return nil, err
	}
	used := map[string]bool{} // identities that something is made of
	for _, u := range imageUses(tree) {
		if info, err := infoOf(u); u.Image == name && err != nil {
			return nil, err
		} else if u.Image == name {
			used[info.Identity] = true
		}
	}
	return slices.DeleteFunc(all, func(c meta.Cache) bool {
		n.mu.Lock()
		open := n.images[c.Map] != nil
		n.mu.Unlock()
		return c.Image != name || open || n.driveUsing(func(info blobstore.Info) bool { return info.Name == name && info.Identity == c.Identity }) != nil || used[c.Identity]
	}), nil
}

// imageUses returns the volumes and, behind them and as such, what snapshots hold
// of volumes.
func imageUses(tree *meta.Tree) []meta.Volume {
	uses := slices.Clone(tree.Volumes)
	for _, s := range tree.Snapshots {
		for _, v := range s.Volumes {
			uses = append(uses, meta.Volume{Name: s.Name + "/" + v.Volume, Image: v.Image, ImageInfo: v.ImageInfo})
		}
	}
	return uses
}

// infoOf returns the image of a volume as it was when the volume was made.
func infoOf(v meta.Volume) (info blobstore.Info, err error) {
	if v.Image == "" {
		return info, nil
	}
	if err := json.Unmarshal(v.ImageInfo, &info); err != nil {
		return info, fmt.Errorf("volume %s: what the database knows of image %s: %w", v.Name, v.Image, err)
	}
	return info, nil
}

// Images returns what is in the store.
func (n *Node) Images(ctx context.Context) ([]ImageStatus, error) {
	return listImages(ctx, n.store)
}

// Image returns one image of the store.
func (n *Node) Image(ctx context.Context, name string) (ImageStatus, error) {
	return statImage(ctx, n.store, name)
}

// DeleteImage removes an image from the store, and its local copies. It
// fails with ErrInUse when a volume is an overlay of it, or it is in a drive.
//
// While the store is at it the name cannot be used, and other changes go on.
func (n *Node) DeleteImage(ctx context.Context, name string) error {
	local, err := n.beginRemoving(name)
	if err != nil {
		return err
	}
	err = storeError(n.store.Delete(ctx, name))
	if errors.Is(err, ErrNotFound) && local {
		err = nil // somebody else removed it there
	}
	n.changes.Lock()
	defer n.changes.Unlock()
	delete(n.removing, name)
	if err != nil {
		return err
	}
	return n.dropCaches(name)
}

// checkRemoving fails with ErrInUse while an image is being removed. The caller
// holds changes.
func (n *Node) checkRemoving(name string) error {
	if n.removing[name] {
		return Failure(ErrInUse, fmt.Sprintf("image %s is just being removed; use another one, or import it again when that is done", name))
	}
	return nil
}

// beginRemoving takes the name of an image that nobody uses, and tells whether
// something of it is local.
func (n *Node) beginRemoving(name string) (local bool, err error) {
	n.changes.Lock()
	defer n.changes.Unlock()
	if err := n.checkRemoving(name); err != nil {
		return false, err
	}
	tree, err := n.db.Tree()
	if err != nil {
		return false, err
	}
	for _, v := range tree.Volumes {
		if v.Image == name {
			return false, Failure(ErrInUse, fmt.Sprintf("image %s: volume %s is an overlay of it; remove that first with: skylun volume rm %s", name, v.Name, v.Name))
		}
	}
	for _, s := range tree.Snapshots {
		for _, v := range s.Volumes {
			if v.Image == name {
				return false, Failure(ErrInUse, fmt.Sprintf("image %s: snapshot %s is of volume %s, an overlay of it; remove that first with: skylun snapshot rm %s", name, s.Name, v.Volume, s.Name))
			}
		}
	}
	n.sweep()
	if d := n.driveUsing(func(info blobstore.Info) bool { return info.Name == name }); d != nil {
		return false, Failure(ErrInUse, fmt.Sprintf("image %s: it is in drive %s; take it out first with: skylun cdrom eject %s", name, d.name, d.place()))
	}
	caches, err := n.unusedCaches(name)
	if err != nil {
		return false, err
	}
	n.mu.Lock()
	for _, m := range n.images {
		if m.info.Name == name {
			err = Failure(ErrInUse, fmt.Sprintf("image %s is being put into a drive, or read for an export; try again when that is done", name))
		}
	}
	n.mu.Unlock()
	if err != nil {
		return false, err
	}
	n.removing[name] = true
	return len(caches) > 0, nil
}

func (m *image) status() CacheStatus {
	s, p := m.cache.Stats(), m.cache.PrefetchStats()
	return CacheStatus{
		Image: m.info.Name, Identity: m.info.Identity, Size: s.Cached + s.Zero + s.Absent,
		Cached: s.Cached, Zero: s.Zero, Absent: s.Absent,
		Hits: uint64(s.Hits), Misses: uint64(s.Misses), Fetches: uint64(s.Fetches), FetchedBytes: uint64(s.FetchedBytes),
		Dropped: uint64(s.Dropped), Damaged: uint64(s.Damaged), Unreadable: uint64(s.Unreadable), Pinned: m.cache.Pinned(),
		Prefetch: &p,
	}
}

// Percent returns a share between 0 and 1 for people; 100% means that nothing
// is missing.
func Percent(f float64) string {
	if f < 1 && f > 0.99 {
		f = 0.99
	}
	return fmt.Sprintf("%.0f%%", 100*f)
}
