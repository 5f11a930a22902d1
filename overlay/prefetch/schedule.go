package prefetch

import (
	"fmt"
	"strings"
	"time"
)

// Schedule are hours of the day.
type Schedule struct{ spans []span }

type span struct{ from, to time.Duration } // since midnight; to <= from: over midnight

// ParseSchedule reads spans of the day such as "22:00-06:00, 12:00-13:00". An
// empty text is the whole day.
func ParseSchedule(text string) (s Schedule, err error) {
	if strings.TrimSpace(text) == "" {
		return s, nil
	}
	for part := range strings.SplitSeq(text, ",") {
		from, to, ok := strings.Cut(part, "-")
		var sp span
		if ok {
			sp.from, ok = clock(from)
		}
		if ok {
			sp.to, ok = clock(to)
		}
		if !ok || sp.from == sp.to {
			return s, fmt.Errorf("%q is no span of the day; write 22:00-06:00", strings.TrimSpace(part))
		}
		s.spans = append(s.spans, sp)
	}
	return s, nil
}

func clock(text string) (time.Duration, bool) {
	text = strings.TrimSpace(text)
	if text == "24:00" {
		return 24 * time.Hour, true
	}
	t, err := time.Parse("15:04", text)
	return time.Duration(t.Hour())*time.Hour + time.Duration(t.Minute())*time.Minute, err == nil
}

// Closed returns how long it is from now, in now's time zone, until the next
// span; 0: one is now.
func (s Schedule) Closed(now time.Time) time.Duration {
	if len(s.spans) == 0 {
		return 0
	}
	at := time.Duration(now.Hour())*time.Hour + time.Duration(now.Minute())*time.Minute +
		time.Duration(now.Second())*time.Second + time.Duration(now.Nanosecond())
	left := 24 * time.Hour
	for _, sp := range s.spans {
		in := at >= sp.from && at < sp.to
		if sp.to <= sp.from {
			in = at >= sp.from || at < sp.to
		}
		if in {
			return 0
		}
		d := sp.from - at
		if d <= 0 {
			d += 24 * time.Hour
		}
		left = min(left, d)
	}
	return left
}
