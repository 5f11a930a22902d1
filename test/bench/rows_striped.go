package main

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"skylun/blobstore"
	"skylun/block"
	"skylun/test/shaped"
)

// stripedRows compare an image over four blobs with one that is one blob. The
// store is test/shaped, in this process, where no blob gives more than the 60
// MiB/s that Azure promises of a page blob.
var stripedRows = []row{
	{name: "image over four blobs of 60 MiB/s each, 1 MiB sequential reads, 16 in flight", want: 3.6, contest: stripedContest},
}

const pageBlobRate = 60 << 20

func stripedContest(ctx context.Context, o options, dir string) (_ *contest, err error) {
	const size = 64 << 20
	content := make([]byte, size)
	if _, err := io.ReadFull(rand.NewChaCha8([32]byte{3}), content); err != nil {
		return nil, err
	}
	server, err := shaped.New(shaped.Link{PerBlob: pageBlobRate})
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			server.Close()
		}
	}()
	server.Put("one", bytes.NewReader(content), size)
	if err := server.PutStriped("four", bytes.NewReader(content), size, 4, 256<<10); err != nil {
		return nil, err
	}
	key := filepath.Join(dir, "key")
	if err := os.WriteFile(key, []byte(shaped.Key), 0o600); err != nil {
		return nil, err
	}
	store, err := blobstore.Open(ctx, blobstore.Config{URL: server.ContainerURL(), AccountKeyFile: key}, slog.New(slog.DiscardHandler))
	if err != nil {
		return nil, err
	}
	run := func(ctx context.Context, ours bool, _ int) (result, error) {
		name := "one"
		if ours {
			name = "four"
		}
		info, err := store.Stat(ctx, name)
		if err != nil {
			return result{}, err
		}
		image := store.Image(info)
		return inProcess(o.time, 16, 1<<20, size, false, func(p []byte, off int64) error { return image.ReadAt(ctx, p, off) })
	}
	return &contest{client: "in process", theirs: "one blob", run: run, close: func() {
		store.Close()
		server.Close()
	}}, nil
}

// inProcess has workers call op with pieces of n bytes of a device of that many
// bytes, one after the other or at random, for a time.
func inProcess(d time.Duration, workers, n int, size int64, random bool, op func(p []byte, off int64) error) (result, error) {
	var (
		wg    sync.WaitGroup
		next  atomic.Int64
		ops   atomic.Int64
		fault atomic.Pointer[error]
	)
	begun := time.Now()
	for i := range workers {
		wg.Go(func() {
			p := make([]byte, n)
			rnd := rand.New(rand.NewPCG(uint64(i), 7))
			rnd.Uint64()
			pieces := size / int64(n)
			done := int64(0)
			defer func() { ops.Add(done) }()
			for fault.Load() == nil && time.Since(begun) < d {
				// A look at the clock costs as much as a part of a small read.
				for range max(1, 64*block.Size/n/16) {
					at := rnd.Int64N(pieces)
					if !random {
						at = (next.Add(1) - 1) % pieces
					}
					if err := op(p, at*int64(n)); err != nil {
						fault.Store(&err)
						return
					}
					done++
				}
			}
		})
	}
	wg.Wait()
	r := result{Ops: ops.Load(), Time: time.Since(begun)}
	if err := fault.Load(); err != nil {
		return r, *err
	}
	return r, nil
}
