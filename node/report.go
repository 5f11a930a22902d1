package node

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"

	"skylun/blobstore"
	"skylun/block"
	"skylun/meta"
	"skylun/overlay"
)

// Status returns what the node is and does.
func (n *Node) Status(ctx context.Context) (Status, error) {
	s := Status{
		Node: n.cfg.Node, Version: Version(), PID: os.Getpid(), Started: n.started, DataDir: n.cfg.DataDir,
		Portals: []string{}, Targets: []TargetStatus{},
	}
	st := n.store.Stats()
	s.Store = StoreStatus{
		URL: n.store.URL(), Gets: uint64(st.Gets), Puts: uint64(st.Puts),
		BytesIn: uint64(st.GetBytes), BytesOut: uint64(st.PutBytes), Errors: uint64(st.Errors),
	}
	var err error
	if s.Local, err = n.Local(ctx); err != nil {
		return s, err
	}
	if s.Volumes, err = n.Volumes(ctx); err != nil {
		return s, err
	}
	if s.Caches, err = n.caches(); err != nil {
		return s, err
	}
	p := n.pool.Stats()
	s.Cache = PoolStatus{Limit: p.Limit, Held: p.Held, Pinned: p.Pinned, Evicted: uint64(p.Evicted), GaveWay: uint64(p.GaveWay)}
	tree, err := n.db.Tree()
	if err != nil {
		return s, err
	}
	s.Layers = len(tree.Layers)
	if s.Snapshots, err = n.snapshots(tree); err != nil {
		return s, err
	}
	if s.Cleaning, err = n.cleaning(tree); err != nil {
		return s, err
	}
	for _, t := range n.cfg.Targets {
		s.Targets = append(s.Targets, TargetStatus{IQN: t.IQN, LUNs: n.lunsOf(s.Volumes, t.IQN), Sessions: []SessionStatus{}})
	}
	if n.server == nil {
		return s, nil
	}
	for _, p := range n.Portals() {
		s.Portals = append(s.Portals, p.String())
	}
	for _, c := range n.server.Sessions() {
		i := slices.IndexFunc(s.Targets, func(t TargetStatus) bool { return t.IQN == c.Target })
		if i >= 0 { // not a discovery session
			s.Targets[i].Sessions = append(s.Targets[i].Sessions, SessionStatus{Initiator: c.Initiator, User: c.User, Address: c.Remote.String(), Since: c.Since})
		}
	}
	stats := n.server.Stats()
	s.SCSI = CommandStatus{Sessions: stats.Sessions, Failures: stats.LoginFailures, Refused: stats.Refused, Commands: stats.Commands, BytesRead: stats.BytesRead, BytesWritten: stats.BytesWrite}
	return s, nil
}

// LUNs returns what the targets show.
func (n *Node) LUNs(ctx context.Context) ([]LUNStatus, error) {
	volumes, err := n.Volumes(ctx)
	if err != nil {
		return nil, err
	}
	all := []LUNStatus{}
	for _, t := range n.cfg.Targets {
		all = append(all, n.lunsOf(volumes, t.IQN)...)
	}
	return all, nil
}

func (n *Node) lunsOf(volumes []VolumeStatus, iqn string) []LUNStatus {
	luns := []LUNStatus{}
	for _, v := range volumes {
		if v.LUN != nil && v.LUN.IQN == iqn {
			luns = append(luns, *v.LUN)
		}
	}
	for _, d := range n.drives {
		for _, p := range d.places {
			if p.iqn == iqn {
				luns = append(luns, n.driveStatus(d, p))
			}
		}
	}
	slices.SortFunc(luns, func(a, b LUNStatus) int { return cmp.Compare(a.LUN, b.LUN) })
	return luns
}

// caches returns the caches of the node, open or not.
func (n *Node) caches() ([]CacheStatus, error) {
	all, err := n.db.Caches()
	if err != nil {
		return nil, err
	}
	tree, err := n.db.Tree()
	if err != nil {
		return nil, err
	}
	uses := imageUses(tree)
	list := []CacheStatus{}
	for _, c := range all {
		s, err := n.cacheStatusOf(c)
		if err != nil {
			return nil, err
		}
		s.Volumes, s.Drives = []string{}, []string{}
		for _, d := range n.drives {
			if r := n.contents(d); r.Image != nil && r.Image.Name == c.Image && r.Image.Identity == c.Identity {
				s.Drives = append(s.Drives, d.name)
			}
		}
		for i, u := range uses {
			if u.Image != c.Image {
				continue
			}
			switch info, err := infoOf(u); {
			case err != nil || info.Identity != c.Identity:
			case i < len(tree.Volumes):
				s.Volumes = append(s.Volumes, u.Name)
			default:
				s.Snapshots = append(s.Snapshots, u.Name)
			}
		}
		list = append(list, s)
	}
	return list, nil
}

