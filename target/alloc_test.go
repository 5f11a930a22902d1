//go:build !race

package target

import (
	"math"
	"runtime"
	"testing"
)

// The race detector allocates, so this is not part of a run with it.

// Commands that are answered inline cost no allocation.
func TestNoAllocation(t *testing.T) {
	for _, c := range []struct {
		depth, in, out int
		keys           []string
	}{
		{32, 4096, 0, nil}, {32, 0, 4096, nil}, {1, 4096, 0, nil}, {8, 256 << 10, 0, nil},
		{32, 4096, 0, bothDigests}, {32, 0, 4096, bothDigests}, {8, 256 << 10, 0, bothDigests},
	} {
		l := newLoad(t, start(t, Config{PingInterval: -1}, memory), c.depth, c.in, c.out, c.keys...)
		for range 50 {
			l.run(t)
		}
		// The runtime allocates for itself now and then, and so does a reader
		// that parks, on a machine that is busy with other things.
		perCommand := math.Inf(1)
		for attempt := 0; attempt < 10 && perCommand > 0.05; attempt++ {
			const runs = 200
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			for range runs {
				l.run(t)
			}
			runtime.ReadMemStats(&after)
			perCommand = float64(after.Mallocs-before.Mallocs) / float64(runs*c.depth)
		}
		if perCommand > 0.05 {
			t.Errorf("%d commands at once, in %d, out %d, keys %v: %.2f allocations for each", c.depth, c.in, c.out, c.keys, perCommand)
		}
	}
}
