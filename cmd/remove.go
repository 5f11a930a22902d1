package cmd

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"

	"github.com/spf13/cobra"

	"skylun/node"
)

func newRemove(e *env) *cobra.Command {
	var undo bool
	cmd := &cobra.Command{
		Use:   "remove MEMBER",
		Short: "Move everything off a member that is to be taken out",
		Long: `Move everything off a member that is to be taken out, onto the others. Volumes stay in
use. Nothing new is laid out over it from then on, also after a restart. It waits until
that is done; when this command is interrupted, a running node goes on with it, until
"skylun local rebalance --stop".

When nothing is left on it, take it out of local.members and restart the node.`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			return e.with(c.Context(), false, func(a *access) error { return e.remove(c.Context(), a, args[0], undo) })
		},
	}
	cmd.Flags().BoolVar(&undo, "undo", false, "it is to stay; what has moved moves back with \"skylun local rebalance\"")
	return cmd
}

func (e *env) remove(ctx context.Context, a *access, member string, undo bool) error {
	s, err := a.Local(ctx)
	if err != nil {
		return err
	}
	named := func(name string) bool {
		return slices.ContainsFunc(s.Members, func(m node.MemberStatus) bool { return m.Name == name })
	}
	if abs, err := filepath.Abs(member); err == nil && !named(member) && named(abs) {
		member = abs
	}
	if s, err = a.LeaveMember(ctx, node.LeaveSpec{Member: member, Stay: undo}); err != nil {
		return err
	}
	left := func() int {
		i := slices.IndexFunc(s.Members, func(m node.MemberStatus) bool { return m.Name == member })
		return s.Members[i].Files
	}
	for n := 0; !undo && (n == 0 || left() > 0); n++ { // one that was running already may not have known
		if n == 2 {
			return fmt.Errorf("%s is still on %s; look into the log of the node for why", count(left(), "file"), member)
		}
		if s, err = e.rebalance(ctx, a); err != nil {
			return err
		}
	}
	return e.print(s, func(t *table) { membersText(t, s) })
}
