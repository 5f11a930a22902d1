package blobstore

import "log/slog"

// secret is a string that does not show when printed, logged or marshalled,
// not even as a field of something else: fmt does not call the methods of
// unexported fields, but it does not follow their pointers either.
type secret struct{ value *string }

const hidden = "(hidden)"

func newSecret(s string) secret {
	if s == "" {
		return secret{}
	}
	return secret{&s}
}

// reveal returns the string.
func (s secret) reveal() string {
	if s.value == nil {
		return ""
	}
	return *s.value
}

func (s secret) empty() bool { return s.value == nil }

func (secret) String() string               { return hidden }
func (secret) GoString() string             { return hidden }
func (secret) MarshalText() ([]byte, error) { return []byte(hidden), nil }
func (secret) LogValue() slog.Value         { return slog.StringValue(hidden) }
