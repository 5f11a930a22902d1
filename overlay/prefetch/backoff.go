package prefetch

import (
	"math/rand/v2"
	"time"
)

const (
	backoffMin = time.Second
	backoffMax = 5 * time.Minute
)

// Backoff says when to try again after errors in a row.
type Backoff struct {
	failed int
	until  time.Time
}

// Failed tells of an error. Errors of fetches that were under way together
// count as one.
func (b *Backoff) Failed(now time.Time, rnd *rand.Rand) {
	if now.Before(b.until) {
		return
	}
	d := backoffMax
	if b.failed < 16 {
		d = min(d, backoffMin<<b.failed)
	}
	b.failed++
	b.until = now.Add(d*3/4 + time.Duration(rnd.Int64N(int64(d)/2)))
}

// Done tells of a success.
func (b *Backoff) Done() { b.failed = 0 }

// Left returns how long there is to wait.
func (b *Backoff) Left(now time.Time) time.Duration { return max(0, b.until.Sub(now)) }
