package overlay

import (
	"slices"
	"testing"

	"skylun/test/devicetest"
)

// TestPowerCutBites gives the crash test stores that break a promise each, as
// mistakes in the order of a round would: it must find every one.
func TestPowerCutBites(t *testing.T) {
	first := devicetest.Seed(t)
	without := func(st state) func(*memMap, []Extent) []Extent {
		return func(_ *memMap, extents []Extent) []Extent {
			return slices.DeleteFunc(slices.Clone(extents), func(e Extent) bool { return state(e.State) == st })
		}
	}
	for _, c := range []struct {
		name string
		lie  lie
	}{
		{"states are committed before the data is synced", lie{lazySync: true}},
		{"a record of the journal is dropped", lie{append: func(m *memMap, extents []Extent) []Extent {
			if len(m.durable())%3 == 2 {
				return nil
			}
			return extents
		}}},
		{"a discard shows the base", lie{append: func(_ *memMap, extents []Extent) []Extent {
			extents = slices.Clone(extents)
			for i := range extents {
				if extents[i].State == uint8(zero) {
					extents[i].State = uint8(absent)
				}
			}
			return extents
		}}},
		{"a discard is forgotten", lie{append: without(zero)}},
		{"what is the image's again is forgotten", lie{append: without(absent)}},
		{"only the first change of a round is recorded", lie{append: func(_ *memMap, extents []Extent) []Extent { return extents[:1] }}},
		{"holes of the cache are punched before its states are durable", lie{hasty: true}},
		{"the sums of copies are not synced", lie{lostSums: true}},
		{"the changes of a round are recorded in reverse", lie{append: func(_ *memMap, extents []Extent) []Extent {
			extents = slices.Clone(extents)
			slices.Reverse(extents)
			return extents
		}}},
		{"holes in layers are punched before that is recorded", lie{lateStates: true}},
		{"a snapshot is recorded before it is durable", lie{unsealed: true}},
		{"the redo log is not synced", lie{lazyRedo: true}},
		{"the redo log is not cleared", lie{staleRedo: true}},
		{"the redo log is not done again", lie{noRedo: true}},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := crashDir(t)
			for i := range uint64(400) {
				if _, err := crashRun(first+i, dir, c.lie); err != nil {
					t.Logf("found by seed %d of them", i+1)
					return
				}
			}
			t.Error("not found")
		})
	}
}
