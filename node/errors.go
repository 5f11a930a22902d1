package node

import "errors"

// Errors that callers tell apart, with errors.Is.
var (
	ErrNotFound   = errors.New("not found")
	ErrExists     = errors.New("already exists")
	ErrInUse      = errors.New("in use")
	ErrInvalid    = errors.New("invalid")            // asked for something impossible
	ErrNotRunning = errors.New("no node is running") // and the data directory alone cannot tell
)

// failure is an error whose text says it all and which is one of the above.
type failure struct {
	text string
	kind error
}

func (f *failure) Error() string { return f.text }
func (f *failure) Unwrap() error { return f.kind }

// Failure returns an error of that text for which errors.Is(err, kind) holds.
func Failure(kind error, text string) error { return &failure{text, kind} }
