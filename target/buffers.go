package target

import (
	"math/bits"
	"sync"
	"sync/atomic"
)

// Data buffers come in sizes that are powers of two, so that one that was used
// for a read serves the next write. Larger ones than the last class are made
// and left to the collector.
const (
	minClass = 12 // 4 KiB
	maxClass = 24 // 16 MiB
)

// buffer is a data buffer: what a file is read into and a Data-In leaves from,
// or what Data-Out is gathered in.
type buffer struct {
	data []byte // of the full size
}

// bufferPool keeps buffers for reuse. What is not used for a while goes back
// to the system.
type bufferPool struct {
	classes [maxClass - minClass + 1]sync.Pool
}

// classOf returns the class whose buffers hold n bytes.
func classOf(n int) int {
	if n <= 1<<minClass {
		return 0
	}
	return bits.Len(uint(n-1)) - minClass
}

// bufferSize returns the size of the buffer that get(n) returns.
func bufferSize(n int) int64 {
	if c := classOf(n); c <= maxClass-minClass {
		return 1 << (c + minClass)
	}
	return int64(n)
}

// get returns a buffer of at least n bytes, of unspecified content.
func (p *bufferPool) get(n int) *buffer {
	c := classOf(n)
	if c > maxClass-minClass {
		return &buffer{make([]byte, n)}
	}
	if b, ok := p.classes[c].Get().(*buffer); ok {
		return b
	}
	return &buffer{make([]byte, 1<<(c+minClass))}
}

// put takes b back.
func (p *bufferPool) put(b *buffer) {
	if c := classOf(len(b.data)); c <= maxClass-minClass {
		p.classes[c].Put(b)
	}
}

// budget is the data that all connections together may buffer beyond the share
// that each has for itself. A connection that finds it spent gets along with
// its share, that is with fewer commands at a time; it waits for nobody else.
type budget struct {
	limit int64
	used  atomic.Int64
}

// spent tells whether n more bytes would go over the limit.
func (b *budget) spent(n int64) bool { return b.used.Load()+n > b.limit }

// account is what one connection has buffered. It is guarded by the
// connection's mutex. Three figures matter:
//
//	held      all data buffers of the connection: of tasks, and of answers
//	          that have not left yet
//	parked    the part of held that belongs to commands which have not been
//	          admitted: unsolicited data that came with them
//	borrowed  the part of held beyond the connection's share, which counts
//	          against the server's budget
//
// What is held and not parked is going to be given back without any further
// admission. So when nothing but parked data is held the next command is
// admitted whatever it takes, and every command is admitted in the end.
type account struct {
	held, parked, borrowed int64
	limit, share           int64
	server                 *budget
}

// admits tells whether a command that takes n bytes may begin.
func (a *account) admits(n int64) bool {
	if a.held == a.parked {
		return true
	}
	total := a.held + n
	return total <= a.limit && (total <= a.share+a.borrowed || !a.server.spent(total-a.share-a.borrowed))
}

// add counts n more bytes, or with a negative n fewer.
func (a *account) add(n int64) {
	a.held += n
	if borrow := max(0, a.held-a.share); borrow != a.borrowed {
		a.server.used.Add(borrow - a.borrowed)
		a.borrowed = borrow
	}
}
