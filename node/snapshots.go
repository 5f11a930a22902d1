package node

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"skylun/meta"
	"skylun/overlay"
)

// SnapshotSpec asks for a snapshot.
type SnapshotSpec struct {
	Name    string   `json:"name"`
	Volumes []string `json:"volumes"`
}

// atOnce bounds how many volumes of a group are worked on in parallel: for
// each it is files to create, or syncs.
const atOnce = 16

// forAll calls f for 0 to count-1, some at once.
func forAll(count int, f func(i int) error) error {
	var g errgroup.Group
	g.SetLimit(atOnce)
	for i := range count {
		g.Go(func() error { return f(i) })
	}
	return g.Wait()
}

// CreateSnapshot keeps what volumes hold, all at one moment, while initiators
// use them: a write answered before the call is in it, one that was sent after
// the return is not. It fails with ErrExists when the name is taken, and with
// ErrInvalid or ErrNotFound when the names are none.
//
// The steps, and why writes are held for so short a time:
//
//  1. make the layers that are written to from now on; flush, so that little is
//     left to be made durable
//  2. record the layers in the database: a crash from here on finds them
//     empty, above those that have everything
//  3. switch all volumes to them: only this, in memory, holds writes
//  4. make the layers that were switched from durable
//  5. record the snapshot, and answer
//
// What fails after 2 leaves layers that nobody names. They are merged in the
// background.
func (n *Node) CreateSnapshot(ctx context.Context, spec SnapshotSpec) (_ SnapshotStatus, err error) {
	n.changes.Lock()
	defer n.changes.Unlock()
	if err := n.checkSnapshot(spec); err != nil {
		return SnapshotStatus{}, err
	}
	var volumes []*volume
	defer func() {
		for _, v := range volumes {
			err = errors.Join(err, n.unuse(v))
		}
	}()
	for _, name := range spec.Volumes {
		v, err := n.use(ctx, name, nil) // of the image nothing is read
		if err != nil {
			return SnapshotStatus{}, err
		}
		volumes = append(volumes, v)
	}
	s, err := n.takeSnapshot(ctx, spec.Name, volumes)
	n.clean.wake() // what lies below layers that were written to can be merged now
	if err != nil {
		return SnapshotStatus{}, localError("snapshot "+spec.Name, err)
	}
	n.log.Info("snapshot taken", "snapshot", s.Name, "volumes", strings.Join(spec.Volumes, ","), "held", s.Held)
	tree, err := n.db.Tree()
	if err != nil {
		return SnapshotStatus{}, err
	}
	return n.snapshotStatus(tree, s, idsOf(tree))
}

func (n *Node) checkSnapshot(spec SnapshotSpec) error {
	if err := ValidSnapshotName(spec.Name); err != nil {
		return Failure(ErrInvalid, "snapshot: "+err.Error())
	}
	if len(spec.Volumes) == 0 {
		return Failure(ErrInvalid, fmt.Sprintf("snapshot %s: name the volumes that it is of", spec.Name))
	}
	for i, name := range spec.Volumes {
		if slices.Contains(spec.Volumes[:i], name) {
			return Failure(ErrInvalid, fmt.Sprintf("snapshot %s: volume %s is named twice", spec.Name, name))
		}
		if _, err := n.db.Volume(name); err != nil {
			return volumeError(name, err)
		}
	}
	switch _, err := n.db.Snapshot(spec.Name); {
	case err == nil:
		return Failure(ErrExists, fmt.Sprintf("snapshot %s already exists", spec.Name))
	case !errors.Is(err, meta.ErrNotFound):
		return err
	}
	return nil
}

// ValidSnapshotName tells what is wrong with a snapshot's name.
func ValidSnapshotName(name string) error {
	if name == "" {
		return errors.New("missing; give the snapshot a name")
	}
	if !volumeName.MatchString(name) {
		return fmt.Errorf("%q is not a snapshot name: letters, digits, '.', '_' and '-', at most 63, a letter or digit first", name)
	}
	return nil
}

