package node

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"skylun/overlay"
)

// TestPrefetchFills brings an image that nobody reads, as the configuration or
// the volume's own key says, and needs no store after that.
func TestPrefetchFills(t *testing.T) {
	for _, c := range []struct {
		node, disk string
		fills      bool
	}{
		{"off", "", false}, {"readahead", "", false}, {"idle", "", true}, {"full", "", true},
		{"off", "idle", true}, {"off", "full", true}, {"full", "off", false}, {"idle", "readahead", false},
	} {
		t.Run(c.node+" "+c.disk, func(t *testing.T) {
			noLeaks(t)
			cfg := testConfig(t)
			cfg.Cache.Prefetch = c.node
			image := pattern(8<<20, 0)
			putImage(t, cfg, "i", image)
			disks(&cfg, DiskConfig{Volume: "v", Image: "i", Prefetch: c.disk})
			if err := cfg.Validate(); err != nil {
				t.Fatal(err)
			}
			n := start(t, cfg)
			p, err := n.Prefetch(t.Context(), "v")
			if want := map[bool]string{true: c.disk, false: c.node}[c.disk != ""]; err != nil || p.Strategy != want || p.Asked || p.Paused {
				t.Errorf("%+v, %v, want %s", p, err, want)
			}
			if !c.fills {
				if s := p.Image.Prefetch; s.State != overlay.StateOff || p.Image.Fetches > 0 {
					t.Errorf("%+v, want nothing fetched", p.Image)
				}
				stop(t, n)
				return
			}
			eventually(t, func() string {
				if p, err := n.Prefetch(t.Context(), "v"); err != nil || p.Image.Prefetch.State != overlay.StateComplete {
					return fmt.Sprintf("not filled: %+v %v", p.Image.Prefetch, err)
				}
				return ""
			})
			stop(t, n)
			if err := os.RemoveAll(filepath.Join(cfg.DataDir, "blobs")); err != nil {
				t.Fatal(err)
			}
			n = start(t, cfg)
			if s := string(content(t, n, "v")); s != string(image) {
				t.Error("not the content of the image")
			}
			stop(t, n)
		})
	}
}

