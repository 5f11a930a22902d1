package overlay

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"skylun/block"
	"skylun/meta"
	"skylun/test/memdev"
)

// world is everything of a node that a power cut may damage: two volumes over
// the cache of an image, or blank ones, and the durable maps. It does random
// operations, and at every point where something becomes durable it may look
// at what a power cut would leave there.
type world struct {
	worldConfig
	rnd   *rand.Rand
	boot  int // counts power cuts that were not only looked at
	value uint64

	image     *memdev.Device
	cache     *Cache // nil: blank
	cacheFile *memFile
	cacheSums *memFile
	cacheMap  Map
	rotted    bool // some of the copies, or of their sums
	vols      [2]*worldVolume
	layers    map[uint64]*worldLayer // all that are recorded, and perhaps more
	rec       records                // what is recorded; with a database, as far as it was answered
	snaps     []*worldSnapshot
	lastLayer uint64
	lastSnap  int
	fault     func(op string) error // of every call of a layer, its notes and map; nil: none
	db        *worldDB              // nil: the maps are memMaps

	looks   bool       // at power cuts
	looking sync.Mutex // holes are punched after a flush is answered, beside what follows
	cuts    int
	err     error // the first thing found
}

// worldConfig is what worlds differ in.
type worldConfig struct {
	sectors      int64 // of a volume at first
	imageSectors int64 // 0: blank
	cached       bool  // what is read of the image is kept
	bolt         bool  // the maps are those of package meta
	scanned      bool  // the image tells its empty ranges
	lie          lie
	dir          string // for bolt
	members      int    // of the arrays that layers are on; 0: they are on none
	redo         bool   // layers have redo logs
}

// lie makes a store that does not keep its promise, for tests of the test.
type lie struct {
	lazySync   bool // data is synced after the states are committed
	append     func(m *memMap, extents []Extent) []Extent
	hasty      bool // what is appended for the cache is durable only with the next, as if its holes were punched before
	lateStates bool // as hasty, for layers
	unsealed   bool // a snapshot is recorded before it is durable
	lostSums   bool // the sums of a cache are never synced
	lazyRedo   bool // a redo log is never synced
	staleRedo  bool // and never cleared
	noRedo     bool // and never done again
}

func (c worldConfig) String() string {
	return fmt.Sprintf("%d sectors over %d, cached %v, bolt %v, scanned %v, redo %v", c.sectors, c.imageSectors, c.cached, c.bolt, c.scanned, c.redo)
}

type worldVolume struct {
	name string
	size int64 // as somebody has stored it
	v    *Volume
	h    history

	// While the volume becomes something else: its history then, if the power
	// is cut when nextTop is recorded.
	next    history
	nextTop uint64
}

func imageValue(s int64) uint64 { return 1<<40 + uint64(s) }

// emptyImage tells which sectors of the image are zeros: such of whole blocks,
// with gaps.
func emptyImage(s int64) bool { return s/(block.Size/sector)%4 == 3 }

