package raid

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"

	"skylun/block"
)

// extents is a member that is a device on which every piece has the space that it
// may ever need, from its creation to its end: a few ranges, which hold it at
// identical offsets. No write ever allocates.
//
//	0        1 MiB
//	+--------+-----------+------+-----------+----------
//	| stamp  | piece a   | b    | more of a | free ...
//	+--------+-----------+------+-----------+----------
//
// Pieces share the device side by side. One takes the first free ranges, and
// more of them when it grows. The ranges are in the records, under "extent/", the
// member's number and the piece's name: [[offset, length], ...].
//
// A range is made zeros before a record gives it to a piece: what is in it then
// belongs to the piece. That takes hours where the device cannot do it by itself,
// so a piece of which nothing is read that was not written does without. Space of a piece is free again when the record that had
// it is gone.
type extents struct {
	dev     Device
	records Records
	where   string
	prefix  string

	mu   sync.Mutex
	of   map[string][]extent // guarded by mu: by piece
	free []block.Range       // guarded by mu: in order, apart from each other
}

// extent is an offset and a length on the device.
type extent [2]int64

func openExtents(dev Device, records Records, number int, where string) (*extents, error) {
	m := &extents{dev: dev, records: records, where: where, prefix: fmt.Sprintf("extent/%d/", number), of: map[string][]extent{}}
	end := block.Floor(dev.Size(), block.Size)
	if end > headSize {
		m.free = []block.Range{{Off: headSize, End: end}}
	}
	err := records.Load(m.prefix, func(key string, value []byte) error {
		var list []extent
		if err := json.Unmarshal(value, &list); err != nil {
			return fmt.Errorf("%s: %w", key, err)
		}
		for _, e := range list {
			if !m.take(block.Range{Off: e[0], End: e[0] + e[1]}) {
				return fmt.Errorf("%s: [%d,%d) is not free on a device of %d bytes", key, e[0], e[0]+e[1], dev.Size())
			}
		}
		m.of[strings.TrimPrefix(key, m.prefix)] = list
		return nil
	})
	if err != nil {
		return nil, memberError(err)
	}
	return m, nil
}

// take takes a range out of the free ones. The caller holds mu, or is alone.
func (m *extents) take(r block.Range) bool {
	for i, f := range m.free {
		if f.Off <= r.Off && r.End <= f.End {
			rest := []block.Range{{Off: f.Off, End: r.Off}, {Off: r.End, End: f.End}}
			rest = slices.DeleteFunc(rest, block.Range.Empty)
			m.free = slices.Replace(m.free, i, i+1, rest...)
			return !r.Empty()
		}
	}
	return false
}

// give puts ranges back. The caller holds mu.
func (m *extents) give(list []extent) {
	for _, e := range list {
		m.free = append(m.free, block.Range{Off: e[0], End: e[0] + e[1]})
	}
	slices.SortFunc(m.free, func(a, b block.Range) int { return cmp.Compare(a.Off, b.Off) })
	joined := m.free[:0]
	for _, r := range m.free {
		if n := len(joined); n > 0 && joined[n-1].End == r.Off {
			joined[n-1].End = r.End
		} else {
			joined = append(joined, r)
		}
	}
	m.free = joined
}

// allocate takes size bytes out of the free ones: in one range if it can.
func (m *extents) allocate(size int64) (list []extent, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	sum := int64(0)
	for _, f := range m.free {
		if sum += f.Len(); f.Len() >= size {
			list = []extent{{f.Off, size}}
			m.take(block.Range{Off: f.Off, End: f.Off + size})
			return list, nil
		}
	}
	if sum < size {
		return nil, fmt.Errorf("%w: member %s: %d bytes are free, %d are needed", block.ErrNoSpace, m.where, sum, size)
	}
	for size > 0 {
		f := m.free[0]
		n := min(f.Len(), size)
		list = append(list, extent{f.Off, n})
		m.take(block.Range{Off: f.Off, End: f.Off + n})
		size -= n
	}
	return list, nil
}

// fresh returns size bytes that read as zeros, durably.
func (m *extents) fresh(size int64) ([]extent, error) {
	list, err := m.allocate(size)
	if err != nil {
		return nil, err
	}
	for _, e := range list {
		if err == nil {
			err = m.dev.Zero(e[0], e[1])
		}
	}
	if err == nil {
		err = m.dev.Sync()
	}
	if err != nil {
		m.mu.Lock()
		m.give(list)
		m.mu.Unlock()
		return nil, err
	}
	return list, nil
}

