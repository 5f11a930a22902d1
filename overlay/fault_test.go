package overlay

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"syscall"
	"testing"

	"skylun/block"
)

// TestFullDisk: the write that met it fails, nothing else does, and it goes on
// when there is room again.
func TestFullDisk(t *testing.T) {
	const size = 1 << 20
	file, disk := newMemFile(size), &memMap{}
	v, err := openSingle(single{Name: "v", Size: size, File: file, Map: disk})
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
	disk.failing = func(string) error { return syscall.ENOSPC }
	if err := v.Flush(ctx); !errors.Is(err, block.ErrNoSpace) {
		t.Errorf("flush with a full database: %v, want ErrNoSpace", err)
	}
	disk.failing = nil
	if err := v.Flush(ctx); err != nil {
		t.Errorf("flush with room again: %v", err)
	}
	survivor, err := openSingle(single{Name: "v", Size: size, File: file.cut(rand.New(rand.NewPCG(1, 1))), Map: disk})
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
		{"map", func(_ *memFile, m *memMap) { m.failing = func(string) error { return syscall.EIO } }},
	} {
		t.Run(c.name, func(t *testing.T) {
			file, disk := newMemFile(1<<20), &memMap{}
			v, err := openSingle(single{Name: "v", Size: 1 << 20, File: file, Map: disk})
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
