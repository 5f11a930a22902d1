package raid_test

import (
	"errors"
	"strings"
	"testing"

	"skylun/block"
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

// TestFullNamesMember: who is told that a device is full is told which one.
func TestFullNamesMember(t *testing.T) {
	s := newSite(t)
	identical, chunks := preset(t, s.dir, "identical", 4<<20, raid.Identical), preset(t, s.dir, "chunks", 4<<20, raid.Chunks)
	s.must([]raid.MemberConfig{identical}, func(a *raid.Array) {
		if _, err := a.Create("layers/1", 8<<20); !errors.Is(err, block.ErrNoSpace) || !strings.Contains(err.Error(), identical.Path) {
			t.Errorf("create: %v", err)
		}
	})
	s = newSite(t)
	s.must([]raid.MemberConfig{chunks}, func(a *raid.Array) {
		f, err := a.Create("layers/1", 8<<20)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if err := f.WriteAt(make([]byte, 8<<20), 0); !errors.Is(err, block.ErrNoSpace) || !strings.Contains(err.Error(), chunks.Path) {
			t.Errorf("write: %v", err)
		}
	})
}
