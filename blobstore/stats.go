package blobstore

import (
	"sync/atomic"
	"time"
)

// Stats counts what a Store has done. Every request that was sent counts, also
// one that failed and one that was sent again.
type Stats struct {
	Gets      int64 `json:"gets"`      // reads of content
	GetBytes  int64 `json:"get_bytes"` // bytes of content received
	Puts      int64 `json:"puts"`      // writes of content
	PutBytes  int64 `json:"put_bytes"` // bytes of content stored
	Others    int64 `json:"others"`    // requests that carry no content: properties, lists, leases
	Errors    int64 `json:"errors"`    // requests that failed; that something is not there is an answer
	Retries   int64 `json:"retries"`   // requests that were sent again
	Throttled int64 `json:"throttled"` // requests the store refused for being too many
	InFlight  int64 `json:"in_flight"` // requests not answered yet

	ThrottledUntil time.Time `json:"-"` // until when it last asked to be left alone
}

type counters struct {
	gets, getBytes, puts, putBytes, others, errors, retries, throttled, inFlight atomic.Int64

	until atomic.Int64 // Unix time in ns until when the store asked to be left alone
}

// refused counts a request that was refused for being too many; the store
// wants to be left alone for some time, 0: it did not say for how long.
func (c *counters) refused(now time.Time, after time.Duration) {
	if until := now.Add(after).UnixNano(); until > c.until.Load() {
		c.until.Store(until)
	}
	c.throttled.Add(1)
}

func (c *counters) stats() Stats {
	return Stats{
		Gets:      c.gets.Load(),
		GetBytes:  c.getBytes.Load(),
		Puts:      c.puts.Load(),
		PutBytes:  c.putBytes.Load(),
		Others:    c.others.Load(),
		Errors:    c.errors.Load(),
		Retries:   c.retries.Load(),
		Throttled: c.throttled.Load(),
		InFlight:  c.inFlight.Load(),

		ThrottledUntil: time.Unix(0, c.until.Load()),
	}
}
