package node

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	"skylun/meta"
)

func layerFile(id uint64) string { return fmt.Sprintf("layers/%d", id) }
func notesFile(id uint64) string { return fmt.Sprintf("layers/%d.notes", id) }

// dropLayers removes the layers that nobody names and nothing lies on, and
// those that only they were needed for. The caller holds changes.
func (n *Node) dropLayers() error {
	for {
		tree, err := n.db.Tree()
		if err != nil {
			return err
		}
		leaves, _ := tree.Unneeded()
		if len(leaves) == 0 {
			return nil
		}
		for _, id := range leaves {
			if err := n.dropLayer(id); err != nil {
				return err
			}
		}
	}
}

// dropLayer removes a layer: the files first, so that a crash leaves a layer
// that is still to be removed and no file that nobody knows.
func (n *Node) dropLayer(id uint64) error {
	if err := errors.Join(n.array.Remove(layerFile(id)), n.array.Remove(notesFile(id))); err != nil {
		return localError(fmt.Sprintf("layer %d", id), err)
	}
	return n.db.DeleteLayer(id)
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
