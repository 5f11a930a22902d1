package target

import (
	"crypto/subtle"
	"fmt"
	"log/slog"
)

// Lengths of a CHAP secret in bytes. RFC 7143 12.1.3 forbids fewer than 96 bits
// without IPsec.
const (
	MinSecret = 12
	MaxSecret = 255
)

// Secret is a CHAP secret. It does not show when it is printed, logged or
// marshalled, not even as a field of something else: fmt does not call the
// methods of unexported fields, but it does not follow their pointers either.
type Secret struct{ value *[]byte }

const hidden = "(hidden)"

// NewSecret returns a secret of these bytes, or an error that says what is
// wrong with its length.
func NewSecret(b []byte) (Secret, error) {
	switch n := len(b); {
	case n == 0:
		return Secret{}, fmt.Errorf("is empty; a secret has %d to %d bytes", MinSecret, MaxSecret)
	case n < MinSecret || n > MaxSecret:
		return Secret{}, fmt.Errorf("has %d bytes; a secret has %d to %d", n, MinSecret, MaxSecret)
	}
	b = append([]byte(nil), b...)
	return Secret{&b}, nil
}

// Empty tells whether s is no secret at all.
func (s Secret) Empty() bool { return s.value == nil }

// Equal tells whether both are the same, in a time that does not depend on
// where they differ.
func (s Secret) Equal(o Secret) bool {
	return !s.Empty() && !o.Empty() && subtle.ConstantTimeCompare(*s.value, *o.value) == 1
}

func (s Secret) reveal() []byte {
	if s.Empty() {
		return nil
	}
	return *s.value
}

// String and its like hide the secret.
func (Secret) String() string               { return hidden }
func (Secret) GoString() string             { return hidden }
func (Secret) MarshalText() ([]byte, error) { return []byte(hidden), nil }
func (Secret) LogValue() slog.Value         { return slog.StringValue(hidden) }
