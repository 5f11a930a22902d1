package cmd

import (
	"context"
	"errors"
	"fmt"
	"math"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"skylun/measure"
	"skylun/node"
)

func newBench(e *env) *cobra.Command {
	o := measure.Options{}
	space := sizeFlag(measure.DefaultSpace)
	c := &cobra.Command{
		Use:   "bench DIR|DEVICE",
		Short: "Measure a disk, and print an entry for a catalogue",
		Long: `Measure what a directory, a block device or a file that is to be a member does, within
bounded time and space, and print an entry for a catalogue ("skylun local plan --catalogue").

In a directory a file without a name is written to, which is gone afterwards. A device is
written to in the middle, when that, its beginning and its end are zeros, and is zeros there
again afterwards. A device that is in use, or not empty, is refused. --force overwrites
that stretch of one that is not empty.`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			o.Space = int64(space)
			return e.bench(c.Context(), args[0], o)
		},
	}
	f := c.Flags()
	f.DurationVar(&o.Time, "time", measure.DefaultTime, "how long it may take")
	f.Var(&space, "space", "how much is written")
	f.BoolVar(&o.Force, "force", false, "measure a device that is not empty: what is in its middle is LOST")
	return c
}

func (e *env) bench(ctx context.Context, path string, o measure.Options) error {
	o.Progress = func(step string) { fmt.Fprintf(e.stderr, "%s: %s\n", path, step) }
	r, err := measure.Path(ctx, path, o)
	if errors.Is(err, context.Canceled) && ctx.Err() != nil {
		return fmt.Errorf("%s: stopped; nothing was left behind", path)
	}
	if err != nil {
		return err
	}
	return e.print(r, func(t *table) {
		t.row("#", "reads", fmt.Sprintf("%d IOPS", r.ReadIOPS), diskRate(r.ReadBytes/1e6*1e6))
		t.row("#", "writes", fmt.Sprintf("%d IOPS", r.WriteIOPS), diskRate(r.WriteBytes/1e6*1e6))
		t.row("#", "latency of a read", fmt.Sprintf("%v in the middle", r.Median.Round(time.Microsecond)), fmt.Sprintf("%v for one of a hundred", r.P99.Round(time.Microsecond)))
		if r.Cached {
			t.row("# THROUGH THE PAGE CACHE: this file system knows no O_DIRECT, so some of it is the speed of memory.")
		}
		t.row(fmt.Sprintf("# measured with %s on %s. Put its price in.", node.Size(r.Space).Human(), time.Now().Format(time.DateOnly)))
		name := filepath.Base(filepath.Clean(path))
		t.row(fmt.Sprintf("  - {name: %q, size_gib: %d, iops: %d, mb_per_s: %d, price: 0, latency_ms: %.3g, local: true}", name,
			max(1, r.Size>>30), max(1, min(r.ReadIOPS, r.WriteIOPS)), max(1, min(r.ReadBytes, r.WriteBytes)/1e6),
			math.Max(0.001, float64(r.Median)/float64(time.Millisecond))))
	})
}