func newWorld(cfg worldConfig, rnd *rand.Rand) (*world, error) {
	w := &world{worldConfig: cfg, rnd: rnd, looks: true, layers: map[uint64]*worldLayer{}, rec: records{layers: map[uint64]layerRecord{}, snaps: map[string]map[int]record{}}}
	value := func(s int64) uint64 {
		if s >= cfg.imageSectors || emptyImage(s) {
			return 0
		}
		return imageValue(s)
	}
	if cfg.bolt {
		db, err := newWorldDB(w)
		if err != nil {
			return nil, err
		}
		w.db = db
	}
	w.image = memdev.New(cfg.imageSectors * sector)
	for s := range cfg.imageSectors {
		w.image.WriteAt(context.Background(), fillSectors(make([]byte, sector), value(s)), s*sector)
	}
	w.cacheFile = newMemFile(block.Ceil(w.image.Size(), block.Size))
	w.cacheSums = newMemFile(SumsSize(w.image.Size()))
	w.cacheSums.lazy = cfg.lie.lostSums
	w.cacheMap = w.newMap(cacheID, w.cacheFile)
	w.lastLayer = cacheID
	if w.db != nil {
		if id, err := w.db.db.NewMap(); err != nil || id != cacheID {
			return nil, fmt.Errorf("map %d: %w", id, err)
		}
		if err := w.db.db.PutCache(meta.Cache{Image: "image", Identity: "x", Size: max(w.image.Size(), 512), Map: cacheID}); err != nil {
			return nil, err
		}
	}
	for i := range w.vols {
		name := string(rune('a' + i))
		size := cfg.sectors * sector
		l, err := w.newLayer(size)
		if err == nil && w.db != nil {
			_, err = w.db.db.CreateVolume(meta.Volume{Name: name, Size: size, Layer: l.id})
		}
		if err != nil {
			return nil, err
		}
		w.vols[i] = &worldVolume{name: name, size: size, h: newHistory(cfg.sectors, value)}
		w.rec.vols[i] = record{l.id, size}
		w.rec.layers[l.id] = layerRecord{0, size}
	}
	if cfg.cached {
		w.cacheFile.hook, w.cacheSums.hook = w.point, w.point
	}
	return w, w.open()
}

// cacheID is the number of the cache's map.
const cacheID = 1

// newMap returns the durable map of a file.
func (w *world) newMap(id uint64, f *memFile) Map {
	f.lazy = w.lie.lazySync
	if w.db != nil {
		return w.db.newMap(id)
	}
	m := &memMap{lie: w.lie.append, isLate: w.lie.hasty && id == cacheID || w.lie.lateStates && id != cacheID}
	m.hook = w.afterAppend(f)
	return m
}

// afterAppend returns what follows when the map of f has become durable.
func (w *world) afterAppend(f *memFile) func(point string) {
	return func(point string) {
		w.point(point)
		if f.lazy {
			f.syncNow()
			w.point("data synced too late")
		}
	}
}

// scannable is an image that tells its empty ranges.
type scannable struct{ *memdev.Device }

func (s scannable) DataRanges(_ context.Context, in block.Range, f func(block.Range) error) error {
	for off := in.Off; off < in.End; off += sector {
		if !emptyImage(off / sector) {
			if err := f(block.Range{Off: off, End: min(off+sector, in.End)}); err != nil {
				return err
			}
		}
	}
	return nil
}

// open opens cache and volumes over what the files hold.
func (w *world) open() error {
	if w.imageSectors > 0 {
		var image block.Reader = w.image
		if w.scanned {
			image = scannable{w.image}
		}
		file, states := w.cacheFile, w.cacheMap
		if !w.cached {
			file, states = newMemFile(int64(len(file.now))), &memMap{}
			file.failing = func(op string) error {
				if op == "write" {
					return block.ErrNoSpace
				}
				return nil
			}
		}
		c, err := OpenCache(CacheConfig{Name: "image", Image: image, File: file, Sums: w.cacheSums, Map: states, Log: slog.New(slog.DiscardHandler)})
		if err != nil {
			return err
		}
		noTimer(c.copy)
		c.fetches.run.Wait() // until space is given back
		if file.failing == nil {
			if err := holdsOnly(file, c); err != nil {
				return err
			}
		}
		if w.scanned {
			if err := c.Scan(context.Background()); err != nil {
				return err
			}
		}
		w.cache = c
	}
	return w.openLayers()
}

// noTimer keeps a file from committing when nobody asks: on a slow machine that
// would come beside an operation, and use the same random numbers.
func noTimer(s *sparse) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.timer != nil {
		s.timer.Stop()
	}
	s.timer = time.NewTimer(time.Hour)
}

