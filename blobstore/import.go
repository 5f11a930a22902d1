package blobstore

import (
	"context"
	"errors"
)

// ImportOptions says how to import. The zero value is good.
type ImportOptions struct {
	// Format is what the source must be. Empty: whatever it is.
	Format Format

	// Parallel is how many writes are in flight. 0: a good number.
	Parallel int

	// Checkpoint is how many bytes are stored between two checkpoints: about
	// what a killed import has to do again. 0: a good number.
	Checkpoint int64

	// Progress, when set, is told how many of total bytes are done, skipped
	// ones and those of an earlier run included. Calls do not overlap and
	// done never falls.
	Progress func(done, total int64)
}

// Import copies the file or block device src into the store as the image name.
func Import(ctx context.Context, s Store, src, name string, opts ImportOptions) (Info, error) {
	return Info{}, errors.New("not built yet")
}
