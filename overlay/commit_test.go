package overlay

import (
	"slices"
	"testing"
)

func TestMerge(t *testing.T) {
	for _, c := range []struct{ in, want []Extent }{
		{[]Extent{{4, 8, 1}, {0, 4, 1}, {8, 9, 1}}, []Extent{{0, 9, 1}}},
		{[]Extent{{4, 8, 1}, {0, 2, 1}, {5, 6, 1}}, []Extent{{0, 2, 1}, {4, 8, 1}}},
		{[]Extent{{4, 8, 1}, {0, 4, 2}, {0, 4, 1}}, []Extent{{4, 8, 1}, {0, 4, 2}, {0, 4, 1}}},
		{[]Extent{{1, 2, 2}}, []Extent{{1, 2, 2}}},
	} {
		if got := merge(slices.Clone(c.in)); !slices.Equal(got, c.want) {
			t.Errorf("merge(%v) = %v, want %v", c.in, got, c.want)
		}
	}
}
