package overlay

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"skylun/block"
)

// This file alone decides durability. A round makes durable all writes and
// state changes that were there when it began; whoever asks while a round runs
// is served by the next one, together with all others who ask meanwhile.
//
// The order within a round, and what swapping two steps would lose:
//
//	take, then sync: a change taken after the sync could name a block whose
//	bytes were written after it; appended, it would show old bytes after a
//	power cut.
//	sync, then append: a change appended first shows whatever the file holds
//	after a power cut.
//	append, then answer: an answer before would promise a block that is not
//	known to be there.
//
// That is a large round. A small one appends bytes and states to the redo log
// of the layer instead, with one sync (redo.go), and leaves the file and the map to a
// large one:
//
//	take changes, then what was captured: a change whose bytes were captured
//	after it was taken would show old bytes.
//	sync and append, then clear the redo log, then answer: records that are older
//	than what was answered would be done again over it.
//	capture, then sync: what is written after the sync and not captured would
//	be in neither.

// commits are the rounds of one file.
type commits struct {
	mu      sync.Mutex
	running bool          // guarded by mu
	closed  bool          // guarded by mu
	next    *waiting      // guarded by mu: the round that has not begun, nil when nobody asked
	idle    chan struct{} // guarded by mu: closed when rounds end, nil when nobody waits for that
}

// waiting is a round that some are waiting for. err is valid once done is
// closed.
type waiting struct {
	done  chan struct{}
	large bool // guarded by commits.mu: the redo log does not do
	err   error
}

// commit makes durable what was written and marked before the call. The first
// to ask runs the round itself: handing it to another goroutine would cost
// more than a fast disk's sync.
func (s *sparse) commit(ctx context.Context) error { return s.commitIn(ctx, false) }

// commitLarge is commit that leaves nothing in the redo log.
func (s *sparse) commitLarge(ctx context.Context) error { return s.commitIn(ctx, true) }

func (s *sparse) commitIn(ctx context.Context, large bool) error {
	w, lead := s.ask(large)
	if lead {
		emptied := s.runNext()
		if len(emptied) > 0 || s.wantRedo.Load() || !s.finish() {
			go s.rounds(emptied)
		}
		return w.err
	}
	select {
	case <-w.done:
		return w.err
	case <-ctx.Done(): // the round goes on for the others
		return ctx.Err()
	}
}

// background is commit for nobody: an error is met again by the next Flush,
// because the changes stay pending or the file is broken.
func (s *sparse) background() {
	if _, lead := s.ask(true); lead {
		go s.rounds(nil)
	}
}

// ask joins the next round. Who gets lead has to run it.
func (s *sparse) ask(large bool) (w *waiting, lead bool) {
	c := &s.commits
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		w := &waiting{done: make(chan struct{}), err: block.ErrClosed}
		close(w.done)
		return w, false
	}
	if c.next == nil {
		c.next = &waiting{done: make(chan struct{})}
	}
	c.next.large = c.next.large || large
	lead = !c.running
	c.running = true
	return c.next, lead
}

// rounds does what the round before has left to do after its answer, and runs
// rounds until nobody asks for one.
func (s *sparse) rounds(emptied []Extent) {
	for {
		s.giveBack(emptied)
		if s.makeRedo() {
			emptied, _ = s.round(true) // the next Flush meets the error again
			s.giveBack(emptied)
		}
		if s.finish() {
			return
		}
		emptied = s.runNext()
	}
}

// runNext runs the round that somebody asked for and answers.
func (s *sparse) runNext() (emptied []Extent) {
	c := &s.commits
	c.mu.Lock()
	w := c.next
	c.next = nil
	large := w.large
	c.mu.Unlock()
	emptied, w.err = s.round(large)
	close(w.done)
	return emptied
}

// finish ends the rounds if nobody asks for another.
func (s *sparse) finish() bool {
	c := &s.commits
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.next != nil {
		return false
	}
	c.running = false
	if c.idle != nil {
		close(c.idle)
		c.idle = nil
	}
	return true
}

// wait returns when no round is running.
func (c *commits) wait() {
	for {
		c.mu.Lock()
		if !c.running {
			c.mu.Unlock()
			return
		}
		if c.idle == nil {
			c.idle = make(chan struct{})
		}
		idle := c.idle
		c.mu.Unlock()
		<-idle
	}
}

// close refuses further rounds and returns when none is running.
func (c *commits) close() {
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	c.wait()
}

// round makes everything durable that is there now, and returns those changes
// whose blocks hold nothing any more. Only one runs at a time.
func (s *sparse) round(large bool) (emptied []Extent, err error) {
	s.alone.Lock()
	defer s.alone.Unlock()
	return s.roundAlone(large)
}

