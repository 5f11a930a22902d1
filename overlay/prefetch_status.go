package overlay

import (
	"time"

	"skylun/overlay/prefetch"
)

// Strategy says how much of an image is brought before anybody reads it. Each
// does what those before it do, and more.
type Strategy uint8

const (
	PrefetchOff   Strategy = iota // nothing
	ReadAhead                     // what sequential readers are about to read
	PrefetchIdle                  // all of it, while nothing else wants store, disk or processor
	PrefetchFull                  // all of it, as fast as readers do not suffer from it
	strategyCount                 // how many there are
)

var strategyNames = [strategyCount]string{"off", "readahead", "idle", "full"}

// String returns the strategy as it is written in a configuration.
func (s Strategy) String() string {
	if s >= strategyCount {
		return "unknown"
	}
	return strategyNames[s]
}

// ParseStrategy is the inverse of String.
func ParseStrategy(text string) (s Strategy, known bool) {
	for i, name := range strategyNames {
		if name == text {
			return Strategy(i), true
		}
	}
	return PrefetchOff, false
}

// PrefetchState is what the prefetch of an image is doing.
type PrefetchState string

// The states of PrefetchStats.
const (
	StateOff      PrefetchState = "off"      // nobody asks for the whole image
	StateComplete PrefetchState = "complete" // all of it is local: the store is not needed
	StateFilling  PrefetchState = "filling"  // fetches are under way, or about to be
	StateYielding PrefetchState = "yielding" // readers come first, see Reason
	StateWaiting  PrefetchState = "waiting"  // for a time, for room, or after an error, see Reason
	StatePaused   PrefetchState = "paused"   // somebody has asked for that
)

// PrefetchStats are what the prefetch of an image does and has brought since
// the image was opened. Sizes are bytes.
type PrefetchStats struct {
	Strategy string        `json:"strategy"` // the most that a user of the image asks for
	State    PrefetchState `json:"state"`
	Reason   string        `json:"reason,omitempty"` // why it does not go on at full speed, a line for people
	Rate     int64         `json:"rate"`             // bytes/s that filling brought lately
	Left     int64         `json:"left_seconds"`     // until all is local if it goes on like that; 0: unknown, or complete

	Filled int64 `json:"filled_bytes"` // brought for the whole image
	Ahead  int64 `json:"ahead_bytes"`  // brought ahead of sequential readers
	Used   int64 `json:"used_bytes"`   // of both: where somebody then has read, in whole regions
	Hits   int64 `json:"hits"`         // first reads of a region that prefetch had brought
	Late   int64 `json:"late"`         // reads that waited for a prefetch under way
	Shared int64 `json:"shared_bytes"` // not fetched again for a volume, because another one of the image had them fetched
	Errors int64 `json:"errors"`       // prefetches that failed; each is tried again
}

// PrefetchStats returns the figures now.
func (c *Cache) PrefetchStats() PrefetchStats {
	x := &c.prefetched
	asked, now := x.most()
	s := PrefetchStats{Strategy: asked.String(), State: StateOff,
		Filled: x.filled.Load(), Ahead: x.ahead.Load(), Used: x.used.Load(), Hits: x.hits.Load(),
		Late: x.late.Load(), Shared: x.shared.Load(), Errors: x.errors.Load(),
	}
	_, _, missing := c.copy.counts()
	switch {
	case missing == 0:
		s.State = StateComplete
	case asked >= PrefetchIdle && now < PrefetchIdle:
		s.State = StatePaused
	case asked >= PrefetchIdle && x.p != nil:
		x.p.mu.Lock()
		defer x.p.mu.Unlock()
		s.State, s.Reason = x.state, x.reason
		if x.state == "" {
			s.State = StateFilling
		}
		if time.Since(x.since) < 5*rateWindow {
			s.Rate = int64(x.rate)
		}
		if s.Rate > 0 {
			s.Left = missing/s.Rate + 1
		}
	}
	return s
}

// Hours are hours of the day.
type Hours = prefetch.Schedule

// ParseHours reads spans of the day such as "22:00-06:00, 12:00-13:00". An
// empty text is the whole day.
func ParseHours(text string) (Hours, error) { return prefetch.ParseSchedule(text) }
