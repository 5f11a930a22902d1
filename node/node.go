package node

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"maps"
	"net/netip"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"

	"skylun/blobstore"
	"skylun/block"
	"skylun/lun"
	"skylun/meta"
	"skylun/overlay"
	"skylun/raid"
	"skylun/target"
)

// Node is an open data directory and, after Start, the server that exports
// it. Its methods are safe for parallel calls.
type Node struct {
	cfg     Config
	log     *slog.Logger
	started time.Time
	boot    string     // which run of the system this is
	luns    []lunPlace // where volumes are; guarded by mu after the start, replaced and never changed
	drives  []*drive   // of the configuration

	removals sync.WaitGroup // goroutines that release media and remember who knows them
	profiles profiles       // of what is read when guests boot

	store blobstore.Store
	db    *meta.DB
	array *raid.Array
	pool  *overlay.Pool // of all caches

	conflicts []error // what was mapped and cannot be so with this configuration

	units  map[string]*lun.Map // of the targets; nil: nothing is exported
	server *target.Server      // nil: nothing is exported
	served chan struct{}       // closed when server.Serve has returned; nil: it was never called
	failed error               // what it returned, to be read when served is closed

	prefetcher *overlay.Prefetcher // nil: nothing is filled

	stopWatch func() // ends the watch of the local space; nil: there is none
	clean     *cleaner

	// changes is held while volumes, snapshots, caches or images are made or
	// removed, and while what volumes read through changes.
	// It is taken before mu.
	changes sync.Mutex

	removing map[string]bool // guarded by changes: images that are being removed from the store

	recency      map[uint64]overlay.Recency // guarded by changes: of caches that are closed, by their maps
	recencyMoved bool                       // guarded by changes: it is not what is written down
	idleOpen     bool                       // guarded by changes: the caches that nothing uses are open

	rebalance rebalance

	mu      sync.Mutex
	volumes map[string]*volume       // guarded by mu: those that are open, by name; nil after Close
	layers  map[uint64]*layer        // guarded by mu: those that are open
	sealed  map[uint64]overlay.Stats // guarded by mu: of sealed layers that are not open, as far as known
	images  map[uint64]*image        // guarded by mu: those whose cache is open, by its map
	idle    map[uint64]*idleCache    // guarded by mu: caches whose images nothing uses
	removed []*image                 // guarded by mu: of media that nothing reads any more, to be released
}

// lunPlace says where a volume appears.
type lunPlace struct {
	iqn    string
	lun    int
	disk   DiskConfig
	mapped bool // while the node ran, not by the configuration
}

// Open opens the data directory of cfg without exporting anything. cfg must
// be valid. Where no node ever ran it fails with ErrNotRunning, unless create
// says to begin a new one.
func Open(ctx context.Context, cfg Config, create bool, log *slog.Logger) (_ *Node, err error) {
	if _, err := os.Stat(cfg.DatabasePath()); errors.Is(err, os.ErrNotExist) && !create {
		return nil, Failure(ErrNotRunning, fmt.Sprintf("data directory %s holds no node yet; begin one with: skylun serve", cfg.DataDir))
	}
	n := &Node{cfg: cfg, log: log, started: time.Now(), clean: newCleaner(),
		volumes: map[string]*volume{}, layers: map[uint64]*layer{}, sealed: map[uint64]overlay.Stats{}, removing: map[string]bool{}, recency: map[uint64]overlay.Recency{}, images: map[uint64]*image{}, idle: map[uint64]*idleCache{}}
	n.pool = overlay.NewPool(int64(cfg.Cache.MaxSize), log)
	n.profiles.init()
	for _, t := range cfg.Targets {
		for _, l := range t.LUNs {
			if l.Disk != nil {
				n.luns = append(n.luns, lunPlace{iqn: t.IQN, lun: l.LUN, disk: *l.Disk})
			}
		}
	}
	defer func() {
		if err != nil {
			n.closeParts()
		}
	}()
	if n.boot, err = bootID(); err != nil {
		return nil, err
	}
	if err := raid.MakeDir(cfg.DataDir); err != nil {
		return nil, dataDirError(cfg.DataDir, err)
	}
	n.db, err = meta.Open(cfg.DatabasePath(), meta.Options{FoldFailed: func(err error) {
		log.Error("database: shortening the journal failed; it is tried again", "err", err)
	}})
	if err != nil {
		return nil, dataDirError(cfg.DataDir, err)
	}
	n.loadRecency()
	if err := n.tidyRedo(); err != nil {
		return nil, dataDirError(cfg.DataDir, err)
	}
	if err := n.openArray(); err != nil {
		return nil, err
	}
	if n.store, err = openStore(ctx, cfg, log); err != nil {
		return nil, err
	}
	if err = n.openDrives(); err != nil {
		return nil, err
	}
	if n.conflicts, err = n.openMappings(); err != nil {
		return nil, err
	}
	return n, nil
}

