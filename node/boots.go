package node

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"skylun/blobstore"
	"skylun/block"
	"skylun/profile"
)

// What guests read of an image when they boot is recorded and kept in the
// store, beside the image; who opens the image next brings it before anything
// else, if it prefetches at all. See package profile.
//
// A run begins with the first read of the image after an initiator has logged
// in, or a medium was inserted, and ends after cache.boot_profile, or when the
// image is closed. Not every login is a boot: who was cut off and
// comes back goes on reading where it was. A boot looks at the beginning of
// the disk first, and only runs that have done so count.
const (
	bootStart = 64 << 10 // partition tables, boot sectors, the first descriptors of a disc
	bootSoon  = 1 << 20  // the bytes of a run among which something of that has to be
	bootLeast = 1 << 20  // a run of less is no boot

	profileTime  = 30 * time.Second // for saving a profile
	profileHurry = 2 * time.Second  // the same when the node stops
	profileTries = 5                // with other nodes writing it

	profilePause = 10 * time.Second // before it is tried again to load one, then twice that, and so on
	profileLater = 5 * time.Minute
)

// profiles is what the images of a node have in common.
type profiles struct {
	ctx    context.Context // ends when the node stops
	cancel context.CancelFunc
	run    sync.WaitGroup // goroutines that save
	denied atomic.Bool    // the store takes none from us
}

func (p *profiles) init() { p.ctx, p.cancel = context.WithCancel(context.Background()) }

// end returns when everything is saved, or given up.
func (p *profiles) end() {
	p.cancel()
	p.run.Wait()
}

// boots loads the profile of an image that is open, and records runs.
type boots struct {
	come    chan struct{} // an initiator has
	cancel  context.CancelFunc
	run     sync.WaitGroup
	loading atomic.Bool
}

// attached tells that an initiator has come. It does not wait. boots may be
// nil.
func (b *boots) attached() {
	if b == nil {
		return
	}
	select {
	case b.come <- struct{}{}:
	default:
	}
}

// end ends loading and recording. boots may be nil.
func (b *boots) end() {
	if b != nil {
		b.cancel()
		b.run.Wait()
	}
}

// attached tells that an initiator has come to the disk.
func (v *volume) attached() {
	if v.image != nil {
		v.image.boots.attached()
	}
}

// driveAttached tells that an initiator has come to a drive.
func (n *Node) driveAttached(d *drive) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if d.record.Image == nil {
		return
	}
	for _, m := range n.images {
		if m.info.Name == d.record.Image.Name && m.info.Identity == d.record.Image.Identity {
			m.boots.attached()
		}
	}
}

// watchBoots begins with an image that was just opened.
func (n *Node) watchBoots(m *image) {
	if n.server == nil {
		return // nobody boots from what is not exported
	}
	ctx, cancel := context.WithCancel(n.profiles.ctx)
	m.boots = &boots{come: make(chan struct{}, 1), cancel: cancel}
	m.boots.run.Go(func() {
		n.startLoading(ctx, m)
		for {
			select {
			case <-m.boots.come:
			case <-ctx.Done():
				return
			}
			n.startLoading(ctx, m)
			if n.cfg.Cache.BootProfile > 0 {
				n.record(ctx, m)
			}
		}
	})
}

// startLoading begins to load the profile, unless that is under way.
func (n *Node) startLoading(ctx context.Context, m *image) {
	if m.boots.loading.CompareAndSwap(false, true) {
		m.boots.run.Go(func() {
			defer m.boots.loading.Store(false)
			n.loadProfile(ctx, m)
		})
	}
}

// loadProfile says to the cache of an image what to bring first. That the store
// does not answer is tried again later, until ctx ends.
func (n *Node) loadProfile(ctx context.Context, m *image) {
	for pause := profilePause; ; pause = min(2*pause, profileLater) {
		p, _, err := n.storedProfile(ctx, m.info)
		switch {
		case ctx.Err() != nil:
			return
		case err == nil:
			if p.Runs() > 0 {
				n.log.Info("boot profile", "image", m.info.Name, "size", Size(p.Bytes()).Human(), "runs", p.Runs())
				m.cache.SetProfile(p.Ranges())
			}
			return
		case unusable(err), errors.Is(err, blobstore.ErrAuth), errors.Is(err, blobstore.ErrFormat):
			n.log.Info("the boot profile of an image is not used", "image", m.info.Name, "err", err)
			return
		}
		n.log.Info("the boot profile of an image cannot be read; it is tried again", "image", m.info.Name, "after", pause, "err", err)
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return
		}
	}
}

