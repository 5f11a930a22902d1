package node

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"skylun/block"
	"skylun/raid"
)

// LocalStatus is the array of local members at one moment.
type LocalStatus struct {
	Members   []MemberStatus  `json:"members"`
	Rebalance RebalanceStatus `json:"rebalance"`
}

// MemberStatus is one member. Sizes are bytes.
type MemberStatus struct {
	Name       string `json:"name"` // as the configuration names it
	Kind       string `json:"kind"` // who allocates: directory, identical, chunks
	Size       int64  `json:"size"`
	Free       int64  `json:"free"`
	Weight     int    `json:"weight,omitempty"`
	Errors     uint64 `json:"errors"`      // calls that failed since the node started
	QueueDepth int64  `json:"queue_depth"` // calls that it is busy with
	Problem    string `json:"problem,omitempty"`
	Leaving    bool   `json:"leaving,omitempty"` // it is to be taken out
	Files      int    `json:"files,omitempty"`   // of one that is leaving: that have a part on it still
}

// RebalanceStatus tells of the moving of files onto the members that there are
// now.
type RebalanceStatus struct {
	Running bool   `json:"running"`
	Files   int    `json:"files,omitempty"` // that are left
	Done    int64  `json:"done,omitempty"`  // bytes
	Total   int64  `json:"total,omitempty"` // bytes
	Error   string `json:"error,omitempty"` // why it ended; it can be started again, and goes on
}

// rebalance is the moving that runs, or ran last.
type rebalance struct {
	mu     sync.Mutex
	status RebalanceStatus    // guarded by mu
	stop   context.CancelFunc // guarded by mu; nil: none runs
	closed bool               // guarded by mu
	ended  sync.WaitGroup
}

// Local returns the state of the local array.
func (n *Node) Local(context.Context) (LocalStatus, error) {
	s := LocalStatus{Members: []MemberStatus{}}
	for _, m := range n.array.Members() {
		ms := MemberStatus{Name: m.Where, Kind: m.Kind, Size: m.Total, Free: m.Free, Weight: m.Weight, Errors: m.Errors, QueueDepth: m.InFlight, Leaving: m.Leaving, Files: m.Files}
		if m.Err != nil {
			ms.Problem = m.Err.Error()
		}
		s.Members = append(s.Members, ms)
	}
	n.rebalance.mu.Lock()
	s.Rebalance = n.rebalance.status
	n.rebalance.mu.Unlock()
	return s, nil
}

// Rebalance starts moving all files to where they would be if they were made now,
// unless that runs. Volumes stay in use.
func (n *Node) Rebalance(ctx context.Context) (LocalStatus, error) {
	r := &n.rebalance
	r.mu.Lock()
	if r.stop == nil && !r.closed {
		run, stop := context.WithCancel(context.WithoutCancel(ctx))
		r.stop, r.status = stop, RebalanceStatus{Running: true}
		r.ended.Go(func() {
			defer stop()
			n.runRebalance(run)
		})
	}
	r.mu.Unlock()
	return n.Local(ctx)
}

// LeaveSpec says which member is to leave, or to stay.
type LeaveSpec struct {
	Member string `json:"member"` // as LocalStatus names it
	Stay   bool   `json:"stay"`   // it is not to leave after all
}

// LeaveMember has a member leave: nothing more is laid out over it, and Rebalance
// moves off it what is there. When nothing is left it can be taken out of the
// configuration.
func (n *Node) LeaveMember(ctx context.Context, spec LeaveSpec) (LocalStatus, error) {
	var names []string
	for _, m := range n.array.Members() {
		names = append(names, m.Where)
	}
	if !slices.Contains(names, spec.Member) {
		return LocalStatus{}, Failure(ErrNotFound, fmt.Sprintf("there is no member %s; the members are %s", spec.Member, strings.Join(names, ", ")))
	}
	do := n.array.Leave
	if spec.Stay {
		do = n.array.Stay
	}
	err := do(spec.Member)
	switch {
	case errors.Is(err, raid.ErrMember), errors.Is(err, block.ErrNoSpace):
		return LocalStatus{}, Failure(ErrInvalid, err.Error())
	case err != nil:
		return LocalStatus{}, localError("member "+spec.Member, err)
	}
	n.log.Info("local array", "member", spec.Member, "leaving", !spec.Stay)
	return n.Local(ctx)
}

func (n *Node) runRebalance(ctx context.Context) {
	r := &n.rebalance
	n.log.Info("rebalance: moving files onto the members that there are now")
	err := n.array.Rebalance(ctx, func(p raid.Progress) {
		r.mu.Lock()
		r.status.Files, r.status.Done, r.status.Total = p.Files, p.Done, p.Total
		r.mu.Unlock()
	})
	r.mu.Lock()
	defer r.mu.Unlock()
	r.status.Running, r.stop = false, nil
	switch {
	case errors.Is(err, context.Canceled):
		r.status.Error = "stopped"
		n.log.Info("rebalance: stopped; it goes on where it is when it is started again")
	case err != nil:
		r.status.Error = err.Error()
		n.log.Error("rebalance: ended; nothing is lost, and it can be started again", "err", err)
	default:
		r.status.Files, r.status.Done = 0, r.status.Total
		n.log.Info("rebalance: done")
	}
}

// StopRebalance stops the moving, which can be started again, and returns when it
// has.
func (n *Node) StopRebalance(ctx context.Context) (LocalStatus, error) {
	n.rebalance.end(false)
	return n.Local(ctx)
}

// end stops what runs; for good if last says so.
func (r *rebalance) end(last bool) {
	r.mu.Lock()
	if r.stop != nil {
		r.stop()
	}
	r.closed = r.closed || last
	r.mu.Unlock()
	r.ended.Wait()
}
