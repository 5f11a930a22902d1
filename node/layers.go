package node

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"skylun/block"
	"skylun/meta"
	"skylun/overlay"
	"skylun/raid"
)

// layer is a layer that is open. All volumes that read through it share it.
type layer struct {
	dev   *overlay.Layer
	users int // guarded by Node.changes
}

func layerFile(id uint64) string { return fmt.Sprintf("layers/%d", id) }
func notesFile(id uint64) string { return fmt.Sprintf("layers/%d.notes", id) }

// useLayers opens layers, the lowest first, each with one more user. All but
// the last one are sealed, and that one too if sealed says so. The caller holds
// changes.
func (n *Node) useLayers(ctx context.Context, chain []meta.Layer, sealed bool) (all []*layer, err error) {
	defer func() {
		if err != nil {
			err = errors.Join(err, n.releaseLayers(all))
		}
	}()
	for i, m := range chain {
		l, err := n.useLayer(ctx, m, sealed || i < len(chain)-1)
		if err != nil {
			return all, err
		}
		all = append(all, l)
	}
	return all, nil
}

// useLayer is useLayers for one.
func (n *Node) useLayer(ctx context.Context, m meta.Layer, sealed bool) (*layer, error) {
	n.mu.Lock()
	l := n.layers[m.ID]
	n.mu.Unlock()
	if l == nil {
		dev, err := n.openLayer(ctx, m, sealed)
		if err != nil {
			return nil, err
		}
		l = n.addLayer(dev)
	}
	l.users++
	return l, nil
}

// addLayer remembers a layer that was opened, as one that nobody uses yet.
func (n *Node) addLayer(dev *overlay.Layer) *layer {
	l := &layer{dev: dev}
	n.mu.Lock()
	n.layers[dev.ID()] = l
	delete(n.sealed, dev.ID())
	n.mu.Unlock()
	return l
}

// openLayer opens a layer. Of one that is sealed nothing is left in notes:
// they are those of a process that was killed while it sealed the layer.
func (n *Node) openLayer(ctx context.Context, m meta.Layer, sealed bool) (_ *overlay.Layer, err error) {
	file, err := n.array.Open(layerFile(m.ID), block.Ceil(m.Size, block.Size))
	if err != nil {
		return nil, err
	}
	cfg := n.layerConfig(m)
	cfg.File, cfg.Sealed = n.pool.File(file), sealed
	notes, err := n.openNotes(m, sealed)
	if err != nil {
		file.Close()
		return nil, err
	}
	if notes != nil {
		cfg.Notes = n.pool.Notes(notes)
	}
	dev, err := overlay.OpenLayer(cfg)
	if err != nil {
		file.Close()
		if notes != nil {
			notes.Close()
		}
		return nil, err
	}
	if sealed && notes != nil {
		if err := n.sealLayers(ctx, dev); err != nil {
			return nil, errors.Join(err, dev.Close())
		}
	}
	return dev, nil
}

func (n *Node) layerConfig(m meta.Layer) overlay.LayerConfig {
	return overlay.LayerConfig{Name: fmt.Sprint(m.ID), ID: m.ID, Size: m.Size, Map: n.pool.Map(n.db.Map(m.ID)), Boot: n.boot, Redo: n.redo(m.ID), Log: n.log.With("layer", m.ID)}
}

// openNotes opens the notes of a layer; a sealed one may have none.
func (n *Node) openNotes(m meta.Layer, sealed bool) (*raid.File, error) {
	name, size := notesFile(m.ID), overlay.NotesSize(m.Size)
	f, err := n.array.Open(name, size)
	switch {
	case !errors.Is(err, raid.ErrNotExist):
		return f, err
	case sealed:
		return nil, nil
	}
	return n.array.Create(name, size)
}

// sealLayers makes durable what is in layers that nobody writes to any more.
func (n *Node) sealLayers(ctx context.Context, devs ...*overlay.Layer) error {
	if err := forAll(len(devs), func(i int) error { return devs[i].Seal(ctx) }); err != nil {
		return err
	}
	notes := make([]string, len(devs))
	for i, dev := range devs {
		notes[i] = notesFile(dev.ID())
	}
	return n.array.RemoveAll(notes)
}

// layerSpec is the file of a layer, of which nothing is read that was not written:
// the map tells.
func layerSpec(id uint64, size int64) raid.Spec {
	return raid.Spec{Name: layerFile(id), Size: block.Ceil(size, block.Size), Unzeroed: true}
}

// createLayers makes empty layers, which nobody knows until they are in the
// database: a crash leaves files that removeOrphans removes.
func (n *Node) createLayers(all []meta.Layer) (devs []*overlay.Layer, err error) {
	var specs []raid.Spec
	for _, m := range all {
		specs = append(specs, layerSpec(m.ID, m.Size), raid.Spec{Name: notesFile(m.ID), Size: overlay.NotesSize(m.Size)})
	}
	files, err := n.array.CreateAll(specs)
	if err != nil {
		return nil, err
	}
	for i, m := range all {
		cfg := n.layerConfig(m)
		cfg.File, cfg.Notes = n.pool.File(files[2*i]), n.pool.Notes(files[2*i+1])
		dev, err := overlay.OpenLayer(cfg)
		if err != nil {
			for _, f := range files[2*i:] {
				err = errors.Join(err, f.Close())
			}
			return nil, errors.Join(err, n.discardLayers(devs), n.removeFiles(all...))
		}
		devs = append(devs, dev)
	}
	return devs, nil
}

