package cmd

import (
	"fmt"

	"github.com/spf13/cobra"

	"skylun/node"
)

func newPin(e *env, pin bool) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "pin NAME",
		Short: "Bring all of a volume's image here, and keep it",
		Long: `Bring all of a volume's image here, and keep it: the volume then works without the
store. The image is copied in the background; "volume show" tells how far that is.`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			return e.with(c.Context(), false, func(a *access) error {
				v, err := a.PinVolume(c.Context(), args[0], pin)
				switch {
				case err != nil:
					return err
				case !pin:
					return e.done("volume " + v.Name + " is not pinned any more")
				case !a.running && v.Image.Absent > 0:
					return e.done(fmt.Sprintf("volume %s is pinned; its image is copied when the node runs", v.Name))
				}
				return e.done(fmt.Sprintf("volume %s is pinned; %s of its image is local", v.Name, node.Percent(v.Image.Local())))
			})
		},
	}
	if !pin {
		cmd.Use, cmd.Short, cmd.Long = "unpin NAME", "Let what was copied of a volume's image leave again", ""
	}
	return cmd
}

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}
