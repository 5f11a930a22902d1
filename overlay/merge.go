package overlay

import (
	"context"
	"errors"
	"fmt"

	"skylun/block"
)

// Layers that no snapshot names any more are made to disappear in two ways,
// both beside everything that goes on, and both so that they can be given up at
// any time and begun again:
//
//	Shadow  the layer below gives up what the one above it hides. Both stay.
//	Merge   what the smaller one of two layers shows is copied into the other,
//	        which takes the place of both.
//
// Both change layers only where nobody can see it, and rely on nothing that is
// not durable:
//
//	           Shadow                        Merge
//	1   hidden blocks of upper         both layers
//	    are made durable
//	2   -                              copy into blocks of kept that gone hides, or
//	                                   that only gone has
//	3   lower: absent, durably         kept: present or zero, durably, after its bytes
//	4   wait for those who looked      record that gone does not exist
//	    before upper had the block
//	5   punch                          views look into kept instead of gone, wait for
//	                                   those that use older ones
//
// A crash between any two leaves what was readable readable at the same place,
// or at both. The space that Shadow's step 3 gave up and 5 did not give back is
// given back by the next one over the same layers.

const (
	// mergePiece is how much is copied between two looks at whether to go on.
	mergePiece = 4 << 20

	// settleBytes and settleExtents are after how much that was copied, or
	// changed, it is made durable.
	settleBytes   = 256 << 20
	settleExtents = 16 << 10
)

// Shadow gives back what lower holds and upper, its only child, hides, and tells
// how many bytes that were. Upper may be written to meanwhile. The volumes are
// those that write to upper or read it, and are open.
func Shadow(ctx context.Context, lower, upper *Layer, volumes []*Volume) (freed int64, err error) {
	fail := func(err error) (int64, error) {
		return freed, fmt.Errorf("give back what layer %s hides of layer %s: %w", upper.name, lower.name, err)
	}
	if err := lower.Seal(ctx); err != nil {
		return fail(err)
	}
	hidden := hides(lower.freeze(), upper)
	if err := upper.commit(ctx); err != nil { // after that what hides is durable
		return fail(err)
	}
	for len(hidden) > 0 {
		if err := ctx.Err(); err != nil {
			return fail(err)
		}
		batch := hidden[:min(len(hidden), settleExtents)]
		hidden = hidden[len(batch):]
		was, _, _ := lower.counts()
		if err := lower.settle(batch); err != nil {
			return fail(err)
		}
		is, _, _ := lower.counts()
		freed += was - is
	}
	// A call that found a block absent in upper, before it was written there, may
	// be about to read it from lower.
	for _, v := range volumes {
		if err := v.Settled(ctx); err != nil {
			return fail(err)
		}
	}
	if err := lower.trim(ctx); err != nil {
		return fail(err)
	}
	return freed, nil
}

// hides returns what lower knows and upper hides, as changes to absent.
func hides(lower *frozen, upper *Layer) (hidden []Extent) {
	lower.each(func(first, end int64, _ state) bool {
		for off, end := first*block.Size, end*block.Size; off < end; {
			st, e := upper.at(off)
			e = min(e, end)
			if st != absent {
				hidden = append(hidden, Extent{off, e, uint8(absent)})
			}
			off = e
		}
		return true
	})
	return hidden
}

// trim gives back the space of all that a sealed layer does not hold, also what
// a crash has left.
func (l *Layer) trim(ctx context.Context) error {
	f := l.freeze()
	var empty []block.Range // the file is not changed while it is asked
	look := func(r block.Range) error {
		for off, end := block.Floor(r.Off, block.Size), min(r.End, f.blocks*block.Size); off < end; {
			st, e := f.get(off / block.Size)
			e = min(e*block.Size, block.Ceil(end, block.Size))
			if st != present {
				empty = append(empty, block.Range{Off: off, End: e})
			}
			off = e
		}
		return ctx.Err()
	}
	err := errors.ErrUnsupported
	if d, ok := l.file.(interface {
		DataRanges(func(block.Range) error) error
	}); ok {
		err = localError(d.DataRanges(look))
	}
	if errors.Is(err, errors.ErrUnsupported) {
		err = look(block.Range{Off: 0, End: f.blocks * block.Size})
	}
	for _, r := range empty {
		if err == nil {
			err = ctx.Err()
		}
		if err == nil {
			err = localError(l.file.Punch(r.Off, r.Len()))
		}
	}
	return err
}

