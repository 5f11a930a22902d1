package pdu

import (
	"bytes"
	"errors"
)

// Limits on text, RFC 7143 6.1.
const (
	MaxKey   = 63   // bytes of a key name
	MaxValue = 8192 // bytes of a value; binary values may be longer, none of ours are
)

// Errors of Text.Next.
var (
	ErrTextSyntax = errors.New("text is not a sequence of key=value pairs that end with a NUL")
	ErrTextLength = errors.New("text has a key or a value that is too long")
)

// Text is the data segment of a login or text PDU, or what remains of it: a
// sequence of key=value pairs, each ended by a NUL.
type Text []byte

// Next takes the first pair off t. Key and value are within the bytes of t.
// It returns a nil key at the end. Empty pairs, as from padding, are passed
// over, and the NUL of the last pair may be missing.
func (t *Text) Next() (key, value []byte, err error) {
	for len(*t) > 0 && (*t)[0] == 0 {
		*t = (*t)[1:]
	}
	if len(*t) == 0 {
		return nil, nil, nil
	}
	pair, rest, _ := bytes.Cut(*t, []byte{0})
	*t = rest
	key, value, found := bytes.Cut(pair, []byte{'='})
	switch {
	case !found || len(key) == 0:
		return nil, nil, ErrTextSyntax
	case len(key) > MaxKey || len(value) > MaxValue:
		return nil, nil, ErrTextLength
	}
	return key, value, nil
}

// AppendPair appends key=value and a NUL to dst.
func AppendPair(dst []byte, key, value string) []byte {
	dst = append(dst, key...)
	dst = append(dst, '=')
	dst = append(dst, value...)
	return append(dst, 0)
}
