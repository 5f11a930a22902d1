package overlay

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"

	"skylun/block"
	"skylun/meta"
)

// worldLayer is a layer of a world.
type worldLayer struct {
	id          uint64
	file, notes *memFile // notes are nil when it was sealed
	redo        worldRedo
	states      Map
	open        *Layer
}

// seal seals a layer and removes its notes.
func (l *worldLayer) seal() error {
	err := l.open.Seal(context.Background())
	if err == nil {
		l.notes = nil
	}
	return err
}

// records are what a database knows of layers and of who names them. They change
// as a whole.
type records struct {
	layers map[uint64]layerRecord
	vols   [2]record
	snaps  map[string]map[int]record // by name and number of the volume
}

type layerRecord struct {
	parent uint64 // 0: none
	size   int64
}

type record struct {
	top  uint64
	size int64
}

func (r records) clone() records {
	r.layers, r.snaps = maps.Clone(r.layers), maps.Clone(r.snaps)
	for name, s := range r.snaps {
		r.snaps[name] = maps.Clone(s)
	}
	return r
}

// chain returns the layers from the lowest up to top.
func (r records) chain(top uint64) (ids []uint64) {
	for id := top; id != 0; id = r.layers[id].parent {
		ids = append(ids, id)
	}
	slices.Reverse(ids)
	return ids
}

// ids returns all layers, the same for the same seed.
func (r records) ids() []uint64 { return slices.Sorted(maps.Keys(r.layers)) }

func (r records) named(id uint64) bool {
	for _, v := range r.vols {
		if v.top == id {
			return true
		}
	}
	for _, s := range r.snaps {
		for _, v := range s {
			if v.top == id {
				return true
			}
		}
	}
	return false
}

func (r records) children(id uint64) (all []uint64) {
	for _, c := range r.ids() {
		if r.layers[c].parent == id {
			all = append(all, c)
		}
	}
	return all
}

// replace is what meta does in DB.ReplaceLayer.
func (r records) replace(gone, kept uint64, size int64) {
	g, k := r.layers[gone], r.layers[kept]
	if k.parent == gone {
		r.layers[kept] = layerRecord{g.parent, size}
		return
	}
	for _, c := range r.children(gone) {
		r.layers[c] = layerRecord{kept, r.layers[c].size}
	}
	r.layers[kept] = layerRecord{k.parent, size}
	for _, s := range r.snaps {
		for i, v := range s {
			if v.top == gone {
				s[i] = record{kept, v.size}
			}
		}
	}
}

// records returns what the database holds.
func (d *worldDB) records() (r records, err error) {
	t, err := d.db.Tree()
	if err != nil {
		return r, err
	}
	r = records{layers: map[uint64]layerRecord{}, snaps: map[string]map[int]record{}}
	for id, l := range t.Layers {
		r.layers[id] = layerRecord{l.Parent, l.Size}
	}
	number := func(name string) int { return int(name[0] - 'a') }
	for _, v := range t.Volumes {
		r.vols[number(v.Name)] = record{v.Layer, v.Size}
	}
	for _, s := range t.Snapshots {
		r.snaps[s.Name] = map[int]record{}
		for _, v := range s.Volumes {
			r.snaps[s.Name][number(v.Volume)] = record{v.Layer, v.Size}
		}
	}
	return r, nil
}

// transact changes the records, in the database or where they are modelled.
func (w *world) transact(db func(*meta.DB) error, change func(r *records)) error {
	w.settle()
	next := w.rec.clone()
	change(&next)
	if w.db != nil {
		err := w.db.change(func() error { return db(w.db.db) })
		if err == nil {
			w.rec = next
		}
		return err
	}
	w.rec = next
	w.point("recorded, nobody answered")
	return nil
}

// worldSnapshot is what some volumes were at one moment.
type worldSnapshot struct {
	name     string
	content  map[int][]uint64 // of each sector
	answered bool
	removing bool
}