// errOtherContent says that a profile is of what the image was, or is by now.
var errOtherContent = errors.New("it is of another content of the image")

// unusable tells whether a profile was found that is of no use here.
func unusable(err error) bool {
	return errors.Is(err, errOtherContent) || errors.Is(err, profile.ErrDamaged) || errors.Is(err, profile.ErrVersion)
}

// storedProfile returns the profile of an image and its tag in the store; where
// there is none, an empty one.
func (n *Node) storedProfile(ctx context.Context, info blobstore.Info) (p *profile.Profile, tag string, err error) {
	doc, tag, err := n.store.Document(ctx, info.Name, blobstore.Profile)
	if errors.Is(err, blobstore.ErrNotFound) {
		return profile.New(info.Identity, info.Size), "", nil
	}
	if err == nil {
		p, err = profile.Decode(doc)
	}
	if err == nil && !p.Of(info.Identity, info.Size) {
		err = errOtherContent
	}
	return p, tag, err
}

// record records one run, and has it saved if a guest has booted.
func (n *Node) record(ctx context.Context, m *image) {
	t := m.cache.Trace()
	if t == nil {
		return
	}
	select {
	case <-t.Begun():
		select {
		case <-time.After(n.cfg.Cache.BootProfile):
		case <-ctx.Done():
		}
	case <-ctx.Done():
	}
	run := t.Stop()
	select {
	case <-m.boots.come: // meanwhile: it belonged to this run
	default:
	}
	if isBoot(run) && !n.profiles.denied.Load() {
		n.profiles.run.Go(func() { n.saveProfile(m.info, run) })
	}
}

// isBoot tells whether a run is one of a guest that boots.
func isBoot(run []block.Range) bool {
	total, start := int64(0), false
	for _, r := range run {
		start = start || r.Off < bootStart && total < bootSoon
		total += r.Len()
	}
	return start && total >= bootLeast
}

// saveProfile merges a run into the profile in the store.
func (n *Node) saveProfile(info blobstore.Info, run []block.Range) {
	ctx, cancel := context.WithTimeout(context.Background(), profileTime)
	defer cancel()
	stop := context.AfterFunc(n.profiles.ctx, func() {
		select {
		case <-time.After(profileHurry):
			cancel()
		case <-ctx.Done():
		}
	})
	defer stop()
	p, err := n.mergeProfile(ctx, info, run)
	switch {
	case err == nil:
		n.log.Info("boot profile saved", "image", info.Name, "size", Size(p.Bytes()).Human(), "runs", p.Runs())
	case errors.Is(err, blobstore.ErrAuth):
		if !n.profiles.denied.Swap(true) {
			n.log.Info("boot profiles are not saved: this node may only read from the store", "image", info.Name, "err", err)
		}
	default:
		n.log.Info("boot profile not saved", "image", info.Name, "err", err)
	}
}

func (n *Node) mergeProfile(ctx context.Context, info blobstore.Info, run []block.Range) (*profile.Profile, error) {
	for try := 1; ; try++ {
		p, tag, err := n.storedProfile(ctx, info)
		switch {
		case errors.Is(err, profile.ErrVersion):
			return nil, err // later versions of skylun are not undone
		case errors.Is(err, errOtherContent):
			// One of the two contents is in the store no more.
			now, err := n.store.Stat(ctx, info.Name)
			if err != nil {
				return nil, err
			}
			if now.Identity != info.Identity {
				return nil, errOtherContent
			}
		case err != nil && !errors.Is(err, profile.ErrDamaged):
			return nil, err
		}
		if err != nil {
			p = profile.New(info.Identity, info.Size)
		}
		p = p.Merge(run)
		err = n.store.PutDocument(ctx, info.Name, blobstore.Profile, p.Encode(), tag)
		if !errors.Is(err, blobstore.ErrChanged) || try == profileTries {
			return p, err
		}
	}
}
