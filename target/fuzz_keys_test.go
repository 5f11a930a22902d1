package target

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"skylun/target/pdu"
)

// FuzzKeys applies arbitrary values of arbitrary keys, RFC 7143 6.2. Whatever
// they are, what comes of them is within the bounds of section 13, an answer
// can be sent, and an initiator that offers what was answered gets the same
// answer again.
func FuzzKeys(f *testing.F) {
	for _, key := range slices.Sorted(maps.Keys(keyRules)) {
		for _, value := range []string{"", "0", "1", "Yes", "No", "None", "CRC32C,None", "0x200", "65536", "99999999999999999999", "-1", "Normal", testTarget, "Reject"} {
			f.Add(key, value)
		}
	}
	f.Add("X-com.example.key", "1")
	f.Fuzz(func(t *testing.T, key, value string) {
		if strings.ContainsAny(key, "=\x00") || strings.Contains(value, "\x00") || key == "" || len(key) > pdu.MaxKey || len(value) > pdu.MaxValue {
			return // the text cannot be parsed to that
		}
		n := negotiation{params: defaultParams}
		answer := n.apply(key, value)
		for _, v := range []struct {
			what           string
			is, low, limit int
		}{
			{"MaxRecvDataSegmentLength", n.maxSend, 512, 1<<24 - 1},
			{"MaxBurstLength", n.maxBurst, 512, ourMaxBurst},
			{"FirstBurstLength", n.firstBurst, 512, ourFirstBurst},
			{"MaxOutstandingR2T", n.maxR2T, 1, maxR2T},
			{"DefaultTime2Wait", n.time2Wait, 0, 3600},
			{"DefaultTime2Retain", n.time2Retain, 0, 3600},
		} {
			if v.is < v.low || v.is > v.limit {
				t.Errorf("%s=%q makes %s %d", key, value, v.what, v.is)
			}
		}
		if len(n.initiator) > maxName || len(n.target) > maxName || len(n.alias) > maxName {
			t.Errorf("%s=%q makes a name of %d, %d or %d bytes", key, value, len(n.initiator), len(n.target), len(n.alias))
		}
		if len(answer) > pdu.MaxValue || strings.ContainsAny(answer, "\x00\n=") {
			t.Errorf("%s=%q is answered by %q", key, value, answer)
		}
		switch answer {
		case "", answerReject, answerNotUnderstood, answerIrrelevant:
			return
		}
		again := negotiation{params: defaultParams}
		if got := again.apply(key, answer); got != answer || again.params != n.params {
			t.Errorf("%s=%q is answered by %q, and that by %q", key, value, answer, got)
		}
	})
}
