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
	// every part of r that may hold something else than zeros. What no call
	// names reads as zeros. It ends with the first error of f. What it costs
	// depends on what is in r, not on what lies before.
	DataRanges(ctx context.Context, r Range, f func(Range) error) error
}

// Prefetcher is a Reader some of whose bytes are far away.
type Prefetcher interface {
	// Prefetch makes [off, off+n) quick to read. With wait it returns when
	// it is, or with why not; without, it returns at once, and the work is
	// dropped when there is too much of it.
	Prefetch(ctx context.Context, off, n int64, wait bool) error
}

// Updater is a Device that can look at a range and change it in one step.
type Updater interface {
	// Update fills p with the bytes at off, calls f with p, and writes p
	// back when f says so. No write to the range comes in between, and a
	// read sees all of what was written or nothing. The error of f is
	// returned, and then nothing is written.
	Update(ctx context.Context, p []byte, off int64, f func(p []byte) (write bool, err error)) error
}

// Copier is a Device that can make a range equal to one of another Reader, or
// of its own, at less cost than that of a read and a write.
type Copier interface {
	// CopyFrom makes [off, off+n) what src holds in [from, from+n). When it
	// can do nothing better than its caller, done is false and nothing has
	// changed. Ranges of one device may overlap only when they are equal.
	CopyFrom(ctx context.Context, off int64, src Reader, from, n int64) (done bool, err error)
}

// Space is local space in bytes.
type Space struct {
	Used int64 // by this device
	Free int64 // what can still be allocated, by this device or another one
}

// SpaceReporter is a Device whose space is allocated as it is written.
type SpaceReporter interface {
	Space(ctx context.Context) (Space, error)
}
