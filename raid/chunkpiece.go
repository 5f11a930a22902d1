package raid

import (
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"

	"skylun/block"
)

// chunkPiece is a piece that consists of chunks.
type chunkPiece struct {
	m      *chunks
	name   string
	number uint32

	syncing sync.Mutex // one sync at a time; before alloc
	removed bool       // guarded by syncing: nothing of it is stored any more

	// mu is held shared by whoever uses chunks, and alone by whoever takes them
	// away: so nobody is in the middle of a chunk that is another's by then.
	mu  sync.RWMutex
	tab []atomic.Uint32 // grows under mu; chunk number plus one, 0: none

	alloc  sync.Mutex   // held while a chunk is given to the piece; after mu
	leaves map[int]bool // guarded by alloc: that have changed since they were stored
	freed  []uint32     // guarded by alloc: chunks that are free when that is stored
}

func (p *chunkPiece) leafKey(leaf int) string {
	return fmt.Sprintf("%s%08x/%016x", p.m.key("chunk"), p.number, leaf)
}

// reach makes the table n long at least. Nobody else may use it.
func (p *chunkPiece) reach(n int) {
	switch {
	case n <= len(p.tab):
	case n <= cap(p.tab):
		p.tab = p.tab[:n]
	default:
		tab := make([]atomic.Uint32, n, max(n, 2*len(p.tab)))
		for i := range p.tab {
			tab[i].Store(p.tab[i].Load())
		}
		p.tab = tab
	}
}

// each calls f for each part of [off, off+n), which lies in the chunk at index i.
func (p *chunkPiece) each(off, n int64, f func(i int, in, from, n int64) error) error {
	for from := int64(0); from < n; {
		i, in := int((off+from)/p.m.size), (off+from)%p.m.size
		c := min(n-from, p.m.size-in)
		if i >= len(p.tab) {
			return fmt.Errorf("%w: %s: %d is behind its end on the device", block.ErrOutOfRange, p.name, off+from)
		}
		if err := f(i, in, from, c); err != nil {
			return err
		}
		from += c
	}
	return nil
}

// on returns where on the device a byte of a chunk is.
func (p *chunkPiece) on(c uint32, in int64) int64 { return p.m.data + int64(c-1)*p.m.size + in }

func (p *chunkPiece) ReadAt(b []byte, off int64) error {
	p.mu.RLock()
	defer p.mu.RUnlock()
	return p.each(off, int64(len(b)), func(i int, in, from, n int64) error {
		if c := p.tab[i].Load(); c > 0 {
			return p.m.dev.ReadAt(b[from:from+n], p.on(c, in))
		}
		clear(b[from : from+n])
		return nil
	})
}

func (p *chunkPiece) TryReadAt(b []byte, off int64) (done bool, err error) {
	if !p.mu.TryRLock() {
		return false, nil
	}
	defer p.mu.RUnlock()
	done = true
	err = p.each(off, int64(len(b)), func(i int, in, from, n int64) (err error) {
		if !done {
			return nil
		}
		if c := p.tab[i].Load(); c > 0 {
			done, err = p.m.dev.TryReadAt(b[from:from+n], p.on(c, in))
			return err
		}
		clear(b[from : from+n])
		return nil
	})
	return done, err
}

func (p *chunkPiece) WriteAt(b []byte, off int64) error {
	p.mu.RLock()
	err := p.write(b, off)
	p.mu.RUnlock()
	if !errors.Is(err, errNoChunk) {
		return err
	}
	if err := p.m.reclaim(); err != nil {
		return err
	}
	p.mu.RLock()
	defer p.mu.RUnlock()
	return p.write(b, off)
}

var errNoChunk = fmt.Errorf("%w: all chunks of the device are in use", block.ErrNoSpace)

func (p *chunkPiece) write(b []byte, off int64) error {
	return p.each(off, int64(len(b)), func(i int, in, from, n int64) error {
		if c := p.tab[i].Load(); c > 0 {
			return p.m.dev.WriteAt(b[from:from+n], p.on(c, in))
		}
		return p.writeFresh(i, b[from:from+n], in)
	})
}

// writeFresh writes what may be the first bytes of a chunk.
func (p *chunkPiece) writeFresh(i int, b []byte, in int64) error {
	p.alloc.Lock()
	defer p.alloc.Unlock()
	if c := p.tab[i].Load(); c > 0 { // another was faster
		return p.m.dev.WriteAt(b, p.on(c, in))
	}
	c, ok := p.m.take()
	if !ok {
		return fmt.Errorf("member %s: %w", p.m.where, errNoChunk)
	}
	err := p.fill(c, b, in)
	if err == nil {
		err = p.m.note(c, owned(p.number, i))
	}
	if err != nil {
		p.m.note(c, noteFreed) // else a process that is killed finds it again
		p.m.give(c)
		return err
	}
	p.tab[i].Store(c + 1)
	p.leaves[i/leafSize] = true
	return nil
}

