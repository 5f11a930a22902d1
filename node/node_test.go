package node

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
)

var quiet = slog.New(slog.DiscardHandler)

// testConfig is a valid configuration of one blank disk in a new directory.
func testConfig(t *testing.T) Config {
	t.Helper()
	cfg := DefaultConfig()
	cfg.DataDir = filepath.Join(t.TempDir(), "d")
	cfg.Cache.Prefetch = "off" // tests say themselves what becomes local
	cfg.Portals = []PortalConfig{{Listen: "127.0.0.1:0"}}
	cfg.Targets = []TargetConfig{{IQN: "iqn.2026-11.io.skylun:t", LUNs: []LUNConfig{{LUN: 0, Disk: &DiskConfig{Volume: "v", Size: 1 << 20}}}}}
	if err := cfg.Resolve("/"); err != nil {
		t.Fatal(err)
	}
	if err := cfg.Validate(); err != nil {
		t.Fatal(err)
	}
	return cfg
}

// disks replaces the disks of the only target.
func disks(cfg *Config, disks ...DiskConfig) {
	cfg.Targets[0].LUNs = nil
	for i, d := range disks {
		cfg.Targets[0].LUNs = append(cfg.Targets[0].LUNs, LUNConfig{LUN: i, Disk: &d})
	}
}

// putImage makes a file of the store.
func putImage(t *testing.T, cfg Config, name string, content []byte) {
	t.Helper()
	dir := strings.TrimPrefix(cfg.Blobstore.URL, "file:")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
		t.Fatal(err)
	}
}

// pattern is n bytes without a block of zeros.
func pattern(n int, seed byte) []byte {
	p := make([]byte, n)
	for i := range p {
		p[i] = byte(i)*31 + byte(i>>8)*7 + seed | 1
	}
	return p
}

func start(t *testing.T, cfg Config) *Node {
	t.Helper()
	n, err := Start(t.Context(), cfg, quiet)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { n.Close(context.Background()) }) // again is harmless
	return n
}

