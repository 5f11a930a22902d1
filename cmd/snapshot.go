package cmd

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"skylun/node"
)

func newSnapshot(e *env) *cobra.Command {
	create := &cobra.Command{
		Use:   "create NAME VOLUME...",
		Short: "Keep what volumes hold now, all at one moment",
		Long: `Keep what volumes hold now, all at one moment, while initiators use them. Nothing is
copied. What was written and answered before is in it, as after a power cut: a file system
that is mounted is not unmounted for it.`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			if len(args) == 1 {
				return usagef("snapshot create %s: name the volumes that it is to be of", args[0])
			}
			return e.with(c.Context(), false, func(a *access) error {
				s, err := a.CreateSnapshot(c.Context(), node.SnapshotSpec{Name: args[0], Volumes: args[1:]})
				if err != nil {
					return err
				}
				return e.print(s, func(t *table) {
					t.row(fmt.Sprintf("snapshot %s of %s; writes were held for %s", s.Name, count(len(s.Volumes), "volume"), heldText(s)))
				})
			})
		},
	}
	list := &cobra.Command{
		Use: "list", Aliases: []string{"ls"},
		Short: "List the snapshots of this node",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return e.with(c.Context(), false, func(a *access) error {
				s, err := a.Status(c.Context())
				if err != nil {
					return err
				}
				return e.print(s.Snapshots, func(t *table) {
					if len(s.Snapshots) == 0 {
						t.row("no snapshots in " + a.settings.DataDir)
					} else {
						t.row("NAME", "CREATED", "OWN", "VOLUMES")
					}
					for _, v := range s.Snapshots {
						t.row(v.Name, v.Created.Local().Format(time.DateTime), node.Size(v.Own).Human(), volumesText(v))
					}
					if text := cleaningText(s.Cleaning, a.running); text != "" {
						t.row()
						t.row(text)
					}
				})
			})
		},
	}
	show := &cobra.Command{
		Use:   "show NAME",
		Short: "Show one snapshot",
		Args:  cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			return e.with(c.Context(), false, func(a *access) error {
				s, err := a.Snapshot(c.Context(), args[0])
				if err != nil {
					return err
				}
				return e.print(s, func(t *table) {
					t.row("name", s.Name)
					t.row("id", s.ID)
					t.row("created", s.Created.Local().Format(time.DateTime))
					t.row("writes held for", heldText(s))
					t.row("own", node.Size(s.Own).Human())
					t.row()
					t.row("VOLUME", "SIZE", "OWN", "IMAGE")
					for _, v := range s.Volumes {
						name, image := v.Volume, v.Image
						if v.Removed {
							name += " (removed)"
						}
						if image == "" {
							image = "-"
						}
						t.row(name, node.Size(v.Size).Human(), node.Size(v.Own).Human(), image)
					}
				})
			})
		},
	}
	rm := &cobra.Command{
		Use:   "rm NAME",
		Short: "Remove a snapshot",
		Long: `Remove a snapshot. The volumes stay as they are. The space that only it needed is given
back in the background, while the node runs.`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			return e.with(c.Context(), false, func(a *access) error {
				if err := a.DeleteSnapshot(c.Context(), args[0]); err != nil {
					return err
				}
				return e.done("snapshot " + args[0] + " is removed")
			})
		},
	}
	return group("snapshot", "Snapshots of volumes", create, list, show, rm, newRollback(e), newSnapshotExport(e))
}

func newRollback(e *env) *cobra.Command {
	var force bool
	rollback := &cobra.Command{
		Use:   "rollback NAME [VOLUME...] [--force]",
		Short: "Give volumes the content they had when a snapshot was taken",
		Long: `Give volumes the content and the size they had when a snapshot was taken: those named, or all
that the snapshot is of. What was written since is lost, except what other snapshots hold.
While initiators are logged in to a target that shows one of them the command fails; with
--force the content changes under them.`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			return e.with(c.Context(), false, func(a *access) error {
				volumes, err := a.RollbackSnapshot(c.Context(), args[0], node.RollbackSpec{Volumes: args[1:], Force: force})
				if err != nil {
					return err
				}
				return e.print(volumes, func(t *table) {
					for _, v := range volumes {
						t.row(fmt.Sprintf("volume %s is as it was in snapshot %s: %s", v.Name, args[0], node.Size(v.Size).Human()))
					}
				})
			})
		},
	}
	rollback.Flags().BoolVar(&force, "force", false, "although initiators are logged in")
	return rollback
}

