package overlay

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"skylun/block"
)

// File is where the bytes of a layer or a cache are: block.Ceil(size,
// block.Size) bytes, which may be anything where nothing was written. *raid.File
// is one.
type File interface {
	ReadAt(p []byte, off int64) error
	TryReadAt(p []byte, off int64) (done bool, err error) // done is false when it would have to wait for a disk
	WriteAt(p []byte, off int64) error
	Punch(off, n int64) error // then reads as zeros
	Sync() error
	// Resize changes the length; what is new reads as zeros. When it returns,
	// a longer file stays longer over a crash; a shorter one may come back
	// longer.
	Resize(size int64) error
	Close() error
}

// Extent says that the blocks of [Off, End), bytes, are in a state. It is an
// alias so that packages which do not know this one can name it.
type Extent = struct {
	Off, End int64
	State    uint8
}

// Map is the durable copy of the block states of one file. *meta.Map is one.
type Map interface {
	// Load calls f with all extents; a later one overrides an earlier one.
	Load(f func(Extent) error) error
	// Append makes the extents durable, all or none.
	Append(extents []Extent) error
	// Trim durably forgets what begins at size or beyond, all or nothing.
	Trim(size int64) error
}

// sparse is a file and what is known of its blocks: the body of layers and
// caches.
type sparse struct {
	file  File
	disk  Map
	notes Notes // nil: unflushed changes do not outlive the process

	mu      sync.RWMutex
	index   *index[state] // guarded by mu; nil: frozen
	frozen  *frozen       // guarded by mu: instead of index, of a layer that is sealed
	pending []Extent      // guarded by mu: state changes that are not in disk yet, oldest first
	timer   *time.Timer   // guarded by mu: commits what nobody flushes

	alone  sync.Mutex // held by the round that runs, and by what changes the length; before mu
	excess bool       // guarded by alone: disk knows something beyond the end

	redos      RedoStore   // nil: there is no redo log
	redo       *redoLog    // guarded by alone; nil: there is none yet
	redone     []Extent    // guarded by alone: state changes that only the redo log has, oldest first
	wantRedo   atomic.Bool // one is to be made, or a larger one
	redoOf     uint64      // whose it is
	overwrites int         // guarded by alone: how many large rounds in a row changed no state
	restRedo   int         // guarded by alone: how many rounds go by before another is tried
	capture    capture     // of what is written between rounds

	wrote  atomic.Bool           // the file was written since the last sync began
	broken atomic.Pointer[error] // why no more can be made durable, nil: it can
	lost   atomic.Pointer[error] // why reads fail, nil: they do not

	commits commits

	// lenient tells that what the file holds is checked when it is read: a
	// round that fails leaves nothing that would be believed wrongly, and
	// the next one tries again.
	lenient bool
	trouble atomic.Pointer[error] // why the last round of a lenient file failed, nil: it did not

	// punch is called after blocks that hold nothing any more have become
	// durable as such, to give their space back; nil: it stays. Guarded by mu.
	punch func(block.Range)
}

// maxPending bounds the state changes held in memory; a background round
// begins when there are more.
const maxPending = 256 << 10

// commitAfter is how long a state change waits for somebody's Flush.
const commitAfter = 5 * time.Second

// openSparse loads the map of a file of size bytes.
func openSparse(size int64, file File, disk Map) (*sparse, error) {
	s := &sparse{file: file, disk: disk, index: newIndex[state](block.Ceil(size, block.Size) / block.Size)}
	s.capture.spill()
	err := disk.Load(func(e Extent) error {
		first, end := e.Off/block.Size, e.End/block.Size
		if first < 0 || first >= end || e.State >= states {
			return fmt.Errorf("extent [%d,%d) in state %d", e.Off, e.End, e.State)
		}
		if end > s.index.blocks { // it had grown, and nobody has stored the new size
			s.excess = true
			end = max(first, s.index.blocks)
		}
		s.index.set(first, end, state(e.State))
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("%w: %w", block.ErrMedium, err)
	}
	return s, nil
}

// at returns the state of the byte at off and a later offset up to which, exclusive,
// all bytes are in that state too.
func (s *sparse) at(off int64) (state, int64) {
	s.mu.RLock()
	st, end := s.getLocked(off / block.Size)
	s.mu.RUnlock()
	return st, end * block.Size
}

func (s *sparse) getLocked(b int64) (state, int64) {
	if s.frozen != nil {
		return s.frozen.get(b)
	}
	return s.index.get(b)
}

// all tells whether every block that r touches is in state st.
func (s *sparse) all(r block.Range, st state) bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	for b, end := r.Off/block.Size, block.Ceil(r.End, block.Size)/block.Size; b < end; {
		got, next := s.getLocked(b)
		if got != st {
			return false
		}
		b = next
	}
	return true
}

