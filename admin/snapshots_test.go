package admin

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"reflect"
	"strings"
	"testing"
	"time"

	"skylun/node"
)

// keeper is an API with one snapshot of two volumes.
type keeper struct {
	API
	snapshot node.SnapshotStatus
}

func (k *keeper) Snapshots(context.Context) ([]node.SnapshotStatus, error) {
	return []node.SnapshotStatus{k.snapshot}, nil
}

func (k *keeper) Snapshot(_ context.Context, name string) (node.SnapshotStatus, error) {
	if name != k.snapshot.Name {
		return node.SnapshotStatus{}, node.Failure(node.ErrNotFound, "no snapshot "+name)
	}
	return k.snapshot, nil
}

func (k *keeper) CreateSnapshot(_ context.Context, s node.SnapshotSpec) (node.SnapshotStatus, error) {
	if s.Name == k.snapshot.Name {
		return node.SnapshotStatus{}, node.Failure(node.ErrExists, "there is one")
	}
	return node.SnapshotStatus{Name: s.Name, Volumes: []node.SnapshotVolume{{Volume: strings.Join(s.Volumes, "+")}}}, nil
}

func (k *keeper) DeleteSnapshot(_ context.Context, name string) error {
	return node.Failure(node.ErrNotFound, "no snapshot "+name)
}

func (k *keeper) RollbackSnapshot(_ context.Context, name string, s node.RollbackSpec) ([]node.VolumeStatus, error) {
	if !s.Force {
		return nil, node.Failure(node.ErrInUse, "logged in")
	}
	return []node.VolumeStatus{{Name: name + ":" + strings.Join(s.Volumes, "+")}}, nil
}

func (k *keeper) ReadSnapshot(_ context.Context, ref string, f func([]byte, int64) error) error {
	return f([]byte(ref), 4096)
}

func (k *keeper) Status(context.Context) (node.Status, error) {
	return node.Status{
		Snapshots: []node.SnapshotStatus{k.snapshot}, Layers: 5,
		Cleaning: node.CleaningStatus{Layers: 2, Bytes: 8192, Merged: 3},
	}, nil
}

func TestSnapshots(t *testing.T) {
	k := &keeper{snapshot: node.SnapshotStatus{
		Name: "s", Created: time.Unix(5, 0).UTC(), HeldSeconds: 0.25, Own: 4096,
		Volumes: []node.SnapshotVolume{{Volume: "a", Size: 512, Layer: 7, Own: 4096}, {Volume: "b", Removed: true}},
	}}
	c, path := serve(t, k)
	ctx := t.Context()
	if list, err := c.Snapshots(ctx); err != nil || len(list) != 1 || !reflect.DeepEqual(list[0], k.snapshot) {
		t.Errorf("Snapshots: %+v %v", list, err)
	}
	if s, err := c.Snapshot(ctx, "s"); err != nil || !reflect.DeepEqual(s, k.snapshot) {
		t.Errorf("Snapshot: %+v %v", s, err)
	}
	if s, err := c.CreateSnapshot(ctx, node.SnapshotSpec{Name: "n", Volumes: []string{"a", "b"}}); err != nil || s.Name != "n" || s.Volumes[0].Volume != "a+b" {
		t.Errorf("CreateSnapshot: %+v %v", s, err)
	}
	if v, err := c.RollbackSnapshot(ctx, "a b", node.RollbackSpec{Volumes: []string{"a"}, Force: true}); err != nil || len(v) != 1 || v[0].Name != "a b:a" {
		t.Errorf("RollbackSnapshot: %+v %v", v, err)
	}
	for _, ref := range []string{"s", "s/a", "s/50%?#"} {
		err := c.ReadSnapshot(ctx, ref, func(p []byte, off int64) error {
			if string(p) != ref || off != 4096 {
				t.Errorf("ReadSnapshot(%q): %q at %d", ref, p, off)
			}
			return nil
		})
		if err != nil {
			t.Errorf("ReadSnapshot(%q): %v", ref, err)
		}
	}
	for _, e := range []struct {
		err  error
		kind error
		text string
	}{
		{second(c.Snapshot(ctx, "x")), node.ErrNotFound, "no snapshot x"},
		{c.DeleteSnapshot(ctx, "a/b"), node.ErrNotFound, "no snapshot a/b"},
		{second(c.CreateSnapshot(ctx, node.SnapshotSpec{Name: "s"})), node.ErrExists, "there is one"},
		{second(c.RollbackSnapshot(ctx, "s", node.RollbackSpec{})), node.ErrInUse, "logged in"},
	} {
		if !errors.Is(e.err, e.kind) || e.err.Error() != e.text {
			t.Errorf("%v, want %q", e.err, e.text)
		}
	}

	hc := &http.Client{Transport: &http.Transport{DialContext: func(context.Context, string, string) (net.Conn, error) {
		return net.Dial("unix", path)
	}}}
	defer hc.CloseIdleConnections()
	for _, path := range []string{"/v1/snapshots", "/v1/snapshots/s/rollback"} {
		resp, err := hc.Post("http://node"+path, "", strings.NewReader(`{"nam": 1}`))
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if resp.StatusCode != 400 || !strings.Contains(string(body), "unknown field") {
			t.Errorf("POST %s: %d %s", path, resp.StatusCode, body)
		}
	}
	resp, err := hc.Get("http://node/metrics")
	if err != nil {
		t.Fatal(err)
	}
	body, _ := io.ReadAll(resp.Body)
	resp.Body.Close()
	for _, want := range []string{
		"skylun_layers 5", "skylun_layers_unneeded 2", "skylun_layers_unneeded_bytes 8192", "skylun_layers_merged_total 3", "skylun_snapshots 1",
		`skylun_snapshot_created_seconds{snapshot="s"} 5`, `skylun_snapshot_held_seconds{snapshot="s"} 0.25`, `skylun_snapshot_own_bytes{snapshot="s"} 4096`,
	} {
		if !strings.Contains(string(body), want+"\n") {
			t.Errorf("no line %s in\n%s", want, body)
		}
	}
}
