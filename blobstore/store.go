package blobstore

import (
	"context"
	"log/slog"
	"strings"
	"time"
)

// Store holds images. All methods are safe for parallel calls and end soon
// after their ctx does.
type Store interface {
	// Stat looks at the image of that name. It reads the few bytes that tell
	// its format. ErrNotFound: there is none, or only an unfinished upload;
	// ErrFormat: there is something that cannot be served; ErrUnavailable: the
	// directory of a store is not there, which says nothing about its images.
	Stat(ctx context.Context, name string) (Info, error)

	// List returns all images in ascending order of names. What Stat would
	// refuse is left out. A container or directory that does not exist yet
	// is empty.
	List(ctx context.Context) ([]Info, error)

	// Image returns a reader pinned to info, which a Store of the same URL
	// gave, now or in an earlier run. It does no I/O.
	Image(info Info) *Image

	// Create starts an image of size bytes, a positive multiple of 512, or
	// goes on with an unfinished upload of the same name, size and source.
	// Everything else that was uploaded before to that name is dropped.
	// The source is any text that names one content; with an empty source
	// nothing is ever gone on with. A missing container or directory is
	// created. ErrExists: there is such an image; ErrBusy: somebody else is
	// uploading it.
	Create(ctx context.Context, name string, size int64, source string) (Upload, error)

	// CreateStriped is Create for an image that is laid over several
	// objects; to its readers it is an image like any other.
	CreateStriped(ctx context.Context, name string, size int64, source string, s Striping) (Upload, error)

	// Delete removes the image, what an unfinished upload of that name left,
	// and its documents. ErrNotFound: there was neither image nor upload;
	// ErrBusy: it is being uploaded.
	Delete(ctx context.Context, name string) error

	// Document returns what was last put beside the image of that name, and a
	// tag that changes whenever the document does. It may be anything that
	// somebody with access to the store has put there. ErrNotFound: nothing;
	// ErrFormat: it is longer than MaxDocument.
	Document(ctx context.Context, name string, kind Kind) (data []byte, tag string, err error)

	// PutDocument replaces the document whose tag Document returned, or makes
	// the first one with the empty tag. ErrChanged: somebody else has written
	// it meanwhile, or an earlier try of this call has, whose answer was lost.
	PutDocument(ctx context.Context, name string, kind Kind, data []byte, tag string) error

	// URL names the store for people. There are no secrets in it.
	URL() string

	// Stats returns what was done since Open.
	Stats() Stats

	// Close gives idle connections back. Nothing may be under way.
	Close() error
}

// Upload is an image being filled. It starts as zeros and nobody sees it before
// Commit. All methods are safe for parallel calls, but nothing may be under way
// when Commit, Abort or Close are called, and nothing is called after them
// except Close, which then does nothing.
type Upload interface {
	// Stored returns how many bytes from the start an earlier, unfinished
	// upload of the same source has stored: they need not be written again.
	Stored() int64

	// WriteAt stores p at off, except for blocks of zeros. Both are
	// multiples of 512. A byte is written once, or again with the same
	// value.
	WriteAt(ctx context.Context, p []byte, off int64) error

	// Checkpoint remembers, over crashes, that [0, off) is stored.
	Checkpoint(ctx context.Context, off int64) error

	// Commit makes the image complete, durable and visible, all at once.
	// After an error it is not visible, unless the error is ErrUnavailable:
	// then Stat tells.
	Commit(ctx context.Context) (Info, error)

	// Abort removes what was uploaded.
	Abort(ctx context.Context) error

	// Close ends the upload and keeps what was stored for the next Create.
	Close() error
}

// Format is what an image's content is.
type Format string

// The formats that can be served. Others are recognised and refused.
const (
	Raw Format = "raw" // the bytes of a disk
	VHD Format = "vhd" // the bytes of a disk and a footer of 512 bytes
	ISO Format = "iso" // ISO 9660 or UDF: the bytes of a disc
)

// Info describes one content of an image. It may be kept, as JSON, and used
// in later runs.
type Info struct {
	Name     string    `json:"name"`
	Size     int64     `json:"size"`      // bytes of the disk, a multiple of 512
	BlobSize int64     `json:"blob_size"` // bytes in the store
	Format   Format    `json:"format"`
	Label    string    `json:"label,omitempty"` // of a disc's volume, printable; "": none
	Identity string    `json:"identity"`        // changes whenever the content does
	Modified time.Time `json:"modified"`
	Layout   string    `json:"layout,omitempty"` // of a striped image: where its parts are
}

// Open returns the store that cfg names. It reads files with credentials but
// does not speak to the store, so it also works while the store does not.
func Open(ctx context.Context, cfg Config, log *slog.Logger) (Store, error) {
	cfg = cfg.WithDefaults()
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if strings.HasPrefix(cfg.URL, "file:") {
		return openFile(cfg, log)
	}
	s, err := openAzure(cfg, nil, log)
	if err != nil {
		return nil, err
	}
	return s, nil
}
