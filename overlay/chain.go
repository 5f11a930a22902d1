package overlay

import (
	"slices"
	"weak"

	"skylun/block"
)

// A chain is what lies between the layer that a volume writes to and the image:
// sealed layers, and one index over all of them. Its values are
//
//	0           none of them has the block: ask the image
//	1           reads as zeros
//	2 + slot    it is in the file of the layer in that slot
//
// so that a look-up costs the same for one layer and for many. A chain is never
// changed; what volumes have in common they share.
type chain struct {
	layers []*Layer // lowest first
	slots  []*Layer
	index  *index[uint16]
}

const (
	chainZero  = 1
	chainFirst = 2 // the first slot

	// chainSlots bounds the slots and with them the layers. New layers take one
	// each, merging gives none back: when there is none left the chain is made
	// anew.
	chainSlots = 1 << 15
)

// newChain returns the chain of layers, which are sealed; nil for none.
func newChain(layers []*Layer) *chain {
	if len(layers) == 0 {
		return nil
	}
	last := layers[len(layers)-1]
	if c := last.chain.Load(); c != nil {
		if c := c.Value(); c != nil && slices.Equal(c.layers, layers) {
			return c
		}
	}
	blocks := int64(0)
	for _, l := range layers {
		blocks = max(blocks, l.blocks())
	}
	c := &chain{layers: layers, slots: layers, index: newIndex[uint16](blocks)}
	for i, l := range layers {
		c.put(i, l.freeze())
	}
	c.keep()
	return c
}

// with returns the chain with a layer above.
func (c *chain) with(l *Layer) *chain {
	if c == nil {
		return newChain([]*Layer{l})
	}
	layers := append(slices.Clone(c.layers), l)
	if len(c.slots) == chainSlots || l.blocks() > c.index.blocks {
		return newChain(layers)
	}
	n := &chain{layers: layers, slots: append(slices.Clone(c.slots), l), index: c.index.fork()}
	n.put(len(c.slots), l.freeze())
	n.keep()
	return n
}

// without returns the chain in which kept has all that gone had, too.
func (c *chain) without(gone, kept *Layer) *chain {
	n := &chain{layers: slices.Clone(c.layers), slots: slices.Clone(c.slots), index: c.index}
	n.layers = slices.DeleteFunc(n.layers, func(l *Layer) bool { return l == gone })
	for i, l := range n.slots {
		if l == gone {
			n.slots[i] = kept
		}
	}
	n.keep()
	return n
}

// put lays the states of the layer in a slot above what is there.
func (c *chain) put(slot int, f *frozen) {
	f.each(func(first, end int64, st state) bool {
		v := uint16(chainZero)
		if st == present {
			v = uint16(chainFirst + slot)
		}
		c.index.set(first, end, v)
		return true
	})
}

// keep lets volumes that are opened over the same layers find the chain, as long
// as one uses it.
func (c *chain) keep() {
	p := weak.Make(c)
	c.layers[len(c.layers)-1].chain.Store(&p)
}

// at returns the state of the byte at off, the layer that has it if it is
// present, and a later offset up to which that is the same.
func (c *chain) at(off int64) (l *Layer, st state, end int64) {
	v, e := c.index.get(off / block.Size)
	switch v {
	case 0:
	case chainZero:
		st = zero
	default:
		l, st = c.slots[v-chainFirst], present
	}
	return l, st, e * block.Size
}
