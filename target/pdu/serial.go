package pdu

// Sequence numbers are 32 bits and wrap around; they compare as RFC 1982
// says, RFC 7143 4.2.2.1. Two numbers that are 1<<31 apart have no order, and
// both Before and After are false then.

// Before tells whether a comes before b.
func Before(a, b uint32) bool { return a != b && b-a < 1<<31 }

// After tells whether a comes after b.
func After(a, b uint32) bool { return Before(b, a) }

// Within tells whether sn is in [first, last], ends included. An interval
// whose last comes before its first is empty.
func Within(sn, first, last uint32) bool {
	return !Before(last, first) && sn-first <= last-first
}
