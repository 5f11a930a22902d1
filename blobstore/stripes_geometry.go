package blobstore

import (
	"skylun/block"
	"skylun/raid/stripe"
)

// geometry is where the bytes of a striped image are.
type geometry struct {
	*stripe.Layout
	size  int64   // of the image
	sizes []int64 // of the parts
}

// newGeometry lays an image of size bytes over parts. All numbers are good ones.
func newGeometry(size, stripeSize int64, parts int) (geometry, error) {
	equal := make([]int64, parts)
	for i := range equal {
		equal[i] = 1
	}
	g := geometry{size: size, sizes: stripe.Share(size, stripeSize, equal)}
	members := make([]stripe.Member, parts)
	for i, n := range g.sizes {
		members[i].Size = n
	}
	var err error
	if g.Layout, err = stripe.New(stripeSize, members); err != nil {
		return geometry{}, err
	}
	g.sizes[g.At(size-1).Member] -= g.Size() - size // the last stripe is as long as it is
	return g, nil
}

// share returns how many of the first n bytes of the image are in part i: also
// where in the part the bytes from n on begin.
func (g geometry) share(i int, n int64) int64 {
	for n < g.size {
		if r := g.At(n); r.Member == i {
			return r.Off
		}
		n = block.Floor(n, g.Stripe()) + g.Stripe()
	}
	return g.sizes[i]
}

// position returns where in the image the byte at off of part i is.
func (g geometry) position(i int, off int64) int64 {
	n, ok := g.Offset(i, off)
	if !ok {
		return g.size
	}
	return n
}

// slice is what a range of the image has in one part: the pieces of a buffer,
// in order.
type slice struct {
	part   int
	off    int64 // in the part
	pieces [][]byte
}

func (s *slice) len() (n int64) {
	for _, p := range s.pieces {
		n += int64(len(p))
	}
	return n
}

// split returns where the bytes of p, which is at off, are: one slice for each
// part that has any, as what follows each other in a part does so in the image.
func (g geometry) split(p []byte, off int64) []slice {
	var slices []slice
	index := make(map[int]int, g.Members())
	for r := range g.Runs(off, int64(len(p))) {
		k, ok := index[r.Member]
		if !ok {
			k = len(slices)
			index[r.Member] = k
			slices = append(slices, slice{part: r.Member, off: r.Off})
		}
		slices[k].pieces = append(slices[k].pieces, p[:r.Len])
		p = p[r.Len:]
	}
	return slices
}

// within returns what the range in of the image has in part i.
func (g geometry) within(i int, in block.Range) block.Range {
	return block.Range{Off: g.share(i, in.Off), End: g.share(i, in.End)}
}

// skip drops the first n bytes of pieces.
func skip(pieces [][]byte, n int64) [][]byte {
	for n > 0 {
		if l := int64(len(pieces[0])); l > n {
			return append([][]byte{pieces[0][n:]}, pieces[1:]...)
		} else {
			n -= l
		}
		pieces = pieces[1:]
	}
	return pieces
}
