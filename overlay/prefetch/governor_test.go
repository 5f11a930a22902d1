package prefetch

import (
	"fmt"
	"testing"
	"time"
)

const mib = 1 << 20

// stores are those the claims are checked with.
var stores = map[string]store{
	"near":      {latency: 2 * time.Millisecond, spread: 0.3, bandwidth: 400e6},
	"region":    {latency: 20 * time.Millisecond, spread: 0.3, bandwidth: 200e6},
	"page blob": {latency: 15 * time.Millisecond, spread: 0.4, bandwidth: 60 * mib, requests: 500},
	"far":       {latency: 80 * time.Millisecond, spread: 0.2, bandwidth: 30e6},
	"far, fast": {latency: 80 * time.Millisecond, spread: 0.2, bandwidth: 400e6},
	"slow":      {latency: 30 * time.Millisecond, spread: 0.3, bandwidth: 5e6},
}

// TestFillAlone compares a fill with a plain parallel download.
func TestFillAlone(t *testing.T) {
	for name, st := range stores {
		t.Run(name, func(t *testing.T) {
			const d = time.Minute
			best := plain(1, st, 32, mib, d)
			s := newSim(1, st)
			s.fill = true
			s.pump()
			s.run(d)
			got := float64(s.filled) / d.Seconds()
			t.Logf("%.0f MB/s of %.0f, %.2f; throttled %d; %v", got/1e6, best/1e6, got/best, s.store.throttled, fmt.Sprint(s.gov.State()))
			if got < 0.9*best {
				t.Errorf("fills bring %.2f of what a plain download does, want 0.9", got/best)
			}
		})
	}
}

// TestFillOfImage compares the time of a fill of one image, its beginning
// included, with that of a plain parallel download.
func TestFillOfImage(t *testing.T) {
	for name, st := range stores {
		size := int64(512 << 20)
		if most := int64(10 * st.bandwidth); name == "far, fast" || most < size {
			size = most // a few seconds: it takes round trips to find out what the store brings
		}
		best := plainOf(1, st, 32, mib, size)
		best = min(best, plainOf(1, st, 16, 4*mib, size))
		for seed := range uint64(5) {
			s := newSim(seed, st)
			s.fill = true
			for s.pump(); s.filled < size; {
				s.run(time.Millisecond)
			}
			took := s.now.Sub(simStart)
			ratio := best.Seconds() / took.Seconds()
			t.Logf("%-9s %4d MiB in %v, plainly in %v: %.2f", name, size/mib, took, best, ratio)
			if ratio < 0.9 {
				t.Errorf("%s: a fill of %d MiB is %.2f as fast as a plain download, want 0.9", name, size/mib, ratio)
			}
		}
	}
}

// TestReadersDoNotSuffer compares the latency of readers with and without a
// fill.
func TestReadersDoNotSuffer(t *testing.T) {
	for name, st := range stores {
		for _, think := range []time.Duration{5 * time.Millisecond, 100 * time.Millisecond, time.Second} {
			measure := func(fill bool, mode Mode) *sim {
				s := newSim(7, st)
				s.fill, s.mode = fill, mode
				s.reader(64<<10, s.exponential(think))
				s.pump()
				for len(s.misses) < 600 {
					s.run(10 * time.Second)
				}
				return s
			}
			alone := measure(false, Idle)
			for mode, modeName := range []string{"idle", "full"} {
				with := measure(true, Mode(mode))
				a, w := percentile(alone.misses, 0.99), percentile(with.misses, 0.99)
				am, wm := percentile(alone.misses, 0.5), percentile(with.misses, 0.5)
				what := fmt.Sprintf("%s, a reader every %v, %s", name, think, modeName)
				t.Logf("%s: 99th percentile %v -> %v (%.2f), median %v -> %v (%.2f), filled %.0f MB/s", what, a, w, float64(w)/float64(a), am, wm, float64(wm)/float64(am),
					float64(with.filled)/with.now.Sub(simStart).Seconds()/1e6)
				if float64(w) > 1.1*float64(a) {
					t.Errorf("%s: 99th percentile %v with a fill, %v without", what, w, a)
				}
				if float64(wm) > 1.1*float64(am) {
					t.Errorf("%s: median %v with a fill, %v without", what, wm, am)
				}
			}
		}
	}
}

// TestReadersKeepTheirThroughput has readers that use half of the link.
func TestReadersKeepTheirThroughput(t *testing.T) {
	for name, st := range stores {
		for mode, modeName := range []string{"idle", "full"} {
			t.Run(name+"/"+modeName, func(t *testing.T) {
				const n = 256 << 10
				measure := func(fill bool) *sim {
					s := newSim(3, st)
					s.fill, s.mode = fill, Mode(mode)
					// Each takes latency and transfer; so many use half.
					one := st.latency.Seconds() + n/st.bandwidth
					for range max(1, int(0.5*st.bandwidth*one/n+0.5)) {
						s.reader(n, func() time.Duration { return 0 })
					}
					s.pump()
					s.run(30 * time.Second)
					return s
				}
				alone, with := measure(false), measure(true)
				ratio := float64(with.guestBytes) / float64(alone.guestBytes)
				t.Logf("alone %.0f%% of the link, keeps %.3f, filled %.1f MB/s", 100*float64(alone.guestBytes)/30/st.bandwidth, ratio, float64(with.filled)/30e6)
				if ratio < 0.95 {
					t.Errorf("readers keep %.3f of their throughput, want 0.95", ratio)
				}
				if with.filled == 0 {
					t.Error("nothing was filled at all")
				}
			})
		}
	}
}