// TestPrefetchPause holds over a restart, and is told; so does a strategy that was
// asked for. A volume that goes takes both along.
func TestPrefetchPause(t *testing.T) {
	noLeaks(t)
	ctx := t.Context()
	cfg := testConfig(t)
	cfg.Cache.Prefetch = "idle"
	cfg.Cache.PrefetchHours = "00:00-24:00"
	cfg.Cache.PrefetchRate = 1 << 40
	putImage(t, cfg, "i", pattern(8<<20, 0))
	disks(&cfg, DiskConfig{Volume: "blank", Size: 1 << 20})
	n := start(t, cfg)
	for _, name := range []string{"v", "w"} {
		if _, err := n.CreateVolume(ctx, VolumeSpec{Name: name, Image: "i"}); err != nil {
			t.Fatal(err)
		}
	}
	yes, no, full, none, wrong := true, false, "full", "", "fast"
	set := func(spec PrefetchSpec) VolumePrefetch {
		t.Helper()
		p, err := n.SetPrefetch(ctx, "v", spec)
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	if p := set(PrefetchSpec{Paused: &yes}); !p.Paused || p.Strategy != "idle" {
		t.Errorf("%+v, want it paused", p)
	}
	if _, err := n.MapLUN(ctx, cfg.Targets[0].IQN, 7, "v"); err != nil {
		t.Fatal(err)
	}
	stop(t, n)
	n = start(t, cfg)
	p, err := n.Prefetch(ctx, "v")
	if err != nil || !p.Paused || p.Image.Prefetch.State != overlay.StatePaused || p.Image.Cached > 0 {
		t.Errorf("after a restart: %+v, %v, want it paused", p, err)
	}
	if p := set(PrefetchSpec{Strategy: &full}); !p.Paused || p.Strategy != "full" || !p.Asked {
		t.Errorf("%+v, want it full, and paused as before", p)
	}
	if p := set(PrefetchSpec{Paused: &no}); p.Paused || p.Image.Prefetch.Strategy != "full" {
		t.Errorf("%+v, want it to go on", p)
	}
	eventually(t, func() string {
		if s := status(t, n).Caches[0]; s.Absent > 0 {
			return fmt.Sprintf("not filled: %+v", s.Prefetch)
		}
		return ""
	})
	if p := set(PrefetchSpec{Strategy: &none}); p.Strategy != "idle" || p.Asked {
		t.Errorf("%+v, want what the configuration says", p)
	}
	for what, c := range map[string]struct {
		volume string
		spec   PrefetchSpec
		err    error
	}{
		"no such volume":   {"nope", PrefetchSpec{Paused: &yes}, ErrNotFound},
		"no image":         {"blank", PrefetchSpec{Paused: &yes}, ErrInvalid},
		"no such strategy": {"v", PrefetchSpec{Strategy: &wrong}, ErrInvalid},
	} {
		if _, err := n.SetPrefetch(ctx, c.volume, c.spec); !errors.Is(err, c.err) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if p, err := n.Prefetch(ctx, "blank"); err != nil || p.Image != nil {
		t.Errorf("of a blank volume: %+v, %v", p, err)
	}
	set(PrefetchSpec{Paused: &yes})
	if err := n.UnmapLUN(ctx, cfg.Targets[0].IQN, 7, true); err != nil {
		t.Fatal(err)
	}
	if err := n.DeleteVolume(ctx, "v"); err != nil {
		t.Fatal(err)
	}
	if _, err := n.CreateVolume(ctx, VolumeSpec{Name: "v", Image: "i"}); err != nil {
		t.Fatal(err)
	}
	if p, err := n.Prefetch(ctx, "v"); err != nil || p.Paused {
		t.Errorf("a new volume of the name: %+v, %v", p, err)
	}
	stop(t, n)
}

// TestDiscIsReadAhead reads a disc in a drive from its start to its end.
func TestDiscIsReadAhead(t *testing.T) {
	noLeaks(t)
	cfg := testConfig(t)
	cfg.Cache.Prefetch = "full"
	data := pattern(8<<20, 0)
	putImage(t, cfg, "disc", data)
	n := start(t, cfg)
	n.changes.Lock()
	info, err := n.store.Stat(t.Context(), "disc")
	var m *image
	if err == nil {
		m, err = n.openImage(info)
	}
	n.changes.Unlock()
	if err != nil {
		t.Fatal(err)
	}
	d := n.newMedium(m)
	p := make([]byte, 64<<10)
	for off := 0; off < len(data); off += len(p) {
		done, err := d.TryReadAt(p, int64(off))
		if err == nil && !done {
			err = d.ReadAt(context.Background(), p, int64(off))
		}
		if err != nil || string(p) != string(data[off:off+len(p)]) {
			t.Fatalf("read at %d: other bytes, or %v", off, err)
		}
	}
	if s := m.cache.PrefetchStats(); s.Ahead == 0 || s.Filled > 0 || s.Strategy != "off" {
		t.Errorf("%+v, want it read ahead and not filled", s)
	}
	n.changes.Lock()
	err = n.releaseImage(m)
	n.changes.Unlock()
	if err != nil {
		t.Error(err)
	}
	stop(t, n)
}

// TestDiskQueues finds the queue of a disk, and nothing where there is none.
func TestDiskQueues(t *testing.T) {
	if q := diskQueues([]string{"/proc", "/does/not/exist"}); len(q) != 0 || q.depth() != 0 {
		t.Errorf("%v, depth %d", q, q.depth())
	}
	dir := t.TempDir()
	file := filepath.Join(dir, "inflight")
	for text, want := range map[string]int{"       3        7\n": 3, "0 9": 0, "": 0, "x": 0} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := (diskQueue{file, filepath.Join(dir, "gone")}).depth(); got != want {
			t.Errorf("%q: depth %d, want %d", text, got, want)
		}
	}
}
