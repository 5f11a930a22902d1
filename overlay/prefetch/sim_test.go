package prefetch

import (
	"container/heap"
	"math"
	"math/rand/v2"
	"slices"
	"time"
)

// A sim is a node whose fills one Governor controls, its readers, and a store:
// everything happens in virtual time, the same for the same seed.
type sim struct {
	now    time.Time
	rnd    *rand.Rand // of what readers do and meet: the same with and without fills
	fills  *rand.Rand
	events events
	seq    int

	store *store
	gov   *Governor
	mode  Mode
	fill  bool

	wake   time.Time // of the filler, if it waits for a time
	filled int64
	sent   int64

	misses       []time.Duration
	guestBytes   int64
	sendsWaiting []time.Duration // how long after a reader began to wait a fill was sent
	waitsSince   time.Time
	waiting      int
	why          string
	backoff      Backoff
	over         *bool   // of readers that are begun now: set when they are to end
	commands     float64 // a second, that the node gets besides
}

type event struct {
	at  time.Time
	seq int
	do  func()
}

type events []event

func (e events) Len() int { return len(e) }
func (e events) Less(i, j int) bool {
	return e[i].at.Before(e[j].at) || e[i].at.Equal(e[j].at) && e[i].seq < e[j].seq
}
func (e events) Swap(i, j int) { e[i], e[j] = e[j], e[i] }
func (e *events) Push(x any)   { *e = append(*e, x.(event)) }
func (e *events) Pop() any     { old := *e; x := old[len(old)-1]; *e = old[:len(old)-1]; return x }

var simStart = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func newSim(seed uint64, st store) *sim {
	s := &sim{now: simStart, rnd: rand.New(rand.NewPCG(seed, 1)), fills: rand.New(rand.NewPCG(seed, 3)), store: &st}
	s.store.sim = s
	s.gov = NewGovernor(0, rand.New(rand.NewPCG(seed, 2)))
	return s
}

func (s *sim) at(t time.Time, do func()) {
	s.seq++
	heap.Push(&s.events, event{t, s.seq, do})
}

func (s *sim) after(d time.Duration, do func()) { s.at(s.now.Add(d), do) }

func (s *sim) run(d time.Duration) {
	end := s.now.Add(d)
	for len(s.events) > 0 && !s.events[0].at.After(end) {
		e := heap.Pop(&s.events).(event)
		s.now = e.at
		e.do()
	}
	s.now = end
}

// store is a model of a blob: a latency that varies, a link whose transfers share its
// bandwidth equally, and a limit of requests.
type store struct {
	sim       *sim
	latency   time.Duration // the median
	spread    float64       // sigma of the logarithm
	bandwidth float64       // bytes/s
	requests  float64       // a second; 0: no limit

	tokens    float64
	refilled  time.Time
	throttled int

	active  []*transfer
	virtual float64 // bytes that each transfer has got since the beginning
	since   time.Time
	version int

	down bool // requests fail
}

type transfer struct {
	end  float64
	done func()
}

// get calls done when n bytes have come, or with why not.
func (st *store) get(rnd *rand.Rand, n int64, done func(ok, throttled bool)) {
	s := st.sim
	if st.requests > 0 {
		if st.refilled.IsZero() {
			st.tokens = st.requests / 4
		} else {
			st.tokens = min(st.requests/4, st.tokens+s.now.Sub(st.refilled).Seconds()*st.requests)
		}
		st.refilled = s.now
		if st.tokens < 1 {
			st.throttled++
			s.after(st.latency/2, func() { done(false, true) })
			return
		}
		st.tokens--
	}
	wait := time.Duration(float64(st.latency) * math.Exp(st.spread*rnd.NormFloat64()))
	if st.down {
		s.after(wait, func() { done(false, false) })
		return
	}
	s.after(wait, func() {
		st.progress()
		st.active = append(st.active, &transfer{st.virtual + float64(n), func() { done(true, false) }})
		st.plan()
	})
}

func (st *store) progress() {
	if n := len(st.active); n > 0 {
		st.virtual += st.sim.now.Sub(st.since).Seconds() * st.bandwidth / float64(n)
	}
	st.since = st.sim.now
}