// cacheStatus returns how much of an image is local, if anything is known.
func (n *Node) cacheStatus(info blobstore.Info) (s CacheStatus, known bool, err error) {
	c, known, err := n.findCache(info)
	if err != nil || !known {
		return s, false, err
	}
	s, err = n.cacheStatusOf(c)
	return s, true, err
}

func (n *Node) cacheStatusOf(c meta.Cache) (CacheStatus, error) {
	n.mu.Lock()
	open, idle := n.images[c.Map], n.idle[c.Map]
	n.mu.Unlock()
	if open == nil && idle != nil {
		open = &image{info: blobstore.Info{Name: c.Image, Identity: c.Identity, Size: c.Size}, cache: idle.Cache}
	}
	if open != nil {
		return open.status(), nil
	}
	cache, err := n.openNowhere(c)
	if err != nil {
		return CacheStatus{}, err
	}
	closed := &image{info: blobstore.Info{Name: c.Image, Identity: c.Identity, Size: c.Size}, cache: cache}
	s := closed.status()
	s.Prefetch = nil
	return s, cache.Close()
}

// openNowhere opens a cache without its file, to count the states of its
// blocks.
func (n *Node) openNowhere(c meta.Cache) (*overlay.Cache, error) {
	return overlay.OpenCache(overlay.CacheConfig{
		Name: c.Image, Image: sized(c.Size), File: nowhere{}, Map: n.db.Map(c.Map), Log: n.log,
	})
}

// closedVolumeStats returns the figures of a volume that is not open: it is
// opened without its files.
func (n *Node) closedVolumeStats(tree *meta.Tree, m meta.Volume) (stats overlay.Stats, err error) {
	chain, err := tree.Chain(m.Layer)
	if err != nil {
		return stats, fmt.Errorf("volume %s: %w", m.Name, err)
	}
	cfg := overlay.Config{Name: m.Name, Size: m.Size, Log: n.log}
	defer func() {
		for _, l := range slices.Backward(cfg.Layers) {
			err = errors.Join(err, l.Close())
		}
	}()
	for i, l := range chain {
		c := n.layerConfig(l)
		c.File, c.Redo, c.Sealed = nowhere{}, nil, i < len(chain)-1
		dev, err := overlay.OpenLayer(c)
		if err != nil {
			return stats, err
		}
		cfg.Layers = append(cfg.Layers, dev)
	}
	base, err := n.closedCache(m)
	if err != nil {
		return stats, err
	}
	if base != nil {
		cfg.Base = base
		defer func() { err = errors.Join(err, base.Close()) }()
	}
	dev, err := overlay.Open(cfg)
	if err != nil {
		return stats, err
	}
	return dev.Stats(), dev.Close()
}

// closedCache opens the cache of a volume's image without its file, nil when
// there is none.
func (n *Node) closedCache(m meta.Volume) (*overlay.Cache, error) {
	info, err := infoOf(m)
	if err != nil || m.Image == "" {
		return nil, err
	}
	c, known, err := n.findCache(info)
	if err != nil || !known {
		return nil, err
	}
	return n.openNowhere(c)
}

// nowhere is the file of a layer or a cache that is opened only to count the
// states of its blocks.
type nowhere struct{}

var errNowhere = errors.New("opened without its file")

func (nowhere) ReadAt([]byte, int64) error            { return errNowhere }
func (nowhere) TryReadAt([]byte, int64) (bool, error) { return true, errNowhere }
func (nowhere) WriteAt([]byte, int64) error           { return errNowhere }
func (nowhere) Punch(int64, int64) error              { return errNowhere }
func (nowhere) Sync() error                           { return nil }
func (nowhere) Resize(int64) error                    { return errNowhere }
func (nowhere) Close() error                          { return nil }

// sized is an image that is only known by its size.
type sized int64

func (s sized) Size() int64                                 { return int64(s) }
func (s sized) ReadAt(context.Context, []byte, int64) error { return errNowhere }

var _ block.Reader = sized(0)