// newLayer makes the files of a layer, and its map.
func (w *world) newLayer(size int64) (*worldLayer, error) {
	w.lastLayer++
	if w.db != nil {
		id, err := w.db.db.NewMap()
		if err != nil {
			return nil, err
		}
		w.lastLayer = id
	}
	l := &worldLayer{id: w.lastLayer, file: w.newFile(block.Ceil(size, block.Size)), notes: w.newFile(NotesSize(size))}
	l.redo.id = l.id
	if w.members == 0 { // its bytes may be anything where nothing was written
		for _, p := range [][]byte{l.file.now, l.file.synced} {
			copy(p, bytes.Repeat([]byte{0xa5}, len(p)))
		}
	}
	l.states = w.newMap(l.id, l.file)
	w.layers[l.id] = l
	l.hook(w)
	return l, nil
}

// hook has w look at power cuts, and inject its fault.
func (l *worldLayer) hook(w *world) {
	l.file.setHook(w.point)
	l.redo.hook(w)
	if m, ok := l.states.(*memMap); ok {
		m.hook = w.afterAppend(l.file)
		m.failing = w.fault
	}
	l.file.setFailing(w.fault)
	if w.fault != nil && l.notes != nil {
		l.notes.setFailing(func(string) error { return w.fault("note") })
	}
}

func (w *world) openLayer(id uint64, size int64, sealed bool) error {
	l := w.layers[id]
	cfg := LayerConfig{Name: fmt.Sprint("layer ", id), ID: id, Size: size, File: l.file.opened(block.Ceil(size, block.Size)), Map: l.states,
		Boot: fmt.Sprint("boot ", w.boot), Log: slog.New(slog.DiscardHandler), Sealed: sealed}
	if l.notes != nil {
		cfg.Notes = l.notes.opened(NotesSize(size))
	}
	if w.redo {
		l.redo.w = w
		cfg.Redo = &l.redo
	}
	open, err := OpenLayer(cfg)
	if err == nil {
		noTimer(open.sparse)
	}
	l.open = open
	return err
}

// openLayers opens all layers that are recorded, and the volumes over them.
func (w *world) openLayers() error {
	tops := []uint64{w.rec.vols[0].top, w.rec.vols[1].top}
	for _, id := range w.rec.ids() {
		if err := w.openLayer(id, w.rec.layers[id].size, !slices.Contains(tops, id)); err != nil {
			return err
		}
	}
	for i, x := range w.vols {
		v, err := Open(Config{Name: x.name, Size: x.size, Layers: w.opened(w.rec.vols[i].top), Base: w.cache, Log: slog.New(slog.DiscardHandler)})
		if err != nil {
			return err
		}
		x.v = v
	}
	return nil
}

// opened returns the layers up to top.
func (w *world) opened(top uint64) (layers []*Layer) {
	for _, id := range w.rec.chain(top) {
		layers = append(layers, w.layers[id].open)
	}
	return layers
}

// allOpen returns all layers that are open, in the order of their numbers.
func (w *world) allOpen() (layers []*Layer) {
	for _, id := range slices.Sorted(maps.Keys(w.layers)) {
		if l := w.layers[id].open; l != nil {
			layers = append(layers, l)
		}
	}
	return layers
}

// cutSnapshots gives left the volumes and snapshots that its records tell of.
func (w *world) cutSnapshots(left *world) error {
	for i, x := range w.vols {
		r := left.rec.vols[i]
		h := x.h
		if x.next != nil && r.top == x.nextTop {
			h = x.next
		}
		left.vols[i] = &worldVolume{name: x.name, size: r.size, h: h.clone().resize(r.size)}
	}
	for _, s := range w.snaps {
		if _, ok := left.rec.snaps[s.name]; !ok {
			if s.answered && !s.removing {
				return fmt.Errorf("snapshot %s is gone", s.name)
			}
			continue
		}
		left.snaps = append(left.snaps, &worldSnapshot{name: s.name, content: s.content, answered: true})
	}
	if len(left.snaps) != len(left.rec.snaps) {
		return errors.New("there are snapshots that were never made, or removed")
	}
	return nil
}