// record stores what a piece has. After an error its new space is lost to
// others until the records are read again: whether it was stored is not known.
func (m *extents) record(name string, list []extent) error {
	var value []byte
	if list != nil {
		var err error
		if value, err = json.Marshal(list); err != nil {
			return err
		}
	}
	if err := m.records.Store(map[string][]byte{m.prefix + name: value}); err != nil {
		return memberError(err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if list == nil {
		m.give(m.of[name])
		delete(m.of, name)
	} else {
		m.of[name] = list
	}
	return nil
}

func (m *extents) Create(name string, size int64) (Piece, error) {
	return m.create(name, size, m.fresh)
}

// CreateUnzeroed is Create, but the piece reads as anything.
func (m *extents) CreateUnzeroed(name string, size int64) (Piece, error) {
	return m.create(name, size, m.allocate)
}

func (m *extents) create(name string, size int64, space func(size int64) ([]extent, error)) (Piece, error) {
	if err := m.Remove(name); err != nil {
		return nil, err
	}
	list, err := space(block.Ceil(size, block.Size))
	if err != nil {
		return nil, err
	}
	if err := m.record(name, list); err != nil {
		return nil, err
	}
	return m.piece(name, list), nil
}

func (m *extents) Open(name string, size int64) (Piece, error) {
	m.mu.Lock()
	list := m.of[name]
	m.mu.Unlock()
	if list == nil {
		return nil, fmt.Errorf("member %s: %s: %w", m.where, name, ErrNotExist)
	}
	p := m.piece(name, list)
	if p.size() < size {
		return nil, memberError(fmt.Errorf("member %s: %s has %d bytes instead of %d", m.where, name, p.size(), size))
	}
	return p, nil
}

func (m *extents) Remove(name string) error {
	m.mu.Lock()
	_, has := m.of[name]
	m.mu.Unlock()
	if !has {
		return nil
	}
	return m.record(name, nil)
}

func (m *extents) Space() (total, free int64, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, f := range m.free {
		free += f.Len()
	}
	return max(0, block.Floor(m.dev.Size(), block.Size)-headSize), free, nil
}

func (m *extents) Close() error { return m.dev.Close() }

// extentPiece is a piece that consists of ranges of a device.
type extentPiece struct {
	m    *extents
	name string

	mu   sync.RWMutex // held for the moment in which list changes or is looked at
	list []extent     // guarded by mu; replaced, never changed
}

func (m *extents) piece(name string, list []extent) *extentPiece {
	return &extentPiece{m: m, name: name, list: list}
}

func (p *extentPiece) extents() []extent {
	p.mu.RLock()
	defer p.mu.RUnlock()
	return p.list
}

func (p *extentPiece) size() (n int64) {
	for _, e := range p.extents() {
		n += e[1]
	}
	return n
}

// each calls f for each part of [off, off+n) with where it is on the device.
func (p *extentPiece) each(off, n int64, f func(on, from, n int64) error) error {
	from := int64(0)
	for _, e := range p.extents() {
		if off < e[1] && n > 0 {
			c := min(n, e[1]-off)
			if err := f(e[0]+off, from, c); err != nil {
				return err
			}
			from, off, n = from+c, off+c, n-c
		}
		off -= e[1]
	}
	if n > 0 {
		return fmt.Errorf("%w: %s: %d bytes behind its end on the device", block.ErrOutOfRange, p.name, n)
	}
	return nil
}

// one returns where [off, off+n) is, if that is one range.
func (p *extentPiece) one(off, n int64) (on int64, ok bool) {
	list := p.extents()
	return list[0][0] + off, off+n <= list[0][1]
}

func (p *extentPiece) ReadAt(b []byte, off int64) error {
	if on, ok := p.one(off, int64(len(b))); ok {
		return p.m.dev.ReadAt(b, on)
	}
	return p.each(off, int64(len(b)), func(on, from, n int64) error { return p.m.dev.ReadAt(b[from:from+n], on) })
}

func (p *extentPiece) TryReadAt(b []byte, off int64) (done bool, err error) {
	if on, ok := p.one(off, int64(len(b))); ok {
		return p.m.dev.TryReadAt(b, on)
	}
	done = true
	err = p.each(off, int64(len(b)), func(on, from, n int64) error {
		if !done {
			return nil
		}
		done, err = p.m.dev.TryReadAt(b[from:from+n], on)
		return err
	})
	return done, err
}

func (p *extentPiece) WriteAt(b []byte, off int64) error {
	if on, ok := p.one(off, int64(len(b))); ok {
		return p.m.dev.WriteAt(b, on)
	}
	return p.each(off, int64(len(b)), func(on, from, n int64) error { return p.m.dev.WriteAt(b[from:from+n], on) })
}

// Punch leaves a range alone that would have to be written: nobody else gets its
// space.
func (p *extentPiece) Punch(off, n int64) error {
	if d, ok := p.m.dev.(interface{ ZeroesFast() bool }); ok && !d.ZeroesFast() {
		return nil
	}
	return p.Zero(off, n)
}

func (p *extentPiece) Zero(off, n int64) error {
	return p.each(off, n, func(on, _, n int64) error { return p.m.dev.Zero(on, n) })
}

func (p *extentPiece) Sync() error { return p.m.dev.Sync() }

func (p *extentPiece) NextData(off int64) (block.Range, error) {
	knows, ok := p.m.dev.(interface {
		NextData(off int64) (block.Range, error)
	})
	at := int64(0) // of the extent in the piece
	for _, e := range p.extents() {
		in := max(0, off-at)
		if in < e[1] {
			r := block.Range{Off: e[0] + in, End: e[0] + e[1]}
			if ok {
				data, err := knows.NextData(r.Off)
				if err != nil {
					return block.Range{}, err
				}
				r = r.Intersect(data)
			}
			if !r.Empty() {
				return block.Range{Off: r.Off - e[0] + at, End: r.End - e[0] + at}, nil
			}
		}
		at += e[1]
	}
	return block.Range{}, nil
}

func (p *extentPiece) Clear() error { return p.Zero(0, p.size()) }

func (p *extentPiece) Resize(size int64) error {
	more := block.Ceil(size, block.Size) - p.size()
	if more <= 0 {
		return nil
	}
	list, err := p.m.fresh(more)
	if err != nil {
		return err
	}
	list = slices.Concat(p.extents(), list)
	if err := p.m.record(p.name, list); err != nil {
		return err
	}
	p.mu.Lock()
	p.list = list
	p.mu.Unlock()
	return nil
}

func (p *extentPiece) Allocated() (int64, error) { return p.size(), nil }

func (p *extentPiece) CopyFrom(int64, Piece, int64, int64) (bool, error) { return false, nil }

func (p *extentPiece) Close() error { return nil }