// roundAlone is round for who holds alone.
func (s *sparse) roundAlone(large bool) (emptied []Extent, err error) {
	if err := s.failure(); err != nil {
		return nil, err
	}
	s.mu.Lock()
	changes := s.pending
	s.pending = nil
	s.mu.Unlock()
	written, all := s.capture.take()
	defer s.capture.free(written)
	emptied = merge(emptiedBy(changes))
	if !large && all && s.smallRound(changes, written) {
		return emptied, nil
	}
	if err := s.largeRound(changes); err != nil {
		return nil, err
	}
	return emptied, nil
}

// emptiedBy returns those changes whose blocks hold nothing any more.
func emptiedBy(changes []Extent) (emptied []Extent) {
	for _, e := range changes {
		if state(e.State) != present {
			emptied = append(emptied, e)
		}
	}
	return emptied
}

// largeRound makes everything durable in the file and the map. The caller holds
// alone.
func (s *sparse) largeRound(changes []Extent) error {
	if len(changes) > 0 {
		s.overwrites = 0
	} else {
		s.overwrites++
	}
	if s.redo == nil || s.overwrites > redoRest {
		s.capture.spill()
	} else {
		s.capture.again()
	}
	if s.wrote.Swap(false) {
		if err := s.file.Sync(); err != nil {
			if s.lenient {
				s.wrote.Store(true)
				s.putBack(changes)
			}
			return s.fail(s.distrust(fmt.Errorf("sync: %w", err)))
		}
	}
	if len(changes)+len(s.redone) > 0 {
		if err := s.disk.Append(merge(slices.Concat(s.redone, changes))); err != nil {
			err = s.mapError(err)
			if s.lenient || errors.Is(err, block.ErrNoSpace) { // nothing of it is there: try again at the next flush
				s.putBack(changes)
			}
			s.capture.spill()
			return err
		}
		s.missRedo(changes)
		s.redone = nil
	}
	if s.redo != nil && !s.redo.empty() {
		if err := s.redo.clear(); err != nil {
			return s.fail(fmt.Errorf("redo log: %w", err))
		}
	}
	s.trouble.Store(nil)
	return nil
}

// settle makes changes of a sealed layer durable, with the bytes that were
// written before, and then known. They are in ascending order without overlaps.
// So nobody ever relies on a state of a sealed layer that a power cut could take
// back.
func (s *sparse) settle(changes []Extent) error {
	s.alone.Lock()
	defer s.alone.Unlock()
	if err := s.failure(); err != nil {
		return err
	}
	if s.wrote.Swap(false) {
		if err := s.file.Sync(); err != nil {
			return s.fail(fmt.Errorf("sync: %w", err))
		}
	}
	if len(changes) == 0 {
		return nil
	}
	if err := s.disk.Append(changes); err != nil {
		return s.mapError(err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.frozen = s.frozen.with(changes, s.frozen.blocks)
	return nil
}

// putBack makes the next round try again what this one has taken.
func (s *sparse) putBack(changes []Extent) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pending = slices.Concat(changes, s.pending)
	if len(s.pending) > 0 {
		s.arm()
	}
}

// mapError is what follows from err of the map. Without room nothing was done;
// after any other error nobody knows what is there.
func (s *sparse) mapError(err error) error {
	if err = localError(err); errors.Is(err, block.ErrNoSpace) {
		return err
	}
	return s.fail(err)
}

// merge makes one extent of those that touch, if all are in the same state, so
// that their order does not matter.
func merge(changes []Extent) []Extent {
	if len(changes) == 0 {
		return nil
	}
	for _, e := range changes {
		if e.State != changes[0].State {
			return changes
		}
	}
	slices.SortFunc(changes, func(a, b Extent) int { return cmp.Compare(a.Off, b.Off) })
	merged := changes[:1]
	for _, e := range changes[1:] {
		if last := &merged[len(merged)-1]; e.Off <= last.End {
			last.End = max(last.End, e.End)
		} else {
			merged = append(merged, e)
		}
	}
	return merged
}

// fail ends durability for this file until it is opened again. Whatever the
// cause was, also a full disk, it is the medium that cannot be believed now.
func (s *sparse) fail(err error) error {
	if s.lenient {
		err = fmt.Errorf("%w: %v", block.ErrMedium, err)
		s.trouble.Store(&err)
		return err
	}
	err = fmt.Errorf("%w: no more writes until the server is restarted: %v", block.ErrMedium, err)
	s.broken.CompareAndSwap(nil, &err)
	return err
}
