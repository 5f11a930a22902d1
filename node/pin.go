package node

import (
	"context"
	"errors"
	"fmt"

	"skylun/meta"
)

// A volume can be pinned: all of its image is brought here and stays, so that the
// volume works without the store. Who pins is the database, by "volume pin", or
// the configuration. A pinned image is open as long as the node serves, whether
// or not a target shows the volume.

// PinVolume pins a volume, or takes that back. It fails with ErrInvalid when there
// is nothing to pin, or not enough room in the cache, or when the configuration
// has pinned it.
func (n *Node) PinVolume(ctx context.Context, name string, pin bool) (_ VolumeStatus, err error) {
	if pin && n.server != nil { // nobody waits for the store with changes held
		open, e := n.acquire(ctx, name)
		if e != nil {
			return VolumeStatus{}, e
		}
		defer func() { err = errors.Join(err, n.release(open)) }()
	}
	n.changes.Lock()
	defer n.changes.Unlock()
	v, err := n.db.Volume(name)
	if err != nil {
		return VolumeStatus{}, volumeError(name, err)
	}
	refuse := func(format string, args ...any) (VolumeStatus, error) {
		return VolumeStatus{}, Failure(ErrInvalid, fmt.Sprintf("volume %s: ", name)+fmt.Sprintf(format, args...))
	}
	if v.Image == "" {
		return refuse("it is no overlay of an image: all of it is local")
	}
	if !pin && n.pinnedByConfig(name) {
		return refuse("the configuration pins it; take out pin: true there and restart the node")
	}
	if pin == v.Pinned {
		return n.statusOf(v)
	}
	if pin {
		need, err := n.pinnedSize(v)
		if err != nil {
			return VolumeStatus{}, err
		}
		if max := n.cfg.Cache.MaxSize; max > 0 && need > int64(max) {
			return refuse("cache.max_size is %v, and the images that are then pinned have %v; raise it, or set it to 0", max, Size(need).Human())
		}
	}
	if err := n.db.PinVolume(name, pin); err != nil {
		return VolumeStatus{}, err
	}
	v.Pinned = pin
	if n.server != nil && !n.pinnedByConfig(name) {
		if pin {
			err = n.pin(ctx, v)
		} else {
			err = n.unpin(v)
		}
		if err != nil {
			return VolumeStatus{}, err
		}
	}
	n.log.Info("volume", "volume", name, "pinned", pin)
	return n.statusOf(v)
}

func (n *Node) pinnedByConfig(volume string) bool {
	p := n.place(volume)
	return p != nil && p.disk.Pin
}

func (n *Node) pinned(v meta.Volume) bool { return v.Pinned || n.pinnedByConfig(v.Name) }

// pinnedSize returns what the images of all pinned volumes need in the cache, and
// of those given.
func (n *Node) pinnedSize(also ...meta.Volume) (need int64, err error) {
	volumes, err := n.db.Volumes()
	if err != nil {
		return 0, err
	}
	seen := map[string]bool{}
	for i, v := range append(volumes, also...) {
		if i < len(volumes) && !n.pinned(v) || v.Image == "" {
			continue
		}
		info, err := infoOf(v)
		if err != nil {
			return 0, err
		}
		if seen[info.Identity] {
			continue
		}
		seen[info.Identity] = true
		need += info.Size
		if s, known, err := n.cacheStatus(info); err != nil {
			return 0, err
		} else if known {
			need -= s.Zero
		}
	}
	return need, nil
}

// pinAll begins with what is pinned when the node starts. The caller holds
// changes.
func (n *Node) pinAll(ctx context.Context) error {
	volumes, err := n.db.Volumes()
	if err != nil {
		return err
	}
	pinned := false
	for _, v := range volumes {
		if v.Image == "" || !n.pinned(v) {
			continue
		}
		pinned = true
		if err := n.pin(ctx, v); err != nil {
			return err
		}
	}
	if !pinned || n.cfg.Cache.MaxSize == 0 {
		return nil
	}
	need, err := n.pinnedSize()
	if err == nil && need > int64(n.cfg.Cache.MaxSize) {
		n.log.Warn("the images of pinned volumes do not fit: what does not is read from the store; raise cache.max_size, or pin less",
			"max_size", n.cfg.Cache.MaxSize, "pinned", Size(need).Human())
	}
	return err
}

// pin keeps the image of a volume here; what is missing is brought as if prefetch
// was full. The caller holds changes.
func (n *Node) pin(ctx context.Context, v meta.Volume) error {
	info, err := infoOf(v)
	if err != nil {
		return err
	}
	m, err := n.openImage(info)
	if err != nil {
		return err
	}
	m.cache.Pin()
	return m.wait(ctx) // what is empty is not fetched
}

// unpin takes back a pin. The caller holds changes.
func (n *Node) unpin(v meta.Volume) error {
	info, err := infoOf(v)
	if err != nil {
		return err
	}
	n.mu.Lock()
	var m *image
	for _, x := range n.images {
		if x.info.Name == info.Name && x.info.Identity == info.Identity {
			m = x
		}
	}
	n.mu.Unlock()
	if m == nil || !m.cache.Pinned() {
		return nil
	}
	m.cache.Unpin()
	return n.releaseImage(m)
}
