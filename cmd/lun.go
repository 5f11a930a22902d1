package cmd

import (
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
	return group("lun", "Logical units of the targets", list)
}
