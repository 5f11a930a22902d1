package overlay

import (
	"cmp"
	"slices"

	"skylun/block"
)

// Where a profile says what is read, nobody guesses: what comes after a file
// that every boot reads is no more likely to be read than anything else, and all
// guests that boot have it fetched. So a read of what the profile names takes
// along no neighbours, and nothing is read ahead of it.

// known is what a profile names, ascending.
type known []block.Range

func newKnown(ranges []block.Range) known {
	k := slices.Clone(ranges)
	slices.SortFunc(k, func(a, b block.Range) int { return cmp.Compare(a.Off, b.Off) })
	return k
}

// has tells whether a profile names the byte at off.
func (k known) has(off int64) bool {
	i, _ := slices.BinarySearchFunc(k, off, func(r block.Range, off int64) int {
		if r.End <= off {
			return -1
		}
		return 1
	})
	return i < len(k) && k[i].Off <= off
}

// isKnown tells whether the profile of the image names the byte at off.
func (c *Cache) isKnown(off int64) bool {
	k := c.prefetched.known.Load()
	return k != nil && k.has(off)
}
