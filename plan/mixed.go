package plan

import (
	"math"
	"slices"
)

// A mixture is a covering problem: as few of money as possible for kinds whose
// fractions c add up to 1, with a limited number of members. Branch and bound
// goes through the kinds, the cheapest for what they bear first, and decides how
// many of each. What the rest costs at least is the linear relaxation, in which
// parts of disks can be bought: with m places left for the rest r of the demand
// it is m × h(r/m), where h is the lower hull of the points (c, price) of the
// kinds that are left, and of (0, 0). A branch whose bound is not below the price
// of the best plan so far is left out. So the best one is found, and some others.
//
// Whole weights may not exist where the fractions add up to little more than 1,
// so a set counts when it has weights. That only refuses sets: the bound holds.

// option is a kind that can be part of a mixture.
type option struct {
	kind *Kind
	disk Disk
	c    float64
	max  int
	hull []point // of this option and those behind it
}

type point struct{ c, price float64 }

// mixed adds the best mixture, and good ones. It returns false when there may be
// a better one.
func (s *search) mixed() bool {
	var options []option
	for _, k := range s.kinds {
		if k.Provisioned == nil {
			d := k.disk()
			options = append(options, option{kind: k, disk: d, c: min(1, d.fraction(s.want)), max: s.limit(k)})
		}
	}
	options = s.useful(options)
	slices.SortStableFunc(options, func(a, b option) int {
		switch x, y := a.kind.Price*b.c, b.kind.Price*a.c; {
		case x < y:
			return -1
		case x > y:
			return 1
		}
		return 0
	})
	for i := range options {
		options[i].hull = hull(options[i:])
	}
	b := &branch{search: s, options: options, counts: make([]int, len(options))}
	s.rank() // what is known bounds what is looked for
	b.choose(0, s.o.MaxMembers, 0, borne{})
	return s.steps <= MaxSteps
}

// useful leaves out options in whose place there is always another one that bears
// no less and costs no more: weights depend on nothing but what disks bear, so
// no best set is lost.
func (s *search) useful(options []option) (left []option) {
	for i, a := range options {
		if !slices.ContainsFunc(options, func(b option) bool {
			better := b.c > a.c || b.kind.Price < a.kind.Price
			first := slices.IndexFunc(options, func(o option) bool { return o.kind == b.kind }) < i
			return b.kind != a.kind && b.c >= a.c && b.kind.Price <= a.kind.Price && (better || first) &&
				b.kind.Max == 0 && (s.attached >= 1 || a.kind.Local == b.kind.Local)
		}) {
			left = append(left, a)
		}
	}
	return left
}

// hull returns the lower hull of options and of nothing: what a disk that bears
// c costs at least, if it could be put together of parts.
func hull(options []option) []point {
	points := []point{{0, 0}}
	for _, o := range options {
		points = append(points, point{o.c, o.kind.Price})
	}
	slices.SortFunc(points[1:], func(a, b point) int {
		switch {
		case a.c < b.c, a.c == b.c && a.price < b.price:
			return -1
		case a.c > b.c, a.price > b.price:
			return 1
		}
		return 0
	})
	var h []point
	for _, p := range points {
		// One that bears more for less makes those before it useless.
		for len(h) > 1 && h[len(h)-1].price >= p.price {
			h = h[:len(h)-1]
		}
		for len(h) > 1 {
			a, b := h[len(h)-2], h[len(h)-1]
			if (b.price-a.price)*(p.c-a.c) < (p.price-a.price)*(b.c-a.c) {
				break
			}
			h = h[:len(h)-1]
		}
		h = append(h, p)
	}
	return h
}

// bound returns what bearing r with m places costs at least, or infinity when it
// cannot be.
func bound(h []point, r float64, m int) float64 {
	if r <= 0 {
		return 0
	}
	if m == 0 {
		return math.Inf(1)
	}
	c := r / float64(m)
	for i := 1; i < len(h); i++ {
		if c <= h[i].c+1e-12 {
			a, b := h[i-1], h[i]
			return float64(m) * (a.price + (b.price-a.price)*max(0, c-a.c)/(b.c-a.c))
		}
	}
	return math.Inf(1)
}

// branch is the state of the search for mixtures.
type branch struct {
	*search
	options []option
	counts  []int // of each option in the set
}

