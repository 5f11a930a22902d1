package block

import (
	"errors"
	"math"
	"testing"
)

func TestRange(t *testing.T) {
	r := Range{5, 23}
	if got, want := r.Inward(8), (Range{8, 16}); got != want {
		t.Errorf("Inward(8) = %v, want %v", got, want)
	}
	if got, want := r.Outward(8), (Range{0, 24}); got != want {
		t.Errorf("Outward(8) = %v, want %v", got, want)
	}
	if got := (Range{9, 15}).Inward(8); !got.Empty() || got.Len() != 0 {
		t.Errorf("[9,15).Inward(8) = %v, want an empty range", got)
	}
	if got := r.Intersect(Range{23, 30}); !got.Empty() {
		t.Errorf("neighbours intersect in %v", got)
	}
	if got, want := r.Intersect(Range{0, 6}), (Range{5, 6}); got != want {
		t.Errorf("Intersect = %v, want %v", got, want)
	}
}

func TestCheckRange(t *testing.T) {
	for _, c := range []struct {
		off, n, size int64
		ok           bool
	}{
		{0, 0, 0, true}, {0, 10, 10, true}, {10, 0, 10, true}, {9, 1, 10, true},
		{10, 1, 10, false}, {0, 11, 10, false}, {-1, 1, 10, false}, {0, -1, 10, false},
		{math.MaxInt64, 1, 10, false}, {1, math.MaxInt64, 10, false},
	} {
		err := CheckRange(c.off, c.n, c.size)
		if (err == nil) != c.ok || (err != nil && !errors.Is(err, ErrOutOfRange)) {
			t.Errorf("CheckRange(%d, %d, %d) = %v", c.off, c.n, c.size, err)
		}
	}
}
