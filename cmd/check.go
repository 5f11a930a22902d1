package cmd

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"skylun/admin"
	"skylun/node"
)

func newCheck(e *env) *cobra.Command {
	return &cobra.Command{
		Use:   "check",
		Short: "Check what the node keeps locally: database, volumes, caches",
		Long: `Check what the node keeps locally: database, volumes, caches. Nothing is changed. The
exit status is 1 when something is wrong. A running node checks itself.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return e.check(c.Context()) },
	}
}

func (e *env) check(ctx context.Context) error {
	s, err := e.load()
	if err != nil {
		return err
	}
	result := struct {
		DataDir  string   `json:"data_dir"`
		Running  bool     `json:"running"`
		Problems []string `json:"problems"`
	}{DataDir: s.DataDir, Running: true, Problems: []string{}}
	client, err := admin.Dial(ctx, s.SocketPath())
	switch {
	case err == nil:
		result.Problems, err = client.Check(ctx)
		err = errors.Join(err, client.Close())
	case errors.Is(err, node.ErrNotRunning):
		result.Running = false
		result.Problems, err = node.CheckDataDir(ctx, s.Config, e.quietLogger(s))
	}
	if err != nil {
		return s.locate(err)
	}
	err = e.print(result, func(t *table) {
		for _, p := range result.Problems {
			t.row(p)
		}
		if len(result.Problems) == 0 && result.Running {
			t.row(s.DataDir + " is sound, as the running node sees it")
		} else if len(result.Problems) == 0 {
			t.row(s.DataDir + " is sound")
		}
	})
	if err == nil && len(result.Problems) > 0 {
		err = fmt.Errorf("%s: %s found", s.DataDir, count(len(result.Problems), "problem"))
	}
	return err
}
