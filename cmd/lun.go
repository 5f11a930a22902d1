package cmd

import (
	"fmt"

	"github.com/spf13/cobra"

	"skylun/node"
)

func newLUN(e *env) *cobra.Command {
	list := &cobra.Command{
		Use: "list", Aliases: []string{"ls"},
		Short: "List the units of all targets",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return e.with(c.Context(), false, func(a *access) error {
				luns, err := a.LUNs(c.Context())
				if err != nil {
					return err
				}
				return e.print(luns, func(t *table) {
					if len(luns) == 0 {
						t.row("no units: the configuration names neither a disk nor a drive, or serve did not create it yet")
						return
					}
					t.row("TARGET", "LUN", "TYPE", "VOLUME", "SIZE", "IMAGE")
					for _, l := range luns {
						volume, image := l.Volume, l.Image
						if l.Type == "cdrom" {
							volume, image = "-", driveText(l)
						}
						if image == "" {
							image = "-"
						}
						t.row(l.IQN, l.LUN, l.Type, volume, node.Size(l.Size).Human(), image)
					}
				})
			})
		},
	}
	var volume string
	mapping := &cobra.Command{
		Use:   "map TARGET LUN --volume NAME",
		Short: "Show a volume as a number of a target",
		Long: `Show a volume as a number of a target, at once and after restarts. Initiators that are
logged in are told that there is something new; Linux looks with "iscsiadm -m session -R".
The target must be in the configuration.`,
		Args: cobra.ExactArgs(2),
		RunE: func(c *cobra.Command, args []string) error {
			number, err := lunNumber(args[1])
			if err != nil {
				return err
			}
			if volume == "" {
				return usagef("lun map %s %d: name the volume with --volume", args[0], number)
			}
			return e.with(c.Context(), false, func(a *access) error {
				l, err := a.MapLUN(c.Context(), args[0], number, volume)
				if err != nil {
					return err
				}
				return e.print(l, func(t *table) {
					t.row(fmt.Sprintf("volume %s is lun %d of target %s", l.Volume, l.LUN, l.IQN))
				})
			})
		},
	}
	mapping.Flags().StringVar(&volume, "volume", "", "the volume")
	var force bool
	unmap := &cobra.Command{
		Use:   "unmap TARGET LUN [--force]",
		Short: "Take away what was mapped to a number of a target",
		Long: `Take away what "lun map" has mapped. The volume stays. While initiators are logged in to
the target the command fails; with --force the unit disappears under them.`,
		Args: cobra.ExactArgs(2),
		RunE: func(c *cobra.Command, args []string) error {
			number, err := lunNumber(args[1])
			if err != nil {
				return err
			}
			return e.with(c.Context(), false, func(a *access) error {
				return a.UnmapLUN(c.Context(), args[0], number, force)
			})
		},
	}
	unmap.Flags().BoolVar(&force, "force", false, "although initiators are logged in")
	return group("lun", "Logical units of the targets", list, mapping, unmap)
}
