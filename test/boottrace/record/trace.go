package main

import (
	"slices"
	"time"

	"skylun/test/boottrace"
)

// done is one read that was answered; times are since the recording began.
type done struct {
	off        int64
	n          int
	begin, end time.Duration
}

// traceOf tells which reads waited for which. Reads that were under way at the
// same time, or linked by such ones, are a stage: the next one began when all
// of them were answered. Within a stage a read continues the chain whose last
// answer is the latest before it. Reads one after the other are one chain.
func traceOf(reads []done) (t boottrace.Trace) {
	slices.SortStableFunc(reads, func(a, b done) int { return int(a.begin - b.begin) })
	var alone boottrace.Chain
	var before time.Duration // when the stage before ended
	for len(reads) > 0 {
		n, end := 1, reads[0].end
		for n < len(reads) && reads[n].begin < end {
			end = max(end, reads[n].end)
			n++
		}
		stage := chains(reads[:n], before)
		if n == 1 {
			alone = append(alone, stage[0]...)
		} else {
			if alone != nil {
				t, alone = append(t, boottrace.Stage{alone}), nil
			}
			t = append(t, stage)
		}
		reads, before = reads[n:], end
	}
	if alone != nil {
		t = append(t, boottrace.Stage{alone})
	}
	return t
}

// chains makes the chains of a stage, before which the guest got its last
// answer at a time.
func chains(reads []done, before time.Duration) (s boottrace.Stage) {
	var ends []time.Duration // of each chain
	for _, r := range reads {
		at := -1
		for i, end := range ends {
			if end <= r.begin && (at < 0 || end > ends[at]) {
				at = i
			}
		}
		if at < 0 {
			at = len(s)
			s, ends = append(s, nil), append(ends, before)
		}
		s[at] = append(s[at], boottrace.Read{Off: r.off, Len: r.n, Think: r.begin - ends[at]})
		ends[at] = r.end
	}
	return s
}
