package node

import (
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
	"time"

	"skylun/meta"
	"skylun/overlay"
)

// Layers that nobody names any more are merged in the background, one pair
// at a time. What is to be done is seen in the tree of layers, so nothing has
// to be remembered, and a node that was stopped or killed goes on where it was:
//
//	nothing lies on it          it is dropped, as soon as nobody reads it
//	a sealed layer lies on it   the two become one
//	a volume writes to the one  what that one hides of it is given back, and
//	that lies on it             again when there is more of it; the two become one
//	                            when the volume gets its next snapshot
//
// A merge does not keep anybody from anything: volumes are used, opened and
// closed, snapshots taken and removed meanwhile. Only the moment at which it is
// recorded belongs to it alone. But a snapshot that was removed while it is being
// read is left alone until that ends: it has none of what lies above.

// cleaner is the goroutine that does so.
type cleaner struct {
	wakes  chan struct{}
	cancel context.CancelFunc // nil: it does not run
	done   sync.WaitGroup

	shadowed map[uint64]int64 // what the layer above had when it was last looked at, by layer

	mu      sync.Mutex
	job     *CleaningJob      // guarded by mu: what is being done
	merged  uint64            // guarded by mu
	retries map[uint64]*retry // guarded by mu: what has failed, by layer; 0: removing layers
}

// retry is when a layer's turn comes again after it failed.
type retry struct {
	at      time.Time
	wait    time.Duration
	problem string
}

const (
	retryFirst = time.Second
	retryMost  = 5 * time.Minute

	// shadowEvery is the time between two looks at what tops hide, shadowMore
	// how much must have been written since the last time.
	shadowEvery = 30 * time.Second
	shadowMore  = 16 << 20
)

func newCleaner() *cleaner {
	return &cleaner{wakes: make(chan struct{}, 1), retries: map[uint64]*retry{}, shadowed: map[uint64]int64{}}
}

// wake tells that there may be something to do. Where the cleaner does not run,
// that waits for a node that is started.
func (c *cleaner) wake() {
	select {
	case c.wakes <- struct{}{}:
	default:
	}
}

func (c *cleaner) stop() {
	if c.cancel != nil {
		c.cancel()
	}
	c.done.Wait()
}

func (n *Node) startCleaner(ctx context.Context) {
	c := n.clean
	ctx, c.cancel = context.WithCancel(ctx)
	c.done.Go(func() {
		for {
			wait := n.cleanUp(ctx)
			select {
			case <-ctx.Done():
				return
			case <-c.wakes:
			case <-time.After(wait):
			}
		}
	})
}

// cleanUp does what there is to do, and returns when to look again.
func (n *Node) cleanUp(ctx context.Context) time.Duration {
	for {
		j, wait, err := n.nextJob(ctx)
		if err != nil {
			return n.noteResult(0, err)
		}
		if j == nil {
			return wait
		}
		lower := j.lower.dev.ID()
		err = n.run(ctx, j)
		if ctx.Err() != nil {
			return wait
		}
		n.noteResult(lower, err)
	}
}

// noteResult remembers how a job has ended, and returns when its turn comes
// again if it failed. Errors are logged when they are new.
func (n *Node) noteResult(lower uint64, err error) (wait time.Duration) {
	c := n.clean
	c.mu.Lock()
	defer c.mu.Unlock()
	c.job = nil
	if err == nil {
		delete(c.retries, lower)
		return 0
	}
	r := c.retries[lower]
	if r == nil {
		r = &retry{}
		c.retries[lower] = r
	}
	r.wait = min(max(2*r.wait, retryFirst), retryMost)
	r.at = time.Now().Add(r.wait)
	if text := err.Error(); text != r.problem {
		r.problem = text
		n.log.Warn("giving back the space of removed snapshots failed; it is tried again", "layer", lower, "err", err, "again", r.wait)
	}
	return r.wait
}

// job is a pair of layers, of which nobody names the lower one. Both have one
// user for the job.
type job struct {
	lower, upper *layer

	// To give back what is hidden: the volume that writes to upper, with one
	// user for the job, and what upper had when the job was made. nil: to merge.
	top   *volume
	owned int64
}

