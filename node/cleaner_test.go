package node

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
)

// TestCleanerOvertaken changes what the cleaner works on between its decision
// and its work: volumes are rolled back, removed and opened, snapshots removed.
func TestCleanerOvertaken(t *testing.T) {
	for _, c := range []struct {
		name   string
		remove string // the snapshot whose layer the cleaner takes
		hidden bool   // it gives back what the volume hides
		change func(t *testing.T, n *Node)
	}{
		{"rolled back below a top", "c", true, func(t *testing.T, n *Node) { mustRollBack(t, n, "a") }},
		{"removed below a top", "c", true, func(t *testing.T, n *Node) { mustDelete(t, n, "w") }},
		{"snapshot above a top", "c", true, func(t *testing.T, n *Node) { snapshot(t, n, "d", "w") }},
		{"rolled back below a merge", "b", false, func(t *testing.T, n *Node) { mustRollBack(t, n, "a") }},
		{"removed above a merge", "b", false, func(t *testing.T, n *Node) { mustDelete(t, n, "w") }},
		{"snapshot removed above a merge", "b", false, func(t *testing.T, n *Node) {
			if err := n.DeleteSnapshot(t.Context(), "c"); err != nil {
				t.Fatal(err)
			}
		}},
		{"nothing of it needed", "b", false, func(t *testing.T, n *Node) {
			mustRollBack(t, n, "a")
			if err := n.DeleteSnapshot(t.Context(), "c"); err != nil {
				t.Fatal(err)
			}
		}},
		{"cloned above a merge", "b", false, func(t *testing.T, n *Node) {
			if _, err := n.CreateVolume(t.Context(), VolumeSpec{Name: "x", Snapshot: "c"}); err != nil {
				t.Fatal(err)
			}
			write(t, n, "x", pattern(4096, 9), 0)
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			cfg := testConfig(t)
			n, err := Open(t.Context(), cfg, true, quiet) // the test is its cleaner
			if err != nil {
				t.Fatal(err)
			}
			ctx := t.Context()
			mustCreate(t, n, "w")
			want := map[string][]byte{}
			for i, name := range []string{"a", "b", "c"} {
				write(t, n, "w", pattern(256<<10, byte(i)), int64(i)*128<<10)
				snapshot(t, n, name, "w")
				want[name] = content(t, n, "w")
			}
			write(t, n, "w", pattern(512<<10, 8), 0)
			if err := n.DeleteSnapshot(ctx, c.remove); err != nil {
				t.Fatal(err)
			}
			delete(want, c.remove)
			v, err := n.acquire(ctx, "w") // it is in use
			if err != nil {
				t.Fatal(err)
			}
			j, _, err := n.nextJob(ctx)
			if err != nil || j == nil || (j.top != nil) != c.hidden {
				t.Fatalf("%+v %v", j, err)
			}
			if err := n.release(v); err != nil {
				t.Fatal(err)
			}
			c.change(t, n)
			if err := n.run(ctx, j); err != nil {
				t.Error(err)
			}
			for {
				j, _, err := n.nextJob(ctx)
				if err != nil {
					t.Fatal(err)
				}
				if j == nil {
					break
				}
				if err := n.run(ctx, j); err != nil {
					t.Fatal(err)
				}
			}
			sound(t, n)
			list, err := n.Snapshots(ctx)
			if err != nil {
				t.Fatal(err)
			}
			for _, s := range list {
				if p := want[s.Name]; p != nil && !bytes.Equal(snapshotContent(t, n, s.Name), p) {
					t.Errorf("snapshot %s is not what it was", s.Name)
				}
			}
			if len(n.layers) > 0 || len(n.volumes) > 0 {
				t.Errorf("left open: %d layers, %d volumes", len(n.layers), len(n.volumes))
			}
			stop(t, n)
		})
	}
}

func mustRollBack(t *testing.T, n *Node, name string) {
	t.Helper()
	if _, err := n.RollbackSnapshot(t.Context(), name, RollbackSpec{}); err != nil {
		t.Fatal(err)
	}
}

func mustDelete(t *testing.T, n *Node, volume string) {
	t.Helper()
	if err := n.DeleteVolume(t.Context(), volume); err != nil {
		t.Fatal(err)
	}
}

