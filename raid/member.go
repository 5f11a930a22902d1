package raid

import (
	"errors"
	"sync"
	"sync/atomic"

	"skylun/block"
)

// Member allocates space for pieces, the parts that files have on it. Its
// methods are safe for parallel calls, as far as these are about different
// pieces.
type Member interface {
	// Create makes a piece that reads as zeros, and makes its existence
	// durable. What had the name before is gone.
	Create(name string, size int64) (Piece, error)
	// Open opens a piece that Create made, of at least size bytes. Its error
	// is ErrNotExist when there is none.
	Open(name string, size int64) (Piece, error)
	// Remove removes a piece; one that does not exist is removed already.
	Remove(name string) error
	// Space returns how many bytes pieces can have together, and how many of
	// them are free.
	Space() (total, free int64, err error)
	Close() error
}

// Piece is the part of a file that is on one member. Its methods are safe for
// parallel calls, except that none may run when Close is called, and one Resize at a
// time. What they promise is what those of File promise.
type Piece interface {
	ReadAt(p []byte, off int64) error
	TryReadAt(p []byte, off int64) (done bool, err error)
	WriteAt(p []byte, off int64) error
	Punch(off, n int64) error // may leave what is there when its space cannot be given back
	Zero(off, n int64) error  // then reads as zeros, whatever that takes
	Sync() error
	// NextData returns the first range at or behind off that may hold something
	// else than zeros; an empty one when there is none.
	NextData(off int64) (block.Range, error)
	Clear() error
	// Resize makes the piece longer, durably; what is new reads as zeros.
	Resize(size int64) error
	Allocated() (int64, error)
	// CopyFrom copies from another piece without a way through memory, if it can.
	CopyFrom(off int64, src Piece, from, n int64) (done bool, err error)
	Close() error
}

// slot is a member in its place in the array.
type slot struct {
	Member
	id     string
	number int // in records, never used again
	where  string
	kind   string
	weight int

	leaving atomic.Bool // nothing is laid out over it any more

	inFlight atomic.Int64 // calls that may have to wait, but for those of files that are on it alone: their gates count
	errors   atomic.Uint64
}

// createUnzeroed is Create for a piece of which nothing is read that was not written.
func (s *slot) createUnzeroed(name string, size int64) (Piece, error) {
	if m, ok := s.Member.(interface {
		CreateUnzeroed(name string, size int64) (Piece, error)
	}); ok {
		return m.CreateUnzeroed(name, size)
	}
	return s.Create(name, size)
}

// part is a piece of an open file.
type part struct {
	Piece
	on *slot

	dirty   atomic.Bool // written since the last sync began
	syncing sync.Mutex
	failed  error // guarded by syncing: why nothing can be made durable any more
}

func (p *part) begin() { p.on.inFlight.Add(1) }

func (p *part) end(err error) error {
	p.on.inFlight.Add(-1)
	return p.told(err)
}

// told counts an error.
func (p *part) told(err error) error {
	if err != nil {
		p.on.errors.Add(1)
	}
	return err
}

func (p *part) touched() {
	if !p.dirty.Load() {
		p.dirty.Store(true)
	}
}

func (p *part) read(b []byte, off int64) error {
	p.begin()
	return p.end(p.Piece.ReadAt(b, off))
}

// write sets dirty when the bytes are there, not before: a sync in between would
// take it away.
func (p *part) write(b []byte, off int64) error {
	p.begin()
	err := p.Piece.WriteAt(b, off)
	p.touched()
	return p.end(err)
}

func (p *part) punch(off, n int64) error {
	p.begin()
	err := p.Piece.Punch(off, n)
	p.touched()
	return p.end(err)
}

func (p *part) zero(off, n int64) error {
	p.begin()
	err := p.Piece.Zero(off, n)
	p.touched()
	return p.end(err)
}

func (p *part) clear() error {
	p.begin()
	err := p.Piece.Clear()
	p.touched()
	return p.end(err)
}

// sync makes the piece durable if it was written. Who comes while another syncs
// waits for that one: its writes may be among those that it took. One that has
// failed fails from then on, whoever is told of it first: the next one of the
// system would succeed, and know nothing of what was lost.
func (p *part) sync() error {
	p.syncing.Lock()
	defer p.syncing.Unlock()
	if p.failed != nil || !p.dirty.Swap(false) {
		return p.failed
	}
	p.begin()
	err := p.end(p.Piece.Sync())
	if err != nil {
		p.dirty.Store(true)
		if !errors.Is(err, errRetry) {
			p.failed = err
		}
	}
	return err
}

// fail has all syncs fail from now on.
func (p *part) fail(err error) {
	p.syncing.Lock()
	defer p.syncing.Unlock()
	if p.failed == nil {
		p.failed = memberError(err)
	}
}

// errRetry is the error of a sync after which the next may succeed: what was
// written is on the disk, and where it is could not be stored for want of room.
var errRetry = errors.New("where it is cannot be stored")