func newSnapshotExport(e *env) *cobra.Command {
	var force bool
	export := &cobra.Command{
		Use:   "export NAME[/VOLUME] FILE",
		Short: "Copy what a snapshot holds into a raw, sparse file",
		Long: `Copy what a snapshot holds into a raw, sparse file, while initiators use the volume. Of a
snapshot of several volumes name one.`,
		Args: cobra.ExactArgs(2),
		RunE: func(c *cobra.Command, args []string) error {
			ctx := c.Context()
			return e.with(ctx, false, func(a *access) error {
				name, volume, _ := strings.Cut(args[0], "/")
				s, err := a.Snapshot(ctx, name)
				if err != nil {
					return err
				}
				read := func(f func([]byte, int64) error) error { return a.ReadSnapshot(ctx, args[0], f) }
				i := slices.IndexFunc(s.Volumes, func(v node.SnapshotVolume) bool { return v.Volume == volume || volume == "" && len(s.Volumes) == 1 })
				if i < 0 { // it says so, before there is a file
					return read(func([]byte, int64) error { return nil })
				}
				return e.writeFile("snapshot "+args[0], args[1], s.Volumes[i].Size, force, read)
			})
		},
	}
	export.Flags().BoolVar(&force, "force", false, "overwrite FILE")
	return export
}

func newClone(e *env) *cobra.Command {
	return &cobra.Command{
		Use:   "clone SNAPSHOT[/VOLUME] NEWVOLUME",
		Short: "Create a volume that is a copy of what a snapshot holds",
		Long: `Create a volume that is a copy of what a snapshot holds. It is there at once, and shares
with the snapshot what neither changes. Of a snapshot of several volumes name one. The volume
has the snapshot's size; "skylun volume resize" changes that, "skylun lun map" shows it.`,
		Args: cobra.ExactArgs(2),
		RunE: func(c *cobra.Command, args []string) error {
			return e.with(c.Context(), false, func(a *access) error {
				v, err := a.CreateVolume(c.Context(), node.VolumeSpec{Name: args[1], Snapshot: args[0]})
				if err != nil {
					return err
				}
				return e.printVolume(v)
			})
		},
	}
}

// heldText tells how long writes were held.
func heldText(s node.SnapshotStatus) string {
	return time.Duration(s.HeldSeconds * float64(time.Second)).Round(time.Microsecond).String()
}

func volumesText(s node.SnapshotStatus) string {
	const most = 5
	var names []string
	for _, v := range s.Volumes[:min(most, len(s.Volumes))] {
		names = append(names, v.Volume)
	}
	text := strings.Join(names, ",")
	if more := len(s.Volumes) - most; more > 0 {
		text += fmt.Sprintf(" and %d more", more)
	}
	return text
}

// cleaningText tells what is left to do after snapshots were removed, "" when
// nothing is.
func cleaningText(s node.CleaningStatus, running bool) string {
	switch {
	case s.Problem != "":
		return fmt.Sprintf("giving back the space of removed snapshots failed, and is tried again: %s", s.Problem)
	case s.Layers == 0:
		return ""
	case !running:
		return fmt.Sprintf("%s of removed snapshots to be merged, %s: that is done while the node runs", count(s.Layers, "layer"), node.Size(s.Bytes).Human())
	}
	return fmt.Sprintf("%s of removed snapshots being merged: %s", count(s.Layers, "layer"), node.Size(s.Bytes).Human())
}
