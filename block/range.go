package block

import "fmt"

// Range is the half-open range of bytes [Off, End). It is empty when
// Off >= End.
type Range struct {
	Off, End int64
}

// Len returns the number of bytes in r, never negative.
func (r Range) Len() int64 { return max(0, r.End-r.Off) }

// Empty tells whether r holds no byte.
func (r Range) Empty() bool { return r.Off >= r.End }

// Intersect returns the bytes that are in both r and o.
func (r Range) Intersect(o Range) Range {
	return Range{max(r.Off, o.Off), min(r.End, o.End)}
}

// Outward returns r widened to multiples of grain at both ends.
func (r Range) Outward(grain int64) Range {
	return Range{Floor(r.Off, grain), Ceil(r.End, grain)}
}

// Inward returns r narrowed to multiples of grain at both ends. It is empty
// when r covers no whole grain.
func (r Range) Inward(grain int64) Range {
	return Range{Ceil(r.Off, grain), Floor(r.End, grain)}
}

// String returns r as "[Off,End)".
func (r Range) String() string { return fmt.Sprintf("[%d,%d)", r.Off, r.End) }

// Floor returns the largest multiple of grain that is at most n, n >= 0.
func Floor(n, grain int64) int64 { return n - n%grain }

// Ceil returns the smallest multiple of grain that is at least n, n >= 0.
func Ceil(n, grain int64) int64 { return Floor(n+grain-1, grain) }
