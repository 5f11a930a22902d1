package stripe

import (
	"errors"
	"fmt"
	"iter"
	"math"
	"math/bits"
	"slices"
	"sort"
)

// Bounds of what a layout can be made of.
const (
	MinSize    = 4 << 10 // of a stripe
	MaxWeight  = 256
	MaxMembers = 256
)

// DefaultSize is that of a stripe where nothing else is asked for.
const DefaultSize = 256 << 10

// Member is what a layout has to know of one that stripes are dealt to.
type Member struct {
	Size   int64 `json:"size"`             // bytes it takes; what is no whole stripe stays unused
	Weight int   `json:"weight,omitempty"` // stripes in a round; 0: one
}

// Layout says where the bytes of a whole are. It is immutable.
type Layout struct {
	shift   uint // a stripe has 1<<shift bytes
	size    int64
	members int
	zones   []zone
}

// zone is a part of the whole that lies on the same members, in rounds.
type zone struct {
	off, end int64
	slots    []slot // of a round, in order
	shares   []share
}

// slot is one stripe of a round.
type slot struct {
	member int32
	weight int64 // stripes of the member in a round
	nth    int64 // which of them this is
	base   int64 // where the zone begins on the member
}

// share is what a zone has of one member.
type share struct {
	off, end int64   // on the member; empty: nothing
	slots    []int64 // its slots of a round
}

// New returns the layout of members with stripes of size bytes, a power of two.
// Members without a whole stripe get nothing.
func New(size int64, members []Member) (*Layout, error) {
	if size < MinSize || size&(size-1) != 0 {
		return nil, fmt.Errorf("stripes of %d bytes: want a power of two, %d or more", size, MinSize)
	}
	if len(members) == 0 || len(members) > MaxMembers {
		return nil, fmt.Errorf("%d members: want 1 to %d", len(members), MaxMembers)
	}
	l := &Layout{shift: uint(bits.TrailingZeros64(uint64(size))), members: len(members)}
	left, weights, used := make([]int64, len(members)), make([]int64, len(members)), make([]int64, len(members))
	common := int64(0)
	for i, m := range members {
		if m.Size < 0 || m.Weight < 0 || m.Weight > MaxWeight {
			return nil, fmt.Errorf("member %d: size %d, weight %d: want no less than 0, and a weight of up to %d", i, m.Size, m.Weight, MaxWeight)
		}
		left[i], weights[i] = m.Size>>l.shift, int64(max(m.Weight, 1))
		common = gcd(common, weights[i])
	}
	for i := range weights {
		weights[i] /= common
	}
	for {
		round := make([]int64, len(members)) // stripes that each gets in a round
		rounds, length := int64(math.MaxInt64), int64(0)
		for i := range members {
			if round[i] = min(weights[i], left[i]); round[i] > 0 {
				rounds = min(rounds, left[i]/round[i])
				length += round[i]
			}
		}
		if length == 0 {
			break
		}
		if rounds > (math.MaxInt64-l.size)>>l.shift/length {
			return nil, errors.New("the members are too large together")
		}
		l.add(round, rounds, length, used)
		for i := range members {
			left[i] -= rounds * round[i]
			used[i] += rounds * round[i]
		}
	}
	return l, nil
}

func gcd(a, b int64) int64 {
	for b != 0 {
		a, b = b, a%b
	}
	return a
}

// add appends a zone of rounds, used stripes into each member.
func (l *Layout) add(round []int64, rounds, length int64, used []int64) {
	z := zone{off: l.size, end: l.size + (rounds*length)<<l.shift, shares: make([]share, len(round))}
	dealt := make([]int64, len(round))
	for n := range length {
		// Who is most behind his part of the n+1 stripes gets the next.
		best := -1
		for i := range round {
			if round[i] > dealt[i] && (best < 0 || round[i]*(n+1)-dealt[i]*length > round[best]*(n+1)-dealt[best]*length) {
				best = i
			}
		}
		z.slots = append(z.slots, slot{member: int32(best), weight: round[best], nth: dealt[best], base: used[best] << l.shift})
		z.shares[best].slots = append(z.shares[best].slots, n)
		dealt[best]++
	}
	for i := range round {
		z.shares[i].off, z.shares[i].end = used[i]<<l.shift, (used[i]+rounds*round[i])<<l.shift
	}
	l.size = z.end
	l.zones = append(l.zones, z)
}

