package blobstore

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"time"
)

// One policy for everything that goes over the network. Nothing below tries
// anything again.
const (
	backoffMin = 50 * time.Millisecond
	backoffMax = 2 * time.Second
)

// failure is how one try ended.
type failure struct {
	err   *fault
	again bool          // it may pass
	down  bool          // the store is not there at all; so it seems with again
	after time.Duration // how long the store wants to be left alone
}

// retry calls op until it returns nil or a failure that will not pass, or until
// the next try would start later than total after the first. Pauses grow
// exponentially and are random, so that many readers do not come back
// together; they are at least what the store asks for. It returns the last
// failure, or ctx.Err() when ctx ends.
func retry(ctx context.Context, total time.Duration, n *counters, log *slog.Logger, op func(context.Context) *failure) error {
	start := time.Now()
	bounded, cancel := context.WithDeadline(ctx, start.Add(total))
	defer cancel()
	for try := 1; ; try++ {
		f := op(bounded)
		if f == nil {
			return nil
		}
		if !errors.Is(f.err.kind, ErrNotFound) { // that is an answer
			n.errors.Add(1)
		}
		if f.err.kind == ErrThrottled {
			n.refused(time.Now(), f.after)
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		if !f.again {
			return f.err
		}
		pause := max(backoff(try), f.after)
		if time.Since(start)+pause >= total {
			return &fault{f.err.kind, fmt.Sprintf("%s (tries: %d in %v)", f.err.text, try, time.Since(start).Round(time.Millisecond))}
		}
		log.Debug("trying again", "error", f.err, "try", try, "pause", pause)
		if err := sleep(ctx, pause); err != nil {
			return err
		}
		n.retries.Add(1)
	}
}

// backoff returns the pause after the try'th try, which counts from one.
func backoff(try int) time.Duration {
	d := backoffMax
	if try < 20 {
		d = min(d, backoffMin<<(try-1))
	}
	return d/2 + rand.N(d)
}

// sleep waits for d, or returns ctx.Err() when ctx ends before.
func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
