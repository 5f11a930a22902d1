package node

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"skylun/meta"
)

// eventually calls f until it returns nothing, or fails with what it returned.
func eventually(t *testing.T, f func() string) {
	t.Helper()
	deadline := time.Now().Add(time.Minute)
	for {
		what := f()
		if what == "" {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal(what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func status(t *testing.T, n *Node) Status {
	t.Helper()
	s, err := n.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func cachedFiles(t *testing.T, cfg Config, pattern string) []string {
	t.Helper()
	all, err := filepath.Glob(filepath.Join(cfg.DataDir, "local", "caches", pattern))
	if err != nil || len(all) == 0 {
		t.Fatalf("no %s among the files of caches (%v)", pattern, err)
	}
	return all
}

// TestCacheLimit reads two images that are larger than the limit, of which
// nothing uses the first one any more.
func TestCacheLimit(t *testing.T) {
	noLeaks(t)
	cfg := testConfig(t)
	cfg.Cache.MaxSize = 16 << 20
	images := [2][]byte{pattern(12<<20, 0), pattern(12<<20, 8)}
	for i, p := range images {
		putImage(t, cfg, fmt.Sprint("i", i), p)
	}
	n := start(t, cfg)
	for i, p := range images {
		if _, err := n.CreateVolume(t.Context(), VolumeSpec{Name: fmt.Sprint("w", i), Image: fmt.Sprint("i", i)}); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(content(t, n, fmt.Sprint("w", i)), p) {
			t.Fatal("not the content of the image")
		}
		if s := status(t, n).Cache; s.Held > s.Limit || s.Limit != 16<<20 || s.Held < 8<<20 {
			t.Errorf("after image %d: %+v", i, s)
		}
	}
	s := status(t, n)
	if s.Cache.Evicted == 0 || s.Caches[0].Absent == 0 || s.Caches[1].Absent != 0 {
		t.Errorf("the one that nobody uses has not left: %+v %+v", s.Cache, s.Caches)
	}
	if held := s.Caches[0].Cached + s.Caches[1].Cached; held != s.Cache.Held {
		t.Errorf("%d bytes are held, the caches have %d", s.Cache.Held, held)
	}
	for i, p := range images {
		if !bytes.Equal(content(t, n, fmt.Sprint("w", i)), p) {
			t.Error("not the content of the image")
		}
	}
	stop(t, n)

	// Without a limit both fit; with one again something leaves at the start.
	cfg.Cache.MaxSize = 0
	n = start(t, cfg)
	for i := range images {
		content(t, n, fmt.Sprint("w", i))
	}
	if s := status(t, n).Cache; s.Held != 24<<20 || s.Limit != 0 {
		t.Errorf("without a limit: %+v", s)
	}
	stop(t, n)
	cfg.Cache.MaxSize = 16 << 20
	n = start(t, cfg)
	eventually(t, func() string {
		if s := status(t, n).Cache; s.Held > s.Limit {
			return fmt.Sprintf("more is held than may be: %+v", s)
		}
		return ""
	})
	stop(t, n)
}

// TestCacheFilesGone: whatever has become of them, the image is read again.
func TestCacheFilesGone(t *testing.T) {
	cfg := testConfig(t)
	image := pattern(3<<20, 0)
	putImage(t, cfg, "i", image)
	disks(&cfg, DiskConfig{Volume: "v", Image: "i"})
	for _, c := range []struct {
		name  string
		spoil func() error
	}{
		{"nothing", func() error { return nil }},
		{"copies", func() error { return os.Remove(cachedFiles(t, cfg, "*[0-9]")[0]) }},
		{"sums", func() error { return os.Remove(cachedFiles(t, cfg, "*.sums")[0]) }},
		{"cut short", func() error { return os.Truncate(cachedFiles(t, cfg, "*[0-9]")[0], 1<<20) }},
		{"no file", func() error {
			f := cachedFiles(t, cfg, "*[0-9]")[0]
			return errors.Join(os.Remove(f), os.Symlink("nowhere", f))
		}},
		{"rotten", func() error {
			f := cachedFiles(t, cfg, "*[0-9]")[0]
			p, err := os.ReadFile(f)
			if err != nil {
				return err
			}
			p[1<<20+5] ^= 1
			return os.WriteFile(f, p, 0o600)
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			n := start(t, cfg)
			content(t, n, "v")
			stop(t, n)
			if err := c.spoil(); err != nil {
				t.Fatal(err)
			}
			n = start(t, cfg)
			if !bytes.Equal(content(t, n, "v"), image) {
				t.Error("not the content of the image")
			}
			s := status(t, n).Caches[0]
			if rotten := c.name == "rotten"; rotten != (s.Damaged > 0) || rotten && s.FetchedBytes != 4096 || c.name == "nothing" && s.Fetches != 0 {
				t.Errorf("%+v", s)
			}
			stop(t, n)
			if len(cachedFiles(t, cfg, "*")) != 2 {
				t.Errorf("files %v, want copies and sums", cachedFiles(t, cfg, "*"))
			}
		})
	}
}

// TestCacheOfEarlierVersion has no sums.
func TestCacheOfEarlierVersion(t *testing.T) {
	cfg := testConfig(t)
	image := pattern(3<<20, 0)
	putImage(t, cfg, "i", image)
	disks(&cfg, DiskConfig{Volume: "v", Image: "i"})
	n := start(t, cfg)
	content(t, n, "v")
	stop(t, n)
	db, err := meta.Open(cfg.DatabasePath(), meta.Options{})
	if err != nil {
		t.Fatal(err)
	}
	all, err := db.Caches()
	if err == nil {
		err = db.ChangeCache(all[0].Map, func(c *meta.Cache) { c.Sums = false })
	}
	if err = errors.Join(err, db.Close(), os.Remove(cachedFiles(t, cfg, "*.sums")[0])); err != nil {
		t.Fatal(err)
	}
	n = start(t, cfg)
	if !bytes.Equal(content(t, n, "v"), image) {
		t.Error("not the content of the image")
	}
	eventually(t, func() string {
		if all, err := n.db.Caches(); err != nil || !all[0].Sums {
			return fmt.Sprintf("no sums: %+v, %v", all, err)
		}
		return ""
	})
	if s := status(t, n).Caches[0]; s.Fetches != 0 || s.Damaged != 0 {
		t.Errorf("the old copies are not used: %+v", s)
	}
	stop(t, n)
}

// TestPin brings an image and works without the store.
func TestPin(t *testing.T) {
	for _, byConfig := range []bool{false, true} {
		t.Run(fmt.Sprint("by configuration ", byConfig), func(t *testing.T) {
			noLeaks(t)
			cfg := testConfig(t)
			cfg.Cache.MaxSize = 32 << 20
			image := pattern(20<<20, 0)
			putImage(t, cfg, "i", image)
			putImage(t, cfg, "other", pattern(30<<20, 0))
			disks(&cfg, DiskConfig{Volume: "v", Image: "i", Pin: byConfig}, DiskConfig{Volume: "o", Image: "other"}, DiskConfig{Volume: "blank", Size: 1 << 20})
			if err := cfg.Validate(); err != nil {
				t.Fatal(err)
			}
			n := start(t, cfg)
			ctx := t.Context()
			if !byConfig {
				if v, err := n.Volume(ctx, "v"); err != nil || v.Pinned {
					t.Errorf("%+v, %v", v, err)
				}
				if v, err := n.PinVolume(ctx, "v", true); err != nil || !v.Pinned {
					t.Errorf("%+v, %v", v, err)
				}
			}
			eventually(t, func() string {
				v, err := n.Volume(ctx, "v")
				if err != nil || v.Image.Local() < 1 || !v.Pinned || v.Image.Cached != 20<<20 {
					return fmt.Sprintf("not local: %+v %+v, %v", v, v.Image, err)
				}
				return ""
			})
			for what, c := range map[string]struct {
				volume string
				pin    bool
				text   string
			}{
				"no image": {"blank", true, "no overlay of an image"},
				"no room":  {"o", true, "cache.max_size is 32MiB, and the images that are then pinned have 50 MiB"},
			} {
				if _, err := n.PinVolume(ctx, c.volume, c.pin); !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), c.text) {
					t.Errorf("%s: %v, want %q", what, err, c.text)
				}
			}
			if _, err := n.PinVolume(ctx, "nope", true); !errors.Is(err, ErrNotFound) {
				t.Errorf("no such volume: %v", err)
			}
			// Another image may have what is left, and no more.
			content(t, n, "o")
			s := status(t, n)
			if s.Cache.Held > 32<<20 || s.Cache.Pinned != 20<<20 {
				t.Errorf("%+v", s.Cache)
			}
			stop(t, n)

			// Without the store: all of it is there.
			away := filepath.Join(cfg.DataDir, "away")
			if err := os.Rename(filepath.Join(cfg.DataDir, "blobs"), away); err != nil {
				t.Fatal(err)
			}
			n = start(t, cfg)
			if !bytes.Equal(content(t, n, "v"), image) {
				t.Error("not the content of the image")
			}
			if err := os.Rename(away, filepath.Join(cfg.DataDir, "blobs")); err != nil {
				t.Fatal(err)
			}
			_, err := n.PinVolume(ctx, "v", false)
			if byConfig {
				if !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), "pin: true") {
					t.Errorf("unpin of what the configuration pins: %v", err)
				}
			} else {
				if err != nil {
					t.Error(err)
				}
				content(t, n, "o")
				eventually(t, func() string { // what was read is stored behind the answer
					s := status(t, n).Cache
					if s.Held > s.Limit {
						t.Errorf("more is held than may be: %+v", s)
					}
					if s.Pinned != 0 || s.Evicted == 0 {
						return fmt.Sprintf("not pinned any more: %+v", s)
					}
					return ""
				})
			}
			stop(t, n)
		})
	}
}

// TestPinnedVolumeGoes: a volume that nothing shows is pinned too, until it is
// removed.
func TestPinnedVolumeGoes(t *testing.T) {
	noLeaks(t)
	cfg := testConfig(t)
	putImage(t, cfg, "i", pattern(4<<20, 0))
	n := start(t, cfg)
	ctx := t.Context()
	for _, name := range []string{"a", "b"} {
		if _, err := n.CreateVolume(ctx, VolumeSpec{Name: name, Image: "i"}); err != nil {
			t.Fatal(err)
		}
		if _, err := n.PinVolume(ctx, name, true); err != nil {
			t.Fatal(err)
		}
	}
	stop(t, n)
	n = start(t, cfg)
	eventually(t, func() string {
		if s := status(t, n); s.Cache.Pinned != 4<<20 || !s.Caches[0].Pinned {
			return fmt.Sprintf("not pinned after a restart: %+v", s)
		}
		return ""
	})
	for i, name := range []string{"a", "b"} {
		if err := n.DeleteVolume(ctx, name); err != nil {
			t.Fatal(err)
		}
		if s := status(t, n); s.Caches[0].Pinned != (i == 0) {
			t.Errorf("without %s: %+v", name, s.Caches)
		}
	}
	if err := n.DeleteImage(ctx, "i"); err != nil {
		t.Error(err)
	}
	stop(t, n)
}
