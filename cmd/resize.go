package cmd

import (
	"fmt"

	"github.com/spf13/cobra"

	"skylun/node"
)

func newResize(e *env) *cobra.Command {
	var spec node.ResizeSpec
	resize := &cobra.Command{
		Use:   "resize NAME SIZE",
		Short: "Make a volume larger, or with --force smaller",
		Long: `Make a volume larger, or with --force smaller. Initiators that are logged in see the new
size when they look at the disk again; a file system on it does not grow by itself.
What lies beyond a smaller size is lost: make the file system smaller first.`,
		Args: cobra.ExactArgs(2),
		RunE: func(c *cobra.Command, args []string) error {
			if err := (*sizeFlag)(&spec.Size).Set(args[1]); err != nil {
				return usagef("volume resize %s: %v", args[0], err)
			}
			return e.with(c.Context(), false, func(a *access) error {
				v, err := a.ResizeVolume(c.Context(), args[0], spec)
				if err != nil {
					return err
				}
				return e.done(fmt.Sprintf("volume %s has %s (%d bytes)", v.Name, node.Size(v.Size).Human(), v.Size))
			})
		},
	}
	resize.Flags().BoolVar(&spec.Force, "force", false, "make it smaller, and lose what lies beyond")
	return resize
}
