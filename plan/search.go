package plan

import (
	"cmp"
	"errors"
	"math"
	"slices"
)

// Options bound what is searched. The zero value is sets of up to
// DefaultMembers equal members.
type Options struct {
	MaxMembers int  // 0: DefaultMembers
	Mixed      bool // also sets of different kinds
	Ephemeral  bool // also kinds that lose their content with the machine
	Results    int  // how many plans; 0: DefaultResults

	// What the node allows to all disks that are attached to it; 0: any
	// amount. Local kinds do not count.
	NodeIOPS  int64
	NodeBytes int64
}

const (
	DefaultMembers = 16
	DefaultResults = 5
	MaxMembers     = 64

	// MaxSteps is how many partial sets a search looks at before it gives up
	// on being exact.
	MaxSteps = 4_000_000
)

// Plan is a set of disks that meets a demand.
type Plan struct {
	Members  []Member
	Weighted bool // the members need their weights
	Disk          // what the array gives, the node's limits included
	Price    float64
	Limit    string  // what is nearest to the demand: "size", "iops", "throughput", or the node's
	Slack    float64 // how much more of that there is than is asked for; 0: nothing
}

// Member is a number of equal disks in a plan.
type Member struct {
	Kind   *Kind
	Count  int
	Weight int // in the array
	Disk       // what each holds and does; what was bought, of a provisioned one
	Price  float64
}

// Count returns how many disks there are.
func (p *Plan) Count() (n int) {
	for _, m := range p.Members {
		n += m.Count
	}
	return n
}

// Result is what a search found.
type Result struct {
	Plans []Plan // the cheapest first, then others: the best of each kind, and mixtures
	Exact bool   // there is none cheaper than the first
	Steps int    // partial mixtures that were looked at

	// When there is no plan: the one that comes nearest, and which part of
	// the demand it meets, all of size, IOPS and throughput alike. Nil: the
	// catalogue has no kind that may be used.
	Nearest  *Plan
	Fraction float64
	Members  int // with so many members there would be a plan; 0: nothing helps
}

// Search returns the cheapest plans.
func (c *Catalogue) Search(want Demand, o Options) (Result, error) {
	if o.MaxMembers == 0 {
		o.MaxMembers = DefaultMembers
	}
	if o.Results == 0 {
		o.Results = DefaultResults
	}
	switch {
	case want.Size <= 0 || want.Size > maxGiB*gib:
		return Result{}, errors.New("the size has to be more than 0, and less than 1 EiB")
	case want.IOPS < 0 || want.Bytes < 0 || want.IOPS > maxRate || want.Bytes > 1e6*maxRate:
		return Result{}, errors.New("IOPS and throughput have to be from 0 to 1e12")
	case o.MaxMembers < 1 || o.MaxMembers > MaxMembers:
		return Result{}, errors.New("an array is planned with 1 to 64 members")
	case o.Results < 1 || o.NodeIOPS < 0 || o.NodeBytes < 0:
		return Result{}, errors.New("limits have to be positive")
	}
	s := &search{want: want, o: o, attached: 1}
	if o.NodeIOPS > 0 && want.IOPS > 0 {
		s.attached = min(s.attached, float64(o.NodeIOPS)/float64(want.IOPS))
	}
	if o.NodeBytes > 0 && want.Bytes > 0 {
		s.attached = min(s.attached, float64(o.NodeBytes)/float64(want.Bytes))
	}
	for i := range c.Kinds {
		k := &c.Kinds[i]
		if k.Ephemeral && !o.Ephemeral {
			continue
		}
		s.kinds = append(s.kinds, k)
		s.equal(k)
	}
	exact := true
	if o.Mixed {
		exact = s.mixed()
	}
	s.rank()
	r := Result{Plans: s.found, Exact: exact, Steps: s.steps}
	if len(r.Plans) == 0 {
		s.nearest(&r)
	}
	return r, nil
}

// search is one search.
type search struct {
	want     Demand
	o        Options
	attached float64 // which part of the demand attached disks may bear together
	kinds    []*Kind
	found    []Plan
	steps    int
}