// holdsOnly tells whether the file of a cache has nothing that counts for nothing.
func holdsOnly(f *memFile, c *Cache) error {
	return f.DataRanges(func(r block.Range) error {
		if st, _ := c.copy.at(r.Off); st != present {
			return fmt.Errorf("the file of the cache has something at %d, which is in state %d", r.Off, st)
		}
		return nil
	})
}

// point is somewhere where a power cut may leave something else than before.
// Nothing else runs while it looks.
func (w *world) point(name string) {
	w.looking.Lock()
	defer w.looking.Unlock()
	if !w.looks || w.err != nil || w.rnd.IntN(3) != 0 {
		return
	}
	w.cuts++
	left, err := w.cut(false)
	if err == nil {
		err = left.verify()
	}
	if err == nil && w.rnd.IntN(3) == 0 {
		err = left.damage()
	}
	if err == nil {
		err = left.close()
	}
	if err != nil {
		w.err = fmt.Errorf("power cut at %q: %w", name, err)
	}
	if err == nil && w.members == 0 && (w.db == nil || w.db.torn == nil) && w.rnd.IntN(3) == 0 {
		if err := w.killedAndCut(); err != nil {
			w.err = fmt.Errorf("killed at %q: %w", name, err)
		}
	}
}

// killedAndCut kills the process, goes on with what it has left on the running
// system, flushes one of the volumes or none, and cuts the power: that volume
// must be what it was then.
func (w *world) killedAndCut() error {
	left, err := w.fallen(true, false)
	if err != nil {
		return err
	}
	for _, x := range left.vols {
		if w.rnd.IntN(3) == 0 {
			continue
		}
		got := make([]byte, x.v.Size())
		if err := x.v.ReadAt(context.Background(), got, 0); err != nil {
			return err
		}
		if err := x.h.check(got); err != nil {
			return fmt.Errorf("volume %s: %w", x.name, err)
		}
		if err := left.scribble(x); err != nil {
			return err
		}
		if err := x.v.Flush(context.Background()); err != nil {
			return err
		}
		x.h.flushed()
		left.settle()
	}
	cut, err := left.cut(false)
	if err == nil {
		err = cut.verify()
	}
	if err != nil {
		return fmt.Errorf("then power cut: %w", err)
	}
	return errors.Join(cut.close(), left.close())
}

// cut returns the world that a power cut now would leave, opened again. Only if
// looks says so it looks at power cuts itself.
func (w *world) cut(looks bool) (*world, error) { return w.fallen(false, looks) }

// fallen is cut, or what a process leaves that is killed now.
func (w *world) fallen(killed, looks bool) (*world, error) {
	boot, file, redo := w.boot+1, func(f *memFile) *memFile { return f.cut(w.rnd) }, func(r *worldRedo) worldRedo { return r.cut(w) }
	if killed {
		boot, file, redo = w.boot, (*memFile).killed, (*worldRedo).killed
	}
	left := &world{worldConfig: w.worldConfig, rnd: w.rnd, boot: boot, value: w.value, image: w.image, rotted: w.rotted,
		layers: map[uint64]*worldLayer{}, rec: w.rec.clone(), lastLayer: w.lastLayer, lastSnap: w.lastSnap}
	if w.db != nil {
		db, err := w.db.cut(left)
		if err != nil {
			return nil, err
		}
		left.db = db
		if left.rec, err = db.records(); err != nil {
			return nil, err
		}
	}
	states := func(id uint64, m Map) Map {
		if m, ok := m.(*memMap); ok {
			return &memMap{extents: m.durable(), lie: m.lie, isLate: m.isLate}
		}
		return left.db.newMap(id)
	}
	left.cacheFile, left.cacheSums, left.cacheMap = file(w.cacheFile), file(w.cacheSums), states(cacheID, w.cacheMap)
	for _, id := range left.rec.ids() {
		l := w.layers[id]
		left.layers[id] = &worldLayer{id: id, file: file(l.file), redo: redo(&l.redo), states: states(id, l.states)}
		if l.notes != nil {
			left.layers[id].notes = file(l.notes)
		}
	}
	if err := w.cutSnapshots(left); err != nil {
		return nil, err
	}
	if left.looks = looks; looks {
		left.look()
	}
	return left, left.open()
}

