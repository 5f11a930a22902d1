package node

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"skylun/meta"
	"skylun/raid"
)

// rebalanced starts a rebalancing and waits for its end.
func rebalanced(t *testing.T, n *Node) RebalanceStatus {
	t.Helper()
	s, err := n.Rebalance(t.Context())
	for err == nil && s.Rebalance.Running {
		select {
		case <-time.After(time.Millisecond):
		case <-t.Context().Done():
			t.Fatal("no end")
		}
		s, err = n.Local(t.Context())
	}
	if err != nil {
		t.Fatal(err)
	}
	return s.Rebalance
}

// TestMembers lives through the life of an array: one directory, a device added,
// everything moved, a member missing, and back.
func TestMembers(t *testing.T) {
	noLeaks(t)
	cfg := testConfig(t)
	disks(&cfg, DiskConfig{Volume: "v", Size: 8 << 20}, DiskConfig{Volume: "w", Size: 1 << 20})
	a := MemberConfig{Path: filepath.Join(t.TempDir(), "a")}
	cfg.Local.Members = []MemberConfig{a}
	n := start(t, cfg)
	want := pattern(8<<20, 3)
	write(t, n, "v", want, 0)
	stop(t, n)

	b := MemberConfig{Path: filepath.Join(t.TempDir(), "b"), Allocate: raid.Chunks, Weight: 1}
	if err := os.WriteFile(b.Path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(b.Path, 32<<20); err != nil {
		t.Fatal(err)
	}
	cfg.Local.Members, cfg.Local.StripeSize = []MemberConfig{b, a}, 64<<10
	n = start(t, cfg)
	if !bytes.Equal(content(t, n, "v"), want) {
		t.Error("other content with a second member")
	}
	if r := rebalanced(t, n); r.Error != "" || r.Done != r.Total || r.Total < 8<<20 {
		t.Errorf("rebalance: %+v", r)
	}
	if !bytes.Equal(content(t, n, "v"), want) {
		t.Error("other content after everything was moved")
	}
	copy(want[1<<20:], pattern(3<<20, 9))
	write(t, n, "v", want[1<<20:4<<20], 1<<20)
	s, err := n.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if len(s.Local.Members) != 2 || s.Local.Members[0].Name != a.Path || s.Local.Members[1].Kind != raid.Chunks || s.Local.Members[1].Free > 29<<20 || s.Local.Members[1].Errors > 0 {
		t.Errorf("members: %+v", s.Local.Members)
	}
	if problems, err := n.Check(t.Context()); err != nil || len(problems) > 0 {
		t.Errorf("check: %v %v", problems, err)
	}
	stop(t, n)

	away := b.Path + ".away"
	if err := os.Rename(b.Path, away); err != nil {
		t.Fatal(err)
	}
	if _, err := Start(t.Context(), cfg, quiet); err == nil || !strings.Contains(err.Error(), b.Path) || !strings.Contains(err.Error(), "volume v, volume w") {
		t.Errorf("start without a member: %v", err)
	}
	if err := os.Rename(away, b.Path); err != nil {
		t.Fatal(err)
	}
	n = start(t, cfg)
	if !bytes.Equal(content(t, n, "v"), want) {
		t.Error("other content when the member is back")
	}
	stop(t, n)
}

// TestLostCache loses a member that only had copies.
func TestLostCache(t *testing.T) {
	noLeaks(t)
	cfg := testConfig(t)
	a, b := MemberConfig{Path: filepath.Join(t.TempDir(), "a")}, MemberConfig{Path: filepath.Join(t.TempDir(), "b")}
	cfg.Local.Members = []MemberConfig{a}
	image := pattern(2<<20, 1)
	putImage(t, cfg, "i", image)
	disks(&cfg, DiskConfig{Volume: "v", Image: "i"})
	n := start(t, cfg)
	mine := pattern(64<<10, 8)
	write(t, n, "v", mine, 1<<20)
	copy(image[1<<20:], mine)
	stop(t, n)
	if err := os.RemoveAll(filepath.Join(a.Path, "caches")); err != nil {
		t.Fatal(err)
	}
	cfg.Local.Members = []MemberConfig{a, b}
	n = start(t, cfg)
	if !bytes.Equal(content(t, n, "v"), image) {
		t.Error("other content with a new cache")
	}
	stop(t, n)
	if files, _ := os.ReadDir(filepath.Join(b.Path, "caches")); len(files) == 0 {
		t.Error("the cache has no part on the new member")
	}
	if err := os.RemoveAll(b.Path); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		n = start(t, cfg)
		if !bytes.Equal(content(t, n, "v"), image) {
			t.Error("other content without the cache")
		}
		stop(t, n)
	}
}

// TestRebalanceStops ends with the node.
func TestRebalanceStops(t *testing.T) {
	noLeaks(t)
	cfg := testConfig(t)
	a, b := MemberConfig{Path: filepath.Join(t.TempDir(), "a")}, MemberConfig{Path: filepath.Join(t.TempDir(), "b")}
	cfg.Local.Members = []MemberConfig{a}
	disks(&cfg, DiskConfig{Volume: "v", Size: 64 << 20})
	n := start(t, cfg)
	want := pattern(4<<20, 5)
	write(t, n, "v", want, 60<<20)
	stop(t, n)
	cfg.Local.Members = []MemberConfig{a, b}
	for range 3 {
		n = start(t, cfg)
		if _, err := n.Rebalance(t.Context()); err != nil {
			t.Fatal(err)
		}
		stop(t, n)
		if s, err := n.Rebalance(context.Background()); err != nil || s.Rebalance.Running {
			t.Errorf("rebalance of a node that has stopped: %+v %v", s.Rebalance, err)
		}
	}
	n = start(t, cfg)
	if r := rebalanced(t, n); r.Error != "" {
		t.Error(r.Error)
	}
	if !bytes.Equal(content(t, n, "v")[60<<20:], want) {
		t.Error("other content")
	}
	stop(t, n)
}

