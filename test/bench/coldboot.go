package main

import (
	"context"
	"time"

	"golang.org/x/sync/errgroup"

	"skylun/block"
	"skylun/test/boottrace"
)

const (
	coldBoot = 32 << 20 // what a guest reads when it boots, about
	coldMany = 64       // guests of a boot storm
	chains   = 6        // reads that a guest has in flight

	// stormPace makes guests work about two seconds while they boot. 64 of them
	// and the server share the processors with each other, which guests of their
	// own machines do not.
	stormPace = 24
)

func (c *cold) trace() boottrace.Trace { return boottrace.Linux(c.size, coldBoot, 1) }

// guests boot of the image together, each from a volume of its own.
type guests struct {
	n        int
	pace     float64 // how much longer than the trace says they work between reads
	prefetch string
	profile  bool // another node has booted before
	local    bool // all of the image is local: fetched before, on our side, and read before, on others
}

// one is a guest that boots of what nobody has read, and storm are many.
var (
	one   = guests{n: 1, pace: 1, prefetch: "readahead"}
	slow  = guests{n: 1, pace: stormPace, prefetch: "readahead"}
	storm = guests{n: coldMany, pace: stormPace, prefetch: "readahead"}
)

func (g guests) with(prefetch string) guests { g.prefetch = prefetch; return g }
func (g guests) profiled() guests            { g.profile = true; return g }
func (g guests) locally() guests             { g.local, g.prefetch = true, "full"; return g }

// seconds is how long they take; the first read comes as soon as the server is
// there.
func (g guests) seconds(ctx context.Context, c *cold, side coldSide) (float64, error) {
	s, _, err := g.boot(ctx, c, side)
	return s, err
}

// fetched is how many MiB the store has sent until all have booted.
func (g guests) fetched(ctx context.Context, c *cold, side coldSide) (float64, error) {
	_, mib, err := g.boot(ctx, c, side)
	return mib, err
}

func (g guests) boot(ctx context.Context, c *cold, side coldSide) (seconds, mib float64, err error) {
	c.forget()
	if g.profile {
		if err := c.record(ctx); err != nil {
			return 0, 0, err
		}
	}
	before := c.store.Stats().Bytes
	err = c.serve(side, coldConfig{prefetch: g.prefetch, volumes: g.n}, func(s *coldServer) error {
		var disks []block.Reader
		for v := range g.n {
			d, hangUp, err := s.disks(v, chains)
			if err != nil {
				return err
			}
			defer hangUp()
			disks = append(disks, d)
		}
		if g.local {
			if side.needs == "" {
				err = s.waitLocal(ctx)
			} else {
				err = c.trace().Replay(ctx, 1, disks[0].ReadAt)
			}
			if err != nil {
				return err
			}
		}
		begin := time.Now()
		run, ctx := errgroup.WithContext(ctx)
		for _, d := range disks {
			run.Go(func() error { return c.trace().Replay(ctx, g.pace, d.ReadAt) })
		}
		err := run.Wait()
		seconds = time.Since(begin).Seconds()
		mib = float64(c.store.Stats().Bytes-before) / (1 << 20)
		return err
	})
	return seconds, mib, err
}

// forget takes the boot profile out of the store.
func (c *cold) forget() { c.store.Put(coldImage, c.content, c.size) }

// record puts a boot profile into the store, as a boot elsewhere does.
func (c *cold) record(ctx context.Context) error {
	c.forget()
	return c.with(coldSides["skylun"], coldConfig{record: time.Minute}, chains, func(_ *coldServer, d block.Reader) error {
		return c.trace().Replay(ctx, 1, d.ReadAt)
	})
}

func distinctBytes(_ context.Context, c *cold, _ coldSide) (float64, error) {
	_, n := c.trace().Distinct()
	return float64(n) / (1 << 20), nil
}
