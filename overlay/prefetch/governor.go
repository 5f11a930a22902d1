package prefetch

import (
	"math/rand/v2"
	"time"
)

// Mode is how hard an image is filled.
type Mode uint8

const (
	Idle   Mode = iota // when nothing else wants the resources
	Full               // as fast as readers do not suffer
	Urgent             // as much as brings something: readers are about to want it
)

const (
	minFetch    = 64 << 10
	firstFetch  = 256 << 10 // while the store's throughput is not known
	maxFetch    = 4 << 20
	fetchRate   = 400 // a second, above which fetches become larger: a page blob allows 500
	firstWindow = 512 << 10
	maxWindow   = 64 << 20
	roundDone   = 4  // fetches that make a round of startup
	crowded     = 3  // times as long as the fastest of startup took: fetches wait for each other
	epochDone   = 12 // fetches that make a measurement
	epochLeast  = 40 * time.Millisecond
	epochMost   = 3 * time.Second
	epochTrips  = 3       // round trips: what was under way when it began is counted, and what is when it ends is not
	urgentLeast = 4 << 20 // bytes under way
	trickleMost = 10 * time.Second
	calmTrips   = 3 // round trips without a waiting reader before filling goes on
	calmLeast   = 60 * time.Millisecond
	blockedFor  = 1 * time.Second  // after being asked to slow down, if it is not said for how long
	aliveFor    = 45 * time.Second // after a reader waited for the store, another one is expected
	gentle      = 0.5              // of the throughput is what fills then take
	queueing    = 3                // times what is under way if there are no queues: there are
	localSlower = 1.5              // how much slower local readers may be than they are alone
	localSlack  = 200 * time.Microsecond
)

// shares say how much of the store's throughput a fill may take while somebody
// else is at work.
var shares = [...]struct{ missing, busy float64 }{
	Idle:   {missing: 0.03, busy: 0.25},
	Full:   {missing: 0.12, busy: 1},
	Urgent: {missing: 1, busy: 1},
}

// phase is what a Governor is doing.
type phase uint8

const (
	startup phase = iota // doubles the window
	cruise
	probeUp
	probeDown
	yield // somebody waits for the store
)

var phaseNames = [...]string{"startup", "cruise", "probe up", "probe down", "yield"}

func (p phase) String() string { return phaseNames[p] }

// Governor says how much may be fetched for nobody. It is not safe for
// parallel use, and its times never go back.
type Governor struct {
	rnd *rand.Rand
	cap float64 // bytes/s, 0: none

	phase    phase
	window   float64 // bytes that may be under way
	ceiling  float64 // where startup ends, 0: where it brings nothing any more
	inFlight int64   // bytes
	fetches  int     // under way
	floor    int64   // fetches are no smaller: it was throttled by their number

	known bool          // more under way brought no more
	rough bool          // what best and steady are is not known well
	best  float64       // bytes/s: the most that came in, forgotten slowly
	trip  time.Duration // what a fetch takes, smoothed
	quick time.Duration // what a quarter of them took less than, of late

	epoch    epoch
	dull     bool          // the last doubling brought little, which may be chance
	fastest  time.Duration // fetch of startup
	last     float64       // what the epoch before brought, bytes/s
	steady   float64       // what cruise brings
	untilTry int           // epochs of cruise before the next probe
	upNext   bool          // which probe that is
	before   float64       // the window before the probe

	waiting   int       // readers that wait for the store
	alive     bool      // one did of late: the link is not filled to the brim
	expect    time.Time // until when that is so
	flow      int64     // bytes that came in since flowSince
	flowSince time.Time
	calm      time.Time // when the way counts as free, if nobody waits
	trickle   time.Time // when the next single fetch may be sent meanwhile
	blocked   time.Time // until when the store wants to be left alone
	tokens    float64   // of cap
	refilled  time.Time

	local local
}

// epoch is a measurement of what comes in.
type epoch struct {
	settled time.Time // it begins then: what was sent before does not count
	bytes   int64
	done    int
}

// NewGovernor returns one that fills at most cap bytes/s; 0: no such limit.
func NewGovernor(cap int64, rnd *rand.Rand) *Governor {
	g := &Governor{rnd: rnd, cap: float64(cap), floor: minFetch}
	g.window = firstWindow
	return g
}