// nextJob drops what is of no use, and returns the next pair, or when to look
// again.
func (n *Node) nextJob(ctx context.Context) (*job, time.Duration, error) {
	n.changes.Lock()
	defer n.changes.Unlock()
	if err := n.dropLayers(); err != nil {
		return nil, 0, err
	}
	tree, err := n.db.Tree()
	if err != nil {
		return nil, 0, err
	}
	c, now, wait := n.clean, time.Now(), shadowEvery
	doomed, between := tree.Unneeded() // those that are there are being read
	c.forget(between)
	for _, shadow := range []bool{false, true} {
		for _, id := range between {
			upper := tree.Layers[tree.Children(id)[0]]
			if tree.IsTop(upper.ID) != shadow {
				continue
			}
			if slices.Contains(doomed, upper.ID) || n.readWithout(id, upper.ID) {
				continue // who reads wakes the cleaner
			}
			if left := c.retryIn(id, now); left > 0 {
				wait = min(wait, left)
				continue
			}
			open := n.mergeJob
			if shadow {
				open = n.shadowJob
			}
			j, err := open(ctx, tree, tree.Layers[id], upper)
			if err != nil {
				wait = min(wait, n.noteResult(id, err))
				continue
			}
			if j != nil {
				return j, 0, nil
			}
		}
	}
	return nil, wait, nil
}

// retryIn returns how long a layer that failed is left alone.
func (c *cleaner) retryIn(id uint64, now time.Time) time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	if r := c.retries[id]; r != nil {
		return r.at.Sub(now)
	}
	return 0
}

// forget drops what is known of layers that are not there any more. Removing
// layers has worked.
func (c *cleaner) forget(between []uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for id := range c.retries {
		if !slices.Contains(between, id) {
			delete(c.retries, id)
		}
	}
	for id := range c.shadowed {
		if !slices.Contains(between, id) {
			delete(c.shadowed, id)
		}
	}
}

// mergeJob opens a pair of sealed layers.
func (n *Node) mergeJob(ctx context.Context, _ *meta.Tree, lower, upper meta.Layer) (*job, error) {
	layers, err := n.useLayers(ctx, []meta.Layer{lower, upper}, true)
	if err != nil {
		return nil, err
	}
	n.clean.begin(CleaningJob{Lower: lower.ID, Upper: upper.ID})
	return &job{lower: layers[0], upper: layers[1]}, nil
}

// shadowJob opens the volume that writes to upper, unless that hides no more
// than when it was last looked at.
func (n *Node) shadowJob(ctx context.Context, tree *meta.Tree, lower, upper meta.Layer) (*job, error) {
	stats, err := n.statsOf(tree, upper)
	if err != nil {
		return nil, err
	}
	owned := stats.Owned + stats.Zero
	if before, known := n.clean.shadowed[lower.ID]; known && owned < before+shadowMore {
		return nil, nil
	}
	i := slices.IndexFunc(tree.Volumes, func(v meta.Volume) bool { return v.Layer == upper.ID })
	v, err := n.use(ctx, tree.Volumes[i].Name, nil) // of the image nothing is read
	if err != nil {
		return nil, err
	}
	v.cleaning = true
	j := &job{lower: v.layers[len(v.layers)-2], upper: v.layers[len(v.layers)-1], top: v, owned: owned}
	j.lower.users++ // the volume may be rolled back meanwhile
	j.upper.users++
	n.clean.begin(CleaningJob{Lower: lower.ID, Upper: upper.ID, Hidden: true})
	return j, nil
}

func (c *cleaner) begin(j CleaningJob) {
	j.Since = time.Now()
	c.mu.Lock()
	c.job = &j
	c.mu.Unlock()
}

