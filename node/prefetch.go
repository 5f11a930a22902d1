package node

import (
	"context"
	"encoding/json"
	"fmt"

	"skylun/meta"
	"skylun/overlay"
)

// What a volume wants to have fetched before anybody reads it is in the
// configuration; what was asked for while the node runs is kept with what its unit
// keeps, so it holds over a restart and goes when the volume does.

// prefetchName is the name of the record in what the unit of a volume keeps.
const prefetchName = "prefetch"

// prefetchRecord is what was asked for.
type prefetchRecord struct {
	Paused   bool   `json:"paused,omitempty"`
	Strategy string `json:"strategy,omitempty"` // instead of the configuration's
}

// PrefetchSpec asks for another prefetch of a volume. What is nil stays.
type PrefetchSpec struct {
	Paused   *bool   `json:"paused,omitempty"`
	Strategy *string `json:"strategy,omitempty"` // off, readahead, idle, full; empty: what the configuration says
}

// VolumePrefetch is what is fetched of the image of a volume before anybody reads it.
type VolumePrefetch struct {
	Volume   string `json:"volume"`
	Strategy string `json:"strategy"`         // of the volume; its image has the most of those of its users
	Asked    bool   `json:"asked,omitempty"`  // for that strategy while the node ran, not by the configuration
	Paused   bool   `json:"paused,omitempty"` // nothing is fetched for this volume

	Image *CacheStatus `json:"image,omitempty"` // nothing: the volume is over no image
}

func (n *Node) prefetchRecord(v meta.Volume) (r prefetchRecord, err error) {
	value, err := n.db.UnitState(meta.VolumeUnit(v.ID), prefetchName)
	if err == nil && value != nil {
		err = json.Unmarshal(value, &r)
	}
	if err != nil {
		err = fmt.Errorf("volume %s: what is known of its prefetch: %w", v.Name, err)
	}
	return r, err
}

// strategy returns what a volume wants.
func (n *Node) strategy(name string, r prefetchRecord) overlay.Strategy {
	text := r.Strategy
	if text == "" {
		text = n.cfg.Cache.Prefetch
		if p := n.place(name); p != nil && p.disk.Prefetch != "" {
			text = p.disk.Prefetch
		}
	}
	s, _ := overlay.ParseStrategy(text) // which was validated
	return s
}

// applyPrefetch tells an open volume what it wants. One that no target
// shows is only read through once, such as by an export: it wants nothing.
func (n *Node) applyPrefetch(v *volume) {
	r, err := n.prefetchRecord(v.meta)
	if err != nil {
		n.log.Warn("prefetch is as the configuration says", "err", err)
	}
	s := overlay.PrefetchOff
	if v.unit != nil {
		s = n.strategy(v.meta.Name, r)
	}
	v.dev.SetPrefetch(s, r.Paused)
}

// Prefetch returns what is fetched for a volume before anybody reads it.
func (n *Node) Prefetch(_ context.Context, name string) (VolumePrefetch, error) {
	v, err := n.db.Volume(name)
	if err != nil {
		return VolumePrefetch{}, volumeError(name, err)
	}
	r, err := n.prefetchRecord(v)
	if err != nil {
		return VolumePrefetch{}, err
	}
	s := VolumePrefetch{Volume: name, Strategy: n.strategy(name, r).String(), Asked: r.Strategy != "", Paused: r.Paused}
	info, err := infoOf(v)
	if err != nil || v.Image == "" {
		return s, err
	}
	c, known, err := n.cacheStatus(info)
	if err != nil {
		return s, err
	}
	if !known {
		c = CacheStatus{Image: info.Name, Identity: info.Identity, Size: info.Size, Absent: info.Size}
	}
	s.Image = &c
	return s, nil
}

// SetPrefetch changes what is fetched for a volume before anybody reads it,
// now and after restarts.
func (n *Node) SetPrefetch(ctx context.Context, name string, spec PrefetchSpec) (VolumePrefetch, error) {
	if err := n.setPrefetch(name, spec); err != nil {
		return VolumePrefetch{}, err
	}
	return n.Prefetch(ctx, name)
}

func (n *Node) setPrefetch(name string, spec PrefetchSpec) error {
	n.changes.Lock()
	defer n.changes.Unlock()
	v, err := n.db.Volume(name)
	if err != nil {
		return volumeError(name, err)
	}
	if v.Image == "" {
		return Failure(ErrInvalid, fmt.Sprintf("volume %s is over no image: there is nothing to fetch", name))
	}
	r, err := n.prefetchRecord(v)
	if err != nil {
		return err
	}
	if spec.Strategy != nil {
		if err := CheckStrategy(*spec.Strategy); err != nil {
			return Failure(ErrInvalid, fmt.Sprintf("volume %s: prefetch %v", name, err))
		}
		r.Strategy = *spec.Strategy
	}
	if spec.Paused != nil {
		r.Paused = *spec.Paused
	}
	var value []byte
	if r != (prefetchRecord{}) {
		if value, err = json.Marshal(r); err != nil {
			return err
		}
	}
	if err := n.db.SetUnitState(meta.VolumeUnit(v.ID), prefetchName, value); err != nil {
		return localError("volume "+name, err)
	}
	n.mu.Lock()
	open := n.volumes[name]
	n.mu.Unlock()
	if open != nil {
		n.applyPrefetch(open)
	}
	return nil
}

// startPrefetcher makes what fills the caches that are opened from now on.
func (n *Node) startPrefetcher() error {
	hours, err := overlay.ParseHours(n.cfg.Cache.PrefetchHours)
	if err != nil {
		return err
	}
	queues := diskQueues(n.cfg.Local.paths())
	n.prefetcher = overlay.NewPrefetcher(overlay.PrefetcherConfig{
		Rate:  int64(n.cfg.Cache.PrefetchRate),
		Hours: hours,
		Log:   n.log,
		Load: func() overlay.Load {
			st := n.store.Stats()
			return overlay.Load{
				Commands: n.server.Stats().Commands, Queue: queues.depth(),
				Throttled: uint64(st.Throttled), Until: st.ThrottledUntil,
			}
		},
		KeepFree: int64(n.cfg.Local.LowSpace),
	})
	return nil
}
