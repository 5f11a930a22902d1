package cmd

import (
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"skylun/plan"
)

func newLocal(e *env) *cobra.Command {
	return group("local", "Local disks", newPlan(e), newCatalogue(e), newBench(e), newRebalance(e), newRemove(e))
}

func newCatalogue(e *env) *cobra.Command {
	return &cobra.Command{
		Use:   "catalogue",
		Short: "Print the catalogue of disks that comes with skylun",
		Long: `Print the catalogue of disks that comes with skylun: those of Azure's virtual
machines, as published, with example prices. Save it to a file, put your prices into
it, and name it with --catalogue.`,
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			if e.output == "json" {
				c, err := plan.Parse(plan.Example())
				if err != nil {
					return err
				}
				return e.print(c, nil)
			}
			_, err := e.stdout.Write(plan.Example())
			return err
		},
	}
}

// rateFlag is a throughput, in bytes a second.
type rateFlag int64

var rateUnits = []struct {
	name string
	n    float64
}{
	{"KB/s", 1e3}, {"MB/s", 1e6}, {"GB/s", 1e9}, {"KiB/s", 1 << 10}, {"MiB/s", 1 << 20}, {"GiB/s", 1 << 30},
}

func (f *rateFlag) Set(s string) error {
	for _, u := range rateUnits {
		number, ok := strings.CutSuffix(s, u.name)
		if !ok {
			continue
		}
		n, err := strconv.ParseFloat(strings.TrimSpace(number), 64)
		if err == nil && n >= 0 && n*u.n <= 1e18 {
			*f = rateFlag(math.Ceil(n * u.n))
			return nil
		}
	}
	return fmt.Errorf("%q is not a throughput; write it like 800MB/s (KB/s, MB/s, GB/s, KiB/s, MiB/s, GiB/s)", s)
}

func (f *rateFlag) String() string { return diskRate(int64(*f)) }
func (f *rateFlag) Type() string   { return "throughput" }

// diskRate writes bytes a second as disks are sold.
func diskRate(n int64) string { return strconv.FormatFloat(float64(n)/1e6, 'f', -1, 64) + "MB/s" }