// run does a job, and lets go of what it used.
func (n *Node) run(ctx context.Context, j *job) error {
	if j.top == nil {
		return n.merge(ctx, j)
	}
	freed, err := overlay.Shadow(ctx, j.lower.dev, j.upper.dev, []*overlay.Volume{j.top.dev})
	if err == nil {
		n.clean.shadowed[j.lower.dev.ID()] = j.owned
		n.log.Debug("what a volume hides of a layer was given back", "volume", j.top.meta.Name, "layer", j.lower.dev.ID(), "bytes", freed)
	}
	n.changes.Lock()
	defer n.changes.Unlock()
	j.top.cleaning = false
	return errors.Join(err, n.unuse(j.top), n.releaseLayers([]*layer{j.lower, j.upper}))
}

func (n *Node) merge(ctx context.Context, j *job) (err error) {
	var gone *overlay.Layer
	err = overlay.Merge(ctx, j.lower.dev, j.upper.dev, func(kept, g *overlay.Layer) ([]*overlay.Volume, error) {
		n.changes.Lock()
		defer n.changes.Unlock()
		gone = g
		return n.openOver(g), n.db.ReplaceLayer(g.ID(), kept.ID(), kept.Size())
	})
	n.changes.Lock()
	defer n.changes.Unlock()
	defer func() {
		err = errors.Join(err, n.releaseLayers([]*layer{j.lower, j.upper}))
		if err == nil {
			err = n.dropLayers()
		}
	}()
	if err != nil {
		return err
	}
	n.log.Debug("layers merged", "lower", j.lower.dev.ID(), "upper", j.upper.dev.ID(), "gone", gone.ID())
	n.clean.mu.Lock()
	n.clean.merged++
	n.clean.mu.Unlock()
	return n.forgetLayer(gone)
}

// openOver returns the open volumes that read through a layer. The caller holds
// changes.
func (n *Node) openOver(l *overlay.Layer) (all []*overlay.Volume) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, v := range n.volumes {
		if slices.ContainsFunc(v.layers, func(of *layer) bool { return of.dev == l }) {
			all = append(all, v.dev)
		}
	}
	return all
}

// readWithout tells whether somebody reads through lower who does not read through
// upper, which lies on it. The caller holds changes. As nobody names lower, there
// will be no more of them.
func (n *Node) readWithout(lower, upper uint64) bool {
	through := func(v *volume, id uint64) bool {
		return slices.ContainsFunc(v.layers, func(l *layer) bool { return l.dev.ID() == id })
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, v := range n.volumes {
		if through(v, lower) && !through(v, upper) {
			return true
		}
	}
	return false
}

// forgetLayer takes a layer that was merged into another one from all volumes.
// The caller holds changes.
func (n *Node) forgetLayer(gone *overlay.Layer) error {
	var errs []error
	n.mu.Lock()
	volumes := slices.Collect(maps.Values(n.volumes))
	n.mu.Unlock()
	for _, v := range volumes {
		if i := slices.IndexFunc(v.layers, func(l *layer) bool { return l.dev == gone }); i >= 0 {
			l := v.layers[i]
			v.layers = slices.Delete(slices.Clone(v.layers), i, i+1)
			errs = append(errs, n.releaseLayers([]*layer{l}))
		}
	}
	return errors.Join(errs...)
}

// cleaning returns what is left to do in the background.
func (n *Node) cleaning(tree *meta.Tree) (CleaningStatus, error) {
	c := n.clean
	c.mu.Lock()
	s := CleaningStatus{Merged: c.merged}
	for _, id := range slices.Sorted(maps.Keys(c.retries)) {
		s.Problem = c.retries[id].problem
	}
	if c.job != nil {
		j := *c.job
		s.Job = &j
	}
	c.mu.Unlock()
	leaves, between := tree.Unneeded()
	for _, id := range slices.Concat(leaves, between) {
		if kids := tree.Children(id); len(kids) == 1 && tree.IsTop(kids[0]) {
			continue // it waits for the next snapshot
		}
		stats, err := n.statsOf(tree, tree.Layers[id])
		if err != nil {
			return s, err
		}
		s.Layers++
		s.Bytes += stats.Owned
	}
	return s, nil
}
