package node

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"skylun/meta"
)

func mustTree(t *testing.T, n *Node) *meta.Tree {
	t.Helper()
	tree, err := n.db.Tree()
	if err != nil {
		t.Fatal(err)
	}
	return tree
}

// soon waits until f says that what it is asked for is so.
func soon(t *testing.T, what string, f func() bool) {
	t.Helper()
	eventually(t, func() string {
		if f() {
			return ""
		}
		return "not " + what
	})
}

// cleaned waits until the cleaner has nothing left to do.
func cleaned(t *testing.T, n *Node) {
	t.Helper()
	var s Status
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("cleaning when last seen: %+v", s.Cleaning)
		}
	})
	soon(t, "cleaned up", func() bool {
		var err error
		if s, err = n.Status(t.Context()); err != nil {
			t.Fatal(err)
		}
		return s.Cleaning.Layers == 0 && s.Cleaning.Job == nil && len(n.clean.wakes) == 0
	})
}

func sound(t *testing.T, n *Node) {
	t.Helper()
	if problems, err := n.Check(t.Context()); err != nil || len(problems) > 0 {
		t.Errorf("check: %q %v", problems, err)
	}
}

func snapshot(t *testing.T, n *Node, name string, volumes ...string) SnapshotStatus {
	t.Helper()
	s, err := n.CreateSnapshot(t.Context(), SnapshotSpec{Name: name, Volumes: volumes})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// snapshotContent returns all bytes that a snapshot holds.
func snapshotContent(t *testing.T, n *Node, ref string) []byte {
	t.Helper()
	_, v, err := n.volumeOf(ref)
	if err != nil {
		t.Fatal(err)
	}
	all := make([]byte, v.Size)
	err = n.ReadSnapshot(t.Context(), ref, func(p []byte, off int64) error {
		copy(all[off:], p)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// allocated returns the bytes that all layers take on the disk.
func allocated(t *testing.T, cfg Config) (n int64) {
	t.Helper()
	all, err := filepath.Glob(filepath.Join(cfg.DataDir, "local", "layers", "*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range all {
		if bytes, err := blocksOf(path); err == nil { // else it has just been removed
			n += bytes
		} else if !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
	}
	return n
}

// TestSnapshotGroup takes a snapshot of three volumes: one that a target shows,
// one over an image, one that nobody uses.
func TestSnapshotGroup(t *testing.T) {
	noLeaks(t)
	cfg := testConfig(t)
	image := pattern(1<<20, 0)
	putImage(t, cfg, "i", image)
	disks(&cfg, DiskConfig{Volume: "a", Size: 1 << 20}, DiskConfig{Volume: "over", Image: "i"})
	n := start(t, cfg)
	ctx := t.Context()
	mustCreate(t, n, "idle")
	names := []string{"a", "over", "idle"}
	before := map[string][]byte{}
	for i, name := range names {
		write(t, n, name, pattern(64<<10, byte(i)), int64(i)*32<<10)
		before[name] = content(t, n, name)
	}
	s := snapshot(t, n, "s1", names...)
	if s.Name != "s1" || len(s.Volumes) != 3 || s.Own != 3*64<<10 || s.Volumes[1].Image != "i" || s.Volumes[2].Own != 64<<10 || s.HeldSeconds <= 0 || s.HeldSeconds > 10 {
		t.Errorf("%+v", s)
	}
	after := map[string][]byte{}
	for i, name := range names {
		write(t, n, name, pattern(8<<10, 100+byte(i)), 36<<10)
		after[name] = content(t, n, name)
	}
	look := func() {
		t.Helper()
		for _, name := range names {
			if !bytes.Equal(snapshotContent(t, n, "s1/"+name), before[name]) {
				t.Errorf("%s is not in the snapshot as it was", name)
			}
			if !bytes.Equal(content(t, n, name), after[name]) {
				t.Errorf("%s is not what was written", name)
			}
		}
		sound(t, n)
	}
	look()
	for _, c := range []struct {
		what string
		err  error
		kind error
		text string
	}{
		{"taken", second(n.CreateSnapshot(ctx, SnapshotSpec{"s1", names})), ErrExists, "snapshot s1 already exists"},
		{"bad name", second(n.CreateSnapshot(ctx, SnapshotSpec{"a/b", names})), ErrInvalid, `"a/b" is not a snapshot name`},
		{"no name", second(n.CreateSnapshot(ctx, SnapshotSpec{"", names})), ErrInvalid, "give the snapshot a name"},
		{"of nothing", second(n.CreateSnapshot(ctx, SnapshotSpec{"s2", nil})), ErrInvalid, "name the volumes"},
		{"twice", second(n.CreateSnapshot(ctx, SnapshotSpec{"s2", []string{"a", "idle", "a"}})), ErrInvalid, "volume a is named twice"},
		{"no volume", second(n.CreateSnapshot(ctx, SnapshotSpec{"s2", []string{"a", "b"}})), ErrNotFound, "volume b: no such volume"},
		{"show", second(n.Snapshot(ctx, "s2")), ErrNotFound, "snapshot s2: no such snapshot"},
		{"rm", n.DeleteSnapshot(ctx, "s2"), ErrNotFound, "snapshot s2: no such snapshot"},
		{"rollback", second(n.RollbackSnapshot(ctx, "s2", RollbackSpec{})), ErrNotFound, "snapshot s2: no such snapshot"},
		{"rollback of another", second(n.RollbackSnapshot(ctx, "s1", RollbackSpec{Volumes: []string{"b"}})), ErrNotFound, "snapshot s1 is not of volume b; it is of: a, over, idle"},
		{"rollback twice", second(n.RollbackSnapshot(ctx, "s1", RollbackSpec{Volumes: []string{"a", "a"}})), ErrInvalid, "volume a is named twice"},
		{"export of which", n.ReadSnapshot(ctx, "s1", nil), ErrInvalid, "snapshot s1 is of several volumes; name one of them, such as s1/a"},
		{"export of another", n.ReadSnapshot(ctx, "s1/b", nil), ErrNotFound, "snapshot s1 is not of volume b"},
		{"clone of nothing", second(n.CreateVolume(ctx, VolumeSpec{Name: "c", Snapshot: "s2"})), ErrNotFound, "snapshot s2"},
		{"clone of which", second(n.CreateVolume(ctx, VolumeSpec{Name: "c", Snapshot: "s1"})), ErrInvalid, "several volumes"},
		{"clone with a size", second(n.CreateVolume(ctx, VolumeSpec{Name: "c", Snapshot: "s1/a", Size: 4 << 20})), ErrInvalid, "leave those out"},
		{"clone over a volume", second(n.CreateVolume(ctx, VolumeSpec{Name: "a", Snapshot: "s1/a"})), ErrExists, "volume a already exists"},
	} {
		if !errors.Is(c.err, c.kind) || !strings.Contains(c.err.Error(), c.text) {
			t.Errorf("%s: %v, want %v: %q", c.what, c.err, c.kind, c.text)
		}
	}
	stop(t, n)
	n = start(t, cfg)
	look()
	if list, err := n.Snapshots(ctx); err != nil || len(list) != 1 || list[0].ID != s.ID || list[0].HeldSeconds != s.HeldSeconds || !slices.Equal(list[0].Volumes, s.Volumes) {
		t.Errorf("after a restart: %+v %v, want %+v", list, err, s)
	}
	if v, err := n.Volume(ctx, "over"); err != nil || v.Written != 64<<10 {
		t.Errorf("%+v %v, want 64KiB written, in both layers", v, err)
	}

	// The volume can go, and come back from its snapshot.
	if err := n.DeleteVolume(ctx, "idle"); err != nil {
		t.Fatal(err)
	}
	sound(t, n)
	_, err := n.RollbackSnapshot(ctx, "s1", RollbackSpec{Volumes: []string{"idle"}})
	wantKind(t, err, ErrNotFound, "was removed", "skylun clone s1/idle NEWVOLUME")
	mustCreate(t, n, "idle") // another one
	_, err = n.RollbackSnapshot(ctx, "s1", RollbackSpec{})
	wantKind(t, err, ErrNotFound, "volume idle, which snapshot s1 is of, was removed")
	if got, err := n.Snapshot(ctx, "s1"); err != nil || !got.Volumes[2].Removed || got.Volumes[0].Removed {
		t.Errorf("%+v %v", got, err)
	}
	c, err := n.CreateVolume(ctx, VolumeSpec{Name: "again", Snapshot: "s1/idle"})
	if err != nil || c.Size != 1<<20 {
		t.Fatalf("%+v %v", c, err)
	}
	if !bytes.Equal(content(t, n, "again"), before["idle"]) {
		t.Error("the clone is not what the snapshot holds")
	}
	sound(t, n)
	stop(t, n)
}

// TestSnapshotImage keeps an image as long as a snapshot is made of it.
func TestSnapshotImage(t *testing.T) {
	cfg := testConfig(t)
	image := pattern(1<<20, 0)
	putImage(t, cfg, "i", image)
	n := start(t, cfg)
	ctx := t.Context()
	if _, err := n.CreateVolume(ctx, VolumeSpec{Name: "w", Image: "i"}); err != nil {
		t.Fatal(err)
	}
	want := content(t, n, "w") // all of it is local now
	snapshot(t, n, "s", "w")
	if err := n.DeleteVolume(ctx, "w"); err != nil {
		t.Fatal(err)
	}
	wantKind(t, n.DeleteImage(ctx, "i"), ErrInUse, "snapshot s is of volume w, an overlay of it", "skylun snapshot rm s")
	putImage(t, cfg, "i", pattern(1<<20, 2)) // other content: the copies of the old one stay
	if _, err := n.CreateVolume(ctx, VolumeSpec{Name: "new", Image: "i"}); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(content(t, n, "new"), pattern(1<<20, 2)) {
		t.Error("the new volume is not what the image is now")
	}
	if !bytes.Equal(snapshotContent(t, n, "s"), want) {
		t.Error("the snapshot is not what the volume was")
	}
	if s, err := n.Status(ctx); err != nil || len(s.Caches) != 2 || !slices.Equal(s.Caches[0].Snapshots, []string{"s/w"}) || len(s.Caches[0].Volumes) != 0 || len(s.Caches[1].Snapshots) != 0 {
		t.Errorf("caches: %+v %v", s.Caches, err)
	}
	if err := n.DeleteVolume(ctx, "new"); err != nil {
		t.Fatal(err)
	}
	if err := n.DeleteSnapshot(ctx, "s"); err != nil {
		t.Fatal(err)
	}
	if err := n.DeleteImage(ctx, "i"); err != nil {
		t.Error(err)
	}
	sound(t, n)
	stop(t, n)
}

// TestRollback gives a disk its content and size of earlier, and tells the
// initiators.
func TestRollback(t *testing.T) {
	noLeaks(t)
	cfg := testConfig(t)
	n := start(t, cfg)
	ctx := t.Context()
	write(t, n, "v", pattern(256<<10, 1), 0)
	small := content(t, n, "v")
	snapshot(t, n, "small", "v")
	if _, err := n.ResizeVolume(ctx, "v", ResizeSpec{Size: 2 << 20}); err != nil {
		t.Fatal(err)
	}
	write(t, n, "v", pattern(1536<<10, 2), 128<<10)
	large := content(t, n, "v")
	snapshot(t, n, "large", "v")
	write(t, n, "v", pattern(64<<10, 3), 0)

	c := attach(t, n)
	ready(t, c, 0)
	_, err := n.RollbackSnapshot(ctx, "small", RollbackSpec{})
	wantKind(t, err, ErrInUse, "iqn.2026-11.com.example:client", "--force")
	check := func(snapshot string, want []byte, attentions ...uint32) {
		t.Helper()
		list, err := n.RollbackSnapshot(ctx, snapshot, RollbackSpec{Volumes: []string{"v"}, Force: true})
		if err != nil || len(list) != 1 || list[0].Size != int64(len(want)) {
			t.Fatalf("%+v %v", list, err)
		}
		for _, a := range attentions {
			if got := ready(t, c, 0); got != a {
				t.Errorf("rolled back to %s: sense %06x, want %06x", snapshot, got, a)
			}
		}
		if got := ready(t, c, 0); got != 0 {
			t.Errorf("rolled back to %s: sense %06x, want none", snapshot, got)
		}
		if !bytes.Equal(content(t, n, "v"), want) {
			t.Errorf("rolled back to %s: another content", snapshot)
		}
		sound(t, n)
	}
	check("large", large, 0x062800)
	check("small", small, 0x062a09, 0x062800)
	r, err := c.Do(0, []byte{0x28, 0, 0, 0, 0, 0, 0, 0, 8, 0}, 4096, nil)
	if err != nil || r.Status != 0 || !bytes.Equal(r.Data, small[:4096]) {
		t.Errorf("READ: %+v %v", r, err)
	}
	if r, err = c.Do(0, []byte{0x28, 0, 0, 0, 0x10, 0, 0, 0, 1, 0}, 512, nil); err != nil || r.Key() != 0x052100 {
		t.Errorf("READ beyond the end: %+v %v", r, err)
	}
	check("large", large, 0x062a09, 0x062800)
	c.Close()
	write(t, n, "v", pattern(64<<10, 4), 1<<20)
	cleaned(t, n)
	if _, between := mustTree(t, n).Unneeded(); len(between) > 0 || len(mustTree(t, n).Layers) != 3 {
		t.Errorf("layers %+v, want those of two snapshots and the top", mustTree(t, n).Layers)
	}

	// The same without anybody who uses the volume, and without a node.
	stop(t, n)
	closed, err := Open(ctx, cfg, false, quiet)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := closed.RollbackSnapshot(ctx, "small", RollbackSpec{}); err != nil {
		t.Error(err)
	}
	if !bytes.Equal(content(t, closed, "v"), small) {
		t.Error("rolled back without a node: another content")
	}
	sound(t, closed)
	stop(t, closed)
	n = start(t, cfg)
	if !bytes.Equal(content(t, n, "v"), small) {
		t.Error("another content after a restart")
	}
	sound(t, n)
	stop(t, n)
}

// TestClone writes to two copies of a snapshot and to the volume.
func TestClone(t *testing.T) {
	noLeaks(t)
	cfg := testConfig(t)
	n := start(t, cfg)
	ctx := t.Context()
	write(t, n, "v", pattern(256<<10, 1), 0)
	want := map[string][]byte{"v": content(t, n, "v")}
	snapshot(t, n, "s", "v")
	for _, name := range []string{"c", "d"} {
		v, err := n.CreateVolume(ctx, VolumeSpec{Name: name, Snapshot: "s"})
		if err != nil || v.Size != 1<<20 || v.Written != 256<<10 {
			t.Fatalf("%+v %v", v, err)
		}
		want[name] = bytes.Clone(want["v"])
	}
	for i, name := range []string{"v", "c", "d"} {
		p := pattern(16<<10, 10*byte(i))
		write(t, n, name, p, int64(i)*8<<10)
		copy(want[name][i*8<<10:], p)
	}
	if _, err := n.MapLUN(ctx, mappingTarget, 7, "c"); err != nil {
		t.Fatal(err)
	}
	look := func() {
		t.Helper()
		for name, p := range want {
			if !bytes.Equal(content(t, n, name), p) {
				t.Errorf("%s is not what was written", name)
			}
		}
		sound(t, n)
	}
	look()
	if err := n.DeleteSnapshot(ctx, "s"); err != nil { // three lie on its layer
		t.Fatal(err)
	}
	look()
	stop(t, n)
	n = start(t, cfg)
	look()
	if _, err := n.ResizeVolume(ctx, "c", ResizeSpec{Size: 2 << 20}); err != nil {
		t.Fatal(err)
	}
	want["c"] = append(want["c"], make([]byte, 1<<20)...)
	snapshot(t, n, "group", "c", "d")
	for _, name := range []string{"d"} {
		if err := n.DeleteVolume(ctx, name); err != nil {
			t.Fatal(err)
		}
		delete(want, name)
	}
	look()
	stop(t, n)
}

// TestSnapshotRemoved gives space back: a snapshot in the middle, the last one,
// the first one, all while the volume is read.
func TestSnapshotRemoved(t *testing.T) {
	noLeaks(t)
	cfg := testConfig(t)
	disks(&cfg, DiskConfig{Volume: "v", Size: 64 << 20})
	n := start(t, cfg)
	ctx := t.Context()
	const mib = 1 << 20
	want := make([]byte, 64*mib)
	held := map[string][]byte{}
	put := func(seed byte, off, length int) {
		t.Helper()
		p := pattern(length, seed)
		write(t, n, "v", p, int64(off))
		copy(want[off:], p)
	}
	take := func(name string) {
		t.Helper()
		snapshot(t, n, name, "v")
		held[name] = bytes.Clone(want)
	}
	look := func(layers int, most int64) {
		t.Helper()
		cleaned(t, n)
		if !bytes.Equal(content(t, n, "v"), want) {
			t.Error("the volume is not what was written")
		}
		for name, p := range held {
			if !bytes.Equal(snapshotContent(t, n, name), p) {
				t.Errorf("snapshot %s is not what it was", name)
			}
		}
		sound(t, n)
		if got := len(mustTree(t, n).Layers); got != layers {
			t.Errorf("%d layers, want %d", got, layers)
		}
		if got := allocated(t, cfg); got > most*mib+mib {
			t.Errorf("layers take %d bytes, want %d MiB", got, most)
		}
	}
	put(1, 0, 16*mib)
	take("one")
	put(2, 8*mib, 16*mib)
	take("two")
	put(3, 0, 16*mib)
	take("three")
	put(4, 4*mib, 4*mib)
	look(4, 16+16+16+4)

	// What two hid of one stays, what three hides of two goes.
	remove := func(name string) {
		t.Helper()
		if err := n.DeleteSnapshot(ctx, name); err != nil {
			t.Fatal(err)
		}
		delete(held, name)
	}
	remove("two")
	look(3, 16+24+4)
	remove("three") // the volume writes above it: what it hides of it goes
	soon(t, "given back", func() bool { return allocated(t, cfg) <= (16+20+4)*mib+mib })
	look(3, 16+20+4)
	remove("one")
	look(2, 24+4)
	put(5, 0, 24*mib)
	stop(t, n)
	n = start(t, cfg)
	soon(t, "given back", func() bool { return allocated(t, cfg) <= 24*mib+mib })
	look(2, 24)

	// Nobody needs the layer below: the next snapshot has it merged.
	take("four")
	look(2, 24)
	if err := n.DeleteSnapshot(ctx, "four"); err != nil {
		t.Fatal(err)
	}
	stop(t, n)
	closed, err := Open(ctx, cfg, false, quiet)
	if err != nil {
		t.Fatal(err)
	}
	sound(t, closed)
	stop(t, closed)
}

// TestSnapshotRead removes a snapshot that is being read.
func TestSnapshotRead(t *testing.T) {
	noLeaks(t)
	cfg := testConfig(t)
	n := start(t, cfg)
	ctx := t.Context()
	write(t, n, "v", pattern(1<<20, 1), 0)
	want := content(t, n, "v")
	snapshot(t, n, "s", "v")
	write(t, n, "v", pattern(1<<20, 2), 0)
	if err := n.DeleteSnapshot(ctx, "s"); err != nil {
		t.Fatal(err)
	}
	cleaned(t, n)
	write(t, n, "v", pattern(1<<20, 1), 0)
	snapshot(t, n, "s", "v")
	if _, err := n.RollbackSnapshot(ctx, "s", RollbackSpec{}); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len(want))
	removed := false
	err := n.ReadSnapshot(ctx, "s", func(p []byte, off int64) error {
		if !removed {
			removed = true
			write(t, n, "v", pattern(4096, 9), 0)
			if err := n.DeleteSnapshot(ctx, "s"); err != nil {
				t.Error(err)
			}
			snapshot(t, n, "s", "v") // another one of the name
		}
		copy(got[off:], p)
		return nil
	})
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("read while it was removed: right %v, %v", bytes.Equal(got, want), err)
	}
	cleaned(t, n)
	sound(t, n)
	stop(t, n)
}

// TestCleanerRetries cannot open a layer: that is told, and tried again.
func TestCleanerRetries(t *testing.T) {
	noLeaks(t)
	cfg := testConfig(t)
	n := start(t, cfg)
	ctx := t.Context()
	mustCreate(t, n, "w")
	for i, name := range []string{"a", "b"} {
		write(t, n, "w", pattern(64<<10, byte(i)), int64(i)*32<<10)
		snapshot(t, n, name, "w")
	}
	want := content(t, n, "w")
	s, err := n.Snapshot(ctx, "a")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(cfg.DataDir, "local", layerFile(s.Volumes[0].Layer))
	if err := os.Rename(path, path+".away"); err != nil {
		t.Fatal(err)
	}
	if err := n.DeleteSnapshot(ctx, "a"); err != nil {
		t.Fatal(err)
	}
	soon(t, "told", func() bool {
		s, err := n.Status(ctx)
		return err == nil && strings.Contains(s.Cleaning.Problem, path)
	})
	if err := os.Rename(path+".away", path); err != nil {
		t.Fatal(err)
	}
	cleaned(t, n)
	if s, err := n.Status(ctx); err != nil || s.Cleaning.Problem != "" || s.Cleaning.Merged != 1 {
		t.Errorf("%+v %v", s.Cleaning, err)
	}
	if !bytes.Equal(content(t, n, "w"), want) {
		t.Error("another content")
	}
	sound(t, n)
	stop(t, n)
}

// TestSnapshotUndone cannot make a file: nothing is left, and the volumes go on.
func TestSnapshotUndone(t *testing.T) {
	noLeaks(t)
	cfg := testConfig(t)
	disks(&cfg, DiskConfig{Volume: "a", Size: 1 << 20}, DiskConfig{Volume: "b", Size: 1 << 20})
	n := start(t, cfg)
	ctx := t.Context()
	write(t, n, "a", pattern(64<<10, 1), 0)
	before := mustTree(t, n)
	next, err := n.db.NewMap()
	if err != nil {
		t.Fatal(err)
	}
	inTheWay := filepath.Join(cfg.DataDir, "local", layerFile(next+2)) // of the second volume
	if err := os.MkdirAll(filepath.Join(inTheWay, "x"), 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := n.CreateSnapshot(ctx, SnapshotSpec{"s", []string{"a", "b"}}); err == nil || !strings.Contains(err.Error(), "snapshot s: ") {
		t.Errorf("snapshot: %v", err)
	}
	os.RemoveAll(inTheWay)
	if tree := mustTree(t, n); len(tree.Snapshots) != 0 || len(tree.Layers) != len(before.Layers) {
		t.Errorf("left: %+v", tree)
	}
	if files, _ := filepath.Glob(filepath.Join(cfg.DataDir, "local", "layers", "*")); len(files) != 4 {
		t.Errorf("files %v, want a layer and notes of each volume", files)
	}
	sound(t, n)
	write(t, n, "a", pattern(64<<10, 2), 0)
	want := content(t, n, "a")
	snapshot(t, n, "s", "a", "b")
	snapshot(t, n, "later", "b")
	if list, err := n.Snapshots(ctx); err != nil || len(list) != 2 || list[0].Name != "s" || !list[1].Created.After(list[0].Created) {
		t.Errorf("not in the order in which they were taken: %+v %v", list, err)
	}

	next, err = n.db.NewMap()
	if err != nil {
		t.Fatal(err)
	}
	write(t, n, "a", pattern(64<<10, 3), 32<<10)
	now := content(t, n, "a")
	inTheWay = filepath.Join(cfg.DataDir, "local", layerFile(next+2))
	if err := os.MkdirAll(filepath.Join(inTheWay, "x"), 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := n.RollbackSnapshot(ctx, "s", RollbackSpec{}); err == nil || !strings.Contains(err.Error(), "roll back to snapshot s: ") {
		t.Errorf("rollback: %v", err)
	}
	os.RemoveAll(inTheWay)
	if !bytes.Equal(content(t, n, "a"), now) {
		t.Error("a rollback that failed has changed a volume")
	}
	sound(t, n)
	if _, err := n.RollbackSnapshot(ctx, "s", RollbackSpec{}); err != nil {
		t.Error(err)
	}
	if !bytes.Equal(content(t, n, "a"), want) {
		t.Error("rolled back: another content")
	}
	stop(t, n)
}

// TestVolumeFigures adds up what a volume is made of, open and closed.
func TestVolumeFigures(t *testing.T) {
	cfg := testConfig(t)
	putImage(t, cfg, "i", pattern(8<<20, 0))
	disks(&cfg, DiskConfig{Volume: "v", Image: "i", Size: 10 << 20, Prefetch: "off"})
	n := start(t, cfg)
	ctx := t.Context()
	v, err := n.acquire(ctx, "v")
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(v.dev.ReadAt(ctx, make([]byte, 4096), 0), v.dev.Discard(ctx, 6<<20, 1<<20), n.release(v)); err != nil {
		t.Fatal(err)
	}
	write(t, n, "v", pattern(1<<20, 1), 7<<20)
	snapshot(t, n, "s", "v")
	write(t, n, "v", pattern(1<<20, 2), 7<<20+512<<10)
	look := func(n *Node) VolumeStatus {
		t.Helper()
		s, err := n.Volume(ctx, "v")
		if err != nil {
			t.Fatal(err)
		}
		if s.Written != 1536<<10 || s.Zeroed != 1<<20 || s.Cached < 4096 || s.Cached > 2<<20 || s.Written+s.Zeroed+s.Cached+s.Absent != s.Size {
			t.Errorf("%+v, want 1.5 MiB written, 1 MiB zeroed, little cached", s)
		}
		if len(s.Layers) != 2 || s.Layers[0].Written != 1<<20 || s.Layers[1].Snapshot != "s" || s.Layers[1].Written != 1<<20 || !slices.Equal(s.Snapshots, []string{"s"}) {
			t.Errorf("%+v", s)
		}
		return s
	}
	open := look(n)
	stop(t, n)
	n, err = Open(ctx, cfg, false, quiet)
	if err != nil {
		t.Fatal(err)
	}
	if closed := look(n); closed.Cached != open.Cached || closed.Absent != open.Absent {
		t.Errorf("closed: %+v, open: %+v", closed, open)
	}
	stop(t, n)
}