// mark puts the blocks of r, which is aligned, in state st.
func (s *sparse) mark(r block.Range, st state) error {
	if err := s.note(r, st); err != nil {
		return err
	}
	s.mu.Lock()
	s.markLocked(r, st)
	s.mu.Unlock()
	return nil
}

// fill puts those blocks of r, which is aligned, in state st that are absent.
func (s *sparse) fill(r block.Range, st state) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for b, end := r.Off/block.Size, r.End/block.Size; b < end; {
		old, next := s.index.get(b)
		next = min(next, end)
		if old == absent {
			s.markLocked(block.Range{Off: b * block.Size, End: next * block.Size}, st)
		}
		b = next
	}
}

func (s *sparse) markLocked(r block.Range, st state) {
	if !s.index.set(r.Off/block.Size, r.End/block.Size, st) {
		return
	}
	if n := len(s.pending); n > 0 {
		if last := &s.pending[n-1]; last.State == uint8(st) && last.End == r.Off {
			last.End = r.End
			return
		}
	}
	s.pending = append(s.pending, Extent{r.Off, r.End, uint8(st)})
	switch len(s.pending) {
	case 1:
		s.arm()
	case maxPending:
		s.background()
	}
}

// arm sees to it that the pending changes are committed when nobody asks.
func (s *sparse) arm() {
	if s.timer == nil {
		s.timer = time.AfterFunc(commitAfter, s.background)
		return
	}
	s.timer.Reset(commitAfter)
}

// read fills p from off. It waits for the disk only if wait says so; done is
// false when it would have to.
func (s *sparse) read(p []byte, off int64, wait bool) (done bool, err error) {
	if err := s.lost.Load(); err != nil {
		return true, *err
	}
	if wait {
		return true, localError(s.file.ReadAt(p, off))
	}
	done, err = s.file.TryReadAt(p, off)
	return done, localError(err)
}

// write writes p at off and remembers that the file needs a sync.
func (s *sparse) write(p []byte, off int64) error {
	if err := s.failure(); err != nil {
		return err
	}
	return localError(s.capture.write(p, off, s.writeFile))
}

func (s *sparse) writeFile(p []byte, off int64) error {
	err := s.file.WriteAt(p, off)
	if !s.wrote.Load() {
		s.wrote.Store(true)
	}
	return err
}

// giveBack punches holes for blocks that are durably empty.
func (s *sparse) giveBack(emptied []Extent) {
	s.mu.RLock()
	punch := s.punch
	s.mu.RUnlock()
	if punch == nil {
		return
	}
	for _, e := range emptied {
		punch(block.Range{Off: e.Off, End: e.End})
	}
}

// failure returns why nothing can be made durable any more, or nil.
func (s *sparse) failure() error {
	if err := s.broken.Load(); err != nil {
		return *err
	}
	return nil
}

// counts returns the bytes in each state.
func (s *sparse) counts() (present_, zero_, absent_ int64) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	count := func(st state) int64 {
		if s.frozen != nil {
			return s.frozen.counts[st] * block.Size
		}
		return s.index.count(st) * block.Size
	}
	return count(present), count(zero), count(absent)
}

// stop ends the rounds. No other call may run.
func (s *sparse) stop() {
	s.mu.Lock()
	if s.timer != nil {
		s.timer.Stop()
	}
	s.mu.Unlock()
	s.commits.close()
}

// close commits what is pending and closes the file. No other call may run.
func (s *sparse) close() error {
	s.stop()
	emptied, err := s.round(true)
	s.giveBack(emptied)
	if err == nil {
		err = s.endRedo()
	}
	if s.notes != nil {
		if err == nil {
			err = localError(s.notes.Clear()) // all of it is durable
		}
		err = errors.Join(err, s.notes.Close())
	}
	return errors.Join(err, s.closeRedo(), s.file.Close())
}

// sparingly lets through one log line in a while.
type sparingly struct{ last atomic.Int64 }

func (s *sparingly) now() bool {
	now := time.Now().UnixNano()
	last := s.last.Load()
	return (last == 0 || now-last > int64(10*time.Second)) && s.last.CompareAndSwap(last, now)
}

// localError gives an error of the local disk or database its place in the
// errors of package block.
func localError(err error) error {
	switch {
	case err == nil, errors.Is(err, block.ErrNoSpace), errors.Is(err, block.ErrMedium):
		return err
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return fmt.Errorf("%w: %w", block.ErrNoSpace, err)
	}
	return fmt.Errorf("%w: %w", block.ErrMedium, err)
}
