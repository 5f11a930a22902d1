package overlay

import (
	"context"
	"errors"
	"fmt"

	"skylun/block"
)

// Space implements block.SpaceReporter: what the layers hold, and what
// their members can still take.
func (v *Volume) Space(context.Context) (block.Space, error) {
	w, err := v.enter(0, 0)
	if err != nil {
		return block.Space{}, err
	}
	defer w.leave()
	f, ok := w.top.file.(interface{ Free() (int64, error) })
	if !ok {
		return block.Space{}, v.wrap(fmt.Errorf("free space: %w", errors.ErrUnsupported))
	}
	free, err := f.Free()
	if err != nil {
		return block.Space{}, v.wrap(localError(err))
	}
	s := block.Space{Free: free}
	for _, l := range w.layers() {
		used, _, _ := l.counts()
		s.Used += used
	}
	return s, nil
}
