package overlay

import (
	"bytes"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"

	"skylun/block"
)

const sector = 512

// memFile is a File that knows what a power cut would leave of it: of each
// sector what it held at the last sync, or anything that was written to it
// since. So what was not synced is kept, lost, reordered and torn.
type memFile struct {
	mu      sync.Mutex
	now     []byte             // guarded by mu
	size    int64              // guarded by mu: now may be longer
	synced  []byte             // guarded by mu
	dirty   map[int64][][]byte // guarded by mu: what sectors were written to hold since the last sync
	hook    func(point string)
	failing func(op string) error

	lazy bool // Sync does nothing until syncNow: for tests of the tests

	on *onArray // where its bytes are instead; nil: here
}

func newMemFile(size int64) *memFile {
	return &memFile{size: size, now: make([]byte, size), synced: make([]byte, size), dirty: map[int64][][]byte{}}
}

func (f *memFile) fault(op string) error {
	if f.failing == nil {
		return nil
	}
	return f.failing(op)
}

func (f *memFile) at(point string) {
	if f.hook != nil {
		f.hook(point)
	}
}

func (f *memFile) ReadAt(p []byte, off int64) error {
	if f.on != nil {
		return f.on.file.ReadAt(p, off)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.fault("read"); err != nil {
		return err
	}
	copy(p, f.now[off:])
	return nil
}

func (f *memFile) TryReadAt(p []byte, off int64) (bool, error) { return true, f.ReadAt(p, off) }

func (f *memFile) WriteAt(p []byte, off int64) error {
	if f.on != nil {
		return f.on.file.WriteAt(p, off)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.fault("write"); err != nil {
		f.put(p[:len(p)/2/sector*sector], off) // part of it is there
		return err
	}
	f.put(p, off)
	return nil
}

func (f *memFile) put(p []byte, off int64) {
	copy(f.now[off:f.size], p)
	for s := off / sector; s*sector < off+int64(len(p)); s++ {
		f.dirty[s] = append(f.dirty[s], slices.Clone(f.now[s*sector:min((s+1)*sector, int64(len(f.now)))]))
	}
}

func (f *memFile) Punch(off, n int64) error {
	if f.on != nil {
		return f.on.file.Punch(off, n)
	}
	f.mu.Lock()
	if err := f.fault("punch"); err != nil {
		f.mu.Unlock()
		return err
	}
	f.put(make([]byte, n), off)
	f.mu.Unlock()
	f.at("a hole punched")
	return nil
}

func (f *memFile) Sync() error {
	if f.on != nil {
		return f.on.file.Sync()
	}
	f.at("before sync")
	f.mu.Lock()
	err := f.fault("sync")
	f.mu.Unlock()
	if err != nil {
		return err
	}
	if !f.lazy {
		f.syncNow()
	}
	f.at("data synced, states not yet committed")
	return nil
}

func (f *memFile) syncNow() {
	f.mu.Lock()
	copy(f.synced, f.now)
	clear(f.dirty)
	f.mu.Unlock()
}

func (f *memFile) Resize(size int64) error {
	if f.on != nil {
		return f.on.file.Resize(size)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.fault("resize"); err != nil {
		return err
	}
	if size > f.size { // what is on disk behind the size is cut off before
		grown := func(p []byte) []byte {
			return append(p[:f.size:f.size], make([]byte, max(size, int64(len(p)))-f.size)...)
		}
		f.now, f.synced = grown(f.now), grown(f.synced)
		for s, versions := range f.dirty {
			for _, v := range versions {
				if at := f.size - s*sector; at < int64(len(v)) {
					clear(v[max(0, at):])
				}
			}
		}
	}
	f.size = size
	return nil
}

// opened is the file opened again as one of size bytes.
func (f *memFile) opened(size int64) *memFile {
	if f.on != nil {
		f.on.opened(size)
		return f
	}
	if size > int64(len(f.now)) {
		panic("a file is shorter than its record")
	}
	f.size = size
	return f
}

func (f *memFile) Close() error {
	if f.on != nil {
		return f.on.close()
	}
	return nil
}

func (f *memFile) DataRanges(fn func(block.Range) error) error {
	if f.on != nil {
		return f.dataRanges(fn)
	}
	for off := int64(0); off < f.size; off += block.Size {
		r := block.Range{Off: off, End: min(off+block.Size, f.size)}
		f.mu.Lock()
		empty := bytes.Count(f.now[r.Off:r.End], []byte{0}) == int(r.Len())
		f.mu.Unlock()
		if !empty {
			if err := fn(r); err != nil {
				return err
			}
		}
	}
	return nil
}

func (f *memFile) Clear() error {
	if f.on != nil {
		return f.on.file.Clear()
	}
	return f.WriteAt(make([]byte, f.size), 0)
}

// rot changes a byte at off that nobody writes.
func (f *memFile) rot(off int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.now[off] ^= 0x10
	f.synced[off] ^= 0x10
}

// killed returns what a process that is killed now leaves: all that it wrote.
func (f *memFile) killed() *memFile {
	f.mu.Lock()
	defer f.mu.Unlock()
	left := &memFile{size: f.size, now: slices.Clone(f.now), synced: slices.Clone(f.synced), dirty: maps.Clone(f.dirty), lazy: f.lazy}
	for s, versions := range left.dirty {
		left.dirty[s] = slices.Clip(versions) // appending to one does not show in the other
	}
	return left
}

// cut returns what a power cut now would leave: of what was not synced all,
// nothing, or some.
func (f *memFile) cut(rnd *rand.Rand) *memFile {
	if f.on != nil {
		return &memFile{on: f.on.cut(rnd)}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	left := newMemFile(int64(len(f.now)))
	left.lazy = f.lazy
	copy(left.synced, f.synced)
	kind := rnd.IntN(4)
	for _, s := range slices.Sorted(maps.Keys(f.dirty)) { // the same for the same seed
		versions := f.dirty[s]
		i := rnd.IntN(len(versions) + 1)
		switch kind {
		case 0:
			i = 0
		case 1:
			i = len(versions)
		}
		if i > 0 {
			copy(left.synced[s*sector:], versions[i-1])
		}
	}
	copy(left.now, left.synced)
	return left
}

// memMap is a Map in memory.
type memMap struct {
	mu      sync.Mutex
	extents []Extent // guarded by mu
	hook    func(point string)
	failing func(op string) error

	lie    func(m *memMap, extents []Extent) []Extent // what Append really does: for tests of the tests
	isLate bool                                       // the last record is not durable yet: for tests of the tests
	last   []Extent                                   // guarded by mu: that record
}

func (m *memMap) Load(f func(Extent) error) error {
	for _, e := range append(m.durable(), m.last...) {
		if err := f(e); err != nil {
			return err
		}
	}
	return nil
}

func (m *memMap) Append(extents []Extent) error {
	if m.failing != nil {
		if err := m.failing("append"); err != nil {
			return err
		}
	}
	if m.lie != nil {
		extents = m.lie(m, extents)
	}
	m.mu.Lock()
	if m.isLate {
		extents, m.last = m.last, slices.Clone(extents)
	}
	m.extents = append(m.extents, extents...)
	m.mu.Unlock()
	m.at("states committed, nobody answered")
	return nil
}

func (m *memMap) at(point string) {
	if m.hook != nil {
		m.hook(point)
	}
}

func (m *memMap) Trim(size int64) error {
	if m.failing != nil {
		if err := m.failing("trim"); err != nil {
			return err
		}
	}
	m.mu.Lock()
	var kept []Extent
	for _, e := range m.extents {
		if e.End = min(e.End, block.Ceil(size, block.Size)); e.Off < e.End {
			kept = append(kept, e)
		}
	}
	m.extents = kept
	m.mu.Unlock()
	m.at("states trimmed")
	return nil
}

func (m *memMap) durable() []Extent {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.extents)
}