// fill makes all of a chunk zeros but for b.
func (p *chunkPiece) fill(c uint32, b []byte, in int64) error {
	at := p.on(c+1, 0)
	if in > 0 {
		if err := p.m.dev.Zero(at, in); err != nil {
			return err
		}
	}
	if end := in + int64(len(b)); end < p.m.size {
		if err := p.m.dev.Zero(at+end, p.m.size-end); err != nil {
			return err
		}
	}
	return p.m.dev.WriteAt(b, at+in)
}

// Punch gives back the chunks that lie within, and makes the rest zeros.
func (p *chunkPiece) Punch(off, n int64) error {
	return p.Zero(off, n)
}

func (p *chunkPiece) Zero(off, n int64) error {
	whole := block.Range{Off: block.Ceil(off, p.m.size), End: block.Floor(off+n, p.m.size)}
	if !whole.Empty() {
		if err := p.drop(int(whole.Off/p.m.size), int(whole.End/p.m.size)); err != nil {
			return err
		}
	}
	p.mu.RLock()
	defer p.mu.RUnlock()
	return p.each(off, n, func(i int, in, _, n int64) error {
		if c := p.tab[i].Load(); c > 0 && n < p.m.size {
			return p.m.dev.Zero(p.on(c, in), n)
		}
		return nil
	})
}

// drop gives back the chunks at [first, end).
func (p *chunkPiece) drop(first, end int) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.alloc.Lock()
	defer p.alloc.Unlock()
	for i := first; i < min(end, len(p.tab)); i++ {
		c := p.tab[i].Load()
		if c == 0 {
			continue
		}
		if err := p.m.note(c-1, noteFreed); err != nil {
			return err
		}
		p.tab[i].Store(0)
		p.leaves[i/leafSize] = true
		p.freed = append(p.freed, c-1)
	}
	return nil
}

// Sync syncs the device and then stores where chunks are: those that were there
// before it began.
func (p *chunkPiece) Sync() error {
	p.syncing.Lock()
	defer p.syncing.Unlock()
	if p.removed { // while this call waited: leaves of no piece are damage
		return nil
	}
	changes := map[string][]byte{}
	p.mu.RLock()
	p.alloc.Lock()
	leaves, freed := p.leaves, p.freed
	p.leaves, p.freed = map[int]bool{}, nil
	for leaf := range leaves {
		var value []byte
		for i := range leafSize {
			c := uint32(0)
			if n := leaf*leafSize + i; n < len(p.tab) {
				c = p.tab[n].Load()
			}
			value = binary.BigEndian.AppendUint32(value, c)
		}
		if allZero(value) {
			value = nil
		}
		changes[p.leafKey(leaf)] = value
	}
	p.alloc.Unlock()
	p.mu.RUnlock()
	err := p.m.dev.Sync()
	if err == nil && len(changes) > 0 {
		if err = p.m.records.Store(changes); err != nil {
			if err = memberError(err); errors.Is(err, block.ErrNoSpace) {
				err = fmt.Errorf("%w: %w", errRetry, err)
			}
		}
	}
	if err != nil {
		p.alloc.Lock()
		maps.Copy(p.leaves, leaves)
		p.freed = append(p.freed, freed...)
		p.alloc.Unlock()
		return err
	}
	slices.Reverse(freed)
	p.m.give(freed...)
	return nil
}

func (p *chunkPiece) NextData(off int64) (block.Range, error) {
	p.mu.RLock()
	defer p.mu.RUnlock()
	for i := int(off / p.m.size); i < len(p.tab); i++ {
		if p.tab[i].Load() == 0 {
			continue
		}
		r := block.Range{Off: max(off, int64(i)*p.m.size)}
		for ; i < len(p.tab) && p.tab[i].Load() > 0; i++ {
			r.End = int64(i+1) * p.m.size
		}
		return r, nil
	}
	return block.Range{}, nil
}

func (p *chunkPiece) Clear() error { return p.drop(0, int(^uint(0)>>1)) }

func (p *chunkPiece) Resize(size int64) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.reach(int(block.Ceil(size, p.m.size) / p.m.size))
	return nil
}

func (p *chunkPiece) Allocated() (n int64, err error) {
	p.mu.RLock()
	defer p.mu.RUnlock()
	for i := range p.tab {
		if p.tab[i].Load() > 0 {
			n += p.m.size
		}
	}
	return n, nil
}

func (p *chunkPiece) CopyFrom(int64, Piece, int64, int64) (bool, error) { return false, nil }

// Close keeps what is known of the piece: it is opened again.
func (p *chunkPiece) Close() error { return nil }
