package node

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestImageChanged(t *testing.T) {
	noLeaks(t)
	cfg := testConfig(t)
	old := pattern(1<<20, 0)
	putImage(t, cfg, "i", old)
	disks(&cfg, DiskConfig{Volume: "v", Image: "i"})
	stop(t, start(t, cfg))

	putImage(t, cfg, "i", pattern(1<<20, 2))
	_, err := Start(t.Context(), cfg, quiet)
	if err == nil || !strings.Contains(err.Error(), "image i was changed after volume v was made of it") || strings.Contains(err.Error(), "\n") {
		t.Errorf("changed: %v", err)
	}
	os.Remove(filepath.Join(cfg.DataDir, "blobs", "i"))
	_, err = Start(t.Context(), cfg, quiet)
	if err == nil || !strings.Contains(err.Error(), "image i, which volume v was made of") || !strings.Contains(err.Error(), "is not in the store") {
		t.Errorf("removed: %v", err)
	}
	// A directory that is away, perhaps not mounted, says nothing about the image.
	if err := os.Rename(filepath.Join(cfg.DataDir, "blobs"), filepath.Join(cfg.DataDir, "away")); err != nil {
		t.Fatal(err)
	}
	stop(t, start(t, cfg))
	// The volume is still there, and can be removed.
	n, err := Open(t.Context(), cfg, false, quiet)
	if err != nil {
		t.Fatal(err)
	}
	n.luns = nil
	if err := n.DeleteVolume(t.Context(), "v"); err != nil {
		t.Error(err)
	}
	stop(t, n)
}

// TestLocalImageNeedsNoStore has read all of an image, and then no store.
func TestLocalImageNeedsNoStore(t *testing.T) {
	noLeaks(t)
	cfg := testConfig(t)
	old := pattern(1<<20, 0)
	putImage(t, cfg, "i", old)
	disks(&cfg, DiskConfig{Volume: "v", Image: "i"})
	n := start(t, cfg)
	content(t, n, "v")
	stop(t, n)

	t.Run("changed", func(t *testing.T) {
		putImage(t, cfg, "i", pattern(1<<20, 2))
		n := start(t, cfg)
		if !bytes.Equal(content(t, n, "v"), old) {
			t.Error("the content is not that of the image the volume was made of")
		}
		stop(t, n)
	})
	t.Run("unreachable", func(t *testing.T) {
		cfg := cfg
		key := filepath.Join(cfg.DataDir, "key")
		if err := os.WriteFile(key, []byte("c2VjcmV0"), 0o600); err != nil {
			t.Fatal(err)
		}
		cfg.Blobstore.URL = "http://127.0.0.1:1/account/container" // tcpmux: nobody listens
		cfg.Blobstore.AccountKeyFile = key
		cfg.Blobstore.Timeout = 100 * time.Millisecond
		cfg.Blobstore.TryTimeout = 50 * time.Millisecond
		n := start(t, cfg)
		if !bytes.Equal(content(t, n, "v"), old) {
			t.Error("the content is not that of the image")
		}
		if _, err := n.CreateVolume(t.Context(), VolumeSpec{Name: "new", Image: "i"}); err == nil || errors.Is(err, ErrInvalid) {
			t.Errorf("new volume without the store: %v", err)
		}
		stop(t, n)
		disks(&cfg, DiskConfig{Volume: "new", Image: "i"})
		if _, err := Start(t.Context(), cfg, quiet); err == nil || errors.As(err, new(Problems)) || !strings.Contains(err.Error(), "volume new: ") {
			t.Errorf("first use of an image without the store: %v", err)
		}
	})
}

