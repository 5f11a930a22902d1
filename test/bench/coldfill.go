package main

import (
	"context"
	mathrand "math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"skylun/block"
)

// latency returns what measures the 99th percentile of a guest's reads of 4
// KiB while the server prefetches so: of what is local, or of what is far.
func latency(prefetch string, local bool) func(context.Context, *cold, coldSide) (float64, error) {
	const near, reads = 32 << 20, 2000
	return func(ctx context.Context, c *cold, side coldSide) (ms float64, err error) {
		c.forget()
		err = c.with(side, coldConfig{prefetch: prefetch}, 1, func(_ *coldServer, d block.Reader) error {
			rnd := mathrand.New(mathrand.NewPCG(uint64(c.turn), 2))
			n := reads
			pick := func() int64 { return rnd.Int64N(near/4096) * 4096 }
			if local {
				for range 2 { // what was not kept the first time
					for off := int64(0); off < near; off += 1 << 20 {
						if err := d.ReadAt(ctx, make([]byte, 1<<20), off); err != nil {
							return err
						}
					}
				}
			} else {
				n = 300
				pick = func() int64 { return near + rnd.Int64N((c.size-near)/4096)*4096 }
			}
			var took []float64
			for range n {
				time.Sleep(time.Duration(rnd.Int64N(int64(2 * time.Millisecond))))
				begin := time.Now()
				if err := d.ReadAt(ctx, make([]byte, 4096), pick()); err != nil {
					return err
				}
				took = append(took, float64(time.Since(begin))/float64(time.Millisecond))
			}
			slices.Sort(took)
			ms = took[len(took)*99/100]
			return nil
		})
		return ms, err
	}
}

// fill is the rate at which the whole image becomes local when nobody reads.
func fill(ctx context.Context, c *cold, side coldSide) (rate float64, err error) {
	c.forget()
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	err = c.serve(side, coldConfig{prefetch: "idle"}, func(s *coldServer) error {
		before := c.store.Stats().Bytes
		begin := time.Now()
		err := s.waitLocal(ctx)
		rate = float64(c.store.Stats().Bytes-before) / (1 << 20) / time.Since(begin).Seconds()
		return err
	})
	return rate, err
}

// download is the rate of a program that does nothing but fetch the image in
// parallel pieces into a file.
func download(ctx context.Context, c *cold, _ coldSide) (float64, error) {
	const piece, parallel = 4 << 20, 16
	f, err := os.Create(filepath.Join(c.work, "download"))
	if err != nil {
		return 0, err
	}
	defer os.Remove(f.Name())
	defer f.Close()
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: parallel}}
	defer client.CloseIdleConnections()
	pool := sync.Pool{New: func() any { return new([piece]byte) }}
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(parallel)
	begin := time.Now()
	for off := int64(0); off < c.size; off += piece {
		g.Go(func() error {
			p := pool.Get().(*[piece]byte)
			defer pool.Put(p)
			if err := c.download(ctx, client, p[:], off); err != nil {
				return err
			}
			_, err := f.WriteAt(p[:], off)
			return err
		})
	}
	err = g.Wait()
	return float64(c.size) / (1 << 20) / time.Since(begin).Seconds(), err
}
