package cmd

import (
	"runtime"

	"github.com/spf13/cobra"

	"skylun/node"
)

func newVersion(e *env) *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			v := struct {
				Version  string `json:"version"`
				Go       string `json:"go"`
				Platform string `json:"platform"`
			}{node.Version(), runtime.Version(), runtime.GOOS + "/" + runtime.GOARCH}
			return e.print(v, func(t *table) {
				t.row("skylun " + v.Version + " (" + v.Go + ", " + v.Platform + ")")
			})
		},
	}
}
