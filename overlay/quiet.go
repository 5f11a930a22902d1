package overlay

import "sync/atomic"

// A read takes no lock: it asks for the state of its blocks, reads the file,
// and is done. What it may not see half of is announced here, and a read that
// something was announced to, before or meanwhile, reads again with its regions
// shared. Others pay two loads of a word that hardly ever changes.
//
//	change   own regions | enter | write, mark, punch | leave | disown
//	read            load | state, bytes | load: the same, and nobody within?
//
// Announced are updates, because a read sees all of one or nothing, and the
// punching of blocks that are absent again: a read that found such a block
// present while it was would take the hole for its bytes.
//
// The word holds how many changes are within in its lower half, and how many
// have entered so far, modulo 2^32, in its upper half.
type changes struct{ word atomic.Uint64 }

const oneChange = 1<<32 | 1

func (c *changes) enter() { c.word.Add(oneChange) }
func (c *changes) leave() { c.word.Add(^uint64(0)) }

// before begins a read.
func (c *changes) before() uint64 { return c.word.Load() }

// quiet tells whether nothing was changed since before returned seen.
func (c *changes) quiet(seen uint64) bool {
	return uint32(seen) == 0 && c.word.Load()>>32 == seen>>32
}
