package blobstore

import (
	"errors"
	"fmt"
)

// Kind says what a document holds.
type Kind string

// Profile documents say which parts of an image are read first; package
// profile knows what is in them.
const Profile Kind = "profile"

// kinds are all there are: Delete removes them with their image.
var kinds = []Kind{Profile}

// MaxDocument bounds the length of a document in bytes.
const MaxDocument = 1 << 20

const documentsDir = ".documents"

// checkDocument tells whether name can have a document of data.
func checkDocument(name string, data []byte) error {
	if err := CheckName(name); err != nil {
		return err
	}
	if len(data) > MaxDocument {
		return errDocumentSize(name, int64(len(data)))
	}
	return nil
}

func errDocumentSize(what string, n int64) error {
	return &fault{ErrFormat, fmt.Sprintf("%s: a document of %d bytes is longer than the %d there may be", what, n, MaxDocument)}
}

// document says for errors what is meant.
func document(name string, kind Kind) string { return fmt.Sprintf("%s of image %s", kind, name) }

// errOther says that somebody else has written the document meanwhile.
func errOther(what string) error {
	return &fault{ErrChanged, what + ": somebody else has written it meanwhile: read it again"}
}

// dropDocuments removes the documents of an image that err says was deleted,
// or was not there. One that stays is of no use to anybody and does no harm.
func dropDocuments(err error, drop func(Kind) error) error {
	if err != nil && !errors.Is(err, ErrNotFound) {
		return err
	}
	for _, k := range kinds {
		if e := drop(k); e != nil && !errors.Is(e, ErrNotFound) {
			return errors.Join(err, fmt.Errorf("what was kept beside the image: %w", e))
		}
	}
	return err
}
