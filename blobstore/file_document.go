package blobstore

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// A document is the file .documents/KIND/HASH, after a hash of the image's name.
// Its tag is a hash of its content. Writers take turns by a lock on HASH.lock,
// which stays; what is renamed into place is complete and durable before.

func (s *fileStore) documentPath(name string, kind Kind) string {
	h := sha256.Sum256([]byte(name))
	return filepath.Join(s.dir, documentsDir, string(kind), hex.EncodeToString(h[:16]))
}

// Document implements Store.
func (s *fileStore) Document(ctx context.Context, name string, kind Kind) (data []byte, tag string, err error) {
	if err := checkDocument(name, nil); err != nil {
		return nil, "", err
	}
	if err := ctx.Err(); err != nil {
		return nil, "", err
	}
	s.n.others.Add(1)
	data, tag, err = s.readDocument(name, kind)
	return data, tag, s.fail(err, document(name, kind))
}

func (s *fileStore) readDocument(name string, kind Kind) (data []byte, tag string, err error) {
	f, err := os.Open(s.documentPath(name, kind))
	if err != nil {
		return nil, "", err
	}
	defer f.Close()
	data, err = io.ReadAll(io.LimitReader(f, MaxDocument+1))
	if err != nil {
		return nil, "", err
	}
	if len(data) > MaxDocument {
		return nil, "", errDocumentSize(document(name, kind), int64(len(data)))
	}
	h := sha256.Sum256(data)
	return data, hex.EncodeToString(h[:]), nil
}

// PutDocument implements Store.
func (s *fileStore) PutDocument(ctx context.Context, name string, kind Kind, data []byte, tag string) error {
	if err := checkDocument(name, data); err != nil {
		return err
	}
	s.n.others.Add(1)
	return s.fail(s.writeDocument(ctx, name, kind, data, tag), document(name, kind))
}

func (s *fileStore) writeDocument(ctx context.Context, name string, kind Kind, data []byte, tag string) error {
	if s.gone() { // no store is made for the sake of a document
		return &os.PathError{Op: "open", Path: s.dir, Err: os.ErrNotExist}
	}
	path := s.documentPath(name, kind)
	if err := makeDirs(filepath.Dir(path)); err != nil {
		return err
	}
	lock, err := lockDocument(ctx, path+".lock")
	if err != nil {
		return err
	}
	defer lock.Close()
	switch _, now, err := s.readDocument(name, kind); {
	case err != nil && !isAbsent(err) && !errors.Is(err, ErrFormat):
		return err
	case now != tag && !errors.Is(err, ErrFormat): // one that is no document is replaced
		return errOther(document(name, kind))
	}
	return replaceFile(path, data, 0o644)
}

// lockDocument takes a lock that others hold for moments only.
func lockDocument(ctx context.Context, path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, err
	}
	for {
		err := flock(f)
		if errors.Is(err, syscall.EWOULDBLOCK) {
			if err = sleep(ctx, 10*time.Millisecond); err == nil {
				continue
			}
		}
		if err != nil {
			f.Close()
			return nil, err
		}
		return f, nil
	}
}

// dropDocument removes a document. Its lock stays, for who may be about to take
// it.
func (s *fileStore) dropDocument(name string, kind Kind) error {
	path := s.documentPath(name, kind)
	err := os.Remove(path)
	if err == nil {
		err = syncDir(filepath.Dir(path))
	}
	if isAbsent(err) {
		return nil
	}
	return s.fail(err, document(name, kind))
}
