package cmd

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"skylun/node"
)

func newRebalance(e *env) *cobra.Command {
	var stop bool
	cmd := &cobra.Command{
		Use:   "rebalance",
		Short: "Move what is there onto the members that there are now",
		Long: `Move what is there onto the members that there are now: after a member was added,
or a weight or the stripe size changed. Volumes stay in use. It waits until that is
done; when this command is interrupted, a running node goes on with it, until --stop.
What was moved stays moved, and the next time it goes on from there.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return e.with(c.Context(), false, func(a *access) error {
				if stop {
					s, err := a.StopRebalance(c.Context())
					if err != nil {
						return err
					}
					return e.print(s, func(t *table) { membersText(t, s) })
				}
				s, err := e.rebalance(c.Context(), a)
				if err != nil {
					return err
				}
				return e.print(s, func(t *table) { membersText(t, s) })
			})
		},
	}
	cmd.Flags().BoolVar(&stop, "stop", false, "stop the one that runs")
	return cmd
}

// rebalanceEvery is how often the node is asked how far it is.
const rebalanceEvery = 250 * time.Millisecond

// rebalance starts one and waits for its end.
func (e *env) rebalance(ctx context.Context, a *access) (node.LocalStatus, error) {
	s, err := a.Rebalance(ctx)
	if err != nil {
		return s, err
	}
	p := newProgress(e.stderr, "rebalance")
	defer p.end()
	ticks := time.NewTicker(rebalanceEvery)
	defer ticks.Stop()
	for s.Rebalance.Running {
		p.update(s.Rebalance.Done, s.Rebalance.Total)
		select {
		case <-ticks.C:
		case <-ctx.Done():
			if a.running {
				return s, fmt.Errorf("%w; the node goes on with it, stop that with: skylun local rebalance --stop", context.Cause(ctx))
			}
			_, err := a.StopRebalance(context.WithoutCancel(ctx))
			return s, errors.Join(context.Cause(ctx), err)
		}
		if s, err = a.Local(ctx); err != nil {
			return s, err
		}
	}
	if s.Rebalance.Error != "" {
		return s, errors.New("rebalance: " + s.Rebalance.Error)
	}
	return s, nil
}

// membersText tells of the members, and of files that are moved.
func membersText(t *table, s node.LocalStatus) {
	t.row("MEMBER", "KIND", "SIZE", "FREE", "ERRORS", "BUSY WITH")
	for _, m := range s.Members {
		t.row(m.Name, m.Kind, node.Size(m.Size).Human(), node.Size(m.Free).Human(), m.Errors, m.QueueDepth)
	}
	for _, m := range s.Members {
		switch {
		case m.Leaving && m.Files > 0:
			t.row(m.Name, fmt.Sprintf("is leaving: %s on it; skylun local rebalance goes on with moving them", count(m.Files, "file")))
		case m.Leaving:
			t.row(m.Name, "is leaving: nothing is on it, it can be taken out of local.members")
		}
	}
	if r := s.Rebalance; r.Running {
		t.row("rebalance", fmt.Sprintf("%s of %s, %s left", node.Size(r.Done).Human(), node.Size(r.Total).Human(), count(r.Files, "file")))
	}
}
