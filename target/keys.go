package target

import (
	"strconv"
	"strings"
)

// Constant answers, RFC 7143 6.2.
const (
	answerReject        = "Reject"
	answerNotUnderstood = "NotUnderstood"
	answerIrrelevant    = "Irrelevant"
)

// negotiation is what the text keys of a login are applied to.
type negotiation struct {
	params
	who
	alias string // InitiatorAlias

	badName, badType bool // a value that ends the login
}

// who is what an initiator may not change while it logs in.
type who struct {
	initiator string // InitiatorName, as names are compared
	target    string // TargetName, likewise
	discovery bool   // SessionType
}

// keyRule applies the value of a key and returns the answer: the result of the
// negotiation, or nothing when the key was a declaration.
type keyRule func(n *negotiation, value string) string

// keyRules are the keys of RFC 7143 section 13 that an initiator may send
// during login. Whatever the stage is they are taken, and a key that comes twice
// is taken twice: peers do such things, and nothing depends on it. The keys of
// section 12 are authKeys.
var keyRules = map[string]keyRule{
	"HeaderDigest":  digest(func(n *negotiation, on bool) { n.headerDigest = on }), // 13.1
	"DataDigest":    digest(func(n *negotiation, on bool) { n.dataDigest = on }),
	"InitiatorName": func(n *negotiation, v string) string { n.badName = !setName(&n.initiator, v) || n.badName; return "" }, // 13.5
	"TargetName":    func(n *negotiation, v string) string { n.badName = !setName(&n.target, v) || n.badName; return "" },    // 13.4
	"InitiatorAlias": func(n *negotiation, v string) string { // 13.7
		n.alias = printable(v)
		return ""
	},
	"SessionType": func(n *negotiation, v string) string { // 13.21
		n.discovery = v == "Discovery"
		n.badType = !n.discovery && v != "Normal"
		return ""
	},
	"MaxConnections": atMost(1, 65535, ourMaxConns, func(n *negotiation, v int) { n.maxConns = v }),     // 13.2
	"InitialR2T":     either(false, func(n *negotiation, v bool) { n.initialR2T = v }),                  // 13.10
	"ImmediateData":  both(true, func(n *negotiation, v bool) { n.immediateData = v }),                  // 13.11
	"MaxBurstLength": atMost(512, 1<<24-1, ourMaxBurst, func(n *negotiation, v int) { n.maxBurst = v }), // 13.13
	"FirstBurstLength": func(n *negotiation, v string) string { // 13.14
		return atMost(512, 1<<24-1, min(ourFirstBurst, n.maxBurst), func(n *negotiation, v int) { n.firstBurst = v })(n, v)
	},
	"MaxRecvDataSegmentLength": func(n *negotiation, v string) string { // 13.12
		size, ok := number(v, 512, 1<<24-1)
		if !ok {
			return answerReject
		}
		n.maxSend = size
		return ""
	},
	"DefaultTime2Wait":    atLeast(0, 3600, 0, func(n *negotiation, v int) { n.time2Wait = v }),   // 13.15
	"DefaultTime2Retain":  atMost(0, 3600, 0, func(n *negotiation, v int) { n.time2Retain = v }),  // 13.16
	"MaxOutstandingR2T":   atMost(1, 65535, maxR2T, func(n *negotiation, v int) { n.maxR2T = v }), // 13.17
	"DataPDUInOrder":      either(true, nil),                                                      // 13.18
	"DataSequenceInOrder": either(true, nil),                                                      // 13.19
	"ErrorRecoveryLevel":  atMost(0, 2, 0, nil),                                                   // 13.20
	"TaskReporting":       oneOf("RFC3720"),                                                       // 13.23
	"iSCSIProtocolLevel":  atMost(0, 31, 1, nil),                                                  // 13.24

	// 13.25: obsolete, but not to be called unknown.
	"IFMarker":  constant("No"),
	"OFMarker":  constant("No"),
	"IFMarkInt": constant(answerReject),
	"OFMarkInt": constant(answerReject),

	// Keys that only targets send (13.6, 13.8, 13.9), or that belong to the full
	// feature phase (13.3).
	"TargetAlias":          constant(answerReject),
	"TargetAddress":        constant(answerReject),
	"TargetPortalGroupTag": constant(answerReject),
	"SendTargets":          constant(answerReject),
}