const tiny = 1e-9

// borne is which part of the demand a set bears.
type borne struct{ local, attached float64 }

func (b borne) add(o *option, n int) borne {
	if o.kind.Local {
		b.local += float64(n) * o.c
	} else {
		b.attached += float64(n) * o.c
	}
	return b
}

// rest returns what is left to be borne.
func (b *branch) rest(have borne) float64 { return 1 - have.local - min(have.attached, b.attached) }

// choose decides how many of option i and of those behind it are in the set,
// with m places left and price spent.
func (b *branch) choose(i, m int, price float64, have borne) {
	if b.steps++; b.steps > MaxSteps || i == len(b.options) || m == 0 {
		return
	}
	o, r := &b.options[i], b.rest(have)
	if price+bound(o.hull, r, m) >= b.best()-tiny {
		return
	}
	behind := func(n int) {
		b.counts[i] = n
		b.choose(i+1, m-n, price+float64(n)*o.kind.Price, have.add(o, n))
	}
	limit, need := min(m, o.max), max(1, int(math.Ceil((r-tiny)/o.c)))
	if !o.kind.Local && have.attached >= b.attached {
		limit = 0 // the node takes no more from disks that are attached
	}
	for n := need; n <= limit; n++ {
		b.counts[i] = n
		if b.rest(have.add(o, n)) <= tiny && b.try() {
			break // more is of no use, nor is anything beside them
		}
		behind(n)
	}
	for n := min(need-1, limit); n >= 0; n-- {
		behind(n)
	}
	b.counts[i] = 0
}

// try keeps the set if it is one of the best known, and tells whether it meets the
// demand.
func (b *branch) try() bool {
	members := b.members(-1)
	if !b.weigh(members) {
		return false
	}
	if len(members) == 1 {
		return true // known
	}
	p := b.plan(members)
	if len(b.found) == b.o.Results && compare(&p, &b.found[len(b.found)-1]) >= 0 {
		return true
	}
	for i, n := range b.counts {
		if n > 0 && b.weigh(b.members(i)) {
			return true // it is one that is enough and a disk too many
		}
	}
	b.found = append(b.found, p)
	b.rank()
	return true
}

// members returns the set, or the set without one disk of an option.
func (b *branch) members(without int) (members []Member) {
	for i, n := range b.counts {
		if i == without {
			n--
		}
		if n > 0 {
			o := &b.options[i]
			members = append(members, Member{Kind: o.kind, Count: n, Weight: 1, Disk: o.disk, Price: o.kind.Price})
		}
	}
	return members
}

// best returns the price that a plan has to be below to be looked for.
func (b *branch) best() float64 {
	if len(b.found) == 0 {
		return math.Inf(1)
	}
	return b.found[0].Price
}

// weigh gives members the smallest weights with which none gets more than it
// can bear, and tells whether there are any.
func (s *search) weigh(members []Member) bool {
	n := int64(0)
	for _, m := range members {
		n += int64(m.Count)
	}
	// Beyond this the largest weight is at its limit, and its part falls.
	most := n * maxWeight
	for _, m := range members {
		most = min(most, int64(maxWeight/m.fraction(s.want))+1)
	}
	for total := n; n > 0 && total <= most && s.steps <= MaxSteps; total++ {
		if total%16 == 0 {
			s.steps++
		}
		sum, attached := int64(0), int64(0)
		for i := range members {
			m := &members[i]
			w := m.most(total, s.want)
			if w == 0 {
				sum = -1
				break
			}
			m.Weight = int(w)
			sum += w * int64(m.Count)
			if !m.Kind.Local {
				attached += w * int64(m.Count)
			}
		}
		// Of a larger sum the weights are an even smaller part.
		if sum < total {
			continue
		}
		if s.attached < 1 {
			p := Plan{Disk: Disk{math.MaxInt64, math.MaxInt64, math.MaxInt64}}
			if !s.bear(&p, attached, sum) {
				continue
			}
		}
		reduce(members)
		return true
	}
	return false
}

// reduce divides the weights by what they have in common.
func reduce(members []Member) {
	common := 0
	for _, m := range members {
		for a, b := common, m.Weight; ; a, b = b, a%b {
			if b == 0 {
				common = a
				break
			}
		}
	}
	for i := range members {
		members[i].Weight /= common
	}
}
