package node

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"testing"

	"skylun/blobstore"
	"skylun/lun"
)

// mute gives n a store that takes requests and never answers. It returns a channel
// from which the first of them can be received.
func mute(t *testing.T, n *Node) <-chan struct{} {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	asked := make(chan struct{})
	var first sync.Once
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			serving.Go(func() {
				defer c.Close()
				c.Read(make([]byte, 1))
				first.Do(func() { close(asked) })
				io.Copy(io.Discard, c)
			})
		}
	})
	t.Cleanup(func() { l.Close(); serving.Wait() })
	t.Setenv("AZURE_STORAGE_KEY", "c2VjcmV0")
	t.Setenv("AZURE_STORAGE_ACCOUNT", "account")
	dead, err := blobstore.Open(t.Context(), blobstore.Config{URL: "http://" + l.Addr().String() + "/account/images"}, quiet)
	if err != nil {
		t.Fatal(err)
	}
	if err := n.store.Close(); err != nil {
		t.Fatal(err)
	}
	n.store = dead
	return asked
}

// TestDeadStoreKeepsNobody asks for what has to wait for a store that does not
// answer. Meanwhile other volumes are made, changed and removed.
func TestDeadStoreKeepsNobody(t *testing.T) {
	for _, c := range []struct {
		what string
		do   func(ctx context.Context, n *Node) error
	}{
		{"export", func(ctx context.Context, n *Node) error {
			return n.ReadVolume(ctx, "over", func([]byte, int64) error { return nil })
		}},
		{"export of a snapshot", func(ctx context.Context, n *Node) error {
			return n.ReadSnapshot(ctx, "s", func([]byte, int64) error { return nil })
		}},
		{"map", func(ctx context.Context, n *Node) error {
			_, err := n.MapLUN(ctx, n.cfg.Targets[0].IQN, 5, "over")
			return err
		}},
		{"create", func(ctx context.Context, n *Node) error {
			_, err := n.CreateVolume(ctx, VolumeSpec{Name: "new", Image: "i"})
			return err
		}},
		{"remove an image", func(ctx context.Context, n *Node) error { return n.DeleteImage(ctx, "unused") }},
	} {
		t.Run(c.what, func(t *testing.T) {
			noLeaks(t)
			cfg := testConfig(t)
			putImage(t, cfg, "i", pattern(1<<20, 0))
			putImage(t, cfg, "unused", pattern(1<<20, 0))
			n, err := Open(t.Context(), cfg, true, quiet)
			if err != nil {
				t.Fatal(err)
			}
			n.units = map[string]*lun.Map{cfg.Targets[0].IQN: lun.NewMap()}
			mustCreate(t, n, "blank")
			if _, err := n.CreateVolume(t.Context(), VolumeSpec{Name: "over", Image: "i"}); err != nil {
				t.Fatal(err)
			}
			snapshot(t, n, "s", "over")
			asked := mute(t, n)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			done := make(chan error, 1)
			go func() { done <- c.do(ctx, n) }()
			<-asked
			write(t, n, "blank", pattern(4096, 1), 0)
			snapshot(t, n, "b", "blank")
			if _, err := n.ResizeVolume(t.Context(), "blank", ResizeSpec{Size: 2 << 20}); err != nil {
				t.Error(err)
			}
			if _, err := n.RollbackSnapshot(t.Context(), "b", RollbackSpec{}); err != nil {
				t.Error(err)
			}
			if err := n.DeleteVolume(t.Context(), "blank"); err != nil {
				t.Error(err)
			}
			select {
			case err := <-done:
				t.Errorf("others waited until it had ended: %v", err)
			default:
				cancel()
				if err := <-done; !errors.Is(err, context.Canceled) {
					t.Errorf("%v, want that it was cancelled", err)
				}
			}
			stop(t, n)
		})
	}
}

// TestDeadStoreUnasked does what needs nothing of the image.
func TestDeadStoreUnasked(t *testing.T) {
	cfg := testConfig(t)
	putImage(t, cfg, "i", pattern(1<<20, 0))
	n, err := Open(t.Context(), cfg, true, quiet)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := n.CreateVolume(t.Context(), VolumeSpec{Name: "over", Image: "i"}); err != nil {
		t.Fatal(err)
	}
	content(t, n, "over") // it is known what is empty
	asked := mute(t, n)
	for i, name := range []string{"a", "b", "c"} {
		write := func(v *volume, err error) {
			t.Helper()
			if err == nil {
				err = errors.Join(v.dev.WriteAt(t.Context(), pattern(256<<10, byte(i)), int64(i)*128<<10), n.unuse(v))
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		write(n.use(t.Context(), "over", nil))
		snapshot(t, n, name, "over")
	}
	if _, err := n.ResizeVolume(t.Context(), "over", ResizeSpec{Size: 2 << 20}); err != nil {
		t.Error(err)
	}
	for _, name := range []string{"b", "c"} { // to be merged, and hidden by the top
		if err := n.DeleteSnapshot(t.Context(), name); err != nil {
			t.Error(err)
		}
	}
	cleanNow(t, n)
	if _, err := n.RollbackSnapshot(t.Context(), "a", RollbackSpec{}); err != nil {
		t.Error(err)
	}
	select {
	case <-asked:
		t.Error("the store was asked")
	default:
	}
	stop(t, n)
}

// TestDeadStoreScan opens an image of which it is not known what is empty: that is
// learnt beside everything else, and closing does not wait for it.
func TestDeadStoreScan(t *testing.T) {
	noLeaks(t)
	n, err := Open(t.Context(), testConfig(t), true, quiet)
	if err != nil {
		t.Fatal(err)
	}
	asked := mute(t, n)
	n.changes.Lock()
	m, err := n.openImage(blobstore.Info{Name: "i", Size: 1 << 20, BlobSize: 1 << 20, Format: blobstore.Raw, Identity: "0x1"})
	n.changes.Unlock()
	if err != nil {
		t.Fatal(err)
	}
	<-asked
	select {
	case <-m.settled:
		t.Error("it is taken for known what is empty")
	default:
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := m.wait(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("wait: %v", err)
	}
	wantKind(t, n.DeleteImage(t.Context(), "i"), ErrInUse, "image i is being put into a drive, or read")
	n.changes.Lock()
	err = n.releaseImage(m)
	n.changes.Unlock()
	if err != nil || m.meta.Scanned {
		t.Errorf("%+v %v", m.meta, err)
	}
	stop(t, n)
}

// TestImageBeingRemoved: nothing new is made of it.
func TestImageBeingRemoved(t *testing.T) {
	cfg := testConfig(t)
	putImage(t, cfg, "i", pattern(1<<20, 0))
	n, err := Open(t.Context(), cfg, true, quiet)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := n.beginRemoving("i"); err != nil {
		t.Fatal(err)
	}
	_, err = n.CreateVolume(t.Context(), VolumeSpec{Name: "over", Image: "i"})
	wantKind(t, err, ErrInUse, "image i is just being removed")
	wantKind(t, n.DeleteImage(t.Context(), "i"), ErrInUse, "image i is just being removed")
	stop(t, n)
}
