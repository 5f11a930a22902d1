package node

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"skylun/block"
)

// TestRedoStore: a file is found again, and all of it was zeros.
func TestRedoStore(t *testing.T) {
	s := redoStore{filepath.Join(t.TempDir(), "redo", "7")}
	if f, err := s.Open(); f != nil || err != nil {
		t.Fatalf("a file that nobody made: %v, %v", f, err)
	}
	if err := s.Remove(); err != nil {
		t.Errorf("remove what is not there: %v", err)
	}
	f, err := s.Create(1 << 20)
	if err == nil {
		err = f.WriteAt([]byte("flushed"), block.Size)
	}
	if err == nil {
		err = f.Sync()
	}
	if err == nil {
		err = f.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	if f, err = s.Open(); err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	want, got := make([]byte, 1<<20), make([]byte, 1<<20)
	copy(want[block.Size:], "flushed")
	if err := f.ReadAt(got, 0); err != nil || f.Size() != int64(len(want)) || !bytes.Equal(got, want) {
		t.Errorf("%d bytes, error %v, as written: %v", f.Size(), err, bytes.Equal(got, want))
	}
	if err := s.Remove(); err != nil {
		t.Fatal(err)
	}
	if f, err := s.Open(); f != nil || err != nil {
		t.Errorf("a file that was removed: %v, %v", f, err)
	}
}

// TestPowerCutWithRedo takes away what the members had not synced after a small
// flush, and starts another node over what is left.
func TestPowerCutWithRedo(t *testing.T) {
	cfg := testConfig(t)
	n := start(t, cfg)
	want := make([]byte, 1<<20)
	for i, off := range []int64{0, 64 << 10, 128 << 10} { // the first flush makes the redo log
		p := pattern(block.Size, byte(i))
		copy(want[off:], p)
		write(t, n, "v", p, off)
		eventually(t, func() string {
			if files, _ := os.ReadDir(n.redoDir()); len(files) != 1 {
				return "no redo log was made"
			}
			return ""
		})
	}
	left := cfg
	left.DataDir = filepath.Join(t.TempDir(), "left")
	if err := os.CopyFS(left.DataDir, os.DirFS(cfg.DataDir)); err != nil {
		t.Fatal(err)
	}
	left.Local.Members = []MemberConfig{{Path: filepath.Join(left.DataDir, "local")}}
	layers, err := filepath.Glob(filepath.Join(left.DataDir, "local", "layers", "*"))
	if err != nil || len(layers) != 2 {
		t.Fatalf("layers %v, error %v", layers, err)
	}
	for _, path := range layers { // bytes and notes
		p, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		clear(p[min(len(p), 128<<10):])
		if filepath.Ext(path) == ".notes" {
			clear(p)
		}
		if err := os.WriteFile(path, p, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	stray := filepath.Join(left.DataDir, "redo", "999")
	if err := os.WriteFile(stray, []byte("of a layer that is no more"), 0o600); err != nil {
		t.Fatal(err)
	}
	offline, err := Open(t.Context(), left, false, quiet)
	if err != nil {
		t.Fatal(err)
	}
	if vols, err := offline.Volumes(t.Context()); err != nil || len(vols) != 1 {
		t.Errorf("listed before a start: %v, error %v", vols, err)
	}
	if problems, err := offline.Check(t.Context()); err != nil || len(problems) > 0 {
		t.Errorf("checked before a start: %q, error %v", problems, err)
	}
	stop(t, offline)
	survivor := start(t, left)
	if got := content(t, survivor, "v"); !bytes.Equal(got, want) {
		t.Error("what was flushed is not there")
	}
	if _, err := os.Stat(stray); !os.IsNotExist(err) {
		t.Errorf("redo log of a layer that is no more: %v", err)
	}
	stop(t, survivor)
	if files, err := os.ReadDir(survivor.redoDir()); err != nil || len(files) > 0 {
		t.Errorf("after an orderly stop: redo logs %v, error %v", files, err)
	}
	sound(t, start(t, left))
}
