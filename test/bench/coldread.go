package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	mathrand "math/rand/v2"
	"net/http"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"skylun/block"
)

// scattered are offsets of blocks that are far from each other.
func (c *cold) scattered(n int) []int64 {
	rnd := mathrand.New(mathrand.NewPCG(uint64(c.turn), 1))
	var offs []int64
	for i := range int64(n) {
		part := c.size / int64(n)
		offs = append(offs, i*part+part/4+rnd.Int64N(part/2/4096)*4096)
	}
	rnd.Shuffle(n, func(i, j int) { offs[i], offs[j] = offs[j], offs[i] })
	return offs
}

const firsts = 15

// firstReads is the median time of reads of 4 KiB here and there.
func firstReads(ctx context.Context, c *cold, side coldSide) (ms float64, err error) {
	err = c.with(side, coldConfig{prefetch: "readahead"}, 1, func(_ *coldServer, d block.Reader) error {
		ms, err = c.each(c.scattered(firsts), func(off int64) error { return d.ReadAt(ctx, make([]byte, 4096), off) })
		return err
	})
	return ms, err
}

// bareGETs is the same of the store itself.
func bareGETs(ctx context.Context, c *cold, _ coldSide) (float64, error) {
	client := &http.Client{Transport: &http.Transport{}}
	defer client.CloseIdleConnections()
	return c.each(c.scattered(firsts), func(off int64) error { return c.download(ctx, client, make([]byte, 4096), off) })
}

func (c *cold) download(ctx context.Context, client *http.Client, p []byte, off int64) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.store.URL(coldImage), nil)
	if err != nil {
		return err
	}
	req.Header.Set("Range", fmt.Sprintf("bytes=%d-%d", off, off+int64(len(p))-1))
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusPartialContent {
		return errors.New(resp.Status)
	}
	_, err = io.ReadFull(resp.Body, p)
	return err
}

// each returns the median of the milliseconds that read takes.
func (c *cold) each(offs []int64, read func(off int64) error) (float64, error) {
	var took []float64
	for _, off := range offs {
		begin := time.Now()
		if err := read(off); err != nil {
			return 0, err
		}
		took = append(took, float64(time.Since(begin))/float64(time.Millisecond))
	}
	return middleOf(took), nil
}

// sequential reads the first part of the image from start to end.
func sequential(ctx context.Context, c *cold, side coldSide) (rate float64, err error) {
	const piece, depth = 256 << 10, 4
	err = c.with(side, coldConfig{prefetch: "readahead"}, depth, func(_ *coldServer, d block.Reader) error {
		var next atomic.Int64
		g, ctx := errgroup.WithContext(ctx)
		begin := time.Now()
		for range depth {
			g.Go(func() error {
				p := make([]byte, piece)
				for {
					off := next.Add(piece) - piece
					if off >= coldSeq {
						return nil
					}
					if err := d.ReadAt(ctx, p, off); err != nil {
						return err
					}
				}
			})
		}
		err := g.Wait()
		rate = coldSeq / (1 << 20) / time.Since(begin).Seconds()
		return err
	})
	return rate, err
}
