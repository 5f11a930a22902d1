package node

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"skylun/blobstore"
	"skylun/lun"
	"skylun/meta"
	"skylun/overlay"
	"skylun/raid"
)

// VolumeSpec asks for a volume.
type VolumeSpec struct {
	Name  string `json:"name"`
	Image string `json:"image,omitempty"` // what it is an overlay of; empty: a blank disk
	Size  int64  `json:"size,omitempty"`  // bytes; 0: the size of the image

	// Snapshot makes it a copy of what a snapshot holds, NAME or, when that is
	// of several volumes, NAME/VOLUME. Image and Size are then those of the
	// snapshot, and not to be given.
	Snapshot string `json:"snapshot,omitempty"`
}

// volume is a volume that is open.
type volume struct {
	meta   meta.Volume
	image  *image   // nil: blank
	layers []*layer // lowest first; guarded by Node.changes
	dev    *overlay.Volume
	unit   *lun.Disk // nil: no target shows it
	users  int       // guarded by Node.mu

	cleaning bool // guarded by Node.changes: one of the users is the cleaner
}

// CreateVolume makes a volume. It fails with ErrExists when there is one of
// that name, and with ErrInvalid when there cannot be one like that.
func (n *Node) CreateVolume(ctx context.Context, spec VolumeSpec) (VolumeStatus, error) {
	if err := ValidVolumeName(spec.Name); err != nil {
		return VolumeStatus{}, Failure(ErrInvalid, "volume: "+err.Error())
	}
	if err := n.checkUnknown(spec.Name); err != nil {
		return VolumeStatus{}, err
	}
	p := plan{spec: spec}
	if spec.Snapshot == "" && spec.Image != "" { // which may take as long as the store does
		info, err := n.store.Stat(ctx, spec.Image)
		if err != nil {
			return VolumeStatus{}, n.imageError(spec.Image, err)
		}
		p.info = info
	}
	n.changes.Lock()
	defer n.changes.Unlock()
	if err := n.checkUnknown(spec.Name); err != nil { // by now
		return VolumeStatus{}, err
	}
	if spec.Snapshot != "" {
		if err := n.planClone(&p); err != nil {
			return VolumeStatus{}, err
		}
	} else if err := n.checkRemoving(spec.Image); err != nil {
		return VolumeStatus{}, err
	}
	if key, err := p.checkNew(); err != nil && p.from == nil {
		return VolumeStatus{}, Failure(ErrInvalid, fmt.Sprintf("volume %s: %s: %v", spec.Name, key, err))
	}
	v, err := n.createVolume(p)
	if err != nil {
		return VolumeStatus{}, err
	}
	n.logCreated(v)
	return n.statusOf(v)
}

// checkUnknown fails with ErrExists when there is a volume of that name.
func (n *Node) checkUnknown(name string) error {
	switch _, err := n.db.Volume(name); {
	case err == nil:
		return Failure(ErrExists, fmt.Sprintf("volume %s already exists", name))
	case !errors.Is(err, meta.ErrNotFound):
		return err
	}
	return nil
}

func (n *Node) logCreated(v meta.Volume) {
	attrs := []any{"volume", v.Name, "size", Size(v.Size).Human()}
	if v.Image != "" {
		attrs = append(attrs, "image", v.Image)
	}
	n.log.Info("volume created", attrs...)
}

// createVolume makes what a checked plan says: the file first, so that a
// crash leaves a file that nobody knows and not a volume without one.
func (n *Node) createVolume(p plan) (meta.Volume, error) {
	fail := func(err error) (meta.Volume, error) {
		return meta.Volume{}, localError("create volume "+p.spec.Name, err)
	}
	v := meta.Volume{Name: p.spec.Name, Size: p.size(), Image: p.spec.Image}
	if v.Image != "" {
		info, err := json.Marshal(p.info)
		if err != nil {
			return fail(err)
		}
		v.ImageInfo = info
	}
	var parent uint64
	if p.from != nil {
		v.Image, v.ImageInfo, parent = p.from.Image, p.from.ImageInfo, p.from.Layer
	}
	id, err := n.db.NewMap()
	if err != nil {
		return fail(err)
	}
	v.Layer = id
	files, err := n.array.CreateAll([]raid.Spec{layerSpec(id, v.Size)})
	if err != nil {
		return fail(err)
	}
	if err := files[0].Close(); err != nil {
		return fail(err)
	}
	v, err = n.db.CloneVolume(v, parent)
	if err != nil {
		n.array.Remove(layerFile(id))
		return fail(err)
	}
	return v, nil
}