// discardLayers closes and removes layers that came to nothing.
func (n *Node) discardLayers(devs []*overlay.Layer) error {
	var errs []error
	var all []meta.Layer
	for _, dev := range devs {
		errs = append(errs, dev.Close())
		all = append(all, meta.Layer{ID: dev.ID()})
	}
	return errors.Join(append(errs, n.removeFiles(all...))...)
}

// removeFiles removes the files of layers.
func (n *Node) removeFiles(all ...meta.Layer) error {
	var names []string
	for _, m := range all {
		if err := n.redo(m.ID).Remove(); err != nil {
			return err
		}
		names = append(names, layerFile(m.ID), notesFile(m.ID))
	}
	return n.array.RemoveAll(names)
}

// releaseLayers takes one user from each layer and closes those that have none
// left. The caller holds changes.
func (n *Node) releaseLayers(all []*layer) error {
	var errs []error
	for _, l := range slices.Backward(all) {
		l.users--
		if l.users > 0 {
			continue
		}
		n.mu.Lock()
		if n.layers[l.dev.ID()] == l {
			delete(n.layers, l.dev.ID())
		}
		n.mu.Unlock()
		errs = append(errs, l.dev.Close())
	}
	return errors.Join(errs...)
}

// giveBack is dropLayers after something that cannot be undone: what cannot be
// removed now is tried again while the node runs. The caller holds changes.
func (n *Node) giveBack() {
	if err := n.dropLayers(); err != nil {
		n.log.Warn("space cannot be given back now; it is tried again while the node runs", "err", err)
	}
	n.clean.wake()
}

// dropLayers removes the layers that nobody names, nothing lies on and nobody
// uses, and those that only they were needed for. The caller holds changes.
func (n *Node) dropLayers() error {
	for {
		tree, err := n.db.Tree()
		if err != nil {
			return err
		}
		leaves, _ := tree.Unneeded()
		leaves = slices.DeleteFunc(leaves, n.layerOpen)
		if len(leaves) == 0 {
			return nil
		}
		for some := range slices.Chunk(leaves, dropMost) {
			if err := n.dropSome(tree, some); err != nil {
				return err
			}
		}
	}
}

func (n *Node) layerOpen(id uint64) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.layers[id] != nil
}

// dropMost bounds how many layers are removed in one transaction.
const dropMost = 16

// dropSome removes layers: the files first, so that a crash leaves layers that
// are still to be removed and no file that nobody knows.
func (n *Node) dropSome(tree *meta.Tree, ids []uint64) error {
	var all []meta.Layer
	for _, id := range ids {
		all = append(all, tree.Layers[id])
	}
	if err := n.removeFiles(all...); err != nil {
		return localError("layers that are not needed any more", err)
	}
	n.mu.Lock()
	for _, id := range ids {
		delete(n.sealed, id)
	}
	n.mu.Unlock()
	return n.db.DeleteLayers(ids...)
}

// statsOf returns how much of a layer is in which state. Those of sealed layers
// that are not open are remembered.
func (n *Node) statsOf(tree *meta.Tree, m meta.Layer) (overlay.Stats, error) {
	n.mu.Lock()
	l, stats, known := n.layers[m.ID], overlay.Stats{}, false
	if l == nil {
		stats, known = n.sealed[m.ID]
	}
	n.mu.Unlock()
	switch {
	case l != nil:
		return l.dev.Stats(), nil
	case known:
		return stats, nil
	}
	cfg := n.layerConfig(m)
	cfg.File, cfg.Redo, cfg.Sealed = nowhere{}, nil, true
	dev, err := overlay.OpenLayer(cfg)
	if err != nil {
		return overlay.Stats{}, err
	}
	stats = dev.Stats()
	n.mu.Lock()
	if n.layers != nil && n.layers[m.ID] == nil && !tree.IsTop(m.ID) {
		n.sealed[m.ID] = stats
	}
	n.mu.Unlock()
	return stats, dev.Close()
}

// checkLayers looks for the files of the layers that are needed; one that is
// not may be half removed.
func (n *Node) checkLayers(problems []string, tree *meta.Tree) []string {
	leaves, _ := tree.Unneeded()
	for _, id := range slices.Sorted(maps.Keys(tree.Layers)) {
		if !slices.Contains(leaves, id) {
			problems = n.checkFile(problems, layerName(tree, id), layerFile(id), tree.Layers[id].Size)
		}
	}
	return problems
}

// layerName says whose a layer is.
func layerName(tree *meta.Tree, id uint64) string {
	for _, v := range tree.Volumes {
		if v.Layer == id {
			return "volume " + v.Name
		}
	}
	for _, s := range tree.Snapshots {
		for _, v := range s.Volumes {
			if v.Layer == id {
				return "snapshot " + s.Name
			}
		}
	}
	return fmt.Sprintf("layer %d", id)
}