// Size returns the bytes of the whole.
func (l *Layout) Size() int64 { return l.size }

// Stripe returns the bytes of a stripe.
func (l *Layout) Stripe() int64 { return 1 << l.shift }

// Members returns how many members the layout has been made of.
func (l *Layout) Members() int { return l.members }

// Used returns how many bytes of a member are used, from its beginning.
func (l *Layout) Used(member int) (n int64) {
	for i := range l.zones {
		n = max(n, l.zones[i].shares[member].end)
	}
	return n
}

// Run is a part of the whole that lies in one piece on one member.
type Run struct {
	Member int
	Off    int64 // on the member
	Len    int64
}

// At returns the run that begins at off, which must be within the whole. It ends
// with the stripe, or, where a zone has one member only, with the zone.
func (l *Layout) At(off int64) Run {
	z := &l.zones[0]
	if off >= z.end {
		z = &l.zones[sort.Search(len(l.zones), func(i int) bool { return l.zones[i].end > off })]
	}
	if len(z.slots) == 1 {
		s := &z.slots[0]
		return Run{int(s.member), s.base + off - z.off, z.end - off}
	}
	rel := off - z.off
	n := rel >> l.shift
	round, k := n/int64(len(z.slots)), n%int64(len(z.slots))
	s := &z.slots[k]
	in := rel & (1<<l.shift - 1)
	return Run{int(s.member), s.base + (round*s.weight+s.nth)<<l.shift + in, 1<<l.shift - in}
}

// Runs returns the runs of [off, off+n), which must be within the whole, in
// order. Neighbours that follow each other on their member are one.
func (l *Layout) Runs(off, n int64) iter.Seq[Run] {
	return func(yield func(Run) bool) {
		var r Run
		for end := off + n; off < end; {
			next := l.At(off)
			next.Len = min(next.Len, end-off)
			off += next.Len
			if r.Len > 0 && r.Member == next.Member && r.Off+r.Len == next.Off {
				r.Len += next.Len
				continue
			}
			if r.Len > 0 && !yield(r) {
				return
			}
			r = next
		}
		if r.Len > 0 {
			yield(r)
		}
	}
}

// Offset is the inverse of At: it returns where in the whole the byte at off of
// a member is, unless it is not used.
func (l *Layout) Offset(member int, off int64) (whole int64, ok bool) {
	for i := range l.zones {
		z := &l.zones[i]
		s := &z.shares[member]
		if off < s.off || off >= s.end {
			continue
		}
		n, weight := (off-s.off)>>l.shift, int64(len(s.slots))
		slot := n/weight*int64(len(z.slots)) + s.slots[n%weight]
		return z.off + slot<<l.shift + off&(1<<l.shift-1), true
	}
	return 0, false
}

// Share divides the stripes of size bytes in proportion to parts, as exactly as
// stripes allow, and returns the bytes of each; together they are the next whole
// number of stripes.
func Share(size, stripe int64, parts []int64) []int64 {
	stripes := (size + stripe - 1) / stripe
	total := 0.0
	for _, p := range parts {
		total += float64(p)
	}
	shares, rest := make([]int64, len(parts)), make([]float64, len(parts))
	order, left := make([]int, len(parts)), stripes
	for i, p := range parts {
		exact := float64(stripes) / float64(len(parts))
		if total > 0 {
			exact = float64(stripes) * (float64(p) / total)
		}
		shares[i] = min(int64(exact), left)
		rest[i], order[i] = exact-float64(shares[i]), i
		left -= shares[i]
	}
	slices.SortStableFunc(order, func(a, b int) int {
		switch {
		case rest[a] > rest[b]:
			return -1
		case rest[a] < rest[b]:
			return 1
		}
		return 0
	})
	for i := 0; left > 0; i = (i + 1) % len(order) {
		if total == 0 || parts[order[i]] > 0 {
			shares[order[i]]++
			left--
		}
	}
	for i := range shares {
		shares[i] *= stripe
	}
	return shares
}
