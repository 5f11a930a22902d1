package node

import (
	"errors"
	"testing"
)

// TestCheckBusy checks a node of which snapshots come and go meanwhile.
func TestCheckBusy(t *testing.T) {
	noLeaks(t)
	n := start(t, testConfig(t))
	changed := make(chan struct{})
	go func() {
		defer close(changed)
		for range 60 {
			_, err := n.CreateSnapshot(t.Context(), SnapshotSpec{"s", []string{"v"}})
			if err = errors.Join(err, n.DeleteSnapshot(t.Context(), "s")); err != nil {
				t.Error(err)
			}
		}
	}()
	for {
		select {
		case <-changed:
			stop(t, n)
			return
		default:
			sound(t, n)
		}
	}
}

// TestStatusBusy asks for the status while volumes are made, rolled back and removed.
func TestStatusBusy(t *testing.T) {
	noLeaks(t)
	n := start(t, testConfig(t))
	changed := make(chan struct{})
	go func() {
		defer close(changed)
		ctx := t.Context()
		for range 60 {
			_, err := n.CreateVolume(ctx, VolumeSpec{Name: "w", Size: 1 << 20})
			if err == nil {
				_, err = n.CreateSnapshot(ctx, SnapshotSpec{"s", []string{"w"}})
			}
			if err == nil {
				_, err = n.RollbackSnapshot(ctx, "s", RollbackSpec{})
			}
			if err = errors.Join(err, n.DeleteSnapshot(ctx, "s"), n.DeleteVolume(ctx, "w")); err != nil {
				t.Error(err)
			}
		}
	}()
	for {
		select {
		case <-changed:
			stop(t, n)
			return
		default:
			if _, err := n.Status(t.Context()); err != nil {
				t.Error(err)
			}
		}
	}
}
