package node

import (
	"fmt"
	"math/big"
	"regexp"
	"strconv"
	"strings"
)

// Size is a number of bytes, written "10GiB" in configuration, commands and
// output.
type Size int64

var sizeUnits = []struct {
	name string
	n    int64
}{
	{"PiB", 1 << 50}, {"TiB", 1 << 40}, {"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}, {"B", 1}, {"", 1},
}

var sizeForm = regexp.MustCompile(`^([0-9]+(?:\.[0-9]+)?) ?([A-Za-z]*)$`)

// ParseSize reads a size such as "10GiB", "1.5 TiB" or "4096". Decimal units
// (GB) and bare letters (G) are refused, since people mean different things by
// them.
func ParseSize(s string) (Size, error) {
	m := sizeForm.FindStringSubmatch(strings.TrimSpace(s))
	if m == nil {
		return 0, fmt.Errorf("%q is not a size; write it like 10GiB", s)
	}
	for _, u := range sizeUnits {
		if u.name != m[2] {
			continue
		}
		r, ok := new(big.Rat).SetString(m[1])
		if !ok {
			break
		}
		r.Mul(r, new(big.Rat).SetInt64(u.n))
		if !r.IsInt() {
			return 0, fmt.Errorf("%q is not a whole number of bytes", s)
		}
		if !r.Num().IsInt64() {
			return 0, fmt.Errorf("%q is too large", s)
		}
		return Size(r.Num().Int64()), nil
	}
	return 0, fmt.Errorf("%q is not a size: unit %q is unknown; write it like %sGiB (KiB, MiB, GiB, TiB)", s, m[2], m[1])
}

// String returns the size exactly, in the largest unit that divides it.
func (s Size) String() string {
	n := int64(s)
	if n <= 0 {
		return strconv.FormatInt(n, 10)
	}
	for _, u := range sizeUnits {
		if n%u.n == 0 && u.n > 1 {
			return strconv.FormatInt(n/u.n, 10) + u.name
		}
	}
	return strconv.FormatInt(n, 10)
}

// Human returns the size rounded to three digits, for people: "1.46 GiB".
func (s Size) Human() string {
	n := int64(s)
	for _, u := range sizeUnits {
		if u.n > 1 && n >= u.n {
			return strconv.FormatFloat(float64(n)/float64(u.n), 'g', max(3, len(strconv.FormatInt(n/u.n, 10))), 64) + " " + u.name
		}
	}
	return strconv.FormatInt(n, 10) + " B"
}

// UnmarshalText reads what ParseSize reads.
func (s *Size) UnmarshalText(b []byte) error {
	v, err := ParseSize(string(b))
	if err != nil {
		return err
	}
	*s = v
	return nil
}

// MarshalText writes what String returns.
func (s Size) MarshalText() ([]byte, error) { return []byte(s.String()), nil }