// takeSnapshot does the steps of CreateSnapshot. The caller holds changes.
func (n *Node) takeSnapshot(ctx context.Context, name string, volumes []*volume) (s meta.Snapshot, err error) {
	tops, layers, err := n.makeTops(volumes)
	if err != nil {
		return s, err
	}
	used := false
	defer func() {
		if !used {
			err = errors.Join(err, n.discardLayers(layers))
		}
	}()
	if err := forAll(len(volumes), func(i int) error { return volumes[i].dev.Flush(ctx) }); err != nil {
		return s, err
	}
	ctx = context.WithoutCancel(ctx)
	if err := n.db.SetTops(tops); err != nil {
		return s, err
	}
	steps := make([]overlay.Step, len(volumes))
	s = meta.Snapshot{Name: name, Created: time.Now().UTC().Truncate(time.Microsecond)}
	for i, v := range volumes {
		steps[i] = overlay.Step{Volume: v.dev, Top: layers[i]}
		s.Volumes = append(s.Volumes, meta.SnapshotVolume{
			Volume: v.meta.Name, VolumeID: v.meta.ID, Layer: v.meta.Layer, Size: v.meta.Size, Image: v.meta.Image, ImageInfo: v.meta.ImageInfo,
		})
	}
	used = true // by the database at least, unless that takes it back
	if s.Held, err = overlay.Switch(steps); err != nil {
		if revert := n.db.RevertTops(oldTops(volumes)); revert != nil {
			return s, errors.Join(err, revert)
		}
		used = false
		return s, err
	}
	sealed := make([]*overlay.Layer, len(volumes))
	for i, v := range volumes {
		sealed[i] = v.layers[len(v.layers)-1].dev
		l := n.addLayer(layers[i])
		l.users++
		v.layers = append(v.layers, l)
		v.meta.Layer = tops[i].Layer
	}
	if err := n.sealLayers(ctx, sealed...); err != nil {
		return s, err
	}
	return n.db.PutSnapshot(s)
}

// makeTops makes an empty layer for each volume, as large as it and above its
// layers.
func (n *Node) makeTops(volumes []*volume) (tops []meta.Top, layers []*overlay.Layer, err error) {
	ids, err := n.db.NewMaps(len(volumes))
	if err != nil {
		return nil, nil, err
	}
	records := make([]meta.Layer, len(volumes))
	for i, v := range volumes {
		records[i] = meta.Layer{ID: ids[i], Size: v.meta.Size}
		tops = append(tops, meta.Top{Volume: v.meta.Name, Layer: ids[i], Parent: v.meta.Layer, Size: v.meta.Size})
	}
	layers, err = n.createLayers(records)
	return tops, layers, err
}

// oldTops returns what RevertTops makes of the volumes.
func oldTops(volumes []*volume) []meta.Top {
	tops := make([]meta.Top, len(volumes))
	for i, v := range volumes {
		tops[i] = meta.Top{Volume: v.meta.Name, Layer: v.meta.Layer, Size: v.meta.Size}
	}
	return tops
}

// DeleteSnapshot removes a snapshot. What only it needed is given back at once
// or, where others need part of it, in the background while the node runs.
func (n *Node) DeleteSnapshot(_ context.Context, name string) error {
	n.changes.Lock()
	defer n.changes.Unlock()
	if err := n.db.DeleteSnapshot(name); err != nil {
		return snapshotError(name, err)
	}
	n.log.Info("snapshot removed", "snapshot", name)
	n.giveBack()
	return nil
}

// snapshotError says that there is no snapshot of that name, if that is it.
func snapshotError(name string, err error) error {
	if errors.Is(err, meta.ErrNotFound) {
		return Failure(ErrNotFound, fmt.Sprintf("snapshot %s: no such snapshot on this node", name))
	}
	return err
}

// Snapshots returns all snapshots of the node, the oldest first.
func (n *Node) Snapshots(context.Context) ([]SnapshotStatus, error) {
	tree, err := n.db.Tree()
	if err != nil {
		return nil, err
	}
	return n.snapshots(tree)
}

func (n *Node) snapshots(tree *meta.Tree) ([]SnapshotStatus, error) {
	there := idsOf(tree)
	list := make([]SnapshotStatus, len(tree.Snapshots))
	for i, s := range tree.Snapshots {
		var err error
		if list[i], err = n.snapshotStatus(tree, s, there); err != nil {
			return nil, err
		}
	}
	slices.SortStableFunc(list, func(a, b SnapshotStatus) int { return a.Created.Compare(b.Created) })
	return list, nil
}

// Snapshot returns one snapshot of the node.
func (n *Node) Snapshot(_ context.Context, name string) (SnapshotStatus, error) {
	tree, err := n.db.Tree()
	if err != nil {
		return SnapshotStatus{}, err
	}
	for _, s := range tree.Snapshots {
		if s.Name == name {
			return n.snapshotStatus(tree, s, idsOf(tree))
		}
	}
	return SnapshotStatus{}, snapshotError(name, meta.ErrNotFound)
}

// idsOf returns the identities of all volumes.
func idsOf(tree *meta.Tree) map[[16]byte]bool {
	ids := map[[16]byte]bool{}
	for _, v := range tree.Volumes {
		ids[v.ID] = true
	}
	return ids
}

