package overlay

import (
	"context"
	"errors"
	"fmt"

	"skylun/block"
)

// Space implements block.SpaceReporter: what the layer holds, and what its
// members can still take.
func (v *Volume) Space(context.Context) (block.Space, error) {
	leave, err := v.enter(0, 0)
	if err != nil {
		return block.Space{}, err
	}
	defer leave()
	f, ok := v.layer.file.(interface{ Free() (int64, error) })
	if !ok {
		return block.Space{}, v.wrap(fmt.Errorf("free space: %w", errors.ErrUnsupported))
	}
	free, err := f.Free()
	if err != nil {
		return block.Space{}, v.wrap(localError(err))
	}
	used, _, _ := v.layer.counts()
	return block.Space{Used: used, Free: free}, nil
}
