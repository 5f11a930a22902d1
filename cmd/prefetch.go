package cmd

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"skylun/node"
)

func newPrefetch(e *env) *cobra.Command {
	set := func(c *cobra.Command, volume string, spec func(node.VolumePrefetch) node.PrefetchSpec) error {
		return e.with(c.Context(), false, func(a *access) error {
			s, err := a.Prefetch(c.Context(), volume)
			if err == nil {
				s, err = a.SetPrefetch(c.Context(), volume, spec(s))
			}
			if err != nil {
				return err
			}
			return e.print(s, func(t *table) { prefetchText(t, s) })
		})
	}
	var strategy string
	start := &cobra.Command{
		Use:   "start VOLUME",
		Short: "Fetch the image of a volume before it is read",
		Long: `Fetch the image of a volume before it is read: go on after a pause. If the
configuration asks for no more than readahead, all of the image is fetched while
nothing else wants the resources (idle), or as --strategy says. Both hold over restarts.
--strategy config is what the configuration says.`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			if err := node.CheckStrategy(strategy); err != nil && strategy != "config" {
				return usagef("--strategy: %v, config", err)
			}
			return set(c, args[0], func(s node.VolumePrefetch) node.PrefetchSpec {
				spec := node.PrefetchSpec{Paused: new(bool)}
				switch {
				case strategy == "config":
					spec.Strategy = new(string)
				case strategy != "":
					spec.Strategy = &strategy
				case !s.Paused && (s.Strategy == "off" || s.Strategy == "readahead"):
					idle := "idle"
					spec.Strategy = &idle
				}
				return spec
			})
		},
	}
	start.Flags().StringVar(&strategy, "strategy", "", "off, readahead, idle, full, or config for what the configuration says")
	return group("prefetch", "Fetch images before they are read",
		start,
		&cobra.Command{
			Use:   "pause VOLUME",
			Short: "Fetch nothing for a volume but what is read, until it is started again, also after restarts",
			Args:  cobra.ExactArgs(1),
			RunE: func(c *cobra.Command, args []string) error {
				return set(c, args[0], func(node.VolumePrefetch) node.PrefetchSpec {
					paused := true
					return node.PrefetchSpec{Paused: &paused}
				})
			},
		},
		&cobra.Command{
			Use:   "status VOLUME",
			Short: "Show how much of the image of a volume is local, and what is being fetched",
			Args:  cobra.ExactArgs(1),
			RunE: func(c *cobra.Command, args []string) error {
				return e.with(c.Context(), false, func(a *access) error {
					s, err := a.Prefetch(c.Context(), args[0])
					if err != nil {
						return err
					}
					return e.print(s, func(t *table) { prefetchText(t, s) })
				})
			},
		},
	)
}

func prefetchText(t *table, s node.VolumePrefetch) {
	human := func(n int64) string { return node.Size(n).Human() }
	t.row("volume", s.Volume)
	strategy := s.Strategy
	if s.Asked {
		strategy += ", asked for"
	}
	if s.Paused {
		strategy += ", paused"
	}
	t.row("prefetch", strategy)
	if s.Image == nil {
		t.row("image", "none")
		return
	}
	c := *s.Image
	t.row("image", c.Image)
	t.row("local", fmt.Sprintf("%s, %s of %s are missing", node.Percent(c.Local()), human(c.Absent), human(c.Size)))
	p := c.Prefetch
	if p == nil {
		t.row("state", "not in use")
		return
	}
	state := string(p.State)
	if p.Reason != "" {
		state += ": " + p.Reason
	}
	t.row("state", state)
	if p.Rate > 0 {
		t.row("rate", human(p.Rate)+"/s")
	}
	if p.Left > 0 {
		t.row("left", (time.Duration(p.Left) * time.Second).String())
	}
	t.row("fetched", fmt.Sprintf("%s to have all, %s ahead of readers", human(p.Filled), human(p.Ahead)))
	t.row("read of it", fmt.Sprintf("%s; %d reads came before it was there", human(p.Used), p.Late))
	t.row("shared", human(p.Shared))
	if p.Errors > 0 {
		t.row("errors", p.Errors)
	}
}
