package target

import (
	"sync"
	"sync/atomic"
	"time"

	"skylun/target/pdu"
)

// window is the command window of a session, RFC 7143 4.2.2.1: the commands
// numbered exp to max may be sent. Each command that ends moves max, so there
// are never more of them in flight than the window is wide.
//
// The requests of a session may come through several connections, and have
// their effect in the order of their numbers. Nearly always the next one comes
// next, on a session with one connection always; then two atomic operations are
// all there is to it. One that comes early is kept: its connection reads on, and
// whoever takes the last request that was missing gives it its turn.
//
//	                  exp                                     max
//	... ended, taken | missing | early | missing | early | ...  |
//
// What never comes leaves a gap that nothing can be done about at error recovery
// level 0, so a gap that stays for gapTimeout ends the session. An initiator can
// close it with an ABORT TASK for the missing command.
type window struct {
	exp, max atomic.Uint32
	kept     atomic.Int32 // entries of early and barriers: while there are none, nobody takes mu

	mu       sync.Mutex            // taken after a connection's, nothing is taken while it is held
	early    map[uint32]earlyEntry // by CmdSN; that of exp is about to be taken out
	barriers []barrier
	timer    *time.Timer // runs while kept is not zero
	lastExp  uint32      // when it was set
	stopped  bool        // the session has ended
}

// gapTimeout is how long a missing request may hold up those behind it.
const gapTimeout = 15 * time.Second

// earlyEntry is a request that is there before its turn.
type earlyEntry struct {
	task *task  // a command, unless it has ended meanwhile
	conn *conn  // that it came through
	run  func() // what to do when it has its turn; called without locks
}

// barrier is a request without a number of its own that waits for those before
// it.
type barrier struct {
	before uint32
	run    func()
}

// verdict is what becomes of a request because of its CmdSN.
type verdict int

const (
	accepted verdict = iota
	ignored          // outside of the window, or there already
	early            // within the window, but a request before it is missing
)

func (w *window) reset(exp, width uint32) {
	w.exp.Store(exp)
	w.max.Store(exp + width - 1)
}

// take judges a request, and moves exp over it when it is accepted.
// Immediate requests have a CmdSN that is not looked at.
func (w *window) take(h *pdu.Header) verdict {
	if h.Immediate() {
		return accepted
	}
	sn := h.CmdSN()
	for {
		exp := w.exp.Load()
		switch {
		case !pdu.Within(sn, exp, w.max.Load()):
			return ignored
		case sn != exp:
			return early
		case w.exp.CompareAndSwap(exp, exp+1):
			return accepted
		}
	}
}

// credit lets the initiator send one more request.
func (w *window) credit() { w.max.Add(1) }

// keep keeps a request that is early until its turn, and tells whether it is
// the first of its number.
func (w *window) keep(s *session, sn uint32, e earlyEntry) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if _, there := w.early[sn]; there || pdu.Before(sn, w.exp.Load()) {
		return false
	}
	if w.early == nil {
		w.early = make(map[uint32]earlyEntry)
	}
	w.early[sn] = e
	w.kept.Add(1)
	w.watch(s)
	return true
}

// plug makes a number count as received, if it is not there.
func (w *window) plug(s *session, sn uint32) { w.keep(s, sn, earlyEntry{}) }

// wait has run called when all requests before a number are there, by advance.
func (w *window) wait(s *session, before uint32, run func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.barriers = append(w.barriers, barrier{before, run})
	w.kept.Add(1)
	w.watch(s)
}

// watch starts the timer. w.mu is held.
func (w *window) watch(s *session) {
	if w.timer == nil && !w.stopped {
		w.lastExp = w.exp.Load()
		w.timer = time.AfterFunc(gapTimeout, func() { s.lookAtGap() })
	}
}

// stop ends the timer for good.
func (w *window) stop() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.stopped = true
	if w.timer != nil {
		w.timer.Stop()
	}
}

// next takes one thing out that has its turn: an entry, which is in sequence
// or a number that another request has had, or a barrier.
func (w *window) next() (sn uint32, e earlyEntry, inTurn, ok bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	exp := w.exp.Load()
	for i, b := range w.barriers {
		if !pdu.Before(exp, b.before) {
			w.barriers = append(w.barriers[:i], w.barriers[i+1:]...)
			w.kept.Add(-1)
			return 0, earlyEntry{run: b.run}, false, true // it has no turn
		}
	}
	for sn, e := range w.early {
		switch {
		case pdu.Before(sn, exp):
		case sn == exp:
			inTurn = w.exp.CompareAndSwap(exp, exp+1)
		default:
			continue
		}
		delete(w.early, sn)
		w.kept.Add(-1)
		if !inTurn {
			e.run = nil
		}
		return sn, e, inTurn, true
	}
	return 0, earlyEntry{}, false, false
}

// advance gives all requests that were early and have their turn now what
// they have waited for. The caller holds no lock. It is to be called after a
// request was taken, if kept is not zero, and after one was kept.
func (s *session) advance() {
	w := &s.win
	for {
		sn, e, inTurn, ok := w.next()
		switch {
		case !ok:
			return
		case e.task != nil && e.conn.turn(e.task, sn, inTurn):
		case inTurn:
			w.credit()
		}
		if e.run != nil {
			e.run()
		}
	}
}

// lookAtGap ends the session if the request that is missing is the same as
// before.
func (s *session) lookAtGap() {
	w := &s.win
	w.mu.Lock()
	w.timer = nil
	exp := w.exp.Load()
	stuck := w.kept.Load() > 0 && exp == w.lastExp
	if w.kept.Load() > 0 && !stuck {
		w.watch(s)
	}
	w.mu.Unlock()
	if stuck {
		s.drop(gapError(exp))
	}
}
