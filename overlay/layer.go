package overlay

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"weak"

	"skylun/block"
)

// LayerConfig says what OpenLayer opens.
type LayerConfig struct {
	Name string // for messages
	ID   uint64 // what the caller knows it by
	Size int64  // bytes
	File File   // its bytes, block.Ceil(Size, block.Size) of them
	Map  Map    // what is in File
	Log  *slog.Logger

	// Notes, where they are given, let what was written and not flushed
	// outlive the process, as long as the system named Boot runs.
	Notes Notes
	Boot  string

	// Redo, where it is given, makes flushes of little that was written durable
	// sooner.
	Redo RedoStore

	// Sealed tells that nobody will write to it. It is for those that many lie
	// below: their states then take less memory from the start.
	Sealed bool
}

// Layer holds the blocks that one or more volumes have written between two
// snapshots. One volume at most writes to it; once it is sealed, any number
// reads it.
type Layer struct {
	*sparse
	name string
	id   uint64
	size atomic.Int64
	log  *slog.Logger

	claimed atomic.Bool // a volume writes to it, or did
	sealed  atomic.Bool // nobody does any more

	sealing sync.Mutex  // held by Seal
	below   []*Layer    // guarded by sealing: what lay below and was perhaps not durable when it was sealed
	durable atomic.Bool // sealed, and all of it is durable

	chain atomic.Pointer[weak.Pointer[chain]] // that ends with it, where some volume uses it
}

// OpenLayer opens a layer, which takes over its File, Map and Notes.
func OpenLayer(cfg LayerConfig) (*Layer, error) {
	s, err := openSparse(cfg.Size, cfg.File, cfg.Map)
	if err != nil {
		return nil, fmt.Errorf("layer %s: %w", cfg.Name, err)
	}
	l := &Layer{sparse: s, name: cfg.Name, id: cfg.ID, log: cfg.Log}
	l.size.Store(cfg.Size)
	// A process that was killed may have written what nobody has synced, also
	// without a change of states: the first flush makes up for it.
	l.wrote.Store(true)
	if err := l.recover(cfg); err != nil {
		l.stop() // nothing of it is to be committed later
		return nil, fmt.Errorf("layer %s: %w", cfg.Name, errors.Join(err, l.closeRedo()))
	}
	if cfg.Sealed {
		l.seal()
	}
	return l, nil
}

// recover takes over what was written and is not known to file and map: what was
// flushed from the redo log, what was not from the notes.
//
// While the system runs, its memory has all that was written to the file, and
// newer than the log. After it has gone down, or when it could not write what it
// had, the log is done again, and the notes count for nothing. They do so
// before anything that was done again could be taken for what they speak of, and
// not before it is durable.
func (l *Layer) recover(cfg LayerConfig) error {
	same, err := notedWithin(cfg.Notes, cfg.Boot)
	if err == nil && cfg.Redo != nil {
		same, err = l.takeRedo(cfg, same)
	}
	if err == nil && cfg.Notes != nil {
		err = l.takeNotes(cfg.Notes, cfg.Boot, same)
	}
	return err
}

// ID returns that of the configuration.
func (l *Layer) ID() uint64 { return l.id }

// Size returns its length in bytes: that of the volumes that wrote to it. It is
// what a caller stores when it was written to, resized or merged.
func (l *Layer) Size() int64 { return l.size.Load() }

// Stats returns how much of it is in which state. What is absent is in the
// layers below, or in the image.
func (l *Layer) Stats() (s Stats) {
	s.Owned, s.Zero, s.Absent = l.counts()
	return s
}

// Close commits what is pending and closes files and notes. No volume may use
// the layer any more.
func (l *Layer) Close() error {
	if err := l.close(); err != nil && !errors.Is(err, block.ErrClosed) {
		return fmt.Errorf("layer %s: %w", l.name, err)
	}
	return nil
}

// Abandon closes a layer that is to be removed: nothing of it is made durable.
func (l *Layer) Abandon() error {
	l.stop()
	errs := []error{l.endRedo(), l.file.Close()}
	if l.notes != nil {
		errs = append(errs, l.notes.Close())
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("layer %s: %w", l.name, err)
	}
	return nil
}

// Seal makes all of a layer durable that nobody writes to any more, and what
// lies below it: when it returns nil, a snapshot that names the layer keeps its
// promise. It drops the layer's notes, which can be removed then. Later calls do
// nothing.
func (l *Layer) Seal(ctx context.Context) error {
	if !l.sealed.Load() {
		return fmt.Errorf("seal layer %s: it is being written to", l.name)
	}
	l.sealing.Lock()
	defer l.sealing.Unlock()
	if l.durable.Load() {
		return nil
	}
	for _, b := range l.below {
		if err := b.Seal(ctx); err != nil {
			return err
		}
	}
	l.below = nil
	err := l.commitLarge(ctx)
	if err == nil {
		l.commits.wait() // for holes that are being punched: merging may write there
		err = errors.Join(l.endRedo(), l.dropNotes())
	}
	if err != nil {
		return fmt.Errorf("seal layer %s: %w", l.name, err)
	}
	l.durable.Store(true)
	return nil
}

// lieOver tells a layer that is about to be sealed which layers, apart from
// itself, may not be durable.
func (l *Layer) lieOver(layers []*Layer) {
	l.sealing.Lock()
	defer l.sealing.Unlock()
	for _, b := range layers {
		if b != l {
			l.below = append(l.below, b)
		}
	}
}

// claim makes l the layer that v writes to.
func (l *Layer) claim(v *Volume) error {
	if l.sealed.Load() || !l.claimed.CompareAndSwap(false, true) {
		return fmt.Errorf("layer %s is sealed, or written to by another volume", l.name)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.punch = func(r block.Range) { v.punch(l, r) }
	return nil
}

// unclaim takes claim back, when nothing was written.
func (l *Layer) unclaim() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.punch = nil
	l.claimed.Store(false)
}

// seal ends writing. The states take less memory from now on.
func (l *Layer) seal() {
	l.sealed.Store(true)
	l.freeze()
}

// blocks returns the number of blocks that it knows states of.
func (l *Layer) blocks() int64 {
	l.mu.RLock()
	defer l.mu.RUnlock()
	if l.frozen != nil {
		return l.frozen.blocks
	}
	return l.index.blocks
}

// dropNotes forgets what was noted, all of which is durable. No notes are made
// any more.
func (s *sparse) dropNotes() error {
	s.alone.Lock()
	defer s.alone.Unlock()
	if s.notes == nil {
		return nil
	}
	if err := s.notes.Clear(); err != nil {
		return localError(err)
	}
	err := s.notes.Close()
	s.notes = nil
	return localError(err)
}
