package overlay

import "skylun/block"

// worldRedo is where the redo log of a layer of a world is.
type worldRedo struct {
	w       *world
	id      uint64
	file    *memFile // nil: there is none
	removed *memFile // may come back in a power cut
}

// hook has w look at power cuts, and inject its fault.
func (r *worldRedo) hook(w *world) {
	for _, f := range []*memFile{r.file, r.removed} {
		if f != nil {
			f.setHook(w.point)
			if w.fault != nil {
				f.setFailing(func(op string) error { return w.fault("redo " + op) })
			}
		}
	}
}

// cut returns what a power cut now would leave.
func (r *worldRedo) cut(w *world) worldRedo {
	left := worldRedo{id: r.id}
	switch {
	case r.file != nil:
		left.file = r.file.cut(w.rnd)
	case r.removed != nil && w.rnd.IntN(2) == 0:
		left.file = r.removed.cut(w.rnd)
	}
	return left
}

// set changes what a power cut leaves, which may come beside it.
func (r *worldRedo) set(file, removed *memFile) {
	r.w.looking.Lock()
	defer r.w.looking.Unlock()
	r.file, r.removed = file, removed
}

// killed returns what a process that is killed now leaves.
func (r *worldRedo) killed() worldRedo {
	left := worldRedo{id: r.id}
	if r.file != nil {
		left.file = r.file.killed()
	}
	if r.removed != nil {
		left.removed = r.removed.killed()
	}
	return left
}

func (r *worldRedo) Open() (RedoFile, error) {
	if r.file == nil || r.w.lie.noRedo {
		return nil, nil
	}
	return memRedo{r.file, r.w.lie.staleRedo}, nil
}

func (r *worldRedo) Create(int64) (RedoFile, error) {
	if r.w.fault != nil {
		if err := r.w.fault("redo create"); err != nil {
			return nil, err
		}
	}
	f := newMemFile(block.Size * int64(3+r.id%7))
	f.lazy = r.w.lie.lazyRedo
	r.set(f, nil)
	r.hook(r.w)
	r.w.point("redo log made")
	return memRedo{f, r.w.lie.staleRedo}, nil
}

func (r *worldRedo) Remove() error {
	if r.file != nil {
		r.set(nil, r.file)
		r.w.point("redo log removed")
	}
	return nil
}

// memRedo is a memFile as the file of a redo log.
type memRedo struct {
	*memFile
	stale bool // its header is never written: for tests of the tests
}

func (f memRedo) Size() int64 { return f.size }

func (f memRedo) WriteAt(p []byte, off int64) error {
	if f.stale && off == 0 {
		return nil
	}
	return f.memFile.WriteAt(p, off)
}