// jitter makes d up to a quarter longer.
func (g *Governor) jitter(d time.Duration) time.Duration {
	return d + time.Duration(g.rnd.Int64N(int64(d)/4+1))
}

// FetchSize returns how many bytes a fill is good to have: few enough that a
// reader does not wait long behind one, and enough that the store does not
// count too many.
func (g *Governor) FetchSize() int64 {
	n, rate := int64(minFetch), g.best
	if g.best == 0 || g.searching() {
		n = firstFetch
	}
	if g.alive {
		rate *= gentle
	}
	for n < maxFetch && float64(n)*fetchRate < rate {
		n *= 2
	}
	return max(n, g.floor)
}

// limit returns how much may be under way.
func (g *Governor) limit() float64 {
	if !g.alive || !g.known {
		return g.window
	}
	return min(g.window, g.gentle())
}

// gentle returns how much may be under way while readers are expected.
func (g *Governor) gentle() float64 { return gentle * g.best * g.quick.Seconds() }

// Wait is the answer to "may I send a fetch?".
type Wait struct {
	Now   bool          // yes
	After time.Duration // ask again then; 0: when something has ended
	Why   string        // for people; empty: it goes as fast as it can
}

// May tells whether a fetch of n bytes may be sent.
func (g *Governor) May(now time.Time, mode Mode, n int64) Wait {
	g.advance(now)
	if d := g.blocked.Sub(now); d > 0 {
		return Wait{After: d, Why: "the store asks to slow down"}
	}
	if g.cap > 0 {
		g.refill(now)
		if g.tokens < 0 {
			return Wait{After: g.lack(-g.tokens), Why: "rate limit"}
		}
	}
	if mode == Urgent {
		if most := max(g.window, g.ceiling, urgentLeast); g.fetches > 0 && float64(g.inFlight+n) > most {
			return Wait{}
		}
		return Wait{Now: true}
	}
	if g.phase == yield {
		const why = "a reader waits for the store"
		if g.fetches > 0 {
			return Wait{Why: why}
		}
		if d := g.trickle.Sub(now); d > 0 {
			if free := g.calm.Sub(now); g.waiting == 0 && free > 0 {
				d = min(d, free)
			}
			return Wait{After: d, Why: why}
		}
		return Wait{Now: true, Why: why}
	}
	window, why := g.limit(), ""
	if g.local.busy(now) && shares[mode].busy < 1 {
		why = "readers and writers are busy"
		if g.fetches > 0 {
			return Wait{Why: why}
		}
		if d := g.trickle.Sub(now); d > 0 {
			return Wait{After: d, Why: why}
		}
	}
	if g.fetches > 0 && float64(g.inFlight+n) > window {
		return Wait{Why: why}
	}
	return Wait{Now: true, Why: why}
}

func (g *Governor) lack(bytes float64) time.Duration {
	return time.Duration(bytes/g.cap*float64(time.Second)) + time.Millisecond
}

func (g *Governor) refill(now time.Time) {
	if !g.refilled.IsZero() {
		g.tokens += now.Sub(g.refilled).Seconds() * g.cap
	}
	g.tokens = min(g.tokens, g.cap/20) // what was not used is not made up for
	g.refilled = now
}

// Sent tells that a fetch that May allowed is under way.
func (g *Governor) Sent(now time.Time, mode Mode, n int64) {
	g.inFlight += n
	g.fetches++
	if g.cap > 0 {
		g.tokens -= float64(n)
	}
	share := shares[mode].busy
	if g.phase == yield {
		share = shares[mode].missing
	}
	g.pause(now, n, share)
}

// pause sees to it that the next fetch of a trickle comes when n bytes are
// worth no more than a share of the throughput.
func (g *Governor) pause(now time.Time, n int64, share float64) {
	d := time.Second
	if rate := g.best * share; rate > 0 {
		d = time.Duration(min(float64(n)/rate, trickleMost.Seconds()) * float64(time.Second))
	}
	g.trickle = now.Add(g.jitter(d))
}

