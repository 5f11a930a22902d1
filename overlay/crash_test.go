package overlay

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"syscall"
	"testing"

	"skylun/block"
	"skylun/test/devicetest"
	"skylun/test/memdev"
)

const sector = 512

// memFile is a File that knows what a power cut would leave of it: what was
// there at the last sync, and of each sector written since, the old or the
// new bytes.
type memFile struct {
	mu      sync.Mutex
	now     []byte         // guarded by mu
	synced  []byte         // guarded by mu
	dirty   map[int64]bool // guarded by mu: sectors that differ
	hook    func(point string)
	failing func(op string) error
}

func newMemFile(size int64) *memFile {
	return &memFile{now: make([]byte, size), synced: make([]byte, size), dirty: map[int64]bool{}}
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
	f.mu.Lock()
	defer f.mu.Unlock()
	copy(p, f.now[off:])
	return f.fault("read")
}

func (f *memFile) TryReadAt(p []byte, off int64) (bool, error) { return true, f.ReadAt(p, off) }

func (f *memFile) WriteAt(p []byte, off int64) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.fault("write"); err != nil {
		p = p[:len(p)/2/sector*sector] // part of it is there
		f.put(p, off)
		return err
	}
	f.put(p, off)
	return nil
}

func (f *memFile) put(p []byte, off int64) {
	copy(f.now[off:], p)
	for s := off / sector; s*sector < off+int64(len(p)); s++ {
		f.dirty[s] = true
	}
}

func (f *memFile) Punch(off, n int64) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.put(make([]byte, n), off)
	return nil
}

func (f *memFile) Sync() error {
	f.at("before sync")
	f.mu.Lock()
	if err := f.fault("sync"); err != nil {
		f.mu.Unlock()
		return err
	}
	copy(f.synced, f.now)
	clear(f.dirty)
	f.mu.Unlock()
	f.at("data synced, states not yet committed")
	return nil
}

func (f *memFile) Resize(size int64) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.fault("resize"); err != nil {
		return err
	}
	cut := func(p []byte) []byte {
		if size < int64(len(p)) {
			return p[:size]
		}
		return append(slices.Clip(p), make([]byte, size-int64(len(p)))...)
	}
	f.now, f.synced = cut(f.now), cut(f.synced)
	maps.DeleteFunc(f.dirty, func(s int64, _ bool) bool { return s*sector >= size })
	return nil
}

func (f *memFile) Close() error { return nil }

func (f *memFile) DataRanges(fn func(block.Range) error) error {
	return fn(block.Range{Off: 0, End: int64(len(f.now))})
}

func (f *memFile) Clear() error { return f.WriteAt(make([]byte, len(f.now)), 0) }

// killed returns what a process that is killed now leaves: all that it wrote.
func (f *memFile) killed() *memFile {
	f.mu.Lock()
	defer f.mu.Unlock()
	return &memFile{now: slices.Clone(f.now), synced: slices.Clone(f.synced), dirty: maps.Clone(f.dirty)}
}