// Merge makes one layer of two that are sealed, of which upper is the only child
// of lower. The one that has less to be copied, gone, goes into the other, kept,
// which then has at least the size of upper. When that is durable it calls commit, which
// records in one transaction that kept is in the place of both, and returns all
// volumes that are open over gone and were opened before. When Merge returns
// nil, none of them uses gone any more: it can be closed and removed.
//
// After an error of commit, or before it, both layers are as they were to who
// reads them; the next Merge goes on. After commit ctx only ends waiting for calls
// that are under way: kept is in the place of both, and gone may still be read.
func Merge(ctx context.Context, lower, upper *Layer, commit func(kept, gone *Layer) (volumes []*Volume, err error)) error {
	fail := func(err error) error {
		return fmt.Errorf("merge layers %s and %s: %w", lower.name, upper.name, err)
	}
	for _, l := range []*Layer{lower, upper} {
		if err := l.Seal(ctx); err != nil {
			return fail(err)
		}
	}
	m := merging{ctx: ctx, kept: lower, gone: upper, blocks: upper.blocks()}
	m.changes = func(fn func(Extent) bool) { extents(upper.freeze(), fn) }
	if into := (merging{ctx: ctx, kept: upper, gone: lower, blocks: upper.blocks()}); true {
		into.changes = func(fn func(Extent) bool) { missing(lower.freeze(), upper.freeze(), fn) }
		if into.bytes() < m.bytes() {
			m = into
		}
	}
	if err := m.copy(); err != nil {
		return fail(err)
	}
	m.kept.size.Store(max(m.kept.Size(), upper.Size()))
	volumes, err := commit(m.kept, m.gone)
	if err != nil {
		return fail(err)
	}
	var older []<-chan struct{}
	for _, v := range volumes {
		older = append(older, v.forget(m.gone, m.kept)...)
	}
	if err := wait(ctx, older); err != nil {
		return fail(err)
	}
	return nil
}

// merging is a merge under way.
type merging struct {
	ctx        context.Context
	kept, gone *Layer
	blocks     int64                   // that kept is to have
	changes    func(func(Extent) bool) // what kept is to get, in ascending order
	buf        []byte                  // nil until it is needed
	done       []Extent                // copied, not yet durable
	copied     int64                   // bytes of it
}

// extents calls fn for all that f has.
func extents(f *frozen, fn func(Extent) bool) {
	f.each(func(first, end int64, st state) bool {
		return fn(Extent{first * block.Size, end * block.Size, uint8(st)})
	})
}

// missing calls fn for what lower has and upper has not.
func missing(lower, upper *frozen, fn func(Extent) bool) {
	lower.each(func(first, end int64, st state) bool {
		for b, end := first, min(end, upper.blocks); b < end; {
			has, e := upper.get(b)
			e = min(e, end)
			if has == absent && !fn(Extent{b * block.Size, e * block.Size, uint8(st)}) {
				return false
			}
			b = e
		}
		return true
	})
}

// bytes returns how much has to be copied.
func (m *merging) bytes() (n int64) {
	m.changes(func(e Extent) bool {
		if state(e.State) == present {
			n += e.End - e.Off
		}
		return true
	})
	return n
}

// copy makes kept hold what both show, durably.
func (m *merging) copy() (err error) {
	if err := m.kept.extend(m.blocks * block.Size); err != nil {
		return err
	}
	m.changes(func(e Extent) bool {
		for off := e.Off; off < e.End && err == nil; {
			piece := Extent{off, e.End, e.State}
			if state(e.State) == present {
				piece.End = min(e.End, off+mergePiece)
			}
			err = m.piece(piece)
			off = piece.End
		}
		return err == nil
	})
	if err != nil {
		return err
	}
	return m.settle()
}

// piece copies the blocks of e if they are present.
func (m *merging) piece(e Extent) error {
	if err := m.ctx.Err(); err != nil {
		return err
	}
	if state(e.State) == present {
		if err := m.bytesOf(e.Off, e.End-e.Off); err != nil {
			return err
		}
		m.copied += e.End - e.Off
	}
	if n := len(m.done); n > 0 && m.done[n-1].State == e.State && m.done[n-1].End == e.Off {
		m.done[n-1].End = e.End
	} else {
		m.done = append(m.done, e)
	}
	if m.copied < settleBytes && len(m.done) < settleExtents {
		return nil
	}
	return m.settle()
}

func (m *merging) bytesOf(off, n int64) error {
	if err := m.kept.failure(); err != nil {
		return err
	}
	done, err := m.kept.copyFrom(off, m.gone.sparse, off, n)
	if done || err != nil {
		return err
	}
	if m.buf == nil {
		m.buf = make([]byte, mergePiece)
	}
	if _, err := m.gone.read(m.buf[:n], off, true); err != nil {
		return err
	}
	return m.kept.write(m.buf[:n], off)
}

func (m *merging) settle() error {
	if err := m.kept.settle(m.done); err != nil {
		return err
	}
	m.kept.chain.Store(nil) // one that ended with kept, when it held less
	m.done, m.copied = nil, 0
	return nil
}

// extend makes room for size bytes in a sealed layer, if it is smaller.
func (l *Layer) extend(size int64) error {
	l.alone.Lock()
	defer l.alone.Unlock()
	l.mu.RLock()
	f := l.frozen
	l.mu.RUnlock()
	old := f.blocks * block.Size
	if size <= old {
		return nil
	}
	if l.excess {
		if err := l.disk.Trim(old); err != nil {
			return localError(err)
		}
		l.excess = false
	}
	if err := l.file.Resize(size); err != nil {
		return localError(err)
	}
	l.mu.Lock()
	l.frozen = f.with(nil, size/block.Size)
	l.mu.Unlock()
	return nil
}

// forget has a volume look into kept for what it looked up in gone, and returns
// what to wait for until it does so in all calls.
func (v *Volume) forget(gone, kept *Layer) []<-chan struct{} {
	v.changing.Lock()
	defer v.changing.Unlock()
	v.combine()
	next := v.view.Load().next()
	if next.chain != nil {
		next.chain = next.chain.without(gone, kept)
	}
	next.unsynced = undurable(next.unsynced)
	v.replace(next)
	return v.older()
}
