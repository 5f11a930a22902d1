package overlay

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"syscall"
	"testing"

	"skylun/block"
)

// redoTest is a blank volume of one layer with a redo log, which power cuts and
// crashes open again.
type redoTest struct {
	t     *testing.T
	file  *memFile
	notes *memFile
	disk  *memMap
	world world
	redo  worldRedo
	boot  string
	v     *Volume
	l     *Layer
}

const redoTestSize = 4 << 20

func newRedoTest(t *testing.T) *redoTest {
	r := &redoTest{t: t, file: newMemFile(redoTestSize), notes: newMemFile(NotesSize(redoTestSize)), disk: &memMap{}, boot: "boot 1"}
	r.redo.id = 6 // the longest file
	r.open()
	return r
}

func (r *redoTest) open() {
	r.t.Helper()
	if err := r.tryOpen(); err != nil {
		r.t.Fatal(err)
	}
}

func (r *redoTest) tryOpen() (err error) {
	r.redo.w = &r.world
	r.l, err = OpenLayer(LayerConfig{Name: "l", ID: r.redo.id, Size: redoTestSize, File: r.file, Map: r.disk, Notes: r.notes, Boot: r.boot, Redo: &r.redo})
	if err != nil {
		return err
	}
	noTimer(r.l.sparse)
	r.v, err = Open(Config{Name: "v", Size: redoTestSize, Layers: []*Layer{r.l}})
	return err
}

// cut is a power cut that loses all that was not synced.
func (r *redoTest) cut() {
	lose := func(f *memFile) *memFile {
		if f == nil {
			return nil
		}
		clear(f.dirty)
		return f.cut(rand.New(rand.NewPCG(1, 1)))
	}
	r.file, r.notes, r.redo.file, r.boot = lose(r.file), lose(r.notes), lose(r.redo.file), r.boot+"+"
}

func (r *redoTest) write(value byte, off int64) {
	r.t.Helper()
	if err := r.v.WriteAt(r.t.Context(), bytes.Repeat([]byte{value}, block.Size), off); err != nil {
		r.t.Fatal(err)
	}
}

func (r *redoTest) flush() {
	r.t.Helper()
	if err := r.v.Flush(r.t.Context()); err != nil {
		r.t.Fatal(err)
	}
	r.l.commits.wait()
}

func (r *redoTest) wants(value byte, off int64) {
	r.t.Helper()
	got := make([]byte, block.Size)
	if err := r.v.ReadAt(r.t.Context(), got, off); err != nil || !bytes.Equal(got, bytes.Repeat([]byte{value}, block.Size)) {
		r.t.Errorf("at %d: %d (%v), want %d", off, got[0], err, value)
	}
}

// logging makes the redo log: the first flush does without.
func (r *redoTest) logging() {
	r.t.Helper()
	r.write(1, 0)
	r.flush()
	if r.l.redo == nil || r.l.capture.spilled.Load() {
		r.t.Fatal("the first flush has made no redo log")
	}
}

func (r *redoTest) syncs() *int {
	n := new(int)
	r.file.failing = func(op string) error {
		if op == "sync" {
			*n++
		}
		return nil
	}
	return n
}

// TestSmallFlush: it syncs neither the file nor the map, and survives.
func TestSmallFlush(t *testing.T) {
	r := newRedoTest(t)
	r.logging()
	states, syncs := len(r.disk.durable()), r.syncs()
	r.write(2, 0) // an overwrite
	r.write(3, 64<<10)
	r.flush()
	r.write(4, 64<<10)
	r.flush()
	if err := r.v.Discard(t.Context(), 0, block.Size); err != nil {
		t.Fatal(err)
	}
	r.flush()
	if *syncs > 0 || len(r.disk.durable()) != states {
		t.Errorf("%d syncs of the file, %d records of states", *syncs, len(r.disk.durable())-states)
	}
	r.write(5, 64<<10) // not flushed
	r.cut()
	r.open()
	r.wants(0, 0)
	r.wants(4, 64<<10)
	if !r.l.redo.empty() {
		t.Error("the redo log still has what was done again")
	}
}

// TestLargeFlush: what is more than a small round writes goes the long way, and
// what the redo log has counts no more.
func TestLargeFlush(t *testing.T) {
	r := newRedoTest(t)
	r.logging()
	r.write(2, 64<<10)
	r.flush()
	syncs := r.syncs()
	for off := int64(0); off < smallMost+block.Size; off += block.Size {
		r.write(3, off)
	}
	r.flush()
	if *syncs != 1 || !r.l.redo.empty() || len(r.l.redone) > 0 {
		t.Errorf("%d syncs of the file, redo log empty %v", *syncs, r.l.redo.empty())
	}
	r.cut()
	r.open()
	r.wants(3, 64<<10)
}