// plan arranges for the end of the next transfer.
func (st *store) plan() {
	st.version++
	if len(st.active) == 0 {
		return
	}
	first := slices.MinFunc(st.active, func(a, b *transfer) int {
		if a.end < b.end {
			return -1
		}
		return 1
	})
	left := max(0, first.end-st.virtual) * float64(len(st.active)) / st.bandwidth
	version := st.version
	st.sim.after(time.Duration(left*float64(time.Second))+1, func() {
		if version != st.version {
			return
		}
		st.progress()
		var ended []*transfer
		st.active = slices.DeleteFunc(st.active, func(t *transfer) bool {
			if t.end <= st.virtual+1 {
				ended = append(ended, t)
				return true
			}
			return false
		})
		st.plan()
		for _, t := range ended {
			t.done()
		}
	})
}

// pump sends what the governor allows.
func (s *sim) pump() {
	if !s.fill {
		return
	}
	for {
		if d := s.backoff.Left(s.now); d > 0 {
			s.why = "after an error"
			s.later(d)
			return
		}
		if s.commands > 0 {
			s.gov.Busy(s.now, s.commands, 0)
		}
		n := s.gov.FetchSize()
		w := s.gov.May(s.now, s.mode, n)
		s.why = w.Why
		if !w.Now {
			if w.After > 0 {
				s.later(w.After)
			}
			return
		}
		if s.waiting > 0 {
			s.sendsWaiting = append(s.sendsWaiting, s.now.Sub(s.waitsSince))
		}
		s.sent++
		s.gov.Sent(s.now, s.mode, n)
		began := s.now
		s.store.get(s.fills, n, func(ok, throttled bool) {
			if throttled {
				s.gov.Throttled(s.now, time.Time{})
			}
			s.gov.Done(s.now, n, s.now.Sub(began), ok)
			switch {
			case ok:
				s.filled += n
				s.backoff.Done()
			case !throttled:
				s.backoff.Failed(s.now, s.fills)
			}
			s.pump()
		})
	}
}

// later pumps after d, unless that is arranged anew before.
func (s *sim) later(d time.Duration) {
	at := s.now.Add(d)
	s.wake = at
	s.at(at, func() {
		if s.wake.Equal(at) {
			s.pump()
		}
	})
}

// miss is a reader's fetch, tried again until it comes.
func (s *sim) miss(n int64, then func()) {
	began := s.now
	if s.waiting == 0 {
		s.waitsSince = s.now
	}
	s.waiting++
	s.gov.Waits(s.now)
	var try func()
	try = func() {
		s.store.get(s.rnd, n, func(ok, throttled bool) {
			if !ok {
				if throttled {
					s.gov.Throttled(s.now, time.Time{})
				}
				s.after(50*time.Millisecond, try)
				return
			}
			s.waiting--
			s.gov.Waited(s.now, n)
			s.misses = append(s.misses, s.now.Sub(began))
			s.guestBytes += n
			s.pump()
			then()
		})
	}
	try()
}

// reader reads n bytes again and again: what it does not find it waits for,
// then it thinks for some time.
func (s *sim) reader(n int64, think func() time.Duration) {
	over := s.over
	var next func()
	next = func() {
		if over != nil && *over {
			return
		}
		s.after(think(), func() { s.miss(n, next) })
	}
	next()
}

func (s *sim) exponential(mean time.Duration) func() time.Duration {
	return func() time.Duration { return time.Duration(s.rnd.ExpFloat64() * float64(mean)) }
}

// plain is a plain parallel download: workers that fetch n bytes each again
// and again. It returns bytes/s.
func plain(seed uint64, st store, workers int, n int64, d time.Duration) float64 {
	s := newSim(seed, st)
	total := s.download(workers, n, math.MaxInt64)
	s.run(d)
	return float64(*total) / d.Seconds()
}

// plainOf is how long that takes for size bytes.
func plainOf(seed uint64, st store, workers int, n, size int64) time.Duration {
	s := newSim(seed, st)
	for total := s.download(workers, n, size); *total < size; {
		s.run(time.Millisecond)
	}
	return s.now.Sub(simStart)
}

// download begins a plain download and returns where it counts what has come.
func (s *sim) download(workers int, n, size int64) *int64 {
	total, left := new(int64), size
	for range workers {
		var next func()
		next = func() {
			if left <= 0 {
				return
			}
			left -= n
			s.store.get(s.rnd, n, func(ok, _ bool) {
				if ok {
					*total += n
					next()
				} else {
					left += n
					s.after(100*time.Millisecond, next)
				}
			})
		}
		next()
	}
	return total
}

// percentile returns the p'th of all, which are not empty.
func percentile(all []time.Duration, p float64) time.Duration {
	all = slices.Sorted(slices.Values(all))
	return all[min(len(all)-1, int(p*float64(len(all))))]
}