// look has w look at power cuts.
func (w *world) look() {
	for _, id := range w.rec.ids() {
		w.layers[id].hook(w)
	}
	if w.cached {
		w.cacheFile.hook, w.cacheSums.hook = w.point, w.point
	}
	if m, ok := w.cacheMap.(*memMap); ok {
		m.hook = w.afterAppend(w.cacheFile)
	}
}

// verify reads everything, twice, and compares it with what it may be.
func (w *world) verify() error {
	for range 2 {
		for _, x := range w.vols {
			got := make([]byte, x.v.Size())
			if err := x.v.ReadAt(context.Background(), got, 0); err != nil {
				return err
			}
			if err := x.h.check(got); err != nil {
				return fmt.Errorf("volume %s: %w", x.name, err)
			}
		}
		if err := w.verifySnapshots(); err != nil {
			return err
		}
		if err := w.verifyCache(); err != nil {
			return err
		}
	}
	return nil
}

// verifyCache reads the image through its cache. No copy may be damaged that has
// not rotted: what was not made durable in its order would be.
func (w *world) verifyCache() error {
	if w.cache == nil {
		return nil
	}
	want, got := make([]byte, w.cache.Size()), make([]byte, w.cache.Size())
	if err := w.image.ReadAt(context.Background(), want[:w.image.Size()], 0); err != nil {
		return err
	}
	if err := w.cache.ReadAt(context.Background(), got, 0); err != nil {
		return err
	}
	if !bytes.Equal(got, want) {
		return errors.New("the cache shows something else than the image")
	}
	if s := w.cache.Stats(); !w.rotted && s.Damaged+s.Unreadable > 0 {
		return fmt.Errorf("%d copies are damaged", s.Damaged+s.Unreadable)
	}
	return nil
}

// damage writes parts of blocks after a power cut, and cuts the power again: the
// rest of what was read must not change.
func (w *world) damage() error {
	for _, x := range w.vols {
		if err := w.scribble(x); err != nil {
			return err
		}
	}
	w.settle()
	left, err := w.cut(false)
	if err != nil {
		return err
	}
	if err := left.verify(); err != nil {
		return fmt.Errorf("and again, after writes: %w", err)
	}
	return left.close()
}

// scribble writes parts of blocks.
func (w *world) scribble(x *worldVolume) error {
	for range 5 {
		s := w.rnd.Int64N(x.size / sector)
		r := block.Range{Off: s * sector, End: (s + 1) * sector}
		w.value++
		x.h.write(r, w.value)
		if err := x.v.WriteAt(context.Background(), fillSectors(make([]byte, sector), w.value), r.Off); err != nil {
			return err
		}
	}
	return nil
}

// settle returns when nothing runs by itself.
func (w *world) settle() {
	if w.cache != nil {
		w.cache.fetches.run.Wait()
		w.cache.copy.commits.wait()
	}
	for _, x := range w.vols {
		x.v.work.Wait()
	}
	for _, l := range w.allOpen() {
		l.commits.wait()
	}
}

// abandon stops everything as a process does that is killed.
func (w *world) abandon() {
	w.settle()
	for _, l := range w.allOpen() {
		l.commits.close()
	}
	if w.cache != nil {
		w.cache.fetches.close()
		w.cache.copy.commits.close()
	}
}

// close stops in an orderly way and has the database checked.
func (w *world) close() error {
	var errs []error
	for _, x := range w.vols {
		errs = append(errs, x.v.Close())
	}
	for _, l := range w.allOpen() {
		errs = append(errs, l.Close())
	}
	if w.cache != nil {
		errs = append(errs, w.cache.Close())
	}
	if w.db != nil {
		errs = append(errs, w.db.close())
	}
	return errors.Join(errs...)
}