// verifySnapshots reads all snapshots.
func (w *world) verifySnapshots() error {
	for _, s := range w.snaps {
		for i, r := range w.rec.snaps[s.name] {
			top := newMemFile(block.Ceil(r.size, block.Size))
			l, err := OpenLayer(LayerConfig{Name: "none", Size: r.size, File: top, Map: &memMap{}})
			if err != nil {
				return err
			}
			// It is not closed: that would make durable what lies below.
			v, err := Open(Config{Name: "snapshot", Size: r.size, Layers: append(w.opened(r.top), l), Base: w.cache, Log: slog.New(slog.DiscardHandler)})
			if err != nil {
				return err
			}
			got := make([]byte, r.size)
			if err := v.ReadAt(context.Background(), got, 0); err != nil {
				return err
			}
			want := newHistory(int64(len(s.content[i])), func(n int64) uint64 { return s.content[i][n] })
			if int64(len(want))*sector != r.size {
				return fmt.Errorf("snapshot %s of %s has %d bytes, not %d sectors", s.name, w.vols[i].name, r.size, len(want))
			}
			if err := want.check(got); err != nil {
				return fmt.Errorf("snapshot %s of %s: %w", s.name, w.vols[i].name, err)
			}
		}
	}
	return nil
}

// snapshot takes a snapshot of one volume or of both, as a node does.
func (w *world) snapshot(named []int) (what string, err error) {
	w.lastSnap++
	s := &worldSnapshot{name: fmt.Sprint("snapshot ", w.lastSnap), content: map[int][]uint64{}}
	what = fmt.Sprintf("%s of %v", s.name, named)
	ctx := context.Background()
	if w.rnd.IntN(2) == 0 {
		for _, i := range named {
			if err := w.vols[i].v.Flush(ctx); err != nil {
				return what, err
			}
		}
		w.settle()
	}
	var steps []Step
	var tops []meta.Top
	old := map[int]*Layer{}
	for _, i := range named {
		l, err := w.newLayer(w.vols[i].size)
		if err == nil {
			err = w.openLayer(l.id, w.vols[i].size, false)
		}
		if err != nil {
			return what, err
		}
		old[i] = w.vols[i].v.top()
		steps = append(steps, Step{w.vols[i].v, l.open})
		tops = append(tops, meta.Top{Volume: w.vols[i].name, Layer: l.id, Parent: w.rec.vols[i].top, Size: w.vols[i].size})
	}
	setTops := func(r *records) {
		for k, i := range named {
			r.layers[tops[k].Layer] = layerRecord{tops[k].Parent, tops[k].Size}
			r.vols[i].top = tops[k].Layer
		}
	}
	if err := w.transact(func(db *meta.DB) error { return db.SetTops(tops) }, setTops); err != nil {
		return what, err
	}
	if _, err := Switch(steps); err != nil {
		return what, err
	}
	if w.rnd.IntN(5) == 0 { // what follows fails
		return what + ", given up", nil
	}
	snap := meta.Snapshot{Name: s.name}
	recorded := map[int]record{}
	for k, i := range named {
		if !w.lie.unsealed {
			if err := w.layers[old[i].id].seal(); err != nil {
				return what, err
			}
		}
		x := w.vols[i]
		for n := range x.h {
			s.content[i] = append(s.content[i], x.h.last(int64(n)))
		}
		snap.Volumes = append(snap.Volumes, meta.SnapshotVolume{Volume: x.name, Layer: tops[k].Parent, Size: x.size})
		recorded[i] = record{tops[k].Parent, x.size}
	}
	w.settle()
	w.looking.Lock()
	w.snaps = append(w.snaps, s)
	w.looking.Unlock()
	err = w.transact(func(db *meta.DB) error { _, err := db.PutSnapshot(snap); return err },
		func(r *records) { r.snaps[s.name] = recorded })
	if err != nil {
		return what, err
	}
	s.answered = true
	for _, i := range named {
		w.vols[i].h.flushed()
	}
	return what, nil
}

// rebase makes a volume what a snapshot of it was, or of the other one, which
// is what a clone is.
func (w *world) rebase(i int) (what string, err error) {
	if len(w.snaps) == 0 {
		return "", nil
	}
	s := w.snaps[w.rnd.IntN(len(w.snaps))]
	from := i
	if _, ok := s.content[from]; !ok {
		from = 1 - i
	}
	what = fmt.Sprintf("%s becomes %s of %s", w.vols[i].name, s.name, w.vols[from].name)
	r := w.rec.snaps[s.name][from]
	l, err := w.newLayer(r.size)
	if err == nil {
		err = w.openLayer(l.id, r.size, false)
	}
	if err != nil {
		return what, err
	}
	x := w.vols[i]
	x.next, x.nextTop = newHistory(r.size/sector, func(n int64) uint64 { return s.content[from][n] }), l.id
	err = w.transact(
		func(db *meta.DB) error {
			return db.SetTops([]meta.Top{{Volume: x.name, Layer: l.id, Parent: r.top, Size: r.size}})
		},
		func(rec *records) {
			rec.layers[l.id] = layerRecord{r.top, r.size}
			rec.vols[i] = record{l.id, r.size}
		})
	if err == nil {
		err = x.v.Rebase(context.Background(), w.opened(l.id), r.size)
	}
	if err != nil {
		return what, err
	}
	w.looking.Lock()
	x.h, x.size, x.next = x.next, r.size, nil
	w.looking.Unlock()
	return what, nil
}