func TestCreateDelete(t *testing.T) {
	noLeaks(t)
	cfg := testConfig(t)
	putImage(t, cfg, "i", pattern(1<<20, 0))
	n := start(t, cfg)
	ctx := t.Context()
	v, err := n.CreateVolume(ctx, VolumeSpec{Name: "w", Image: "i"})
	if err != nil || v.Size != 1<<20 || v.Image.Name != "i" || v.LUN != nil {
		t.Fatalf("created %+v %v", v, err)
	}
	if !bytes.Equal(content(t, n, "w"), pattern(1<<20, 0)) {
		t.Error("w is not the image")
	}
	write(t, n, "w", pattern(8192, 9), 4096) // closed and opened again
	if got, err := n.Volume(ctx, "w"); err != nil || got.Written != 8192 {
		t.Errorf("%+v %v, want 8192 written", got, err)
	}
	for _, c := range []struct {
		what string
		err  error
		kind error
		text string
	}{
		{"existing", second(n.CreateVolume(ctx, VolumeSpec{Name: "w", Size: 512})), ErrExists, "volume w already exists"},
		{"bad name", second(n.CreateVolume(ctx, VolumeSpec{Name: "-", Size: 512})), ErrInvalid, `"-" is not a volume name`},
		{"no size", second(n.CreateVolume(ctx, VolumeSpec{Name: "x"})), ErrInvalid, "size: missing"},
		{"odd size", second(n.CreateVolume(ctx, VolumeSpec{Name: "x", Size: 1000})), ErrInvalid, "multiple of 512"},
		{"no image", second(n.CreateVolume(ctx, VolumeSpec{Name: "x", Image: "none"})), ErrInvalid, "image none is not in the store"},
		{"too small", second(n.CreateVolume(ctx, VolumeSpec{Name: "x", Image: "i", Size: 512})), ErrInvalid, "less than image i"},
		{"volume in use", n.DeleteVolume(ctx, "v"), ErrInUse, "volume v is lun 0 of target iqn.2026-11.io.skylun:t"},
		{"no volume", n.DeleteVolume(ctx, "x"), ErrNotFound, "volume x"},
		{"image in use", n.DeleteImage(ctx, "i"), ErrInUse, "image i: volume w is an overlay of it"},
		{"no image to remove", n.DeleteImage(ctx, "none"), ErrNotFound, "none"},
		{"nothing to read", n.ReadVolume(ctx, "x", nil), ErrNotFound, "volume x"},
	} {
		if !errors.Is(c.err, c.kind) || !strings.Contains(c.err.Error(), c.text) {
			t.Errorf("%s: %v, want %q", c.what, c.err, c.text)
		}
	}
	inUse := errors.New("stop")
	err = n.ReadVolume(ctx, "w", func([]byte, int64) error {
		if err := n.DeleteVolume(ctx, "w"); !errors.Is(err, ErrInUse) {
			t.Errorf("removed while it is read: %v", err)
		}
		return inUse
	})
	if !errors.Is(err, inUse) {
		t.Errorf("reading stopped with %v", err)
	}
	if err := n.DeleteVolume(ctx, "w"); err != nil {
		t.Error(err)
	}
	if err := n.DeleteImage(ctx, "i"); err != nil {
		t.Error(err)
	}
	if s, err := n.Status(ctx); err != nil || len(s.Caches) != 0 || len(s.Volumes) != 1 {
		t.Errorf("left: %+v %+v %v", s.Caches, s.Volumes, err)
	}
	stop(t, n)
	if files, _ := filepath.Glob(filepath.Join(cfg.DataDir, "local", "*", "*")); len(files) != 2 {
		t.Errorf("files %v, want the layer and the notes of v", files)
	}
}

// TestStaleCaches sees when local copies of an image go.
func TestStaleCaches(t *testing.T) {
	cfg := testConfig(t)
	n := start(t, cfg)
	ctx := t.Context()
	files := func() int {
		all, _ := filepath.Glob(filepath.Join(cfg.DataDir, "local", "caches", "*"))
		return len(all)
	}
	for i := range byte(2) {
		putImage(t, cfg, "i", pattern(1<<20, 2*i))
		if _, err := n.CreateVolume(ctx, VolumeSpec{Name: "w", Image: "i"}); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(content(t, n, "w"), pattern(1<<20, 2*i)) {
			t.Error("not the content of the image")
		}
		if err := n.DeleteVolume(ctx, "w"); err != nil {
			t.Fatal(err)
		}
		if got := files(); got != 2 { // copies and sums, kept for the next volume until the image changes
			t.Errorf("%d files of caches, want 2", got)
		}
	}
	os.Remove(filepath.Join(cfg.DataDir, "blobs", "i"))
	if err := n.DeleteImage(ctx, "i"); err != nil {
		t.Errorf("image that only has copies here: %v", err)
	}
	if got := files(); got != 0 {
		t.Errorf("%d files of caches after the image was removed", got)
	}
	stop(t, n)
}

