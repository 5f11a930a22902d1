package node

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"skylun/block"
)

// TestChangesAtOnce has several make changes of the same few volumes and snapshots
// at the same time, some of which they give up, while the cleaner works: each fails
// for a reason that the order explains, or does what it should, and what is left is
// sound.
func TestChangesAtOnce(t *testing.T) {
	noLeaks(t)
	cfg := testConfig(t)
	cfg.Cache.MaxSize = 4 << 20 // less than what is read
	putImage(t, cfg, "i", pattern(3<<20, 0))
	putImage(t, cfg, "j", pattern(3<<20, 5))
	disks(&cfg, DiskConfig{Volume: "a", Size: 1 << 20}, DiskConfig{Volume: "over", Image: "i"})
	n := start(t, cfg)
	iqn := cfg.Targets[0].IQN
	skip := func([]byte, int64) error { return nil }
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	var run sync.WaitGroup
	for i := range uint64(6) {
		r := rand.New(rand.NewPCG(seed, i))
		one := func(of ...string) string { return of[r.IntN(len(of))] }
		volume := func() string { return one("a", "over", "w", "x", "y") }
		snap := func() string { return one("s", "t", "u") }
		changes := []struct {
			what string
			do   func(ctx context.Context) error
		}{
			{"create", func(ctx context.Context) error {
				spec := []VolumeSpec{{Size: 1 << 20}, {Image: one("i", "j")}, {Snapshot: snap()}}[r.IntN(3)]
				spec.Name = volume()
				return second(n.CreateVolume(ctx, spec))
			}},
			{"remove", func(ctx context.Context) error { return n.DeleteVolume(ctx, volume()) }},
			{"snapshot", func(ctx context.Context) error {
				return second(n.CreateSnapshot(ctx, SnapshotSpec{snap(), []string{volume()}}))
			}},
			{"group", func(ctx context.Context) error {
				return second(n.CreateSnapshot(ctx, SnapshotSpec{snap(), []string{"a", "over"}}))
			}},
			{"remove snapshot", func(ctx context.Context) error { return n.DeleteSnapshot(ctx, snap()) }},
			{"roll back", func(ctx context.Context) error {
				return second(n.RollbackSnapshot(ctx, snap(), RollbackSpec{Force: true}))
			}},
			{"export", func(ctx context.Context) error { return n.ReadVolume(ctx, volume(), skip) }},
			{"export snapshot", func(ctx context.Context) error { return n.ReadSnapshot(ctx, snap(), skip) }},
			{"map", func(ctx context.Context) error { return second(n.MapLUN(ctx, iqn, 5+r.IntN(2), volume())) }},
			{"unmap", func(ctx context.Context) error { return n.UnmapLUN(ctx, iqn, 5+r.IntN(2), true) }},
			{"resize", func(ctx context.Context) error {
				return second(n.ResizeVolume(ctx, volume(), ResizeSpec{Size: 3<<20 + int64(r.IntN(4))<<18, Force: true}))
			}},
			{"pin", func(ctx context.Context) error { return second(n.PinVolume(ctx, volume(), r.IntN(2) == 0)) }},
			{"status", func(ctx context.Context) error { return second(n.Status(ctx)) }},
			{"write", func(ctx context.Context) error {
				v, err := n.acquire(ctx, volume())
				if err != nil {
					return err
				}
				p := pattern(block.Size*(1+r.IntN(64)), byte(r.IntN(256)))
				return errors.Join(v.dev.WriteAt(ctx, p, int64(r.IntN(192))*block.Size), n.release(v))
			}},
		}
		run.Go(func() {
			for range 100 {
				ctx, cancel := context.WithCancel(t.Context())
				if r.IntN(10) == 0 {
					time.AfterFunc(time.Duration(r.IntN(3000))*time.Microsecond, cancel)
				}
				c := changes[r.IntN(len(changes))]
				err := c.do(ctx)
				cancel()
				if err != nil && !errors.Is(err, ErrExists) && !errors.Is(err, ErrNotFound) && !errors.Is(err, ErrInUse) && !errors.Is(err, ErrInvalid) &&
					!errors.Is(err, context.Canceled) && !errors.Is(err, block.ErrOutOfRange) {
					t.Errorf("%s: %v", c.what, err)
				}
			}
		})
	}
	run.Wait()
	cleaned(t, n)
	sound(t, n)
	stop(t, n)
	n = start(t, cfg)
	sound(t, n)
	stop(t, n)
}
