package node

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"skylun/meta"
	"skylun/overlay"
	"skylun/raid"
)

// RollbackSpec asks for volumes to be rolled back.
type RollbackSpec struct {
	Volumes []string `json:"volumes,omitempty"` // none: all that the snapshot is of
	Force   bool     `json:"force,omitempty"`   // also under initiators that are logged in
}

// rollback is one volume on its way back.
type rollback struct {
	to   meta.SnapshotVolume
	now  meta.Volume
	open *volume // nil: nobody uses it
	top  meta.Top

	layers []*layer     // of the volume afterwards, when it is open
	ended  <-chan error // tells that nobody reads what it held before; nil: nobody did
}

// RollbackSnapshot gives volumes the content and the size that they had when a
// snapshot was taken. What was written since is gone, except what other
// snapshots hold. It fails with ErrInUse while initiators are logged in to a
// target that shows one of the volumes, unless it is to be done by force:
// they are told that the medium may have changed.
//
// The database first, in one transaction, then the volumes that are open: what
// is written to those in between is gone as well, whether the node is killed or
// not. Reads that were under way then may read what was there before; that is kept
// until they have ended, which the call waits for, too.
func (n *Node) RollbackSnapshot(ctx context.Context, name string, spec RollbackSpec) ([]VolumeStatus, error) {
	list, all, err := n.rollBackTo(ctx, name, spec)
	if err != nil {
		return nil, err
	}
	for _, r := range all {
		if r.ended == nil {
			continue
		}
		select {
		case err := <-r.ended:
			if err != nil {
				return nil, err
			}
		case <-ctx.Done(): // it is done nevertheless
			return nil, ctx.Err()
		}
	}
	return list, nil
}

// rollBackTo is RollbackSnapshot up to the moment at which the volumes are as they
// were.
func (n *Node) rollBackTo(ctx context.Context, name string, spec RollbackSpec) (list []VolumeStatus, all []*rollback, err error) {
	n.changes.Lock()
	defer n.changes.Unlock()
	if n.stopping() {
		return nil, nil, errStopping
	}
	if all, err = n.planRollback(name, spec); err != nil {
		return nil, nil, err
	}
	if err := n.rollBack(ctx, all); err != nil {
		return nil, nil, localError("roll back to snapshot "+name, err)
	}
	for _, r := range all {
		n.log.Info("volume rolled back", "volume", r.now.Name, "snapshot", name)
		v, err := n.Volume(ctx, r.now.Name)
		if err != nil {
			return nil, nil, err
		}
		list = append(list, v)
	}
	n.giveBack()
	return list, all, nil
}

// whenSettled calls f, which gives up what calls under way in v may use, as soon as
// they have ended, and then tells what f returned. One that waits for the store may
// take long. Both the caller, who does not wait for that, and f hold changes.
func (n *Node) whenSettled(v *overlay.Volume, f func() error) <-chan error {
	ended := make(chan error, 1)
	n.removals.Go(func() {
		v.Settled(context.Background()) // when the node stops all calls are cut off
		n.changes.Lock()
		defer n.changes.Unlock()
		if n.stopping() { // Close has closed everything
			ended <- errStopping
			return
		}
		ended <- f()
	})
	return ended
}

// planRollback looks up what is to be done, and refuses what cannot be.
func (n *Node) planRollback(name string, spec RollbackSpec) (all []*rollback, err error) {
	s, err := n.db.Snapshot(name)
	if err != nil {
		return nil, snapshotError(name, err)
	}
	for i, v := range spec.Volumes {
		if slices.Contains(spec.Volumes[:i], v) {
			return nil, Failure(ErrInvalid, fmt.Sprintf("volume %s is named twice", v))
		}
		if _, _, err := n.volumeOf(name + "/" + v); err != nil {
			return nil, err
		}
	}
	for _, to := range s.Volumes {
		if len(spec.Volumes) > 0 && !slices.Contains(spec.Volumes, to.Volume) {
			continue
		}
		now, err := n.db.Volume(to.Volume)
		if err != nil && !errors.Is(err, meta.ErrNotFound) {
			return nil, err
		}
		if err != nil || now.ID != to.VolumeID {
			return nil, Failure(ErrNotFound, fmt.Sprintf("volume %s, which snapshot %s is of, was removed; make a new one of it with: skylun clone %s/%s NEWVOLUME", to.Volume, name, name, to.Volume))
		}
		if p := n.place(now.Name); p != nil && !spec.Force {
			if users := n.initiatorsOf(p.iqn); len(users) > 0 {
				return nil, Failure(ErrInUse, fmt.Sprintf("volume %s is %v; logged in to the target are %s; log out there first, or use --force", now.Name, p, strings.Join(users, ", ")))
			}
		}
		n.mu.Lock()
		open := n.volumes[now.Name]
		n.mu.Unlock()
		all = append(all, &rollback{to: to, now: now, open: open})
	}
	return all, nil
}