// TestStartUndone cannot create the second of two volumes.
func TestStartUndone(t *testing.T) {
	noLeaks(t)
	cfg := testConfig(t)
	putImage(t, cfg, "i", pattern(1<<20, 0))
	disks(&cfg, DiskConfig{Volume: "a", Image: "i"}, DiskConfig{Volume: "b", Size: 1 << 20}, DiskConfig{Volume: "c", Image: "i"})
	// Files are numbered as they are made: two layers, then what is in the way.
	inTheWay := filepath.Join(cfg.DataDir, "local", "layers", "3")
	if err := os.MkdirAll(filepath.Join(inTheWay, "x"), 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := Start(t.Context(), cfg, quiet); err == nil || !strings.Contains(err.Error(), "create volume c: ") {
		t.Fatalf("started: %v", err)
	}
	os.RemoveAll(inTheWay)
	wantEmpty(t, cfg)

	// The first cache comes after the layers.
	inTheWay = filepath.Join(cfg.DataDir, "local", "caches", "7")
	if err := os.MkdirAll(filepath.Join(inTheWay, "x"), 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := Start(t.Context(), cfg, quiet); err == nil || !strings.Contains(err.Error(), "cache of image i: ") {
		t.Fatalf("started: %v", err)
	}
	os.RemoveAll(inTheWay)
	wantEmpty(t, cfg)
	stop(t, start(t, cfg))
}

func second[T any](_ T, err error) error { return err }

func TestReadStops(t *testing.T) {
	noLeaks(t)
	cfg := testConfig(t)
	disks(&cfg, DiskConfig{Volume: "v", Size: 24 << 20})
	n := start(t, cfg)
	write(t, n, "v", pattern(24<<20, 0), 0)
	ctx, cancel := context.WithCancel(t.Context())
	calls := 0
	err := n.ReadVolume(ctx, "v", func([]byte, int64) error {
		calls++
		cancel()
		return nil
	})
	if !errors.Is(err, context.Canceled) || calls > readAhead+2 {
		t.Errorf("%v after %d calls", err, calls)
	}
	stop(t, n)
}

func TestNonZero(t *testing.T) {
	p := make([]byte, 5*4096+100)
	p[4096] = 1
	p[3*4096-1] = 1
	p[len(p)-1] = 1
	var got [][2]int64
	err := nonZero(p, 1000, func(q []byte, off int64) error {
		got = append(got, [2]int64{off - 1000, int64(len(q))})
		return nil
	})
	want := [][2]int64{{4096, 8192}, {5 * 4096, 100}}
	if err != nil || len(got) != 2 || got[0] != want[0] || got[1] != want[1] {
		t.Errorf("%v %v, want %v", got, err, want)
	}
}

func TestCheckDataDir(t *testing.T) {
	cfg := testConfig(t)
	if _, err := CheckDataDir(t.Context(), cfg, quiet); !errors.Is(err, ErrNotRunning) {
		t.Errorf("nothing there: %v", err)
	}
	n := start(t, cfg)
	write(t, n, "v", pattern(4096, 0), 0)
	if _, err := CheckDataDir(t.Context(), cfg, quiet); err == nil || !strings.Contains(err.Error(), "in use by another") {
		t.Errorf("while a node runs: %v", err)
	}
	stop(t, n)
	if problems, err := CheckDataDir(t.Context(), cfg, quiet); err != nil || len(problems) > 0 {
		t.Errorf("%q %v, want none", problems, err)
	}
	layers, _ := filepath.Glob(filepath.Join(cfg.DataDir, "local", "layers", "*"))
	if err := os.Truncate(layers[0], 4096); err != nil {
		t.Fatal(err)
	}
	if problems, err := CheckDataDir(t.Context(), cfg, quiet); err != nil || len(problems) != 1 || !strings.Contains(problems[0], layers[0]) {
		t.Errorf("layer cut short: %q %v", problems, err)
	}
	os.Remove(layers[0])
	if problems, err := CheckDataDir(t.Context(), cfg, quiet); err != nil || len(problems) != 1 || !strings.Contains(problems[0], "volume v: ") {
		t.Errorf("layer gone: %q %v", problems, err)
	}
	if _, err := Start(t.Context(), cfg, quiet); err == nil || !strings.Contains(err.Error(), "volume v: what was written to it is gone") {
		t.Errorf("start without the layer: %v", err)
	}
}
