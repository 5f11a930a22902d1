package blobstore

import "log/slog"

// secret is a string that does not show when printed, logged or marshalled.
// Its value is string(s).
type secret string

const hidden = "(hidden)"

func (secret) String() string               { return hidden }
func (secret) GoString() string             { return hidden }
func (secret) MarshalText() ([]byte, error) { return []byte(hidden), nil }
func (secret) LogValue() slog.Value         { return slog.StringValue(hidden) }
