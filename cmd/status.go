package cmd

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"skylun/admin"
	"skylun/node"
)

func newStatus(e *env) *cobra.Command {
	var (
		watch bool
		every time.Duration
	)
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show what the running node exports, to whom, and how much is local",
		Long: `Show what the running node exports, to whom, and how much is local.

With --watch it goes on until it is stopped: on a terminal the text is drawn anew,
elsewhere there is a line for each disk of an image each time. With -o json there
is one document a line.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) (err error) {
			if every < 100*time.Millisecond {
				return usagef("--every %v: want 100ms or more", every)
			}
			s, err := e.load()
			if err != nil {
				return err
			}
			client, err := admin.Dial(c.Context(), s.SocketPath())
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, client.Close()) }()
			if watch {
				return e.watch(c.Context(), client, every)
			}
			st, err := client.Status(c.Context())
			if err != nil {
				return err
			}
			return e.print(st, func(t *table) { statusText(t, st, time.Now()) })
		},
	}
	cmd.Flags().BoolVar(&watch, "watch", false, "go on until stopped")
	cmd.Flags().DurationVar(&every, "every", time.Second, "how often, with --watch")
	return cmd
}

func statusText(t *table, s node.Status, now time.Time) {
	human := func(n uint64) string { return node.Size(n).Human() }
	t.row("node", fmt.Sprintf("%s, %s, process %d, up %v", s.Node, s.Version, s.PID, now.Sub(s.Started).Round(time.Second)))
	t.row("data", s.DataDir)
	t.row("store", s.Store.URL)
	t.row("", fmt.Sprintf("%d reads (%s), %d writes (%s), %d errors", s.Store.Gets, human(s.Store.BytesIn), s.Store.Puts, human(s.Store.BytesOut), s.Store.Errors))
	t.row("cache", cacheText(s))
	if len(s.Snapshots) > 0 {
		t.row("snapshots", fmt.Sprintf("%d, in %s", len(s.Snapshots), count(s.Layers, "layer")))
	}
	if text := cleaningText(s.Cleaning, true); text != "" {
		t.row("", text)
	}
	t.row("portals", strings.Join(s.Portals, ", "))
	t.row("iscsi", fmt.Sprintf("%s, %d commands, %s read, %s written", count(s.SCSI.Sessions, "session"), s.SCSI.Commands, human(s.SCSI.BytesRead), human(s.SCSI.BytesWritten)))

	volumes := map[string]node.VolumeStatus{}
	for _, v := range s.Volumes {
		volumes[v.Name] = v
	}
	t.row()
	t.row("TARGET", "LUN", "TYPE", "VOLUME", "SIZE", "WRITTEN", "IMAGE", "SESSIONS")
	for _, tg := range s.Targets {
		for _, l := range tg.LUNs {
			if l.Type == "cdrom" {
				t.row(tg.IQN, l.LUN, l.Type, "-", node.Size(l.Size).Human(), "-", driveText(l), len(tg.Sessions))
				continue
			}
			v := volumes[l.Volume]
			image, _, _ := place(v)
			t.row(tg.IQN, l.LUN, l.Type, l.Volume, node.Size(l.Size).Human(), node.Size(v.Written).Human(), image, len(tg.Sessions))
		}
		if len(tg.LUNs) == 0 {
			t.row(tg.IQN, "-", "-", "-", "-", "-", "-", len(tg.Sessions))
		}
	}
	t.row()
	membersText(t, s.Local)
	if len(s.Caches) > 0 {
		t.row()
		t.row("IMAGE", "SIZE", "LOCAL", "COPIED", "EMPTY", "HITS", "MISSES", "FETCHED", "USED BY")
		for _, c := range s.Caches {
			local := node.Percent(c.Local())
			if c.Pinned {
				local += " pinned"
			}
			t.row(c.Image, node.Size(c.Size).Human(), local, node.Size(c.Cached).Human(), node.Size(c.Zero).Human(),
				c.Hits, c.Misses, human(c.FetchedBytes), strings.Join(slices.Concat(c.Volumes, c.Drives, c.Snapshots), ","))
		}
	}
	if uses := imageUses(s); len(uses) > 0 {
		t.row()
		t.row("DISK", "IMAGE", "LOCAL", "HITS", "MISSES", "SHARED", "PREFETCH", "STATE", "RATE", "LEFT", "AHEAD", "USED", "WHY")
		for _, u := range uses {
			p := u.cache.Prefetch
			t.row(u.disk, u.cache.Image, node.Percent(u.local), u.hits, u.misses, node.Size(u.shared).Human(), u.strategy, p.State, rate(p.Rate), left(p.Left),
				node.Size(p.Filled+p.Ahead).Human(), node.Size(p.Used).Human(), cmp.Or(p.Reason, "-"))
		}
	}
	if s.SCSI.Sessions > 0 {
		t.row()
		t.row("INITIATOR", "USER", "ADDRESS", "TARGET", "SINCE")
		for _, tg := range s.Targets {
			for _, c := range tg.Sessions {
				t.row(c.Initiator, cmp.Or(c.User, "-"), c.Address, tg.IQN, c.Since.Local().Format(time.DateTime))
			}
		}
	}
}

// cacheText tells what all caches hold together, and what is worth knowing.
func cacheText(s node.Status) string {
	text := node.Size(s.Cache.Held).Human()
	if s.Cache.Limit > 0 {
		text += " of " + node.Size(s.Cache.Limit).Human()
	}
	if s.Cache.Pinned > 0 {
		text += fmt.Sprintf(", %s pinned", node.Size(s.Cache.Pinned).Human())
	}
	if s.Cache.Evicted > 0 {
		text += fmt.Sprintf(", %s have left", node.Size(s.Cache.Evicted).Human())
	}
	bad := uint64(0)
	for _, c := range s.Caches {
		bad += c.Damaged + c.Unreadable
	}
	if bad > 0 {
		text += fmt.Sprintf(", %s found damaged", count(int(bad), "block"))
	}
	return text
}
