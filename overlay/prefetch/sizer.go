package prefetch

import "time"

const (
	sizeFirst  = 16 << 10 // while nothing is known
	sizeLeast  = 16 << 10
	sizeMost   = 256 << 10
	sizeSmall  = 64 << 10  // a fetch of no more tells the latency
	sizeLarge  = 256 << 10 // one of no less tells the throughput
	sizeRate   = 200e6     // bytes/s that one link in use brings at least, as far as is known
	tripMemory = 256       // fetches
	extraCost  = 8         // what is fetched beyond what was asked for takes that part of the latency
)

// Sizer finds out how much to fetch when a reader wants little: as much as
// makes nearly no difference for it. A request to a far store costs
// milliseconds whatever its size, so neighbours come along for nothing; from a
// near one they would double the time. It is not safe for parallel use.
type Sizer struct {
	latency time.Duration // of a small fetch: nearly the least of late
	rate    float64       // bytes/s of a large one
	trip    time.Duration // the least that any of late took
	least   int64         // requests are what is scarce
}

// Fetched tells that a fetch of n bytes took d.
func (s *Sizer) Fetched(n int64, d time.Duration) {
	if d <= 0 {
		return
	}
	if s.trip += s.trip / tripMemory; s.trip == 0 || d < s.trip {
		s.trip = d
	}
	if n <= sizeSmall {
		if s.latency == 0 || d < s.latency {
			s.latency = d
		}
		s.latency += (d - s.latency) / 16
	}
	if n >= sizeLarge && d > s.latency {
		rate := float64(n) / (d - s.latency).Seconds()
		if s.rate == 0 {
			s.rate = rate
		}
		s.rate += (rate - s.rate) / 8
	}
}

// Throttled tells that the store has refused requests for being too many.
func (s *Sizer) Throttled() { s.least = min(max(2*s.least, sizeFirst), sizeMost) }

// Size returns how many bytes to fetch: a fetch begins and ends on a multiple of it where it may.
func (s *Sizer) Size() int64 {
	n := int64(sizeFirst)
	if s.latency > 0 && s.rate > 0 {
		n = sizeLeast
		for n < sizeMost && float64(2*n) <= s.rate*s.latency.Seconds()/extraCost {
			n *= 2
		}
	}
	return max(n, s.least)
}

// Least returns what a fetch has at least whoever wants it; 0: anything.
func (s *Sizer) Least() int64 { return s.least }

// Full returns how many bytes are under way when the link is full.
func (s *Sizer) Full() int64 { return int64(max(s.rate, sizeRate) * s.trip.Seconds()) }

// Window returns how many bytes are under way when a stream uses what the store
// brings; 0: not known.
func (s *Sizer) Window() int64 { return int64(4 * s.rate * s.latency.Seconds()) }
