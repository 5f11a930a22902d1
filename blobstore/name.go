package blobstore

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

const (
	maxName      = 512 // bytes of a name; Azure takes 1024 characters with the prefix
	maxComponent = 200 // bytes between slashes; file systems take 255
)

// CheckName tells whether name can be the name of an image: nil, or an error
// that wraps ErrName and says why.
//
// A name is one or more components separated by slashes. A component holds
// printable characters other than \ : * ? " < > and |, does not start with a
// dot, a dash or a space and does not end with a dot or a space.
func CheckName(name string) error {
	bad := func(format string, args ...any) error {
		return &fault{ErrName, fmt.Sprintf("image name %q: ", name) + fmt.Sprintf(format, args...)}
	}
	switch {
	case name == "":
		return &fault{ErrName, "image name is empty"}
	case len(name) > maxName:
		return &fault{ErrName, fmt.Sprintf("image name %.32q... is longer than %d bytes", name, maxName)}
	case !utf8.ValidString(name):
		return bad("is not UTF-8")
	}
	for c := range strings.SplitSeq(name, "/") {
		switch {
		case c == "":
			return bad("has an empty component")
		case len(c) > maxComponent:
			return bad("has a component longer than %d bytes", maxComponent)
		case strings.ContainsAny(c[:1], ".- "):
			return bad("component %q starts with %q", c, c[:1])
		case strings.ContainsAny(c[len(c)-1:], ". "):
			return bad("component %q ends with %q", c, c[len(c)-1:])
		}
		for _, r := range c {
			if !unicode.IsPrint(r) || strings.ContainsRune(`\:*?"<>|`, r) {
				return bad("has the character %q", r)
			}
		}
	}
	return nil
}