func (n *Node) rollBack(ctx context.Context, all []*rollback) (err error) {
	ids, err := n.db.NewMaps(len(all))
	if err != nil {
		return err
	}
	tops := make([]meta.Top, len(all))
	for i, r := range all {
		r.top = meta.Top{Volume: r.now.Name, Layer: ids[i], Parent: r.to.Layer, Size: r.to.Size}
		tops[i] = r.top
	}
	defer func() {
		if err == nil {
			return
		}
		for _, r := range all {
			if r.open == nil || !slices.Equal(r.open.layers, r.layers) { // it came to nothing
				err = errors.Join(err, n.releaseLayers(r.layers), n.removeUnknown(r.top.Layer))
			}
		}
	}()
	for _, r := range all {
		if err := n.prepareRollback(ctx, r); err != nil {
			return err
		}
	}
	if err := n.db.SetTops(tops); err != nil {
		return err
	}
	ctx = context.WithoutCancel(ctx)
	var errs []error
	for _, r := range all {
		if r.open != nil {
			errs = append(errs, n.rebase(ctx, r))
		}
	}
	return errors.Join(errs...)
}

// prepareRollback makes the layer that a volume writes to afterwards, and opens
// what lies below if the volume is open.
func (n *Node) prepareRollback(ctx context.Context, r *rollback) error {
	m := meta.Layer{ID: r.top.Layer, Size: r.top.Size}
	if r.open == nil {
		files, err := n.array.CreateAll([]raid.Spec{layerSpec(m.ID, m.Size)})
		if err != nil {
			return err
		}
		return files[0].Close()
	}
	chain, err := n.db.Chain(r.to.Layer)
	if err != nil {
		return err
	}
	layers, err := n.useLayers(ctx, chain, true)
	if err != nil {
		return err
	}
	devs, err := n.createLayers([]meta.Layer{m})
	if err != nil {
		return errors.Join(err, n.releaseLayers(layers))
	}
	top := n.addLayer(devs[0])
	top.users++
	r.layers = append(layers, top)
	return nil
}

// rebase has an open volume read and write through its layers of afterwards.
// If that fails the volume is as it was.
func (n *Node) rebase(ctx context.Context, r *rollback) error {
	v := r.open
	replace := func() error { return v.dev.Rebase(ctx, devices(r.layers), r.top.Size) }
	var err error
	if v.unit != nil {
		err = v.unit.Replace(r.top.Size, replace)
	} else {
		err = replace()
	}
	if err != nil {
		return errors.Join(fmt.Errorf("volume %s: %w", v.meta.Name, err), n.db.RevertTops(oldTops([]*volume{v})))
	}
	old := v.layers
	v.layers, v.meta.Layer, v.meta.Size = r.layers, r.top.Layer, r.top.Size
	r.ended = n.whenSettled(v.dev, func() error {
		if err := n.releaseLayers(old); err != nil { // as of a disk that failed, which may be why the volume was rolled back
			n.log.Warn("what a volume held before it was rolled back cannot be closed in good order", "volume", v.meta.Name, "err", err)
		}
		n.giveBack()
		return nil
	})
	return nil
}

// removeUnknown removes the files of a layer that the database does not know.
func (n *Node) removeUnknown(id uint64) error {
	tree, err := n.db.Tree()
	if err != nil {
		return err
	}
	if _, known := tree.Layers[id]; known {
		return nil
	}
	return n.removeFiles(meta.Layer{ID: id})
}