// cleanNow does all that the cleaner would do.
func cleanNow(t *testing.T, n *Node) {
	t.Helper()
	for {
		j, _, err := n.nextJob(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if j == nil {
			return
		}
		if err := n.run(t.Context(), j); err != nil {
			t.Fatal(err)
		}
	}
}

// TestCleanerRead removes a snapshot of which most is still to be read.
func TestCleanerRead(t *testing.T) {
	for _, c := range []struct {
		name  string
		later bool // another snapshot was taken since
		half  bool // less was written since: what lies above is copied down
	}{
		{"below a top", false, false},
		{"below a snapshot", true, false},
		{"below a small snapshot", true, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			cfg := testConfig(t)
			n, err := Open(t.Context(), cfg, true, quiet) // the test is its cleaner
			if err != nil {
				t.Fatal(err)
			}
			const size = 32 << 20
			if _, err := n.CreateVolume(t.Context(), VolumeSpec{Name: "w", Size: size}); err != nil {
				t.Fatal(err)
			}
			want := pattern(size, 1)
			write(t, n, "w", want, 0)
			snapshot(t, n, "s", "w")
			since := pattern(size, 2)
			if c.half {
				since = since[size/2:]
			}
			write(t, n, "w", since, int64(size-len(since)))
			if c.later {
				snapshot(t, n, "later", "w")
			}
			now := content(t, n, "w")
			got, removed := make([]byte, size), false
			err = n.ReadSnapshot(t.Context(), "s", func(p []byte, off int64) error {
				if !removed {
					removed = true
					if err := n.DeleteSnapshot(t.Context(), "s"); err != nil {
						t.Error(err)
					}
					cleanNow(t, n)
				}
				copy(got[off:], p)
				return nil
			})
			if err != nil || !bytes.Equal(got, want) {
				t.Errorf("read while it was removed: right %v, %v", bytes.Equal(got, want), err)
			}
			cleanNow(t, n)
			if !bytes.Equal(content(t, n, "w"), now) {
				t.Error("the volume is not what was written")
			}
			if c.later && len(mustTree(t, n).Layers) != 2 {
				t.Errorf("not merged when it had been read: %+v", mustTree(t, n).Layers)
			}
			if taken := allocated(t, cfg); taken > size+1<<20 {
				t.Errorf("layers take %d bytes", taken)
			}
			sound(t, n)
			stop(t, n)
		})
	}
}

// TestRemovedAllTheSame cannot remove the files of layers: what was asked for is
// done nevertheless, and the files go later.
func TestRemovedAllTheSame(t *testing.T) {
	for _, c := range []struct {
		what string
		do   func(n *Node, ctx context.Context) error
	}{
		{"snapshot rm", func(n *Node, ctx context.Context) error { return n.DeleteSnapshot(ctx, "s") }},
		{"volume rm", func(n *Node, ctx context.Context) error { return n.DeleteVolume(ctx, "w") }},
		{"rollback", func(n *Node, ctx context.Context) error {
			_, err := n.RollbackSnapshot(ctx, "s", RollbackSpec{})
			return err
		}},
	} {
		t.Run(c.what, func(t *testing.T) {
			cfg := testConfig(t)
			n, err := Open(t.Context(), cfg, true, quiet)
			if err != nil {
				t.Fatal(err)
			}
			mustCreate(t, n, "w")
			write(t, n, "w", pattern(64<<10, 1), 0)
			snapshot(t, n, "s", "w")
			write(t, n, "w", pattern(64<<10, 2), 0)
			if c.what == "snapshot rm" { // nothing lies on its layer
				if err := n.DeleteVolume(t.Context(), "w"); err != nil {
					t.Fatal(err)
				}
			}
			var inTheWay []string
			files, err := filepath.Glob(filepath.Join(cfg.DataDir, "local", "layers", "*"))
			if err != nil || len(files) == 0 {
				t.Fatal(files, err)
			}
			for _, path := range files { // a directory that is not empty cannot be removed
				if err := errors.Join(os.Rename(path, path+".away"), os.MkdirAll(filepath.Join(path, "x"), 0o700)); err != nil {
					t.Fatal(err)
				}
				inTheWay = append(inTheWay, path)
			}
			if err := c.do(n, t.Context()); err != nil {
				t.Errorf("%s: %v, which has happened", c.what, err)
			}
			leaves, _ := mustTree(t, n).Unneeded()
			if len(leaves) == 0 {
				t.Error("what could not be removed is forgotten")
			}
			for _, path := range inTheWay {
				if err := errors.Join(os.RemoveAll(path), os.Rename(path+".away", path)); err != nil {
					t.Fatal(err)
				}
			}
			cleanNow(t, n)
			if leaves, _ = mustTree(t, n).Unneeded(); len(leaves) > 0 {
				t.Errorf("layers %v are left", leaves)
			}
			sound(t, n)
			stop(t, n)
		})
	}
}
