package prefetch

import "skylun/block"

const (
	near     = 4 << 20 // what lies that near to what was read is likely to be read, aligned to it
	nearKept = 64      // places that are remembered
)

// Order says in which order an image is filled:
//
//  1. what a profile names, in its order
//  2. the neighbourhoods of what readers had to wait for, the latest first
//  3. the rest, from the start to the end
//
// What is left to do is told by the states of the blocks, so an Order can be
// forgotten at any time.
type Order struct {
	size    int64
	profile []block.Range
	next    int // of profile
	places  [nearKept]int64
	count   int   // of places, the latest at the end
	rest    int64 // up to where the rest is done
}

// NewOrder returns the order of an image of size bytes.
func NewOrder(size int64) *Order { return &Order{size: size} }

// SetProfile says what is wanted first.
func (o *Order) SetProfile(ranges []block.Range) { o.profile, o.next = ranges, 0 }

// Urgent tells whether something of the profile may still be to be fetched:
// readers will want it soon.
func (o *Order) Urgent() bool { return o.next < len(o.profile) }

// Missed tells that a reader had to wait for what is at off.
func (o *Order) Missed(off int64) {
	p := block.Floor(off, near)
	if o.count > 0 && o.places[o.count-1] == p {
		return
	}
	n := 0
	for _, q := range o.places[:o.count] { // it moves to the end
		if q != p {
			o.places[n] = q
			n++
		}
	}
	if n == nearKept {
		copy(o.places[:], o.places[1:])
		n--
	}
	o.places[n] = p
	o.count = n + 1
}

// Find returns the first run within a range that is to be fetched, nothing of
// which is local or under way. ok is false when there is none.
type Find func(within block.Range) (run block.Range, ok bool)

// Next returns what to fetch next, at most n bytes; if urgent, of the profile
// only. ok is false when nothing is left but what is under way.
func (o *Order) Next(n int64, urgent bool, find Find) (r block.Range, ok bool) {
	for o.next < len(o.profile) {
		if r, ok := find(o.profile[o.next].Intersect(block.Range{End: o.size})); ok {
			return cut(r, n), true
		}
		o.next++
	}
	if urgent {
		return block.Range{}, false
	}
	for o.count > 0 {
		p := o.places[o.count-1]
		if r, ok := find(block.Range{Off: p, End: min(p+near, o.size)}); ok {
			return cut(r, n), true
		}
		o.count--
	}
	for range 2 {
		if r, ok := find(block.Range{Off: o.rest, End: o.size}); ok {
			r = cut(r, n)
			o.rest = r.Off
			return r, true
		}
		if o.rest == 0 {
			break
		}
		o.rest = 0 // what failed, and what was evicted
	}
	return block.Range{}, false
}

// cut returns the beginning of r, n bytes at most, that ends on a multiple of n
// where it may: so fetches do not leave crumbs.
func cut(r block.Range, n int64) block.Range {
	r.End = min(r.End, block.Floor(r.Off, n)+n)
	return r
}
