package prefetch

import "time"

// local is how readers and writers of local data fare.
type local struct {
	active time.Time // until when they count as busy

	alone  time.Duration // what a read from disk takes while nothing is filled, smoothed
	among  time.Duration // and while something is
	count  int           // of those in among
	punish time.Time     // not before then again
}

func (l *local) busy(now time.Time) bool { return now.Before(l.active) }

// busyFor is how long a node counts as busy after it was.
const busyFor = 100 * time.Millisecond

// BusyRate is how many commands a second make a node busy: so many that the
// processor time of fills is felt.
const BusyRate = 500

// BusyDepth is how many requests in a disk's queue make it busy.
const BusyDepth = 4

// Busy tells how many commands a second the node gets now, and how many
// requests are in the queue of its busiest disk.
func (g *Governor) Busy(now time.Time, rate float64, depth int) {
	if rate >= BusyRate || depth >= BusyDepth {
		g.local.active = now.Add(g.jitter(busyFor))
	}
}

// Local tells that a reader waited for the local disk for d.
func (g *Governor) Local(now time.Time, d time.Duration) {
	l := &g.local
	if g.fetches == 0 {
		if l.alone == 0 {
			l.alone = d
		}
		l.alone += (d - l.alone) / 16
		l.among, l.count = l.alone, 0
		return
	}
	if l.alone == 0 {
		return // nothing to compare with
	}
	l.among += (d - l.among) / 4
	l.count++
	if l.count >= 4 && now.After(l.punish) && l.among > time.Duration(localSlower*float64(l.alone))+localSlack {
		l.punish = now.Add(g.jitter(busyFor))
		g.narrow(now, 0.7)
		l.active = maxTime(l.active, now.Add(busyFor))
	}
}
