package overlay

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"

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
	db        *worldDB // nil: the maps are memMaps

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
}

// lie makes a store that does not keep its promise, for tests of the test.
type lie struct {
	lazySync bool // data is synced after the states are committed
	append   func(m *memMap, extents []Extent) []Extent
	hasty    bool // what is appended for the cache is durable only with the next, as if its holes were punched before
	lostSums bool // the sums of a cache are never synced
}

func (c worldConfig) String() string {
	return fmt.Sprintf("%d sectors over %d, cached %v, bolt %v, scanned %v", c.sectors, c.imageSectors, c.cached, c.bolt, c.scanned)
}

type worldVolume struct {
	name        string
	size        int64 // as somebody has stored it
	file, notes *memFile
	states      Map
	v           *Volume
	h           history
}

func imageValue(s int64) uint64 { return 1<<40 + uint64(s) }

// emptyImage tells which sectors of the image are zeros: such of whole blocks,
// with gaps.
func emptyImage(s int64) bool { return s/(block.Size/sector)%4 == 3 }

func newWorld(cfg worldConfig, rnd *rand.Rand) (*world, error) {
	w := &world{worldConfig: cfg, rnd: rnd}
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
	w.cacheMap = w.newMap("cache", w.image.Size(), w.cacheFile)
	for i := range w.vols {
		name := string(rune('a' + i))
		size := cfg.sectors * sector
		file := newMemFile(block.Ceil(size, block.Size))
		w.vols[i] = &worldVolume{name: name, size: size, file: file, notes: newMemFile(NotesSize(size)),
			states: w.newMap(name, size, file), h: newHistory(cfg.sectors, value)}
		file.hook = w.point
	}
	if cfg.cached {
		w.cacheFile.hook, w.cacheSums.hook = w.point, w.point
	}
	return w, w.open()
}

// newMap returns the durable map of a file.
func (w *world) newMap(name string, size int64, f *memFile) Map {
	f.lazy = w.lie.lazySync
	if w.db != nil {
		return w.db.newMap(name, size)
	}
	m := &memMap{lie: w.lie.append, isLate: w.lie.hasty && name == "cache"}
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
	for _, x := range w.vols {
		v, err := openSingle(single{Name: x.name, Size: x.size, File: x.file.opened(block.Ceil(x.size, block.Size)), Map: x.states, Base: w.cache,
			Notes: x.notes.opened(NotesSize(x.size)), Boot: fmt.Sprint("boot ", w.boot), Log: slog.New(slog.DiscardHandler)})
		if err != nil {
			return err
		}
		x.v = v
	}
	return nil
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
	if w.err != nil || w.rnd.IntN(3) != 0 {
		return
	}
	w.cuts++
	left, err := w.cut()
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
}

// cut returns the world that a power cut now would leave, opened again. It does
// not look at power cuts itself.
func (w *world) cut() (*world, error) {
	left := &world{worldConfig: w.worldConfig, rnd: w.rnd, boot: w.boot + 1, value: w.value, image: w.image, rotted: w.rotted}
	if w.db != nil {
		db, err := w.db.cut(left)
		if err != nil {
			return nil, err
		}
		left.db = db
	}
	states := func(name string, m Map) Map {
		if m, ok := m.(*memMap); ok {
			return &memMap{extents: m.durable(), lie: m.lie, isLate: m.isLate}
		}
		return left.db.maps[name]
	}
	left.cacheFile, left.cacheSums, left.cacheMap = w.cacheFile.cut(w.rnd), w.cacheSums.cut(w.rnd), states("cache", w.cacheMap)
	for i, x := range w.vols {
		size := x.size
		if left.db != nil {
			v, err := left.db.db.Volume(x.name)
			if err != nil {
				return nil, err
			}
			size = v.Size
		}
		left.vols[i] = &worldVolume{name: x.name, size: size, file: x.file.cut(w.rnd), notes: x.notes.cut(w.rnd),
			states: states(x.name, x.states), h: x.h.clone().resize(size)}
	}
	return left, left.open()
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
		for range 5 {
			s := w.rnd.Int64N(x.size / sector)
			r := block.Range{Off: s * sector, End: (s + 1) * sector}
			w.value++
			x.h.write(r, w.value)
			if err := x.v.WriteAt(context.Background(), fillSectors(make([]byte, sector), w.value), r.Off); err != nil {
				return err
			}
		}
	}
	w.settle()
	left, err := w.cut()
	if err != nil {
		return err
	}
	if err := left.verify(); err != nil {
		return fmt.Errorf("and again, after writes: %w", err)
	}
	return left.close()
}

// settle returns when nothing runs by itself.
func (w *world) settle() {
	if w.cache != nil {
		w.cache.fetches.run.Wait()
		w.cache.copy.commits.wait()
	}
	for _, x := range w.vols {
		x.v.top().commits.wait()
	}
}

// abandon stops everything as a process does that is killed.
func (w *world) abandon() {
	w.settle()
	for _, x := range w.vols {
		x.v.top().commits.close()
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
		errs = append(errs, closeAll(x.v))
	}
	if w.cache != nil {
		errs = append(errs, w.cache.Close())
	}
	if w.db != nil {
		errs = append(errs, w.db.close())
	}
	return errors.Join(errs...)
}

// worldDB is a database with its journal, and what a power cut in the middle of
// a change would leave of them.
type worldDB struct {
	w    *world
	path string
	db   *meta.DB
	maps map[string]Map
	torn *dbFiles // what a power cut leaves just now; nil: what is in the files
}

// dbFiles is what database and journal hold.
type dbFiles struct{ db, journal []byte }

