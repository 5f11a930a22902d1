package prefetch

import (
	"testing"
	"time"
)

// TestSchedule tells whether a time of the day is in a span, and if not, how long it
// is until the next one.
func TestSchedule(t *testing.T) {
	for _, c := range []struct {
		text, at string
		want     time.Duration
	}{
		{"", "13:00:00", 0},
		{" ", "13:00:00", 0},
		{"22:00-06:00", "21:59:30", 30 * time.Second},
		{"22:00-06:00", "22:00:00", 0},
		{"22:00-06:00", "23:59:59", 0},
		{"22:00-06:00", "00:00:00", 0},
		{"22:00-06:00", "05:59:59", 0},
		{"22:00-06:00", "06:00:00", 16 * time.Hour},
		{"12:00-13:00,18:00-24:00", "11:00:00", time.Hour},
		{"12:00-13:00, 18:00-24:00", "13:00:00", 5 * time.Hour},
		{"18:00-24:00", "23:59:59", 0},
		{"18:00-24:00", "00:00:00", 18 * time.Hour},
		{"00:00-24:00", "00:00:00", 0},
	} {
		s, err := ParseSchedule(c.text)
		if err != nil {
			t.Fatal(err)
		}
		at, err := time.Parse(time.TimeOnly, c.at)
		if err != nil {
			t.Fatal(err)
		}
		if got := s.Closed(at); got != c.want {
			t.Errorf("%q at %s: closed for %v, want %v", c.text, c.at, got, c.want)
		}
	}
	for _, text := range []string{"22-06", "22:00", "22:00-", "22:00-22:00", "25:00-26:00", "22:00-06:00,", "a", "1:2:3-4"} {
		if _, err := ParseSchedule(text); err == nil {
			t.Errorf("%q is taken for spans of the day", text)
		}
	}
}

// TestBackoffGrows and never ends; failures of one moment count as one.
func TestBackoffGrows(t *testing.T) {
	rnd := newSim(1, store{}).fills
	now := simStart
	var b Backoff
	last := time.Duration(0)
	for i := range 40 {
		b.Failed(now, rnd)
		b.Failed(now, rnd)
		d := b.Left(now)
		if d < backoffMin*3/4 || d > backoffMax*5/4 {
			t.Fatalf("after %d failures it waits %v", i+1, d)
		}
		if i < 8 && d <= last*3/4 {
			t.Errorf("after %d failures it waits %v, before %v", i+1, d, last)
		}
		last = d
		now = now.Add(d)
		if b.Left(now) != 0 {
			t.Fatal("it waits on")
		}
	}
	b.Done()
	b.Failed(now, rnd)
	if d := b.Left(now); d > backoffMin*5/4 {
		t.Errorf("the first failure after a success makes it wait %v", d)
	}
}

// TestSizer takes more than was asked for only as far as it makes little
// difference.
func TestSizer(t *testing.T) {
	for _, c := range []struct {
		name    string
		latency time.Duration
		rate    float64
		want    int64
	}{
		{"nothing known", 0, 0, sizeFirst},
		{"page blob", 15 * time.Millisecond, 60 * mib, 64 << 10},
		{"fast region", 20 * time.Millisecond, 200e6, 256 << 10},
		{"slow link", 30 * time.Millisecond, 2e6, sizeLeast},
		{"local directory", 50 * time.Microsecond, 1e9, sizeLeast},
	} {
		var s Sizer
		if c.rate > 0 {
			for range 100 {
				for _, n := range []int64{4096, 1 << 20} {
					s.Fetched(n, c.latency+time.Duration(float64(n)/c.rate*float64(time.Second)))
				}
			}
		}
		got := s.Size()
		if got != c.want {
			t.Errorf("%s: %d KiB, want %d", c.name, got>>10, c.want>>10)
		}
		if c.rate == 0 {
			continue
		}
		bare := c.latency.Seconds() + 4096/c.rate
		if with := c.latency.Seconds() + float64(got)/c.rate; got > sizeLeast && with > 1.2*bare {
			t.Errorf("%s: the first 4 KiB take %.2f of a bare read of them", c.name, with/bare)
		}
		for range 10 {
			s.Throttled()
		}
		if got := s.Size(); got != sizeMost {
			t.Errorf("%s: %d KiB where requests are scarce, want %d", c.name, got>>10, sizeMost>>10)
		}
	}
}
