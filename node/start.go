package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"sync"

	"skylun/lun"
	"skylun/target"
)

// Start runs a node: it opens the data directory, checks the configuration
// against what is there and in the store, creates the volumes that are
// missing, and exports everything. cfg must be valid. An error is Problems
// where a key asks for what cannot be had. After an error nothing was created
// but an empty data directory.
//
// The steps, and why in this order:
//
//  1. the secrets of users are read: nothing is touched when one is missing
//  2. Open: another process on the same data directory is found out first
//  3. plans: every check that can fail without changing anything
//  4. Listen: a port that is taken is found out before volumes are made;
//     initiators that come early wait
//  5. create and open volumes and drives, build the targets
//  6. Serve: only now, because some initiators do not come back after they
//     were refused
func Start(ctx context.Context, cfg Config, log *slog.Logger) (_ *Node, err error) {
	lun.RouteGotgtLog(log)
	chaps, err := readSecrets(&cfg, log)
	if err != nil {
		return nil, err
	}
	n, err := Open(ctx, cfg, true, log)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, n.Close(ctx))
		}
	}()
	log.Info("starting", "node", cfg.Node, "version", Version(), "data", cfg.DataDir, "store", n.store.URL())
	if len(n.conflicts) > 0 {
		return nil, errors.Join(n.conflicts...)
	}
	if err := n.removeOrphans(); err != nil {
		return nil, localError("files without an owner", err)
	}
	plans, err := n.plans(ctx)
	if err == nil {
		err = n.planDrives(ctx)
	}
	if err != nil {
		return nil, err
	}
	server, err := target.New(target.Config{
		Portals: cfg.portals(), DiscoveryCHAP: chaps.discovery,
		MaxSessions: cfg.Limits.Sessions, MaxSourceSessions: cfg.Limits.SessionsPerSource,
		MaxLogins: cfg.Limits.Logins, MaxSourceLogins: cfg.Limits.LoginsPerSource, LoginTimeout: cfg.Limits.LoginTimeout,
		PingInterval: cfg.Limits.PingInterval, PingTimeout: cfg.Limits.PingTimeout, ServerBuffers: int64(cfg.Limits.Buffers),
	}, log)
	if err != nil {
		return nil, err
	}
	if err := server.Listen(); err != nil {
		return nil, err
	}
	n.server = server
	if err := n.startPrefetcher(); err != nil {
		return nil, err
	}
	if err := n.build(ctx, plans, chaps); err != nil {
		return nil, err
	}
	n.served = make(chan struct{})
	go func() {
		defer close(n.served)
		// It lives until Close, longer than ctx, which is the start's.
		n.failed = server.Serve(context.WithoutCancel(ctx))
	}()
	watching, stop := context.WithCancel(context.WithoutCancel(ctx))
	var watch sync.WaitGroup
	watch.Go(func() { n.watchSpace(watching) })
	n.stopWatch = func() { stop(); watch.Wait() }
	n.startCleaner(context.WithoutCancel(ctx))
	for _, p := range n.Portals() {
		log.Info("listening", "portal", p.String())
	}
	return n, nil
}

// build makes the tree that the plans describe: volumes and drives below
// targets. After an error those that it created are gone again.
func (n *Node) build(ctx context.Context, plans []plan, chaps *chaps) (err error) {
	n.changes.Lock()
	defer n.changes.Unlock()
	var created []plan
	var drives []*drive // that were not known before
	for _, d := range n.drives {
		if !d.made {
			drives = append(drives, d)
		}
	}
	defer func() {
		if err == nil {
			return
		}
		for _, d := range drives {
			err = errors.Join(err, n.db.SetUnitState(d.unit, driveContents, nil))
		}
		for _, p := range created {
			n.mu.Lock()
			v := n.volumes[p.spec.Name]
			delete(n.volumes, p.spec.Name)
			n.mu.Unlock()
			if v != nil {
				err = errors.Join(err, n.close(v))
			}
			err = errors.Join(err, n.removeVolume(*p.stored))
		}
	}()
	for i := range plans {
		p := &plans[i]
		if p.stored != nil {
			continue
		}
		v, err := n.createVolume(*p)
		if err != nil {
			return err
		}
		p.stored = &v
		created = append(created, *p)
		n.logCreated(v)
	}
	units := map[string]*lun.Map{}
	for _, t := range n.cfg.Targets {
		units[t.IQN] = lun.NewMap()
		if err := units[t.IQN].SetPortGroups(n.cfg.portGroups()...); err != nil {
			return fmt.Errorf("target %s: %w", t.IQN, err)
		}
	}
	n.connect(units)
	for _, p := range plans {
		v, err := n.openVolume(ctx, *p.stored, p.info)
		if err != nil {
			return err
		}
		if v.image != nil {
			if err := v.image.wait(ctx); err != nil {
				return err
			}
		}
		if err := units[p.place.iqn].Add(uint16(p.place.lun), n.newDisk(v, p.place)); err != nil {
			return fmt.Errorf("target %s: lun %d: %w", p.place.iqn, p.place.lun, err)
		}
		attrs := []any{"target", p.place.iqn, "lun", p.place.lun, "volume", v.meta.Name, "size", Size(v.meta.Size).Human(),
			"written", Size(v.dev.Stats().Owned).Human()}
		if v.image != nil {
			attrs = append(attrs, "image", v.meta.Image, "local", Percent(v.image.status().Local()))
		}
		n.log.Info("disk", attrs...)
	}
	if err := n.buildDrives(ctx, units); err != nil {
		return err
	}
	if err := n.pinAll(ctx); err != nil {
		return err
	}
	if err := n.openIdle(); err != nil {
		return err
	}
	n.units = units
	for _, t := range n.cfg.Targets {
		err := n.server.AddTarget(target.Target{Name: t.IQN, Initiators: t.Initiators, Networks: t.networks(), CHAP: chaps.targets[t.IQN], Units: units[t.IQN]})
		if err != nil {
			return fmt.Errorf("target %s: %w", t.IQN, err)
		}
	}
	return nil
}

// portals returns the portals as a target wants them.
func (c *Config) portals() []target.Portal {
	portals := make([]target.Portal, len(c.Portals))
	for i, p := range c.Portals {
		portals[i] = target.Portal{Listen: p.Listen, Advertise: p.Advertise, Group: uint16(p.Group)}
	}
	return portals
}

// portGroups returns the target port groups: every target is behind all
// portals.
func (c *Config) portGroups() (groups []lun.PortGroup) {
	for _, p := range c.portals() {
		if g := (lun.PortGroup{Tag: p.Tag()}); !slices.Contains(groups, g) {
			groups = append(groups, g)
		}
	}
	return groups
}

// networks returns the networks, which are valid.
func (t *TargetConfig) networks() (all []netip.Prefix) {
	for _, s := range t.Networks {
		if n, err := target.ParseNetwork(s); err == nil {
			all = append(all, n)
		}
	}
	return all
}