// TestOrphans: what a process had made and not recorded yet when it was killed is
// gone after the next start, and nothing else.
func TestOrphans(t *testing.T) {
	noLeaks(t)
	cfg := testConfig(t)
	dir, device := MemberConfig{Path: filepath.Join(t.TempDir(), "dir")}, MemberConfig{Path: filepath.Join(t.TempDir(), "device"), Weight: 1}
	if err := os.WriteFile(device.Path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(device.Path, 64<<20); err != nil {
		t.Fatal(err)
	}
	cfg.Local.Members, cfg.Local.StripeSize = []MemberConfig{dir, device}, 64<<10
	image := pattern(2<<20, 1)
	putImage(t, cfg, "i", image)
	disks(&cfg, DiskConfig{Volume: "v", Image: "i"})
	n := start(t, cfg)
	mine := pattern(64<<10, 8)
	write(t, n, "v", mine, 1<<20)
	copy(image[1<<20:], mine)
	if _, err := n.CreateSnapshot(t.Context(), SnapshotSpec{Name: "s", Volumes: []string{"v"}}); err != nil {
		t.Fatal(err)
	}
	files, err := n.array.Names()
	if err != nil {
		t.Fatal(err)
	}
	free := n.array.Members()[1].Free

	ids, err := n.db.NewMaps(2)
	if err != nil {
		t.Fatal(err)
	}
	devs, err := n.createLayers([]meta.Layer{{ID: ids[0], Size: 8 << 20}})
	if err != nil {
		t.Fatal(err)
	}
	cache, err := n.createCacheFiles(meta.Cache{Map: ids[1], Size: 8 << 20})
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(devs[0].Close(), cache.close()); err != nil {
		t.Fatal(err)
	}
	if taken := free - n.array.Members()[1].Free; taken < 4<<20 {
		t.Fatalf("the orphans have %d bytes of the device", taken)
	}
	stop(t, n)
	foreign := filepath.Join(dir.Path, "layers", "mine") // no file of the array
	if err := os.WriteFile(foreign, mine, 0o600); err != nil {
		t.Fatal(err)
	}

	n = start(t, cfg)
	if got, err := n.array.Names(); err != nil || !slices.Equal(got, files) {
		t.Errorf("files %v (%v), want %v", got, err, files)
	}
	if now := n.array.Members()[1].Free; now != free {
		t.Errorf("%d bytes of the device are free, %d were before", now, free)
	}
	if _, err := os.Stat(foreign); err != nil {
		t.Error(err)
	}
	if !bytes.Equal(content(t, n, "v"), image) {
		t.Error("other content")
	}
	if problems, err := n.Check(t.Context()); err != nil || len(problems) > 0 {
		t.Errorf("check: %v %v", problems, err)
	}
	stop(t, n)
}

// TestMemberRemoved empties a member while its volume is written to, and goes on
// without it.
func TestMemberRemoved(t *testing.T) {
	noLeaks(t)
	cfg := testConfig(t)
	disks(&cfg, DiskConfig{Volume: "v", Size: 32 << 20})
	a, b := MemberConfig{Path: filepath.Join(t.TempDir(), "a")}, MemberConfig{Path: filepath.Join(t.TempDir(), "b")}
	cfg.Local.Members, cfg.Local.StripeSize = []MemberConfig{a, b}, 64<<10
	n := start(t, cfg)
	want := pattern(32<<20, 3)
	write(t, n, "v", want, 0)
	for _, c := range []struct {
		spec LeaveSpec
		kind error
		says string
	}{
		{LeaveSpec{Member: "/none"}, ErrNotFound, a.Path + ", " + b.Path},
		{LeaveSpec{Member: a.Path}, nil, ""},
		{LeaveSpec{Member: b.Path}, ErrInvalid, b.Path},
		{LeaveSpec{Member: a.Path, Stay: true}, nil, ""},
		{LeaveSpec{Member: b.Path}, nil, ""},
	} {
		if _, err := n.LeaveMember(t.Context(), c.spec); !errors.Is(err, c.kind) || err != nil && !strings.Contains(err.Error(), c.says) {
			t.Errorf("%+v: %v, want %v that says %q", c.spec, err, c.kind, c.says)
		}
	}
	s, err := n.Rebalance(t.Context())
	for round := 0; err == nil && s.Rebalance.Running; round++ {
		off := round % 32 << 20
		copy(want[off:], pattern(1<<20, byte(round)))
		write(t, n, "v", want[off:off+1<<20], int64(off))
		s, err = n.Local(t.Context())
	}
	if m := s.Members[1]; err != nil || s.Rebalance.Error != "" || !m.Leaving || m.Files != 0 {
		t.Fatalf("emptied: %+v %v", s, err)
	}
	stop(t, n)
	if err := os.RemoveAll(b.Path); err != nil {
		t.Fatal(err)
	}
	cfg.Local.Members = []MemberConfig{a}
	n = start(t, cfg)
	if !bytes.Equal(content(t, n, "v"), want) {
		t.Error("other content without it")
	}
	if s, err := n.Local(t.Context()); err != nil || len(s.Members) != 1 {
		t.Errorf("members: %+v %v", s.Members, err)
	}
	stop(t, n)
}