// TestOverwritesSync: where nothing but bytes changes and the redo log is empty,
// nothing is written twice.
func TestOverwritesSync(t *testing.T) {
	r := newRedoTest(t)
	r.logging()
	syncs := r.syncs()
	r.write(2, 0)
	r.flush()
	if *syncs != 1 || !r.l.redo.empty() {
		t.Errorf("%d syncs of the file, redo log empty %v", *syncs, r.l.redo.empty())
	}
	r.flush() // and nothing at all
	if *syncs != 1 {
		t.Error("a flush of nothing synced")
	}
}

// TestOverwritesNotCaptured: after a while what is only overwritten is not copied,
// and then small flushes come back.
func TestOverwritesNotCaptured(t *testing.T) {
	r := newRedoTest(t)
	r.logging()
	for range redoRest + 1 {
		r.write(2, 0)
		r.flush()
	}
	if !r.l.capture.spilled.Load() {
		t.Error("overwrites are still captured")
	}
	r.write(3, 64<<10)
	r.flush()
	syncs := r.syncs()
	r.write(4, 128<<10)
	r.flush()
	if *syncs > 0 {
		t.Error("no small flush any more")
	}
	r.cut()
	r.open()
	r.wants(3, 64<<10)
	r.wants(4, 128<<10)
}

// TestRedoFull: a full log empties itself and is made again.
func TestRedoFull(t *testing.T) {
	r := newRedoTest(t)
	r.logging()
	first := r.redo.file
	for i := range int64(20) {
		r.write(byte(i), i*block.Size)
		r.flush()
	}
	if r.redo.file == first {
		t.Error("it was not made again")
	}
	r.cut()
	r.open()
	for i := range int64(20) {
		r.wants(byte(i), i*block.Size)
	}
}

// TestRedoCannotBeMade: flushes go the long way, and it is tried again.
func TestRedoCannotBeMade(t *testing.T) {
	r := newRedoTest(t)
	tried := 0
	r.world.fault = func(string) error { tried++; return syscall.ENOSPC }
	for i := range int64(restRedo + 2) {
		r.write(1, i%1000*block.Size)
		r.flush()
		if i%1000 == 999 {
			if err := r.v.Discard(t.Context(), 0, redoTestSize); err != nil { // so that writes change states
				t.Fatal(err)
			}
		}
	}
	if tried != 2 || r.l.redo != nil {
		t.Errorf("tried %d times, want 2", tried)
	}
	r.cut()
	r.open()
	r.wants(1, 0)
}

// TestFailedAppend: a record that was not answered is not done again over what was,
// although it is on the disk.
func TestFailedAppend(t *testing.T) {
	r := newRedoTest(t)
	r.logging()
	failed := false
	r.redo.file.failing = func(op string) error {
		if op == "sync" && !failed {
			failed = true
			return syscall.EIO
		}
		return nil
	}
	r.write(2, 64<<10)
	r.flush()
	if !failed {
		t.Fatal("the flush did not use the redo log")
	}
	r.write(3, 64<<10)
	r.flush()
	r.redo.file.syncNow()
	r.cut()
	r.open()
	r.wants(3, 64<<10)
}

// TestCopyOfLost: what reads refuse is not copied either.
func TestCopyOfLost(t *testing.T) {
	r := newRedoTest(t)
	lost := error(block.ErrMedium)
	r.l.lost.Store(&lost)
	if _, err := r.l.copyFrom(0, r.l.sparse, 64<<10, block.Size); !errors.Is(err, block.ErrMedium) {
		t.Errorf("copy: %v, want ErrMedium", err)
	}
}

// TestKilledWithRedo: what was written and not flushed is there, also over what
// the redo log has.
func TestKilledWithRedo(t *testing.T) {
	r := newRedoTest(t)
	r.logging()
	r.write(2, 64<<10)
	r.flush()
	r.write(3, 64<<10)
	r.write(4, 128<<10)
	r.l.commits.close()
	r.open()
	r.wants(3, 64<<10)
	r.wants(4, 128<<10)
	r.cut() // before anybody has flushed
	r.open()
	r.wants(2, 64<<10)
	r.wants(0, 128<<10)
}

