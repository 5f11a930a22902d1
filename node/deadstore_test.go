package node

import (
	"bytes"
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

// stuck is a volume of which a read waits for a store that does not answer.
type stuck struct {
	*Node
	v      *volume
	giveUp context.CancelFunc
	read   chan error // what became of the read
}

// newStuck has a volume "over" with the snapshots a, b and c, each with other
// content in its first blocks, and "blank".
func newStuck(t *testing.T) *stuck {
	t.Helper()
	cfg := testConfig(t)
	n, err := Open(t.Context(), cfg, true, quiet)
	if err != nil {
		t.Fatal(err)
	}
	n.units = map[string]*lun.Map{cfg.Targets[0].IQN: lun.NewMap()}
	mustCreate(t, n, "blank")
	mute(t, n)
	info := blobstore.Info{Name: "i", Size: 1 << 20, BlobSize: 1 << 20, Format: blobstore.Raw, Identity: "0x1"}
	if _, err := n.createVolume(plan{spec: VolumeSpec{Name: "over", Image: "i"}, info: info}); err != nil {
		t.Fatal(err)
	}
	n.changes.Lock()
	v, err := n.use(t.Context(), "over", nil)
	n.changes.Unlock()
	if err != nil {
		t.Fatal(err)
	}
	v.image.hurry()
	s := &stuck{Node: n, v: v, read: make(chan error, 1)}
	for i, name := range []string{"a", "b", "c"} {
		write(t, n, "over", pattern(64<<10, byte(i)), 0)
		snapshot(t, n, name, "over")
	}
	write(t, n, "over", pattern(64<<10, 9), 0)
	ctx, giveUp := context.WithCancel(t.Context())
	s.giveUp = giveUp
	go func() { s.read <- v.dev.ReadAt(ctx, make([]byte, 4096), 512<<10) }()
	soon(t, "reading", func() bool { return v.image.cache.Stats().Misses > 0 })
	return s
}

// others does what must not wait for the read.
func (s *stuck) others(t *testing.T) {
	t.Helper()
	write(t, s.Node, "blank", pattern(4096, 1), 0)
	snapshot(t, s.Node, "other", "blank", "over")
	if err := s.DeleteSnapshot(t.Context(), "other"); err != nil {
		t.Error(err)
	}
	select {
	case err := <-s.read:
		t.Errorf("the read has ended: %v", err)
	default:
	}
}

func (s *stuck) end(t *testing.T) {
	t.Helper()
	s.giveUp()
	if err := <-s.read; !errors.Is(err, context.Canceled) {
		t.Errorf("read: %v", err)
	}
	if err := s.release(s.v); err != nil {
		t.Error(err)
	}
	s.removals.Wait()
	cleanNow(t, s.Node)
	sound(t, s.Node)
	if leaves, _ := mustTree(t, s.Node).Unneeded(); len(leaves)+len(s.layers) > 0 {
		t.Errorf("left are layers %v, and open %d", leaves, len(s.layers))
	}
	stop(t, s.Node)
}

// waits tells what a call returned that waits for the read until it is cancelled.
func waits(t *testing.T, done <-chan error, cancel context.CancelFunc) {
	t.Helper()
	select {
	case err := <-done:
		t.Errorf("it has not waited for the read: %v", err)
	default:
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("cancelled: %v", err)
		}
	}
}

// TestStuckRead changes what lies below a volume while a read waits for the store:
// nobody but who changes it waits for the read, and that one can be cancelled.
func TestStuckRead(t *testing.T) {
	t.Run("roll back", func(t *testing.T) {
		noLeaks(t)
		s := newStuck(t)
		ctx, cancel := context.WithCancel(t.Context())
		before, done := s.v.meta.Layer, make(chan error, 1)
		go func() {
			_, err := s.RollbackSnapshot(ctx, "a", RollbackSpec{})
			done <- err
		}()
		soon(t, "rolled back", func() bool { v, err := s.db.Volume("over"); return err == nil && v.Layer != before })
		s.others(t)
		waits(t, done, cancel)
		got := make([]byte, 64<<10)
		if err := s.v.dev.ReadAt(t.Context(), got, 0); err != nil || !bytes.Equal(got, pattern(64<<10, 0)) {
			t.Errorf("not as it was: %v", err)
		}
		if mustTree(t, s.Node).Layers[before].ID == 0 {
			t.Error("what is being read is removed")
		}
		s.end(t)
	})
	t.Run("merge", func(t *testing.T) {
		noLeaks(t)
		s := newStuck(t)
		if err := s.DeleteSnapshot(t.Context(), "b"); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		j, _, err := s.nextJob(ctx)
		if err != nil || j == nil || j.top != nil {
			t.Fatalf("%+v %v", j, err)
		}
		done := make(chan error, 1)
		go func() { done <- s.run(ctx, j) }()
		soon(t, "merged", func() bool { leaves, _ := mustTree(t, s.Node).Unneeded(); return len(leaves) == 1 })
		s.others(t)
		waits(t, done, cancel)
		got := make([]byte, 64<<10)
		if err := s.v.dev.ReadAt(t.Context(), got, 0); err != nil || !bytes.Equal(got, pattern(64<<10, 9)) {
			t.Errorf("not as it was: %v", err)
		}
		s.end(t)
	})
	t.Run("unmap", func(t *testing.T) {
		noLeaks(t)
		s := newStuck(t)
		iqn := s.cfg.Targets[0].IQN
		if _, err := s.MapLUN(t.Context(), iqn, 5, "over"); err != nil {
			t.Fatal(err)
		}
		if err := s.release(s.v); err != nil { // the target has it
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- s.UnmapLUN(ctx, iqn, 5, false) }()
		soon(t, "unmapped", func() bool { return s.place("over") == nil })
		s.others(t)
		waits(t, done, cancel)
		s.changes.Lock()
		s.v.users++ // that end takes
		s.changes.Unlock()
		s.end(t)
	})
}
