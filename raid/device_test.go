package raid_test

import (
	"errors"
	"testing"

	"skylun/raid"
)

// TestSyncAfterRemove: a sync that was under way when its file was removed stores
// nothing more of it.
func TestSyncAfterRemove(t *testing.T) {
	for _, allocate := range []string{raid.Identical, raid.Chunks} {
		t.Run(allocate, func(t *testing.T) {
			s := newSite(t)
			members := []raid.MemberConfig{preset(t, s.dir, "device", 16<<20, allocate)}
			s.must(members, func(a *raid.Array) {
				f, err := a.Create("layers/1", 4<<20)
				if err != nil {
					t.Fatal(err)
				}
				if err := errors.Join(f.WriteAt(content, 0), a.Remove("layers/1"), f.Sync(), f.Close()); err != nil {
					t.Fatal(err)
				}
				s.create(a, "layers/2")
			})
			s.must(members, func(a *raid.Array) { s.check(a, "layers/2") })
		})
	}
}