// remove forgets a snapshot. Its layers stay until tidy finds them.
func (w *world) remove() (what string, err error) {
	if len(w.snaps) == 0 {
		return "", nil
	}
	s := w.snaps[w.rnd.IntN(len(w.snaps))]
	s.removing = true
	err = w.transact(func(db *meta.DB) error { return db.DeleteSnapshot(s.name) }, func(r *records) { delete(r.snaps, s.name) })
	if err == nil {
		w.snaps = slices.DeleteFunc(w.snaps, func(o *worldSnapshot) bool { return o == s })
	}
	return "remove " + s.name, err
}

// impatient is a context that ends when it was asked a number of times.
type impatient struct {
	context.Context
	left int
}

func (c *impatient) Err() error {
	if c.left--; c.left < 0 {
		return context.Canceled
	}
	return nil
}

// tidy makes less of layers that nobody names, as a node does in the background.
func (w *world) tidy() (what string, err error) {
	ids := w.rec.ids()
	w.rnd.Shuffle(len(ids), func(i, j int) { ids[i], ids[j] = ids[j], ids[i] })
	var ctx context.Context = context.Background()
	if w.rnd.IntN(4) == 0 {
		ctx = &impatient{ctx, w.rnd.IntN(6)}
	}
	for _, id := range ids {
		children := w.rec.children(id)
		if w.rec.named(id) || len(children) > 1 {
			continue
		}
		if len(children) == 0 {
			return fmt.Sprint("drop layer ", id), w.drop(id)
		}
		lower, upper := w.layers[id].open, w.layers[children[0]].open
		if err := w.layers[id].seal(); err != nil {
			return fmt.Sprint("seal layer ", id), err
		}
		if i := slices.IndexFunc(w.rec.vols[:], func(r record) bool { return r.top == upper.id }); i >= 0 {
			what = fmt.Sprintf("shadow layer %d by %d", lower.id, upper.id)
			// Shadow flushes, too. Holes that are punched after a flush would be looked
			// at while it goes on: a cut that no power cut leaves.
			if err := w.vols[i].v.Flush(context.Background()); err != nil {
				return what, err
			}
			w.settle()
			_, err = Shadow(ctx, lower, upper, []*Volume{w.vols[i].v})
		} else {
			what = fmt.Sprintf("merge layers %d and %d", lower.id, upper.id)
			if err := w.layers[upper.id].seal(); err != nil {
				return fmt.Sprint("seal layer ", upper.id), err
			}
			var gone *Layer
			err = Merge(ctx, lower, upper, func(kept, g *Layer) ([]*Volume, error) {
				gone = g
				return []*Volume{w.vols[0].v, w.vols[1].v}, w.transact(
					func(db *meta.DB) error { return db.ReplaceLayer(gone.id, kept.id, kept.Size()) },
					func(r *records) { r.replace(gone.id, kept.id, kept.Size()) })
			})
			if err == nil {
				what += fmt.Sprintf(", %d is gone", gone.id)
				err = w.drop(gone.id)
			}
		}
		if errors.Is(err, context.Canceled) {
			what, err = what+", given up", nil
		}
		return what, err
	}
	return "", nil
}

// drop removes a layer that nobody needs.
func (w *world) drop(id uint64) error {
	if err := w.layers[id].open.Abandon(); err != nil {
		return err
	}
	w.layers[id].open = nil
	if err := w.transact(func(db *meta.DB) error { return db.DeleteLayers(id) }, func(r *records) { delete(r.layers, id) }); err != nil {
		return err
	}
	delete(w.layers, id)
	return nil
}