// Done tells that it has ended: it took d; ok tells that it brought its n bytes.
func (g *Governor) Done(now time.Time, n int64, d time.Duration, ok bool) {
	g.inFlight -= n
	g.fetches--
	g.advance(now)
	if !ok {
		g.narrow(now, 0.5)
		return
	}
	if g.trip == 0 {
		g.trip, g.quick = d, d
	}
	g.trip += (d - g.trip) / 8
	if step := g.quick / 128; d < g.quick { // the quartile
		g.quick -= 3 * step
	} else {
		g.quick += step
	}
	if g.phase == yield {
		g.comes(now, n)
		return
	}
	if g.searching() {
		g.round(now, n, d)
		return
	}
	if now.Before(g.epoch.settled) {
		return
	}
	g.epoch.bytes += n
	g.epoch.done++
	took := now.Sub(g.epoch.settled)
	enough := epochDone
	if g.phase != startup { // smaller differences are to be seen
		enough *= 4
	}
	if took >= max(epochLeast, epochTrips*g.trip) && g.epoch.done >= enough || took >= epochMost {
		g.measured(now, float64(g.epoch.bytes)/took.Seconds())
	}
}

// begin begins a measurement when what is sent from now on has come in.
func (g *Governor) begin(now time.Time) {
	g.epoch = epoch{settled: now.Add(g.trip)}
	if g.searching() {
		g.epoch.settled = now
	}
}

// searching tells whether it does not know yet what the store brings.
func (g *Governor) searching() bool { return g.phase == startup && g.ceiling == 0 }

// round is Done while it searches: each fetch that comes in lets one more be sent,
// so the window doubles with each round trip, until they queue. What comes in
// within one is compared with what did in the one before.
func (g *Governor) round(now time.Time, n int64, d time.Duration) {
	if g.fastest == 0 || d < g.fastest {
		g.fastest = d
	}
	if g.trip < crowded*g.fastest {
		g.window += float64(n)
	}
	g.epoch.bytes += n
	g.epoch.done++
	if g.epoch.settled.IsZero() {
		g.begin(now)
		return
	}
	if sent := now.Add(-d); sent.Before(g.epoch.settled) || g.epoch.done < roundDone {
		return
	}
	g.measured(now, float64(g.epoch.bytes)/now.Sub(g.epoch.settled).Seconds())
}

// measured goes from one epoch to the next.
func (g *Governor) measured(now time.Time, rate float64) {
	held := g.alive && g.known || // the window is not what limits it
		g.local.busy(now) || g.cap > 0 && rate > 0.8*g.cap
	if !held && g.phase != startup {
		g.best *= 0.995
	}
	if g.rough && g.phase != startup { // rounds are short, and the best of them was lucky
		g.best, g.steady, g.rough = rate, rate, false
	}
	g.best = max(rate, g.best)
	if g.window > queueing*g.best*g.quick.Seconds() {
		g.known = true
	}
	switch g.phase {
	case startup:
		switch {
		case held:
			g.settle(rate)
		case g.ceiling > 0:
			g.window *= 2
			if g.window >= g.ceiling {
				g.window = g.ceiling
				g.settle(rate)
			}
		case rate >= 1.25*g.last:
			g.dull = false
		case !g.dull:
			g.dull = true
		default:
			// What it grew beyond was for nothing. Where it ceased to bring
			// more says little, by chance; what the store brings says it better.
			g.window = queueing*g.best*g.fastest.Seconds() + 2*float64(g.FetchSize())
			g.known, g.rough = true, true
			g.settle(max(rate, g.last))
			g.upNext = true
		}
	case cruise:
		g.steady += (rate - g.steady) / 4
		if g.untilTry--; g.untilTry > 0 || held {
			break
		}
		g.before = g.window
		if g.upNext {
			g.phase = probeUp
			g.window = max(1.5*g.window, g.window+float64(g.FetchSize()))
		} else {
			g.phase = probeDown
			g.window *= 0.8
		}
		g.upNext = !g.upNext
	case probeUp:
		if rate < 1.08*g.steady {
			g.window, g.known = g.before, true
			g.settle(g.steady)
		} else {
			g.settle(rate)
			g.upNext, g.untilTry = true, 1 // and on
		}
	case probeDown:
		if rate < 0.97*max(g.steady, 0.97*g.best) {
			g.window = g.before
			g.settle(g.steady)
		} else {
			g.settle(rate)
			g.upNext, g.untilTry = false, 1 // and on
		}
	}
	if !g.dull || g.phase != startup {
		g.last = rate
	}
	g.window = min(max(g.window, float64(g.FetchSize())), maxWindow)
	g.begin(now)
}

