package block

import (
	"errors"
	"fmt"
)

// Errors that callers tell apart, with errors.Is. Layers wrap them with what
// they know: the volume, the image, the offset.
var (
	ErrOutOfRange = errors.New("beyond the end of the device")   // the range is not within the device
	ErrReadOnly   = errors.New("device is read-only")            // a write to something that takes none
	ErrMedium     = errors.New("data cannot be read or written") // the bytes are not to be had, now or ever
	ErrNotReady   = errors.New("device is not ready")            // try again later: being opened, being moved
	ErrNoSpace    = errors.New("no space left for new blocks")   // the local store is full
	ErrClosed     = errors.New("device is closed")               // used after Close
)

// CheckRange tells whether [off, off+n) lies within a device of size bytes:
// nil, or an error that wraps ErrOutOfRange.
func CheckRange(off, n, size int64) error {
	if off < 0 || n < 0 || off > size || n > size-off {
		return fmt.Errorf("range %d+%d of %d: %w", off, n, size, ErrOutOfRange)
	}
	return nil
}