func (n *Node) snapshotStatus(tree *meta.Tree, s meta.Snapshot, there map[[16]byte]bool) (SnapshotStatus, error) {
	st := SnapshotStatus{Name: s.Name, ID: hex.EncodeToString(s.ID[:]), Created: s.Created, HeldSeconds: s.Held.Seconds(), Volumes: []SnapshotVolume{}}
	for _, v := range s.Volumes {
		l, ok := tree.Layers[v.Layer]
		if !ok {
			return st, fmt.Errorf("snapshot %s: layer %d of volume %s is not in the database", s.Name, v.Layer, v.Volume)
		}
		stats, err := n.statsOf(tree, l)
		if err != nil {
			return st, err
		}
		st.Volumes = append(st.Volumes, SnapshotVolume{Volume: v.Volume, Removed: !there[v.VolumeID], Size: v.Size, Image: v.Image, Layer: v.Layer, Own: stats.Owned})
		st.Own += stats.Owned
	}
	return st, nil
}

// volumeOf returns a volume of a snapshot: ref is NAME, when it is of one
// volume only, or NAME/VOLUME.
func (n *Node) volumeOf(ref string) (s meta.Snapshot, v meta.SnapshotVolume, err error) {
	name, volume, given := strings.Cut(ref, "/")
	if s, err = n.db.Snapshot(name); err != nil {
		return s, v, snapshotError(name, err)
	}
	if !given && len(s.Volumes) == 1 {
		return s, s.Volumes[0], nil
	}
	names := make([]string, len(s.Volumes))
	for i, v := range s.Volumes {
		if names[i] = v.Volume; given && v.Volume == volume {
			return s, v, nil
		}
	}
	if given {
		return s, v, Failure(ErrNotFound, fmt.Sprintf("snapshot %s is not of volume %s; it is of: %s", name, volume, strings.Join(names, ", ")))
	}
	return s, v, Failure(ErrInvalid, fmt.Sprintf("snapshot %s is of several volumes; name one of them, such as %s/%s", name, name, names[0]))
}

// planClone makes p the plan of a copy of what a snapshot holds.
func (n *Node) planClone(p *plan) error {
	if p.spec.Image != "" || p.spec.Size != 0 {
		return Failure(ErrInvalid, fmt.Sprintf("volume %s: a copy of a snapshot has its image and its size; leave those out, and resize the volume afterwards", p.spec.Name))
	}
	_, v, err := n.volumeOf(p.spec.Snapshot)
	p.from = &v
	return err
}

// useSnapshot opens what a snapshot holds of a volume, to be read, with one
// more user. It stays as long as that, also when the snapshot is removed.
func (n *Node) useSnapshot(ctx context.Context, ref string) (*volume, error) {
	_, from, err := n.volumeOf(ref)
	if err != nil {
		return nil, err
	}
	images := map[string]bool{}
	if from.Image != "" {
		images[from.Image] = true
	}
	found := n.lookUp(ctx, images) // which may take as long as the store does
	v, err := n.openSnapshot(ctx, ref, found)
	if err != nil {
		return nil, err
	}
	return v, n.settled(ctx, v)
}

// openSnapshot is useSnapshot with what the store says of images.
func (n *Node) openSnapshot(ctx context.Context, ref string, found map[string]found) (*volume, error) {
	n.changes.Lock()
	defer n.changes.Unlock()
	s, from, err := n.volumeOf(ref)
	if err != nil {
		return nil, err
	}
	m := meta.Volume{Name: fmt.Sprintf("layer %d", from.Layer), Size: from.Size, Image: from.Image, ImageInfo: from.ImageInfo, Created: s.Created}
	n.mu.Lock()
	stopping, v := n.volumes == nil, n.volumes[m.Name] // no name of a volume has a space
	if v != nil {
		v.users++
	}
	n.mu.Unlock()
	switch {
	case stopping:
		return nil, errStopping
	case v != nil:
		return v, nil
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	info, err := n.confirm(m, found)
	if err != nil {
		return nil, err
	}
	chain, err := n.db.Chain(from.Layer)
	if err != nil {
		return nil, fmt.Errorf("snapshot %s: %w", s.Name, err)
	}
	layers, err := n.useLayers(ctx, chain, true)
	if err != nil {
		return nil, localError("snapshot "+s.Name, err)
	}
	// A volume has a layer to write to. Nobody writes to this one.
	top, err := overlay.OpenLayer(overlay.LayerConfig{Name: m.Name, Size: m.Size, File: nowhere{}, Map: nothing{}, Log: n.log})
	if err != nil {
		return nil, errors.Join(err, n.releaseLayers(layers))
	}
	return n.openWith(ctx, m, info, append(layers, &layer{dev: top, users: 1}))
}

// nothing is the map of a layer that is never written to.
type nothing struct{}

func (nothing) Load(func(overlay.Extent) error) error { return nil }
func (nothing) Append([]overlay.Extent) error         { return errNowhere }
func (nothing) Trim(int64) error                      { return errNowhere }
