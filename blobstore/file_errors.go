package blobstore

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"syscall"
)

// isAbsent tells whether err says that there is no file of that name. A
// component of the name may be a file where a folder was expected.
func isAbsent(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR)
}

// gone tells whether the directory of the store is not there. A file system
// that is not mounted says nothing about the images on it.
func (s *fileStore) gone() bool {
	_, err := os.Stat(s.dir)
	return isAbsent(err)
}

// fail makes err, which happened to what, an error of the package: the only
// place where errors of the file system are told apart. Such that have a kind
// already, and the end of a ctx, pass.
func (s *fileStore) fail(err error, what string) error {
	var f *fault
	switch {
	case err == nil:
		return nil
	case errors.As(err, &f), errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return err
	}
	if !isAbsent(err) || s.gone() { // that something is not there is an answer
		s.n.errors.Add(1)
	}
	detail := strings.ReplaceAll(err.Error(), "\n", ", ")
	say := func(kind error, format string, args ...any) error {
		return &fault{kind, what + fmt.Sprintf(format, args...)}
	}
	switch {
	case isAbsent(err) && s.gone():
		return say(ErrUnavailable, ": the directory of images %s is not there: mount it, or put it back (importing an image creates it)", s.dir)
	case isAbsent(err):
		return say(ErrNotFound, ": not found in %s", s.URL())
	case errors.Is(err, fs.ErrExist):
		return say(ErrExists, ": exists already in %s: choose another name, or remove it first", s.URL())
	case errors.Is(err, fs.ErrPermission), errors.Is(err, syscall.EROFS):
		return say(ErrAuth, ": %s: check owner and permissions below %s", detail, s.dir)
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT), errors.Is(err, syscall.EFBIG):
		return say(ErrFull, ": %s: make room in %s", detail, s.dir)
	case errors.Is(err, syscall.ENAMETOOLONG):
		return say(ErrName, ": %s", detail)
	}
	return say(ErrUnavailable, ": %s", detail)
}