// bootID returns a name for this run of the system, which no other has.
func bootID() (string, error) {
	id, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", fmt.Errorf("cannot tell when this system was started: %w; mount /proc", err)
	}
	return strings.TrimSpace(string(id)), nil
}

// dataDirError says what is wrong with a data directory, and what to do.
func dataDirError(dir string, err error) error {
	switch {
	case errors.Is(err, meta.ErrLocked):
		return fmt.Errorf("data directory %s is in use by another skylun process; stop that one, or use another data_dir", dir)
	case errors.Is(err, meta.ErrVersion):
		return fmt.Errorf("data directory %s: %w; run that version, or use another data_dir", dir, err)
	case errors.Is(err, meta.ErrCorrupt):
		return fmt.Errorf("data directory %s: %w; put a copy of the file there, or use another data_dir", dir, err)
	case errors.Is(err, os.ErrPermission), errors.Is(err, syscall.EROFS):
		return fmt.Errorf("data directory %s cannot be written: %w; give this user the right to, or use another data_dir", dir, err)
	}
	return localError("data directory "+dir, err)
}

// localError adds to an error of the local disk what can be done about it.
func localError(what string, err error) error {
	if errors.Is(err, block.ErrNoSpace) || errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return fmt.Errorf("%s: %w; make room on that file system", what, err)
	}
	return fmt.Errorf("%s: %w", what, err)
}

// closeParts closes what Open opened, in reverse: the database last.
func (n *Node) closeParts() error {
	var errs []error
	if n.store != nil {
		errs = append(errs, n.store.Close())
	}
	if n.array != nil {
		errs = append(errs, n.array.Close())
	}
	if n.db != nil {
		errs = append(errs, n.db.Close())
	}
	return errors.Join(errs...)
}

// Portals returns the addresses that are really listened on.
func (n *Node) Portals() []netip.AddrPort {
	if n.server == nil {
		return nil
	}
	return n.server.Portals()
}

// Served returns a channel that is closed when nothing is exported any more:
// after Close, or because of an error that Close will return.
func (n *Node) Served() <-chan struct{} { return n.served }

// drainTime is how long Close waits for commands in flight.
const drainTime = 3 * time.Second

// Close stops accepting, lets commands in flight end until drainTime is over
// or ctx ends, makes everything durable, and closes everything, the database
// last. A second Close does nothing.
func (n *Node) Close(ctx context.Context) error {
	n.mu.Lock()
	closed := n.volumes == nil
	n.mu.Unlock()
	if closed {
		return nil
	}
	var errs []error
	if n.server != nil {
		if sessions := len(n.server.Sessions()); sessions > 0 {
			n.log.Info("waiting for commands in flight", "sessions", sessions, "deadline", drainTime)
		}
		drain, cancel := context.WithTimeout(ctx, drainTime)
		err := n.server.Shutdown(drain)
		cancel()
		if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
			n.log.Warn("commands were cut off", "after", drainTime)
		} else if err != nil {
			errs = append(errs, err)
		}
	}
	if n.served != nil {
		<-n.served
		errs = append(errs, n.failed)
	}
	if n.stopWatch != nil {
		n.stopWatch()
	}
	n.clean.stop()
	if n.prefetcher != nil {
		n.prefetcher.Close()
	}
	n.rebalance.end(true)
	n.removals.Wait()
	n.changes.Lock()
	defer n.changes.Unlock()
	n.mu.Lock()
	volumes, layers, images, idle := n.volumes, n.layers, n.images, n.idle
	n.volumes, n.layers, n.images, n.idle = nil, nil, nil, nil // no volume is opened any more
	n.mu.Unlock()
	n.pool.Stop()
	errs = append(errs, closeAll(maps.Values(volumes), func(v *volume) error { return v.dev.Close() })...)
	errs = append(errs, closeAll(maps.Values(layers), func(l *layer) error { return l.dev.Close() })...)
	for id, m := range images {
		errs = append(errs, n.closeCache(id, m))
	}
	for id, c := range idle {
		errs = append(errs, n.closeCache(id, c.Cache))
	}
	errs = append(errs, n.saveRecency())
	n.profiles.end()
	errs = append(errs, n.closeParts())
	err := errors.Join(errs...)
	if err == nil && n.served != nil {
		n.log.Info("stopped: everything written is on disk")
	}
	return err
}

// closeAll closes in parallel what takes a sync each.
func closeAll[T any](all iter.Seq[T], close func(T) error) (errs []error) {
	var wg sync.WaitGroup
	var mu sync.Mutex
	for x := range all {
		wg.Go(func() {
			err := close(x)
			mu.Lock()
			errs = append(errs, err)
			mu.Unlock()
		})
	}
	wg.Wait()
	return errs
}