// apply applies one key and returns the answer, if there is one.
func (n *negotiation) apply(key, value string) string {
	switch value { // answers to an offer; we make none that has one
	case answerReject, answerNotUnderstood, answerIrrelevant:
		return ""
	}
	rule, ok := keyRules[key]
	if !ok {
		return answerNotUnderstood
	}
	return rule(n, value)
}

func constant(answer string) keyRule {
	return func(*negotiation, string) string { return answer }
}

// digest chooses what the initiator likes best of what there is, 13.1.
func digest(use func(n *negotiation, on bool)) keyRule {
	return func(n *negotiation, v string) string {
		for offer := range strings.SplitSeq(v, ",") {
			if offer == "CRC32C" || offer == "None" {
				use(n, offer == "CRC32C")
				return offer
			}
		}
		return answerReject
	}
}

// oneOf chooses ours if it is in the list of values, 6.2.1.
func oneOf(ours string) keyRule {
	return func(_ *negotiation, v string) string {
		for _, offer := range strings.Split(v, ",") {
			if offer == ours {
				return ours
			}
		}
		return answerReject
	}
}

// atMost is a key whose result is the smaller of both numbers, 6.2.2.
func atMost(low, high, ours int, use func(*negotiation, int)) keyRule {
	return numeric(low, high, func(v int) int { return min(v, ours) }, use)
}

// atLeast is a key whose result is the larger of both numbers.
func atLeast(low, high, ours int, use func(*negotiation, int)) keyRule {
	return numeric(low, high, func(v int) int { return max(v, ours) }, use)
}

func numeric(low, high int, result func(int) int, use func(*negotiation, int)) keyRule {
	return func(n *negotiation, v string) string {
		offer, ok := number(v, low, high)
		if !ok {
			return answerReject
		}
		r := result(offer)
		if use != nil {
			use(n, r)
		}
		return strconv.Itoa(r)
	}
}

// either is a key whose result is Yes when one side says so.
func either(ours bool, use func(*negotiation, bool)) keyRule {
	return boolean(func(v bool) bool { return v || ours }, use)
}

// both is a key whose result is Yes when both sides say so.
func both(ours bool, use func(*negotiation, bool)) keyRule {
	return boolean(func(v bool) bool { return v && ours }, use)
}

func boolean(result func(bool) bool, use func(*negotiation, bool)) keyRule {
	return func(n *negotiation, v string) string {
		if v != "Yes" && v != "No" {
			return answerReject
		}
		r := result(v == "Yes")
		if use != nil {
			use(n, r)
		}
		if r {
			return "Yes"
		}
		return "No"
	}
}

// number reads a numerical value, decimal or hexadecimal, 6.1.
func number(v string, low, high int) (int, bool) {
	base := 10
	if len(v) > 2 && v[0] == '0' && (v[1] == 'x' || v[1] == 'X') {
		v, base = v[2:], 16
	}
	n, err := strconv.ParseUint(v, base, 63)
	if err != nil || n < uint64(low) || n > uint64(high) {
		return 0, false
	}
	return int(n), true
}

func setName(p *string, v string) (ok bool) {
	*p, ok = peerName([]byte(v))
	return ok
}

// printable returns v as it may be shown to people: short, and without
// control characters.
func printable(v string) string {
	v = strings.ToValidUTF8(v, "?")
	v = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return -1
		}
		return r
	}, v)
	if len(v) > maxName {
		v = strings.ToValidUTF8(v[:maxName], "")
	}
	return v
}
