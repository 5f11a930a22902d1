package node

import (
	"context"
	"log/slog"
	"time"

	"skylun/block"
	"skylun/lun"
)

// Volumes are thin: a write needs local space when it is the first one of its
// block. A watch looks at what is left, and when that gets less than
// local.low_space it tells the log and, by the unit attention THIN PROVISIONING
// SOFT THRESHOLD REACHED, the initiators of all disks (SBC-3 4.7.3.8): once,
// and again only after there was more in between.

// lookEvery is the time between two looks at the space.
const lookEvery = 2 * time.Second

// spaceWatch is what has been told of the space of each volume.
type spaceWatch struct {
	limit int64 // bytes
	log   *slog.Logger
	low   map[string]bool // by volume
}

// watched is a volume that a target shows.
type watched struct {
	name string
	dev  block.SpaceReporter
	unit interface{ SpaceLow() }
}

var _ interface{ SpaceLow() } = (*lun.Disk)(nil)

// look compares the space of volumes with the limit. A little more than the
// limit is not enough to be told again: files of others come and go.
func (w *spaceWatch) look(ctx context.Context, volumes []watched) {
	told := false // the log, of a place that volumes share
	for _, v := range volumes {
		space, err := v.dev.Space(ctx)
		if err != nil {
			w.log.Debug("free space", "volume", v.name, "err", err)
			continue
		}
		switch low := w.low[v.name]; {
		case !low && space.Free < w.limit:
			w.low[v.name] = true
			v.unit.SpaceLow()
			if !told {
				told = true
				w.log.Warn("local space gets low: writes of new blocks fail when it is used up; make room on that file system, or discard what is not needed",
					"free", Size(space.Free).Human(), "low_space", Size(w.limit).Human())
			}
		case low && space.Free >= w.limit+w.limit/16:
			w.low[v.name] = false
		}
	}
}

// watchSpace looks until ctx ends.
func (n *Node) watchSpace(ctx context.Context) {
	w := &spaceWatch{limit: int64(n.cfg.Local.LowSpace), log: n.log, low: map[string]bool{}}
	ticks := time.NewTicker(lookEvery)
	defer ticks.Stop()
	for {
		n.keepFree(ctx) // copies leave before anybody is warned
		if w.limit > 0 {
			w.look(ctx, n.watchedVolumes())
		}
		select {
		case <-ticks.C:
		case <-ctx.Done():
			return
		}
	}
}

// watchedVolumes returns the volumes that targets show.
func (n *Node) watchedVolumes() (all []watched) {
	n.changes.Lock() // a volume gets and loses its unit under it
	defer n.changes.Unlock()
	n.mu.Lock()
	defer n.mu.Unlock()
	for name, v := range n.volumes {
		if v.unit != nil {
			all = append(all, watched{name, v.dev, v.unit})
		}
	}
	return all
}
