package raid

import (
	"encoding/json"
	"fmt"
	"slices"
	"sort"

	"skylun/raid/stripe"
)

// The layout of a file is durable before the file has a byte, and what it says
// of an offset never changes: members that are added later, or get another
// weight, count for new files, and for what a file grows by.
//
// A file is a row of segments, each striped over its own members. It begins
// with one; growing appends others. On each member the segments of a file follow one
// another in one piece. While a file is moved it is twice there, in two
// generations of pieces: what is below the cursor counts in the next one, the rest
// in the old one.
//
//	record of a file, in JSON, under "file/" and its name:
//
//	{ "at": placement, "next": placement, "cursor": bytes, "making": bool, "making_next": bool,
//	  "old": placement, "also": [numbers of members] }
//	placement: { "gen": number of the generation, "segments": [
//	    { "stripe": bytes, "on": [numbers of members], "members": [ { "size", "weight" } ] }, ... ] }

// fileRecord is what is durable of a file.
type fileRecord struct {
	At     placement  `json:"at"`
	Next   *placement `json:"next,omitempty"`   // where it is being moved to
	Cursor int64      `json:"cursor,omitempty"` // up to where it has been moved
	Making bool       `json:"making,omitempty"` // Create has not returned

	MakingNext bool       `json:"making_next,omitempty"` // not all pieces of Next are there, and nothing in them
	Old        *placement `json:"old,omitempty"`         // its pieces are to be removed
	Also       []int      `json:"also,omitempty"`        // members that may have pieces without being named
}

// placements returns all of which there may be pieces.
func (r *fileRecord) placements() (all []placement) {
	for _, p := range []*placement{&r.At, r.Next, r.Old} {
		if p != nil {
			all = append(all, placement{p.Gen, append(slices.Clone(p.Segments), segment{On: r.Also})})
		}
	}
	return all
}

// placement is a generation of a file.
type placement struct {
	Gen      int       `json:"gen,omitempty"`
	Segments []segment `json:"segments"`
}

// segment is a part of a file that is striped over the same members.
type segment struct {
	Stripe  int64           `json:"stripe"`
	On      []int           `json:"on"` // numbers of the members
	Members []stripe.Member `json:"members"`
}

// pieceName returns the name of a file's pieces.
func pieceName(name string, gen int) string {
	if gen == 0 {
		return name
	}
	return fmt.Sprintf("%s~%d", name, gen)
}

// placed is a placement that can be looked up.
type placed struct {
	placement
	size int64
	segs []placedSegment
	used map[int]int64 // bytes on each member, by number
}

type placedSegment struct {
	off, end int64
	layout   *stripe.Layout
	parts    []*part // of the members; nil until the pieces are open
	base     []int64 // where the segment begins in the pieces
}

// locate makes a placement ready, as far as that takes no pieces.
func locate(p placement) (*placed, error) {
	l := &placed{placement: p, used: map[int]int64{}}
	for _, s := range p.Segments {
		if len(s.On) != len(s.Members) {
			return nil, fmt.Errorf("layout of %d members names %d", len(s.Members), len(s.On))
		}
		layout, err := stripe.New(s.Stripe, s.Members)
		if err != nil {
			return nil, fmt.Errorf("layout: %w", err)
		}
		ps := placedSegment{off: l.size, end: l.size + layout.Size(), layout: layout, parts: make([]*part, len(s.On))}
		for i, number := range s.On {
			ps.base = append(ps.base, l.used[number])
			if n := layout.Used(i); n > 0 {
				l.used[number] += n
			}
		}
		l.segs = append(l.segs, ps)
		l.size = ps.end
	}
	return l, nil
}

// connect gives the segments the parts of their members.
func (l *placed) connect(parts map[int]*part) {
	for i := range l.segs {
		for j, number := range l.Segments[i].On {
			l.segs[i].parts[j] = parts[number]
		}
	}
}

// only returns the member that all of the file is on, at identical offsets.
func (l *placed) only() (number int, ok bool) {
	if len(l.used) != 1 {
		return 0, false
	}
	for number = range l.used {
	}
	return number, true
}

// at returns where off, which is within the file, is, and how many bytes follow it
// there.
func (l *placed) at(off int64) (p *part, at, n int64) {
	s := &l.segs[0]
	if off >= s.end {
		s = &l.segs[sort.Search(len(l.segs), func(i int) bool { return l.segs[i].end > off })]
	}
	r := s.layout.At(off - s.off)
	return s.parts[r.Member], s.base[r.Member] + r.Off, r.Len
}

func (r *fileRecord) encode() []byte {
	b, err := json.Marshal(r)
	if err != nil {
		panic(err) // it has no types that cannot be encoded
	}
	return b
}

// on tells whether a part of the file is on a member.
func (r *fileRecord) on(number int) bool {
	for _, p := range []*placement{&r.At, r.Next} {
		if p == nil || p == r.Next && r.MakingNext {
			continue
		}
		for _, s := range p.Segments {
			for i, n := range s.On {
				if n == number && s.Members[i].Size >= s.Stripe {
					return true
				}
			}
		}
	}
	return false
}