// DeleteVolume removes a volume and what was written to it, except what
// snapshots hold: those stay. It fails with ErrInUse while the volume is a unit of
// a target or is being read.
func (n *Node) DeleteVolume(ctx context.Context, name string) error {
	n.changes.Lock()
	defer n.changes.Unlock()
	v, err := n.db.Volume(name)
	if err != nil {
		return volumeError(name, err)
	}
	if l := n.place(name); l != nil {
		if l.mapped {
			return Failure(ErrInUse, fmt.Sprintf("volume %s is %v; take it away first with: skylun lun unmap %s %d", name, l, l.iqn, l.lun))
		}
		return Failure(ErrInUse, fmt.Sprintf("volume %s is %v; take it out of the configuration and restart the node first", name, l))
	}
	n.mu.Lock()
	open := n.volumes[name]
	if open != nil && open.cleaning && open.users == 1 {
		open = nil
		delete(n.volumes, name) // the cleaner closes it
	}
	n.mu.Unlock()
	if open != nil {
		return Failure(ErrInUse, fmt.Sprintf("volume %s is being exported; try again when that is done", name))
	}
	if n.pinned(v) {
		if err := n.unpin(v); err != nil {
			return err
		}
	}
	return n.removeVolume(v)
}

// removeVolume forgets a volume, then removes what it had written.
func (n *Node) removeVolume(v meta.Volume) error {
	if err := n.db.DeleteVolume(v.Name); err != nil {
		return err
	}
	n.log.Info("volume removed", "volume", v.Name)
	n.giveBack()
	return nil
}

// acquire returns an open volume with one more user, to be read: the store was
// asked about its image. It may wait for the store, so nobody who holds changes
// calls it.
func (n *Node) acquire(ctx context.Context, name string) (*volume, error) {
	images := map[string]bool{}
	n.mu.Lock()
	open := n.volumes[name] != nil
	n.mu.Unlock()
	if v, err := n.db.Volume(name); err == nil && v.Image != "" && !open {
		images[v.Image] = true
	}
	found := n.lookUp(ctx, images)
	n.changes.Lock()
	v, err := n.use(ctx, name, found)
	n.changes.Unlock()
	if err != nil {
		return nil, err
	}
	return v, n.settled(ctx, v)
}

// settled waits until it is known what is empty in the image of v, which was just
// opened, or lets go of v.
func (n *Node) settled(ctx context.Context, v *volume) error {
	if v.image == nil {
		return nil
	}
	if err := v.image.wait(ctx); err != nil {
		return errors.Join(err, n.release(v))
	}
	return nil
}

// use returns an open volume with one more user. found is what the store says of
// images; one that it was not asked about is as it was when the volume was made, or
// reading it fails. The caller holds changes, and does not wait for the store.
func (n *Node) use(ctx context.Context, name string, found map[string]found) (*volume, error) {
	n.mu.Lock()
	if n.volumes == nil {
		n.mu.Unlock()
		return nil, errStopping
	}
	if v := n.volumes[name]; v != nil {
		v.users++
		n.mu.Unlock()
		return v, nil
	}
	n.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	m, err := n.db.Volume(name)
	if err != nil {
		return nil, volumeError(name, err)
	}
	info, err := n.confirm(m, found)
	if err != nil {
		return nil, err
	}
	return n.openVolume(ctx, m, info)
}

// confirm returns the image of m as it was when m was made. It fails when found
// says that it is not any more.
func (n *Node) confirm(m meta.Volume, found map[string]found) (blobstore.Info, error) {
	f, asked := found[m.Image]
	if !asked {
		return infoOf(m)
	}
	p := plan{stored: &m}
	return p.info, n.checkImage(&p, f)
}