func (k *Kind) disk() Disk {
	return Disk{Size: k.SizeGiB * gib, IOPS: k.IOPS, Bytes: int64(k.MBPerS * 1e6)}
}

// limit returns how many disks of a kind there can be.
func (s *search) limit(k *Kind) int {
	if k.Max > 0 {
		return min(k.Max, s.o.MaxMembers)
	}
	return s.o.MaxMembers
}

// equal finds the best set of one kind: of fixed ones the smallest that is large
// enough, as a larger one costs more; of provisioned ones the best of all, as
// each is bought anew.
func (s *search) equal(k *Kind) {
	var best *Plan
	for n := 1; n <= s.limit(k); n++ {
		m := Member{Kind: k, Count: n, Weight: 1}
		if k.Provisioned == nil {
			m.Disk, m.Price = k.disk(), k.Price
		} else {
			var ok bool
			if m.Disk, m.Price, ok = k.Provisioned.buy(s.want, n); !ok {
				continue
			}
		}
		if p := s.plan([]Member{m}); p.meets(s.want) && (best == nil || compare(&p, best) < 0) {
			best = &p
			if k.Provisioned == nil {
				break
			}
		}
	}
	if best != nil {
		s.found = append(s.found, *best)
	}
}

// buy returns the least that one of n disks has to be. Each of the three is as
// small as what needs it allows, so nothing can be cheaper.
func (p *Provisioned) buy(want Demand, n int) (d Disk, price float64, ok bool) {
	part := func(total int64) int64 { return (total + int64(n) - 1) / int64(n) }
	mb := max(p.MBPerS.Min, ceil(float64(part(want.Bytes))/1e6))
	iops := max(p.IOPS.Min, part(want.IOPS))
	if mb > p.MBPerS.Min {
		iops = max(iops, ceil(float64(mb)/p.MBPerS.PerUnit))
	}
	size := max(p.SizeGiB.Min, part((want.Size+gib-1)/gib))
	if iops > p.IOPS.Min {
		size = max(size, ceil(float64(iops)/p.IOPS.PerUnit), p.IOPS.AboveGiB+1)
	}
	if mb > p.MBPerS.Min {
		size = max(size, p.MBPerS.AboveGiB+1)
	}
	if size > p.SizeGiB.Max || iops > p.IOPS.Max || mb > p.MBPerS.Max {
		return Disk{}, 0, false
	}
	price = float64(size)*p.Price.GiB + float64(max(0, iops-p.IOPS.Free))*p.Price.IOPS + float64(max(0, mb-p.MBPerS.Free))*p.Price.MBPerS
	return Disk{Size: size * gib, IOPS: iops, Bytes: mb * 1e6}, price, true
}

func ceil(f float64) int64 { return int64(math.Ceil(f - 1e-9)) }

// plan returns the plan of members with their weights.
func (s *search) plan(members []Member) Plan {
	p := Plan{Members: members, Weighted: len(members) > 1}
	var disks []Disk
	var weights []int
	total, attached := int64(0), int64(0)
	for _, m := range members {
		for range m.Count {
			disks, weights = append(disks, m.Disk), append(weights, m.Weight)
		}
		w := int64(m.Count * m.Weight)
		total += w
		if !m.Kind.Local {
			attached += w
		}
		p.Price += float64(m.Count) * m.Price
	}
	if p.Weighted { // perhaps it goes without
		if p.Disk = Array(disks, nil); p.meets(s.want) && s.bear(&p, 1, 1) {
			p.Weighted = false
			s.judge(&p, 1, 1)
			return p
		}
	}
	p.Disk = Array(disks, weights)
	s.judge(&p, attached, total)
	return p
}

// bear tells whether the node lets attached disks take attached/total of the
// demand.
func (s *search) bear(p *Plan, attached, total int64) bool {
	d := s.limited(p.Disk, attached, total)
	return (&Plan{Disk: d}).meets(s.want)
}

