package blobstore

import (
	"errors"
	"fmt"

	"skylun/block"
)

// Errors that callers tell apart, with errors.Is.
var (
	ErrNotFound    = errors.New("not found")            // no such image, or no such container
	ErrExists      = errors.New("exists already")       // the name is taken
	ErrChanged     = errors.New("content has changed")  // not the content the Info was made of
	ErrAuth        = errors.New("access denied")        // the store does not accept the credentials
	ErrUnavailable = errors.New("store is unavailable") // no answer, or none that helps; its directory is not there
	ErrThrottled   = fmt.Errorf("it asks to slow down: %w", ErrUnavailable)
	ErrBusy        = errors.New("in use by another process") // another upload to the same name is under way
	ErrFull        = errors.New("no space left")             // the store takes no more data
	ErrFormat      = errors.New("not a usable image")        // damaged, or in a format that cannot be served
	ErrName        = errors.New("not a usable name")         // see CheckName
	ErrConfig      = errors.New("bad configuration")         // see Config
)

// fault is an error of a store: one line for a person, a kind for the caller.
type fault struct {
	kind error  // one of the sentinels
	text string // complete: what, on what, what to do
}

func (f *fault) Error() string { return f.text }
func (f *fault) Unwrap() error { return f.kind }

// mediumError is an error of a read: block.ErrMedium to the layers above, and
// everything err is.
type mediumError struct{ err error }

func (e mediumError) Error() string   { return e.err.Error() }
func (e mediumError) Unwrap() []error { return []error{e.err, block.ErrMedium} }
