package block

import "context"

// Size is the grain, in bytes, in which layers know who owns what.
const Size = 4096

// Reader is an immutable or changing array of bytes.
//
// All methods of Reader and Device are safe for parallel calls. A range that
// is not within [0, Size()) fails with ErrOutOfRange and touches nothing.
type Reader interface {
	// ReadAt fills p with the bytes at off, or fails; it is never short.
	// After an error the content of p is unspecified. ReadAt ends soon
	// after ctx does.
	ReadAt(ctx context.Context, p []byte, off int64) error

	// Size returns the length in bytes.
	Size() int64
}

// Device is a Reader that can be written.
type Device interface {
	Reader

	// WriteAt writes all of p at off, or fails. A read that starts after
	// WriteAt has returned sees p. After an error each logical block of the
	// range holds its old or its new bytes.
	WriteAt(ctx context.Context, p []byte, off int64) error

	// Discard makes [off, off+n) read as zeros and may give its space back.
	// The range needs no alignment.
	Discard(ctx context.Context, off, n int64) error

	// Flush makes durable what WriteAt and Discard calls that returned
	// before this call have done. When Flush fails, nothing is known about
	// them.
	Flush(ctx context.Context) error
}

// TryReader is a Reader that can tell when it would have to wait.
type TryReader interface {
	// TryReadAt is ReadAt for callers that must not wait for another
	// machine, a slow disk or a contended lock: done is false when it would
	// have to, and then p is unspecified and ReadAt is to be called.
	TryReadAt(p []byte, off int64) (done bool, err error)
}

// TryWriter is a Device that can tell when it would have to wait.
type TryWriter interface {
	// TryWriteAt is WriteAt for callers that must not wait: done is false
	// when it would have to, and then nothing was written.
	TryWriteAt(p []byte, off int64) (done bool, err error)
}

// DataRanger is a Reader that knows which of its ranges can hold anything but
// zeros.
type DataRanger interface {
	// DataRanges calls f, in ascending order and without overlaps, for
	// every range that may hold something else than zeros. What no call
	// names reads as zeros. It ends with the first error of f.
	DataRanges(ctx context.Context, f func(Range) error) error
}