// cut returns what a power cut now would leave.
func (f *memFile) cut(rnd *rand.Rand) *memFile {
	f.mu.Lock()
	defer f.mu.Unlock()
	left := newMemFile(int64(len(f.now)))
	copy(left.synced, f.synced)
	for s := range f.dirty {
		if rnd.IntN(2) == 0 {
			end := min((s+1)*sector, int64(len(f.now)))
			copy(left.synced[s*sector:end], f.now[s*sector:end])
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
	failing func() error
}

func (m *memMap) Load(f func(Extent) error) error {
	for _, e := range m.durable() {
		if err := f(e); err != nil {
			return err
		}
	}
	return nil
}

func (m *memMap) Append(extents []Extent) error {
	if m.failing != nil {
		if err := m.failing(); err != nil {
			return err
		}
	}
	m.mu.Lock()
	m.extents = append(m.extents, extents...)
	m.mu.Unlock()
	if m.hook != nil {
		m.hook("states committed, nobody answered")
	}
	return nil
}

func (m *memMap) Trim(size int64) error {
	if m.failing != nil {
		if err := m.failing(); err != nil {
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
	if m.hook != nil {
		m.hook("states trimmed")
	}
	return nil
}

func (m *memMap) durable() []Extent {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.extents)
}

// history is what a sector may read as after a power cut: its value at the
// last flush that was answered, and every later one.
type history [][]uint64

func (h history) write(r block.Range, value uint64) {
	for s := r.Off / sector; s < r.End/sector; s++ {
		h[s] = append(h[s], value)
	}
}

func (h history) flushed() {
	for s := range h {
		h[s] = h[s][len(h[s])-1:]
	}
}

func fillSectors(p []byte, value uint64) []byte {
	for i := 0; i < len(p); i += 8 {
		binary.BigEndian.PutUint64(p[i:], value)
	}
	return p
}

// sectorValue returns the value that p is filled with.
func sectorValue(p []byte) (uint64, error) {
	value := binary.BigEndian.Uint64(p)
	for i := 8; i < sector; i += 8 {
		if binary.BigEndian.Uint64(p[i:]) != value {
			return 0, errors.New("bytes of different writes in one sector")
		}
	}
	return value, nil
}

// TestPowerCut cuts the power at every sync point of random operations and
// checks what is there afterwards.
func TestPowerCut(t *testing.T) {
	seed := devicetest.Seed(t)
	runs := uint64(60)
	if testing.Short() {
		runs = 20
	}
	cuts := 0
	for i := range runs {
		for _, image := range []bool{false, true} {
			cuts += powerCut(t, rand.New(rand.NewPCG(seed, i)), image)
			if t.Failed() {
				t.Fatalf("run %d, image %v", i, image)
			}
		}
	}
	if cuts < int(runs) {
		t.Errorf("only %d power cuts", cuts)
	}
}

func powerCut(t *testing.T, rnd *rand.Rand, withImage bool) (cuts int) {
	const blocks = 24
	const size = blocks * block.Size
	h := make(history, size/sector)
	image := memdev.New(size)
	for s := range h {
		h[s] = []uint64{0}
		if withImage {
			h[s] = []uint64{1<<40 + uint64(s)}
			image.WriteAt(t.Context(), fillSectors(make([]byte, sector), h[s][0]), int64(s)*sector)
		}
	}
	base := func() *Cache {
		if !withImage {
			return nil
		}
		c, err := OpenCache(CacheConfig{Name: "image", Image: image, File: newMemFile(size), Map: &memMap{}})
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	file, notes, disk := newMemFile(size), newMemFile(NotesSize(size)), &memMap{}
	point := func(name string) {
		if rnd.IntN(3) != 0 {
			return
		}
		cuts++
		left, states := file.cut(rnd), &memMap{extents: disk.durable()}
		survivor, err := Open(Config{Name: "survivor", Size: size, File: left, Map: states, Base: base(), Notes: notes.cut(rnd), Boot: "second"})
		if err != nil {
			t.Errorf("power cut at %q: %v", name, err)
			return
		}
		checkSurvivor(t, rnd, name, survivor, h)
		if err := survivor.Close(); err != nil {
			t.Error(err)
		}
	}
	file.hook, disk.hook = point, point
	v, err := Open(Config{Name: "v", Size: size, File: file, Map: disk, Base: base(), Notes: notes, Boot: "first"})
	if err != nil {
		t.Fatal(err)
	}
	ctx := t.Context()
	for op := uint64(1); op < 60; op++ {
		r := block.Range{Off: rnd.Int64N(size/sector) * sector}
		r.End = min(size, r.Off+(1+rnd.Int64N(20))*sector)
		switch rnd.IntN(6) {
		case 0:
			r = r.Outward(block.Size)
			fallthrough
		case 1, 2:
			h.write(r, op)
			err = v.WriteAt(ctx, fillSectors(make([]byte, r.Len()), op), r.Off)
		case 3:
			h.write(r, 0)
			err = v.Discard(ctx, r.Off, r.Len())
		default:
			if err = v.Flush(ctx); err == nil {
				h.flushed()
				point("flush answered")
			}
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	file.hook, disk.hook = nil, nil
	if err := v.Close(); err != nil {
		t.Error(err)
	}
	return cuts
}

// checkSurvivor reads everything, changes some parts of blocks, and reads the
// rest again.
func checkSurvivor(t *testing.T, rnd *rand.Rand, point string, v *Volume, h history) {
	ctx := t.Context()
	got := make([]byte, v.Size())
	if err := v.ReadAt(ctx, got, 0); err != nil {
		t.Errorf("power cut at %q: %v", point, err)
		return
	}
	for s := range h {
		value, err := sectorValue(got[s*sector : (s+1)*sector])
		if err == nil && !slices.Contains(h[s], value) {
			err = fmt.Errorf("has %d, want one of %v", value, h[s])
		}
		if err != nil {
			t.Errorf("power cut at %q: sector %d: %v", point, s, err)
			return
		}
	}
	for range 5 {
		s := rnd.Int64N(int64(len(h)))
		p := fillSectors(make([]byte, sector), 1<<50)
		if err := v.WriteAt(ctx, p, s*sector); err != nil {
			t.Error(err)
		}
		copy(got[s*sector:], p)
	}
	again := make([]byte, len(got))
	if err := v.ReadAt(ctx, again, 0); err != nil || !bytes.Equal(again, got) {
		t.Errorf("power cut at %q: read again: error %v, same bytes %v", point, err, bytes.Equal(again, got))
	}
}

// TestKilled kills the process after each of random operations: everything
// that was answered is there when the volume is opened again, and still there
// after a flush and a power cut.
func TestKilled(t *testing.T) {
	rnd := rand.New(rand.NewPCG(devicetest.Seed(t), 1))
	const size = 300*block.Size + 512
	image := pattern(200 * block.Size)
	cache := func() *Cache {
		c, err := OpenCache(CacheConfig{Name: "image", Image: memdev.Of(image), File: newMemFile(200 * block.Size), Map: &memMap{}})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return c
	}
	for _, base := range []*Cache{nil, cache()} {
		model := make([]byte, size)
		if base != nil {
			copy(model, image)
		}
		file, notes, disk := newMemFile(block.Ceil(size, block.Size)), newMemFile(NotesSize(size)), &memMap{}
		open := func(boot string) *Volume {
			v, err := Open(Config{Name: "v", Size: size, File: file, Map: disk, Base: base, Notes: notes, Boot: boot})
			if err != nil {
				t.Fatal(err)
			}
			return v
		}
		check := func(v *Volume, when string) {
			t.Helper()
			got := make([]byte, size)
			if err := v.ReadAt(t.Context(), got, 0); err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got, model) {
				t.Fatalf("%s: some bytes are not what was answered", when)
			}
		}
		v := open("first")
		for i := range 120 {
			off := rnd.Int64N(size - 1)
			n := min(size-off, 1+rnd.Int64N(5*block.Size))
			var err error
			switch rnd.IntN(5) {
			case 0, 1:
				p := bytes.Repeat([]byte{byte(i + 1)}, int(n))
				copy(model[off:], p)
				err = v.WriteAt(t.Context(), p, off)
			case 2:
				clear(model[off : off+n])
				err = v.Discard(t.Context(), off, n)
			case 3:
				err = v.Flush(t.Context())
			case 4: // another process takes over; the old one is never heard of again
				v.layer.commits.close()
				file, notes = file.killed(), notes.killed()
				v = open("first")
			}
			if err != nil {
				t.Fatal(err)
			}
			check(v, "after an operation")
		}
		v.layer.commits.close()
		v = open("first")
		if err := v.Flush(t.Context()); err != nil { // of what only the notes tell
			t.Fatal(err)
		}
		v.layer.commits.close()
		file, notes = file.cut(rnd), notes.cut(rnd)
		check(open("second"), "after a flush and a power cut")
	}
}

func TestMerge(t *testing.T) {
	for _, c := range []struct{ in, want []Extent }{
		{[]Extent{{4, 8, 1}, {0, 4, 1}, {8, 9, 1}}, []Extent{{0, 9, 1}}},
		{[]Extent{{4, 8, 1}, {0, 2, 1}, {5, 6, 1}}, []Extent{{0, 2, 1}, {4, 8, 1}}},
		{[]Extent{{4, 8, 1}, {0, 4, 2}, {0, 4, 1}}, []Extent{{4, 8, 1}, {0, 4, 2}, {0, 4, 1}}},
		{[]Extent{{1, 2, 2}}, []Extent{{1, 2, 2}}},
	} {
		if got := merge(slices.Clone(c.in)); !slices.Equal(got, c.want) {
			t.Errorf("merge(%v) = %v, want %v", c.in, got, c.want)
		}
	}
}

// TestFullDisk: the write that met it fails, nothing else does, and it goes on
// when there is room again.
func TestFullDisk(t *testing.T) {
	const size = 1 << 20
	file, disk := newMemFile(size), &memMap{}
	v, err := Open(Config{Name: "v", Size: size, File: file, Map: disk})
	if err != nil {
		t.Fatal(err)
	}
	ctx := t.Context()
	old := bytes.Repeat([]byte{1}, 8192)
	if err := v.WriteAt(ctx, old, 0); err != nil {
		t.Fatal(err)
	}
	full := fmt.Errorf("%w: injected", block.ErrNoSpace)
	file.failing = func(op string) error {
		if op == "write" {
			return full
		}
		return nil
	}
	if err := v.WriteAt(ctx, bytes.Repeat([]byte{2}, 8192), 64<<10); !errors.Is(err, block.ErrNoSpace) {
		t.Errorf("write to a full disk: %v, want ErrNoSpace", err)
	}
	if err := v.Flush(ctx); err != nil {
		t.Errorf("flush: %v", err)
	}
	got := make([]byte, 8192)
	if err := v.ReadAt(ctx, got, 64<<10); err != nil || !bytes.Equal(got, make([]byte, 8192)) {
		t.Errorf("a block whose write failed: error %v, unchanged %v", err, bytes.Equal(got, make([]byte, 8192)))
	}
	file.failing = nil

	// The database is full: the flush fails, and the next one makes up for it.
	if err := v.WriteAt(ctx, old, 128<<10); err != nil {
		t.Fatal(err)
	}
	disk.failing = func() error { return syscall.ENOSPC }
	if err := v.Flush(ctx); !errors.Is(err, block.ErrNoSpace) {
		t.Errorf("flush with a full database: %v, want ErrNoSpace", err)
	}
	disk.failing = nil
	if err := v.Flush(ctx); err != nil {
		t.Errorf("flush with room again: %v", err)
	}
	survivor, err := Open(Config{Name: "v", Size: size, File: file.cut(rand.New(rand.NewPCG(1, 1))), Map: disk})
	if err != nil {
		t.Fatal(err)
	}
	for _, off := range []int64{0, 128 << 10} {
		if err := survivor.ReadAt(ctx, got, off); err != nil || !bytes.Equal(got, old) {
			t.Errorf("flushed bytes at %d: error %v, there %v", off, err, bytes.Equal(got, old))
		}
	}
}

// TestFailedSync: nothing is believed afterwards.
func TestFailedSync(t *testing.T) {
	for _, c := range []struct {
		name string
		fail func(*memFile, *memMap)
	}{
		{"data", func(f *memFile, _ *memMap) {
			f.failing = func(op string) error {
				if op == "sync" {
					return syscall.EIO
				}
				return nil
			}
		}},
		{"map", func(_ *memFile, m *memMap) { m.failing = func() error { return syscall.EIO } }},
	} {
		t.Run(c.name, func(t *testing.T) {
			file, disk := newMemFile(1<<20), &memMap{}
			v, err := Open(Config{Name: "v", Size: 1 << 20, File: file, Map: disk})
			if err != nil {
				t.Fatal(err)
			}
			ctx := t.Context()
			if err := v.WriteAt(ctx, pattern(4096), 0); err != nil {
				t.Fatal(err)
			}
			c.fail(file, disk)
			if err := v.Flush(ctx); !errors.Is(err, block.ErrMedium) {
				t.Errorf("flush: %v, want ErrMedium", err)
			}
			file.failing, disk.failing = nil, nil
			for what, err := range map[string]error{
				"write": v.WriteAt(ctx, pattern(4096), 0), "discard": v.Discard(ctx, 0, 4096), "flush": v.Flush(ctx),
			} {
				if !errors.Is(err, block.ErrMedium) {
					t.Errorf("%s after a failed sync: %v, want ErrMedium", what, err)
				}
			}
			if err := v.ReadAt(ctx, make([]byte, 4096), 0); err != nil {
				t.Errorf("read after a failed sync: %v", err)
			}
			if len(disk.durable()) != 0 {
				t.Error("states were committed although the sync failed")
			}
		})
	}
}