// TestSyncFailsAfterSmallFlush: the system's memory has lost what was flushed. It
// is not read any more, and is back when the layer is opened again.
func TestSyncFailsAfterSmallFlush(t *testing.T) {
	r := newRedoTest(t)
	r.logging()
	r.write(2, 64<<10)
	r.flush()
	r.write(3, 128<<10)
	r.file.failing = func(op string) error {
		if op == "sync" {
			return syscall.EIO
		}
		return nil
	}
	if err := r.l.commitLarge(t.Context()); !errors.Is(err, block.ErrMedium) {
		t.Errorf("sync that fails: %v, want ErrMedium", err)
	}
	if err := r.v.ReadAt(t.Context(), make([]byte, block.Size), 64<<10); !errors.Is(err, block.ErrMedium) {
		t.Errorf("read: %v, want ErrMedium", err)
	}
	r.l.commits.close()
	r.file.failing = nil
	clear(r.file.now[64<<10 : 132<<10])
	r.open()
	r.wants(2, 64<<10)
	r.wants(0, 128<<10) // not flushed, and the notes are not believed
	r.wants(1, 0)
}

// TestRedoDamaged: a layer is not opened without what was flushed.
func TestRedoDamaged(t *testing.T) {
	r := newRedoTest(t)
	r.logging()
	for range 2 { // so that there is a header
		r.write(2, 64<<10)
		r.flush()
		if err := r.l.commitLarge(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	r.write(3, 128<<10)
	r.flush()
	r.redo.file.rot(3)
	r.cut()
	if err := r.tryOpen(); !errors.Is(err, block.ErrMedium) {
		t.Errorf("damaged header: %v, want ErrMedium", err)
	}
	r.redo.file.rot(3)
	r.redo.id++
	if err := r.tryOpen(); !errors.Is(err, block.ErrMedium) {
		t.Errorf("that of another layer: %v, want ErrMedium", err)
	}
	r.redo.id--
	full := func(op string) error {
		if op == "write" {
			return syscall.ENOSPC
		}
		return nil
	}
	r.file.failing = full
	if err := r.tryOpen(); !errors.Is(err, block.ErrNoSpace) {
		t.Errorf("no room to do it again: %v, want ErrNoSpace", err)
	}
	r.file.failing = nil
	r.open()
	r.wants(3, 128<<10)
}

// TestRedoEnds: nothing is left of it after an orderly end, or when the layer
// was sealed.
func TestRedoEnds(t *testing.T) {
	for name, end := range map[string]func(*redoTest) error{
		"close": func(r *redoTest) error { return errors.Join(r.v.Close(), r.l.Close()) },
		"seal":  func(r *redoTest) error { r.l.seal(); return r.l.Seal(t.Context()) },
	} {
		t.Run(name, func(t *testing.T) {
			r := newRedoTest(t)
			r.logging()
			r.write(2, 64<<10)
			r.flush()
			if err := end(r); err != nil {
				t.Fatal(err)
			}
			if r.redo.file != nil || r.l.redo != nil {
				t.Error("the redo log is still there")
			}
			r.redo.file = r.redo.removed // its removal was not durable
			r.cut()
			r.open()
			r.wants(2, 64<<10)
		})
	}
}

// FuzzRedo: bytes of a redo log that are anything are refused or ignored.
func FuzzRedo(f *testing.F) {
	l := newRedo(memRedo{newMemFile(64 << 10), false}, 1)
	if err := l.append([]Extent{{0, 8192, uint8(present)}}, captured{[]write{{0, 4096}, {4096, 512}}, make([]byte, 4608)}); err != nil {
		f.Fatal(err)
	}
	file := l.file.(memRedo)
	f.Add(bytes.Clone(file.now[redoStart : redoStart+8192]))
	f.Fuzz(func(t *testing.T, p []byte) {
		file := newMemFile(64 << 10)
		copy(file.now[redoStart:], p)
		l, err := openRedo(memRedo{file, false}, 1)
		if err != nil {
			t.Fatal(err)
		}
		if err := l.read(func(_ []Extent, c captured) error {
			return c.each(func([]byte, int64) error { return nil })
		}); err != nil && !errors.Is(err, block.ErrMedium) {
			t.Error(err)
		}
		if len(p) >= redoRecord {
			_, c, err := decodeRedo(p)
			if err == nil {
				err = c.each(func([]byte, int64) error { return nil })
			}
			if err != nil && !errors.Is(err, block.ErrMedium) {
				t.Error(err)
			}
		}
	})
}
