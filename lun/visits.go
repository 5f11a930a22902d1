package lun

import (
	"context"
	"slices"
)

// A copy that another unit manages changes this one without being a command
// of it: ABORT TASK SET and the like do not find it. But whoever has been
// preempted with PREEMPT AND ABORT must not change a thing after that command
// has ended. So such copies are visits, which the unit can end.
type visit struct {
	nexus  *Nexus
	cancel context.CancelFunc
	gone   chan struct{} // closed when it can have no further effect
}

// visit begins a copy to this unit for n; leave ends it. What keeps n away is to
// be checked after that: then either the check or endVisits finds out.
func (s *server) visit(ctx context.Context, n *Nexus) (_ context.Context, leave func()) {
	ctx, cancel := context.WithCancel(ctx)
	v := &visit{n, cancel, make(chan struct{})}
	s.mu.Lock()
	if s.visits == nil {
		s.visits = make(map[*visit]struct{})
	}
	s.visits[v] = struct{}{}
	s.mu.Unlock()
	return ctx, func() {
		s.mu.Lock()
		delete(s.visits, v)
		s.mu.Unlock()
		cancel()
		close(v.gone)
	}
}

// endVisits ends the copies for nexuses that were preempted or may not write any
// more, and returns when they can have no further effect, or with the error of
// ctx.
func (s *server) endVisits(ctx context.Context, preempted []*Nexus) error {
	s.mu.Lock()
	all := make([]*visit, 0, len(s.visits))
	for v := range s.visits {
		all = append(all, v)
	}
	s.mu.Unlock()
	for _, v := range all {
		if s.excluded(v.nexus, accessWrite) == nil && !slices.Contains(preempted, v.nexus) {
			continue
		}
		v.cancel()
		select {
		case <-v.gone:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}