func newWorldDB(w *world) (*worldDB, error) {
	d := &worldDB{w: w, path: w.newPath(), maps: map[string]Map{}}
	return d, d.open()
}

func (w *world) newPath() string { return filepath.Join(w.dir, fmt.Sprintf("db%d", w.rnd.Uint64())) }

func (d *worldDB) open() (err error) {
	d.db, err = meta.Open(d.path, meta.Options{FoldEvery: -1, JournalSize: 4096 + 2*(256+d.w.rnd.Int64N(2048))})
	return err
}

// newMap makes a map that belongs to a volume, or to the cache.
func (d *worldDB) newMap(name string, size int64) Map {
	id, err := d.db.NewMap()
	if err == nil && name == "cache" {
		err = d.db.PutCache(meta.Cache{Image: "image", Identity: "x", Size: max(size, 512), Map: id})
	} else if err == nil {
		_, err = d.db.CreateVolume(meta.Volume{Name: name, Size: size, Layer: id})
	}
	if err != nil {
		panic(err)
	}
	m := tornMap{d.db.Map(id), id, d}
	d.maps[name] = m
	return m
}

func (d *worldDB) resize(name string, size int64) error {
	return d.change(func() error { return d.db.ResizeVolume(name, size) })
}

func (d *worldDB) fold() error { return d.change(d.db.Fold) }

// restart stops in an orderly way or not, and starts again.
func (d *worldDB) restart(orderly bool) error {
	left, err := d.cut(d.w) // of one that is killed all is left that it wrote
	if err != nil {
		return err
	}
	if orderly {
		err = errors.Join(left.close(), d.db.Close(), d.open())
	} else {
		err = d.close()
		d.path, d.db = left.path, left.db
	}
	for name, m := range d.maps {
		id := m.(tornMap).id
		d.maps[name] = tornMap{d.db.Map(id), id, d}
	}
	return err
}

func (d *worldDB) files() (f dbFiles, err error) {
	if f.db, err = os.ReadFile(d.path); err == nil {
		f.journal, err = os.ReadFile(d.path + ".journal")
	}
	return f, err
}

// cut returns what a power cut now would leave.
func (d *worldDB) cut(left *world) (*worldDB, error) {
	n := &worldDB{w: left, path: left.newPath(), maps: map[string]Map{}}
	f := dbFiles{}
	if d.torn != nil {
		f = *d.torn
	} else {
		var err error
		if f, err = d.files(); err != nil {
			return nil, err
		}
	}
	if err := errors.Join(os.WriteFile(n.path, f.db, 0o600), os.WriteFile(n.path+".journal", f.journal, 0o600)); err != nil {
		return nil, err
	}
	problems, err := meta.CheckFile(n.path)
	if err != nil || len(problems) > 0 {
		return nil, fmt.Errorf("check: %w %q", err, problems)
	}
	if err := n.open(); err != nil {
		return nil, err
	}
	for name, m := range d.maps {
		id := m.(tornMap).id
		n.maps[name] = tornMap{n.db.Map(id), id, n}
	}
	return n, nil
}

func (d *worldDB) close() error {
	var errs []error
	for _, p := range d.db.Check() {
		errs = append(errs, errors.New(p))
	}
	return errors.Join(append(errs, d.db.Close(), os.Remove(d.path), os.Remove(d.path+".journal"))...)
}

// change runs f, which changes the database and after it the journal, and looks
// at power cuts within and after it.
func (d *worldDB) change(f func() error) error {
	before, err := d.files()
	if err != nil {
		return err
	}
	if err := f(); err != nil {
		return err
	}
	after, err := d.files()
	if err != nil {
		return err
	}
	if transactions(after.db)-transactions(before.db) == 1 { // the pages between several are not known
		d.torn = &dbFiles{tear(d.w.rnd, before.db, after.db), before.journal}
		d.w.point("within a commit of the database")
	}
	if !bytes.Equal(before.journal, after.journal) {
		journal := bytes.Clone(before.journal)
		for s := 0; s < len(journal); s += sector {
			if d.w.rnd.IntN(2) == 0 {
				copy(journal[s:min(s+sector, len(journal))], after.journal[s:])
			}
		}
		d.torn = &dbFiles{after.db, journal}
		d.w.point("within a write of the journal")
	}
	d.torn = nil
	d.w.point("states committed, nobody answered")
	return nil
}

// transactions returns the number of the last transaction of a database: that of
// the younger of its two first pages, where it follows what bbolt calls meta:
// four words, the root bucket, the free list and the number of pages.
func transactions(db []byte) uint64 {
	const at = 16 + 4*4 + 16 + 8 + 8
	return max(binary.NativeEndian.Uint64(db[at:]), binary.NativeEndian.Uint64(db[os.Getpagesize()+at:]))
}

// tear returns what a power cut leaves that comes while before becomes after.
// bbolt writes its two first pages when all others are synced.
func tear(rnd *rand.Rand, before, after []byte) []byte {
	torn := make([]byte, len(after))
	copy(torn, before)
	heads := 2 * os.Getpagesize()
	all := rnd.IntN(2) == 0
	for s := heads; s < len(after); s += sector {
		if all || rnd.IntN(2) == 0 {
			copy(torn[s:s+sector], after[s:])
		}
	}
	for s := 0; all && s < min(heads, len(after)); s += sector {
		if rnd.IntN(2) == 0 {
			copy(torn[s:s+sector], after[s:])
		}
	}
	return torn
}

type tornMap struct {
	*meta.Map
	id uint64
	d  *worldDB
}

func (m tornMap) Append(extents []Extent) error {
	return m.d.change(func() error { return m.Map.Append(extents) })
}

func (m tornMap) Trim(size int64) error {
	return m.d.change(func() error { return m.Map.Trim(size) })
}