// openVolume opens a volume over the image it was made of, with one user. The
// caller holds changes.
func (n *Node) openVolume(ctx context.Context, m meta.Volume, info blobstore.Info) (*volume, error) {
	chain, err := n.db.Chain(m.Layer)
	if err != nil {
		return nil, fmt.Errorf("volume %s: %w", m.Name, err)
	}
	layers, err := n.useLayers(ctx, chain, false)
	if errors.Is(err, raid.ErrNotExist) {
		return nil, fmt.Errorf("volume %s: what was written to it is gone: %w; bring the file back, or remove the volume", m.Name, err)
	}
	if err != nil {
		return nil, localError("volume "+m.Name, err)
	}
	return n.openWith(ctx, m, info, layers)
}

// openWith opens a volume over layers, of which each has one user for it, and
// over the image.
func (n *Node) openWith(ctx context.Context, m meta.Volume, info blobstore.Info, layers []*layer) (_ *volume, err error) {
	v := &volume{meta: m, layers: layers, users: 1}
	defer func() {
		if err != nil {
			err = errors.Join(err, n.releaseLayers(layers), n.releaseImage(v.image))
		}
	}()
	cfg := overlay.Config{Name: m.Name, Size: m.Size, Layers: devices(layers), Log: n.log.With("volume", m.Name)}
	if m.Image != "" {
		if v.image, err = n.openImage(info); err != nil {
			return nil, err
		}
		cfg.Base = v.image.cache
	}
	if v.dev, err = overlay.Open(cfg); err != nil {
		return nil, err
	}
	n.mu.Lock()
	n.volumes[m.Name] = v
	n.mu.Unlock()
	return v, nil
}

// close closes a volume and lets go of what is below. The caller holds changes.
func (n *Node) close(v *volume) error {
	return errors.Join(v.dev.Close(), n.releaseLayers(v.layers), n.releaseImage(v.image))
}

func devices(layers []*layer) []*overlay.Layer {
	devs := make([]*overlay.Layer, len(layers))
	for i, l := range layers {
		devs[i] = l.dev
	}
	return devs
}

// release takes one user from v and closes it when there is none left.
func (n *Node) release(v *volume) error {
	n.changes.Lock()
	defer n.changes.Unlock()
	return n.unuse(v)
}

// unuse is release for those who hold changes.
func (n *Node) unuse(v *volume) error {
	n.mu.Lock()
	v.users--
	last := v.users == 0 && n.volumes != nil // else Close closes it
	if last && n.volumes[v.meta.Name] == v {
		delete(n.volumes, v.meta.Name)
	}
	n.mu.Unlock()
	if !last {
		return nil
	}
	return n.close(v)
}

// place returns where a volume is shown, or nil.
func (n *Node) place(volume string) *lunPlace {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, p := range n.luns {
		if p.disk.Volume == volume {
			return &p
		}
	}
	return nil
}

// volumeError says that there is no volume of that name, if that is it.
func volumeError(name string, err error) error {
	if errors.Is(err, meta.ErrNotFound) {
		return Failure(ErrNotFound, fmt.Sprintf("volume %s: no such volume on this node", name))
	}
	return err
}

// imageError says what to do when an image cannot be had.
func (n *Node) imageError(name string, err error) error {
	switch {
	case errors.Is(err, blobstore.ErrNotFound):
		return Failure(ErrInvalid, fmt.Sprintf("image %s is not in the store %s; import it with: skylun image import FILE %s", name, n.store.URL(), name))
	case errors.Is(err, blobstore.ErrName), errors.Is(err, blobstore.ErrFormat):
		return Failure(ErrInvalid, err.Error())
	}
	return err
}

// Volumes returns all volumes of the node.
func (n *Node) Volumes(context.Context) ([]VolumeStatus, error) {
	tree, err := n.db.Tree()
	if err != nil {
		return nil, err
	}
	list := make([]VolumeStatus, len(tree.Volumes))
	for i, v := range tree.Volumes {
		if list[i], err = n.volumeStatus(tree, v); err != nil {
			return nil, err
		}
	}
	return list, nil
}