// settle goes to cruise, which brings rate.
func (g *Governor) settle(rate float64) {
	g.phase, g.ceiling, g.steady, g.dull = cruise, 0, rate, false
	g.untilTry = 2 + g.rnd.IntN(3)
}

// narrow makes the window smaller by a factor.
func (g *Governor) narrow(now time.Time, by float64) {
	g.window = max(g.window*by, float64(g.FetchSize()))
	g.known = false // it is to find out again
	if g.phase != yield {
		g.settle(g.steady * by)
		g.upNext, g.untilTry = true, 4+g.rnd.IntN(4)
		g.begin(now)
	} else {
		g.ceiling = g.window
	}
}

// Waits tells that a reader waits for the store from now on.
func (g *Governor) Waits(now time.Time) {
	g.waiting++
	if g.phase == yield {
		return
	}
	switch g.phase {
	case probeUp, probeDown:
		g.ceiling = g.before
	case startup: // while it searches, no ceiling is known: it goes on with care
	default:
		g.ceiling = g.window
	}
	g.phase = yield
	g.pause(now, g.inFlight, shares[Idle].missing)
}

// Waited tells that one has what it waited for, n bytes, or failed.
func (g *Governor) Waited(now time.Time, n int64) {
	g.waiting--
	g.comes(now, n)
	g.alive, g.expect = true, now.Add(aliveFor)
	g.calm = now.Add(g.jitter(max(calmLeast, calmTrips*g.trip)))
}

// comes counts what comes in while nothing is measured by epochs: the store
// brings at least that.
func (g *Governor) comes(now time.Time, n int64) {
	g.flow += n
	if d := now.Sub(g.flowSince); d >= time.Second {
		if d < 2*time.Second {
			g.best = max(g.best, float64(g.flow)/d.Seconds())
		}
		g.flow, g.flowSince = 0, now
	}
}

// advance does what time alone does.
func (g *Governor) advance(now time.Time) {
	if g.alive && g.waiting == 0 && now.After(g.expect) {
		g.alive = false
	}
	if g.phase != yield || g.waiting > 0 || now.Before(g.calm) {
		return
	}
	least := float64(g.FetchSize())
	switch {
	case g.alive && g.known: // limit is narrow enough
		g.window = max(g.ceiling, least)
		g.settle(g.steady)
	case g.ceiling > least:
		g.phase = startup
		g.window = max(g.ceiling/4, least)
	default: // it had not found out yet what is good, and does with care
		g.phase, g.ceiling, g.window, g.fastest = startup, 0, least, 0
		if g.alive {
			g.settle(g.last)
			g.upNext = true
		}
	}
	g.last = 0
	g.begin(now)
}

// Throttled tells that the store wants fewer requests until a time; the zero
// time: it did not say.
func (g *Governor) Throttled(now, until time.Time) {
	if until.Before(now) {
		until = now.Add(blockedFor)
	}
	if g.blocked.After(now) {
		g.blocked = maxTime(g.blocked, until)
		return // of the same burst
	}
	g.blocked = until.Add(g.jitter(until.Sub(now)) - until.Sub(now))
	g.best *= 0.75
	g.floor = min(2*g.floor, maxFetch)
	g.narrow(now, 0.5)
}

func maxTime(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// State returns what it is doing, for people and traces.
func (g *Governor) State() (phase string, window, inFlight int64) {
	return g.phase.String(), int64(g.window), g.inFlight
}

// Store returns what it has learnt of the store: the bytes/s that it brings, and the
// time that a quarter of the fetches took less than. Zeros: nothing yet.
func (g *Governor) Store() (rate int64, quick time.Duration) { return int64(g.best), g.quick }