// limited returns what the node leaves of what an array gives.
func (s *search) limited(d Disk, attached, total int64) Disk {
	if s.o.NodeIOPS > 0 && attached > 0 {
		d.IOPS = min(d.IOPS, mulDiv(s.o.NodeIOPS, total, attached))
	}
	if s.o.NodeBytes > 0 && attached > 0 {
		d.Bytes = min(d.Bytes, mulDiv(s.o.NodeBytes, total, attached))
	}
	return d
}

// judge completes a plan with what the node leaves of it, and what limits it.
func (s *search) judge(p *Plan, attached, total int64) {
	without := p.Disk
	p.Disk = s.limited(p.Disk, attached, total)
	p.Slack = math.Inf(1)
	for _, r := range []struct {
		what         string
		have, wanted int64
		node         bool
	}{
		{"size", p.Size, s.want.Size, false},
		{"iops", p.IOPS, s.want.IOPS, p.IOPS < without.IOPS},
		{"throughput", p.Bytes, s.want.Bytes, p.Bytes < without.Bytes},
	} {
		if r.wanted == 0 {
			continue
		}
		if slack := float64(r.have)/float64(r.wanted) - 1; slack < p.Slack {
			p.Slack, p.Limit = slack, r.what
			if r.node {
				p.Limit += " of the node"
			}
		}
	}
}

// meets tells whether a plan is one.
func (p *Plan) meets(want Demand) bool {
	return p.Size >= want.Size && p.IOPS >= want.IOPS && p.Bytes >= want.Bytes
}

// compare orders plans: cheaper, with fewer members, with more to spare.
func compare(a, b *Plan) int {
	if math.Abs(a.Price-b.Price) > 1e-9*max(1, a.Price) {
		return cmp.Compare(a.Price, b.Price)
	}
	return cmp.Or(cmp.Compare(a.Count(), b.Count()), cmp.Compare(b.Slack, a.Slack))
}

// rank leaves the best plans, in order.
func (s *search) rank() {
	slices.SortStableFunc(s.found, func(a, b Plan) int { return compare(&a, &b) })
	s.found = s.found[:min(len(s.found), s.o.Results)]
}

// nearest fills in what comes nearest to a demand that nothing meets.
func (s *search) nearest(r *Result) {
	var best Plan
	for _, k := range s.kinds {
		one := k.disk()
		price := k.Price
		n := s.limit(k)
		if k.Provisioned != nil {
			one = k.Provisioned.largest()
			// No more of it than the worst of the three is good for.
			f := min(1, float64(n)*one.fraction(s.want)) * (1 - tiny)
			less := Demand{int64(float64(s.want.Size) * f), int64(float64(s.want.IOPS) * f), int64(float64(s.want.Bytes) * f)}
			var ok bool
			if one, price, ok = k.Provisioned.buy(less, n); !ok {
				continue
			}
		}
		p := s.plan([]Member{{Kind: k, Count: n, Weight: 1, Disk: one, Price: price}})
		f := min(1, p.fraction(s.want))
		switch {
		case r.Nearest != nil && f < r.Fraction-1e-12:
			continue
		case r.Nearest != nil && f < r.Fraction+1e-12 && p.Price >= best.Price:
			continue
		}
		best, r.Fraction = p, f
		r.Nearest = &best
	}
	if s.attached < 1 && r.Fraction >= s.attached-1e-9 { // more members are of no use
		return
	}
	for _, k := range s.kinds {
		one := k.disk()
		if k.Provisioned != nil {
			one = k.Provisioned.largest()
		}
		if k.Max == 0 {
			if n := ceil(1 / one.fraction(s.want)); n <= MaxMembers && int(n) > s.o.MaxMembers && (r.Members == 0 || int(n) < r.Members) {
				r.Members = int(n)
			}
		}
	}
}

// largest returns the most that can be bought.
func (p *Provisioned) largest() Disk {
	iops := max(p.IOPS.Min, min(p.IOPS.Max, int64(float64(p.SizeGiB.Max)*p.IOPS.PerUnit)))
	mb := max(p.MBPerS.Min, min(p.MBPerS.Max, int64(float64(iops)*p.MBPerS.PerUnit)))
	return Disk{Size: p.SizeGiB.Max * gib, IOPS: iops, Bytes: mb * 1e6}
}