// Volume returns one volume of the node, with its snapshots and layers.
func (n *Node) Volume(_ context.Context, name string) (VolumeStatus, error) {
	tree, err := n.db.Tree()
	if err != nil {
		return VolumeStatus{}, err
	}
	i := slices.IndexFunc(tree.Volumes, func(v meta.Volume) bool { return v.Name == name })
	if i < 0 {
		return VolumeStatus{}, volumeError(name, meta.ErrNotFound)
	}
	v := tree.Volumes[i]
	s, err := n.volumeStatus(tree, v)
	if err != nil {
		return s, err
	}
	for _, snap := range tree.Snapshots {
		if slices.ContainsFunc(snap.Volumes, func(of meta.SnapshotVolume) bool { return of.VolumeID == v.ID }) {
			s.Snapshots = append(s.Snapshots, snap.Name)
		}
	}
	chain, err := tree.Chain(v.Layer)
	if err != nil {
		return s, fmt.Errorf("volume %s: %w", name, err)
	}
	for _, l := range slices.Backward(chain) {
		stats, err := n.statsOf(tree, l)
		if err != nil {
			return s, err
		}
		st := LayerStatus{ID: l.ID, Created: l.Created, Size: l.Size, Written: stats.Owned, Zeroed: stats.Zero, Volumes: len(tree.Above(l.ID))}
		for _, snap := range tree.Snapshots {
			if slices.ContainsFunc(snap.Volumes, func(of meta.SnapshotVolume) bool { return of.Layer == l.ID }) {
				st.Snapshot = snap.Name
			}
		}
		s.Layers = append(s.Layers, st)
	}
	return s, nil
}

// statusOf is volumeStatus for those who hold changes.
func (n *Node) statusOf(v meta.Volume) (VolumeStatus, error) {
	tree, err := n.db.Tree()
	if err != nil {
		return VolumeStatus{}, err
	}
	return n.volumeStatus(tree, v)
}

// volumeStatus returns the status of a volume of the tree, which may have been
// changed since.
func (n *Node) volumeStatus(tree *meta.Tree, v meta.Volume) (VolumeStatus, error) {
	s := VolumeStatus{Name: v.Name, ID: hex.EncodeToString(v.ID[:]), Size: v.Size, Created: v.Created}
	if v.Image != "" {
		info, err := infoOf(v)
		if err != nil {
			return s, err
		}
		s.Image = &ImageUse{Name: v.Image, Identity: info.Identity, Size: info.Size, Absent: info.Size}
		if c, known, err := n.cacheStatus(info); err != nil {
			return s, err
		} else if known {
			s.Image.Cached, s.Image.Zero, s.Image.Absent = c.Cached, c.Zero, c.Absent
		}
		s.Pinned = n.pinned(v)
	}
	if l := n.place(v.Name); l != nil {
		s.LUN = &LUNStatus{IQN: l.iqn, LUN: l.lun, Type: "disk", Mapped: l.mapped, Volume: v.Name, Image: v.Image, Size: v.Size}
	}
	n.mu.Lock()
	open := n.volumes[v.Name]
	n.mu.Unlock()
	var stats overlay.Stats
	if open != nil {
		stats = open.dev.Stats()
	} else {
		var err error
		if stats, err = n.closedVolumeStats(tree, v); err != nil {
			return s, err
		}
	}
	s.Written, s.Zeroed, s.Cached, s.Absent, s.Far = stats.Owned, stats.Zero, stats.Cached, stats.Absent, stats.Far
	s.Hits, s.Misses, s.Shared = stats.Hits, stats.Misses, stats.Shared
	if v.Image != "" {
		if open == nil { // at most
			s.Far = min(s.Absent, s.Image.Absent)
		}
		r, err := n.prefetchRecord(v)
		if err != nil {
			return s, err
		}
		s.Prefetch, s.PrefetchPaused = n.strategy(v.Name, r).String(), r.Paused
	}
	return s, nil
}
