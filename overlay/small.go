package overlay

import (
	"errors"
	"fmt"

	"skylun/block"
)

// smallRound makes a round durable in the redo log, if that can be: done says so.
// The caller holds alone.
func (s *sparse) smallRound(changes []Extent, written captured) (done bool) {
	switch {
	case s.redo == nil:
		return false
	case len(changes) == 0 && len(written.writes) == 0: // since the round before, which was durable
		return true
	case len(changes) == 0 && s.redo.empty(): // one sync either way, and nothing is written twice
		return false
	case len(s.redone)+len(changes) > maxPending:
		return false
	}
	if err := s.redo.append(changes, written); err != nil { // what there is of it a large round makes void
		s.wantRedo.Store(errors.Is(err, errRedoFull) && s.redo.file.Size() < redoLargest)
		return false
	}
	s.redone = append(s.redone, changes...)
	s.mu.Lock()
	s.arm() // for a large round when it becomes quiet
	s.mu.Unlock()
	return true
}

// restRedo is how many rounds go by before a redo log that could not be made is
// tried again.
const restRedo = 1000

// redoRest is after how many large rounds in a row that changed no state nothing is
// captured any more, until one does: a copy of what is only overwritten is in vain.
const redoRest = 16

// missRedo sees to it that there is a redo log next time, if this round would
// have been a small one.
func (s *sparse) missRedo(changes []Extent) {
	if s.redos == nil || s.redo != nil {
		return
	}
	n := int64(0)
	for _, e := range changes {
		if state(e.State) == present {
			n += e.End - e.Off
		}
	}
	if s.restRedo > 0 {
		s.restRedo--
	} else if n <= smallMost {
		s.wantRedo.Store(true)
	}
}

// makeRedo makes the redo log that a round has missed, or a larger one in the
// place of one that was full. What was written since that round is not
// captured: the first round afterwards is to be a large one.
func (s *sparse) makeRedo() (made bool) {
	if !s.wantRedo.Load() {
		return false
	}
	s.alone.Lock()
	defer s.alone.Unlock()
	s.wantRedo.Store(false)
	size := int64(redoFirst)
	if s.redo != nil {
		if !s.redo.empty() {
			return false
		}
		size = max(redoFirst, min(2*s.redo.file.Size(), redoLargest))
		s.closeRedo() // nothing is in it
	}
	f, err := s.redos.Create(size)
	if err != nil { // flushes take longer, and that is all
		s.restRedo = restRedo
		return false
	}
	s.redo = newRedo(f, s.redoOf)
	return true
}

// closeRedo closes the redo log. The caller holds alone, or nobody uses the layer
// any more.
func (s *sparse) closeRedo() error {
	s.capture.spill()
	if s.redo == nil {
		return nil
	}
	err := s.redo.file.Close()
	s.redo = nil
	return localError(err)
}

// endRedo removes the redo log, in which nothing is left. None is made any more.
func (s *sparse) endRedo() error {
	s.alone.Lock()
	defer s.alone.Unlock()
	if s.redos == nil {
		return nil
	}
	err := errors.Join(s.closeRedo(), localError(s.redos.Remove()))
	s.redos = nil
	return err
}

// distrust follows from err, a sync of the file that failed: what was answered
// because the redo log has it may be in memory no more. So reads fail until the
// layer is opened again and it is done again.
func (s *sparse) distrust(err error) error {
	if s.redo == nil || s.redo.empty() {
		return err
	}
	lost := fmt.Errorf("%w: what was flushed is in the redo log and comes back when the server is restarted: %v", block.ErrMedium, err)
	s.lost.Store(&lost)
	err = errors.Join(err, s.redo.distrust())
	if s.notes != nil {
		err = errors.Join(err, voidNotes(s.notes))
	}
	return err
}

// takeRedo takes over what the redo log of a layer has, which is just being
// opened. same tells that the system was running all the time, and it returns
// whether its memory is to be believed: not where it could not write what it had.
func (l *Layer) takeRedo(cfg LayerConfig, same bool) (believed bool, err error) {
	f, err := cfg.Redo.Open()
	if err != nil {
		return same, localError(err)
	}
	l.redos, l.redoOf = cfg.Redo, cfg.ID
	if f == nil {
		return same, nil
	}
	if l.redo, err = openRedo(f, cfg.ID); err != nil {
		return same, errors.Join(err, f.Close())
	}
	err = l.redo.read(func(changes []Extent, _ captured) error {
		for _, e := range changes {
			if err := l.markRedo(e); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil || l.redo.empty() {
		return same, err
	}
	if same && (l.redo.distrusted || l.file.Sync() != nil) {
		same, err = false, voidNotes(cfg.Notes)
	}
	if err == nil && !same {
		err = l.redo.read(func(_ []Extent, written captured) error { return written.each(l.writeRedo) })
		if err == nil {
			err = l.finishRedo()
		}
	}
	if err != nil {
		return same, fmt.Errorf("do again what was flushed: %w", err)
	}
	return same, nil
}

// markRedo does a state change again.
func (s *sparse) markRedo(e Extent) error {
	if e.Off < 0 || e.Off >= e.End || e.Off%block.Size != 0 || e.End%block.Size != 0 || e.State >= states {
		return fmt.Errorf("%w: extent [%d,%d) in state %d", block.ErrMedium, e.Off, e.End, e.State)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	r := block.Range{Off: e.Off, End: e.End}.Intersect(block.Range{Off: 0, End: s.index.blocks * block.Size})
	if !r.Empty() { // else it was cut off
		s.markLocked(r, state(e.State))
	}
	return nil
}

// writeRedo does a write again.
func (s *sparse) writeRedo(p []byte, off int64) error {
	end := s.index.blocks * block.Size
	if off < 0 || off >= end { // it was cut off
		return nil
	}
	return localError(s.writeFile(p[:min(int64(len(p)), end-off)], off))
}

// finishRedo makes durable what was done again, and gives back the space of what
// holds nothing any more. Nobody else uses the layer yet.
func (l *Layer) finishRedo() error {
	emptied, err := l.round(true)
	if err != nil {
		return err
	}
	for _, e := range emptied {
		for off := e.Off; off < e.End; {
			st, end := l.at(off)
			end = min(end, e.End)
			if st != present {
				if err := localError(l.file.Punch(off, end-off)); err != nil {
					return err
				}
			}
			off = end
		}
	}
	return nil
}