func stop(t *testing.T, n *Node) {
	t.Helper()
	if err := n.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// content returns all bytes of a volume.
func content(t *testing.T, n *Node, volume string) []byte {
	t.Helper()
	v, err := n.Volume(t.Context(), volume)
	if err != nil {
		t.Fatal(err)
	}
	all := make([]byte, v.Size)
	end := int64(0)
	err = n.ReadVolume(t.Context(), volume, func(p []byte, off int64) error {
		if off < end {
			t.Errorf("read at %d after %d", off, end)
		}
		end = off + int64(copy(all[off:], p))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// write writes to a volume as a guest would, with a flush.
func write(t *testing.T, n *Node, volume string, p []byte, off int64) {
	t.Helper()
	v, err := n.acquire(t.Context(), volume)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(v.dev.WriteAt(t.Context(), p, off), v.dev.Flush(t.Context()), n.release(v)); err != nil {
		t.Fatal(err)
	}
}

// noLeaks fails the test when goroutines are left at its end.
func noLeaks(t *testing.T) {
	before := runtime.NumGoroutine()
	t.Cleanup(func() {
		for deadline := time.Now().Add(5 * time.Second); runtime.NumGoroutine() > before; runtime.Gosched() {
			if time.Now().After(deadline) {
				stacks := make([]byte, 1<<20)
				t.Errorf("%d goroutines before, %d after:\n%s", before, runtime.NumGoroutine(), stacks[:runtime.Stack(stacks, true)])
				return
			}
		}
	})
}

func TestStartStop(t *testing.T) {
	noLeaks(t)
	cfg := testConfig(t)
	n := start(t, cfg)
	s, err := n.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if len(s.Portals) != 1 || strings.HasSuffix(s.Portals[0], ":0") {
		t.Errorf("portals %v", s.Portals)
	}
	if len(s.Targets) != 1 || len(s.Targets[0].LUNs) != 1 || s.Targets[0].LUNs[0].Volume != "v" || s.Targets[0].LUNs[0].Size != 1<<20 {
		t.Errorf("targets %+v", s.Targets)
	}
	conn, err := net.Dial("tcp", s.Portals[0])
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
	write(t, n, "v", []byte("hello"), 5000)
	stop(t, n)
	select {
	case <-n.Served():
	default:
		t.Error("still serving after Close")
	}
	if conn, err := net.Dial("tcp", s.Portals[0]); err == nil {
		conn.Close()
		t.Error("the portal still answers after Close")
	}

	again := start(t, cfg)
	want := make([]byte, 1<<20)
	copy(want[5000:], "hello")
	if !bytes.Equal(content(t, again, "v"), want) {
		t.Error("another content after a restart")
	}
	after, err := again.Status(t.Context())
	if err != nil || after.Volumes[0].ID != s.Volumes[0].ID {
		t.Errorf("identity %s became %s (%v)", s.Volumes[0].ID, after.Volumes[0].ID, err)
	}
	if after.Volumes[0].Written != 4096 {
		t.Errorf("%d bytes written, want 4096", after.Volumes[0].Written)
	}
	if problems, err := again.Check(t.Context()); err != nil || len(problems) > 0 {
		t.Errorf("check: %q %v", problems, err)
	}
	stop(t, again)
}

// TestOverlays has two volumes over one image: they do not see each other's
// writes, and the image is fetched once.
func TestOverlays(t *testing.T) {
	noLeaks(t)
	cfg := testConfig(t)
	base := append(pattern(1<<20, 0), make([]byte, 1<<20)...)
	putImage(t, cfg, "i", base)
	disks(&cfg, DiskConfig{Volume: "a", Image: "i"}, DiskConfig{Volume: "b", Image: "i", Size: 3 << 20})
	n := start(t, cfg)
	write(t, n, "a", []byte("mine"), 100)
	a := slices.Clone(base)
	copy(a[100:], "mine")
	if !bytes.Equal(content(t, n, "a"), a) {
		t.Error("a is not the image with a's write")
	}
	before := n.store.Stats()
	if !bytes.Equal(content(t, n, "b"), append(slices.Clone(base), make([]byte, 1<<20)...)) {
		t.Error("b is not the image followed by zeros")
	}
	if after := n.store.Stats(); after.Gets != before.Gets {
		t.Errorf("b fetched %d times what a had read", after.Gets-before.Gets)
	}
	var s Status
	soon(t, "local", func() bool { // a copy is kept after the read was answered
		s = status(t, n)
		return len(s.Caches) == 1 && s.Caches[0].Local() == 1
	})
	if c := s.Caches[0]; !slices.Equal(c.Volumes, []string{"a", "b"}) {
		t.Errorf("cache %+v, want it for a and b", c)
	}
	stop(t, n)
	closed, err := Open(t.Context(), cfg, false, quiet)
	if err != nil {
		t.Fatal(err)
	}
	if s2, err := closed.Status(t.Context()); err != nil || s2.Caches[0].Cached != s.Caches[0].Cached || s2.Volumes[0].Written != s.Volumes[0].Written {
		t.Errorf("closed: %+v %v, want the figures of %+v", s2, err, s)
	}
	stop(t, closed)
}

// TestStartRefuses wants one line that says what is wrong, and nothing made.
func TestStartRefuses(t *testing.T) {
	for _, c := range []struct {
		name  string
		setup func(t *testing.T, cfg *Config)
		want  string // %d: the data directory
		key   string // of the configuration, or "" when it is not at fault
	}{
		{"store missing", func(t *testing.T, cfg *Config) {
			disks(cfg, DiskConfig{Volume: "w", Image: "none"})
		}, "volume w: image none: the directory of images %d/blobs is not there: mount it", ""},
		{"image missing", func(t *testing.T, cfg *Config) {
			putImage(t, *cfg, "other", pattern(4096, 0))
			disks(cfg, DiskConfig{Volume: "new", Size: 1 << 20}, DiskConfig{Volume: "w", Image: "none"})
		}, "image none is not in the store file:%d/blobs; import it with: skylun image import FILE none", "targets[0].luns[1].disk.image"},
		{"image larger than the volume", func(t *testing.T, cfg *Config) {
			putImage(t, *cfg, "i", pattern(1<<20, 0))
			disks(cfg, DiskConfig{Volume: "w", Image: "i", Size: 512 << 10})
		}, "512KiB is less than image i, which has 1MiB", "targets[0].luns[0].disk.size"},
		{"truncated VHD", func(t *testing.T, cfg *Config) {
			putImage(t, *cfg, "i.vhd", pattern(1<<20, 0))
			disks(cfg, DiskConfig{Volume: "w", Image: "i.vhd"})
		}, "i.vhd", "targets[0].luns[0].disk.image"},
		{"bad image name", func(t *testing.T, cfg *Config) {
			disks(cfg, DiskConfig{Volume: "w", Image: "../etc/passwd"})
		}, "../etc/passwd", "targets[0].luns[0].disk.image"},
		{"port in use", func(t *testing.T, cfg *Config) {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { l.Close() })
			cfg.Portals = portals(l.Addr().String())
		}, "in use", ""},
		{"member is not to be had", func(t *testing.T, cfg *Config) {
			if err := os.WriteFile(cfg.DataDir+"-file", nil, 0o600); err != nil {
				t.Fatal(err)
			}
			cfg.Local.Members = []MemberConfig{{Path: cfg.DataDir + "-file/sub"}}
		}, "local.members: ", ""},
		{"data directory is a file", func(t *testing.T, cfg *Config) {
			if err := os.WriteFile(cfg.DataDir, nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}, "data directory %d: ", ""},
		{"not a database", func(t *testing.T, cfg *Config) {
			if err := errors.Join(os.MkdirAll(cfg.DataDir, 0o700), os.WriteFile(cfg.DatabasePath(), pattern(40000, 0), 0o600)); err != nil {
				t.Fatal(err)
			}
		}, "data directory %d: ", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			noLeaks(t)
			cfg := testConfig(t)
			c.setup(t, &cfg)
			n, err := Start(t.Context(), cfg, quiet)
			if err == nil {
				stop(t, n)
				t.Fatal("started")
			}
			got := err.Error()
			if strings.Contains(got, "\n") || !strings.Contains(got, strings.ReplaceAll(c.want, "%d", cfg.DataDir)) {
				t.Errorf("%q, want one line with %q", got, c.want)
			}
			var ps Problems
			if errors.As(err, &ps) != (c.key != "") || c.key != "" && (len(ps) != 1 || ps[0].Key != c.key) {
				t.Errorf("%#v, want the key %q", err, c.key)
			}
			wantEmpty(t, cfg)
		})
	}
}

// wantEmpty wants nothing made but what an empty node has.
func wantEmpty(t *testing.T, cfg Config) {
	t.Helper()
	for _, dir := range []string{"layers", "caches"} {
		if files, _ := os.ReadDir(filepath.Join(cfg.DataDir, "local", dir)); len(files) > 0 {
			t.Errorf("left in %s: %v", dir, files)
		}
	}
	n, err := Open(t.Context(), cfg, false, quiet)
	if err != nil {
		return // no database, or none that can be opened
	}
	defer stop(t, n)
	if v, err := n.Volumes(t.Context()); err != nil || len(v) > 0 {
		t.Errorf("left: %v %v", v, err)
	}
}

// TestStoredDiffers changes the configuration of volumes that exist.
func TestStoredDiffers(t *testing.T) {
	cfg := testConfig(t)
	putImage(t, cfg, "i", pattern(1<<20, 0))
	putImage(t, cfg, "j", pattern(1<<20, 1))
	disks(&cfg, DiskConfig{Volume: "blank", Size: 1 << 20}, DiskConfig{Volume: "over", Image: "i"})
	stop(t, start(t, cfg))
	for _, c := range []struct {
		name string
		disk DiskConfig
		key  string
		want string
	}{
		{"larger", DiskConfig{Volume: "blank", Size: 2 << 20}, "", ""},
		{"smaller", DiskConfig{Volume: "over", Image: "i", Size: 512 << 10}, "", ""},
		{"over an image now", DiskConfig{Volume: "blank", Image: "i", Size: 1 << 20}, "image", "volume blank exists and is no overlay"},
		{"blank now", DiskConfig{Volume: "over", Size: 1 << 20}, "image", "missing: volume over exists and is an overlay of image i"},
		{"another image", DiskConfig{Volume: "over", Image: "j"}, "image", "volume over exists and is an overlay of image i, not of j"},
		{"the same", DiskConfig{Volume: "over", Image: "i", Size: 1 << 20}, "", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			cfg := cfg
			cfg.Targets = slices.Clone(cfg.Targets)
			disks(&cfg, c.disk)
			n, err := Start(t.Context(), cfg, quiet)
			if err == nil {
				stop(t, n)
			}
			var ps Problems
			switch {
			case c.key == "" && err != nil:
				t.Error(err)
			case c.key == "":
			case !errors.As(err, &ps) || len(ps) != 1 || ps[0].Key != "targets[0].luns[0].disk."+c.key || !strings.HasPrefix(ps[0].Text, c.want):
				t.Errorf("%v, want %s: %s", err, c.key, c.want)
			}
		})
	}
	// What is no longer declared is still there.
	cfg.Targets = nil
	n := start(t, cfg)
	if v, err := n.Volumes(t.Context()); err != nil || len(v) != 2 {
		t.Errorf("%v %v, want both volumes", v, err)
	}
	stop(t, n)
}

func TestSecondProcess(t *testing.T) {
	cfg := testConfig(t)
	n := start(t, cfg)
	_, err := Start(t.Context(), cfg, quiet)
	if err == nil || !strings.Contains(err.Error(), cfg.DataDir+" is in use by another skylun process") {
		t.Errorf("second start: %v", err)
	}
	stop(t, n)
}

// portals returns portals in their short form.
func portals(listen ...string) (all []PortalConfig) {
	for _, l := range listen {
		all = append(all, PortalConfig{Listen: l})
	}
	return all
}
