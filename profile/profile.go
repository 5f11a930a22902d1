package profile

import (
	"cmp"
	"slices"

	"skylun/block"
)

// Bounds of a profile, whatever it is merged of.
const (
	MaxBytes   = 1 << 30 // of the image that it names
	maxBlocks  = MaxBytes / block.Size
	maxEntries = 16 << 10
	maxEnd     = 32 << 40 // what is read of an image behind it is not noted

	maxRuns   = 8    // later runs count as if there had been so many
	whole     = 255  // the share of a block that every run reads
	often     = 129  // blocks with at least this share come first: more than half
	forgotten = 16   // and with less than this they are dropped
	window    = 1024 // blocks among which the order of reads does not matter
)

// Profile says which blocks of one content of an image are read first. It is
// not changed once made.
type Profile struct {
	identity string
	size     int64
	runs     int
	entries  []entry // in the order in which they are wanted
}

// entry is a run of blocks that are wanted together.
type entry struct {
	first, count int64 // blocks
	share        uint8 // never 0
	pos          int64 // of the first one; the next one's is one more
}

// New returns a profile of no runs, for the content of size bytes with that
// identity.
func New(identity string, size int64) *Profile { return &Profile{identity: identity, size: size} }

// Of tells whether the profile is of that content.
func (p *Profile) Of(identity string, size int64) bool {
	return p.identity == identity && p.size == size
}

// Runs returns how many runs the profile is merged of.
func (p *Profile) Runs() int { return p.runs }

// Bytes returns how much of the image the profile names.
func (p *Profile) Bytes() (n int64) {
	for _, r := range p.Ranges() {
		n += r.Len()
	}
	return n
}

// Ranges returns what to fetch, most wanted first: ranges of whole blocks
// without overlaps, within the image's size rounded up to whole blocks.
func (p *Profile) Ranges() []block.Range {
	var rs []block.Range
	for _, e := range p.entries {
		r := block.Range{Off: e.first * block.Size, End: (e.first + e.count) * block.Size}
		if n := len(rs); n > 0 && rs[n-1].End == r.Off {
			rs[n-1].End = r.End
			continue
		}
		rs = append(rs, r)
	}
	return rs
}

// cell is what is known of a block.
type cell struct {
	block int64
	share uint8
	pos   int64
}

// Merge returns the profile with one more run: what was read, in the order of
// first reads. What lies outside of the image does not count.
func (p *Profile) Merge(run []block.Range) *Profile {
	// The first run counts alone, the second one half, and so on, and from
	// maxRuns on each the same.
	n := int64(min(p.runs+1, maxRuns))
	cells := make(map[int64]cell)
	for _, e := range p.entries {
		for i := range e.count {
			b := e.first + i
			cells[b] = cell{b, uint8(int64(e.share) * (n - 1) / n), e.pos + i}
		}
	}
	pos, seen := int64(0), make(map[int64]bool)
	for _, r := range run {
		r = r.Intersect(block.Range{Off: 0, End: min(p.size, maxEnd)})
		if r.Empty() {
			continue
		}
		r = r.Outward(block.Size)
		for b := r.Off / block.Size; b < r.End/block.Size && pos < maxBlocks; b++ {
			if seen[b] {
				continue
			}
			seen[b] = true
			c, known := cells[b]
			if !known {
				c = cell{block: b, pos: pos}
			}
			c.share = uint8(min(int64(c.share)+(whole+n-1)/n, whole))
			c.pos += (pos - c.pos) / n
			cells[b] = c
			pos++
		}
	}
	return &Profile{identity: p.identity, size: p.size, runs: int(n), entries: arrange(cells)}
}

// arrange puts cells in order.
func arrange(cells map[int64]cell) []entry {
	list := make([]cell, 0, len(cells))
	for _, c := range cells {
		if c.share >= forgotten {
			list = append(list, c)
		}
	}
	rank := func(c cell) int {
		if c.share >= often {
			return 0
		}
		return 1
	}
	slices.SortFunc(list, func(a, b cell) int {
		return cmp.Or(cmp.Compare(rank(a), rank(b)), cmp.Compare(a.pos, b.pos), cmp.Compare(a.block, b.block))
	})
	list = list[:min(len(list), maxBlocks)]
	var entries []entry
	for w := range slices.Chunk(list, window) {
		slices.SortFunc(w, func(a, b cell) int {
			return cmp.Or(cmp.Compare(rank(a), rank(b)), cmp.Compare(a.block, b.block))
		})
		for _, c := range w {
			if n := len(entries); n > 0 {
				if e := &entries[n-1]; e.first+e.count == c.block && e.share == c.share {
					e.count++
					continue
				}
			}
			if len(entries) == maxEntries {
				return entries
			}
			entries = append(entries, entry{first: c.block, count: 1, share: c.share, pos: c.pos})
		}
	}
	return entries
}
