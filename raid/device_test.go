package raid_test

import (
	"bytes"
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

// TestUnzeroed: a file of which nothing is read that was not written takes its space
// as it is; what it grows by and what is punched reads as zeros.
func TestUnzeroed(t *testing.T) {
	s := newSite(t)
	size := int64(len(content))
	s.must([]raid.MemberConfig{preset(t, s.dir, "device", 4<<20, raid.Identical)}, func(a *raid.Array) {
		for _, unzeroed := range []bool{true, false} {
			s.create(a, "layers/1")
			if err := a.Remove("layers/1"); err != nil {
				t.Fatal(err)
			}
			files, err := a.CreateAll([]raid.Spec{{Name: "layers/2", Size: size, Unzeroed: unzeroed}})
			if err != nil {
				t.Fatal(err)
			}
			f := files[0]
			want, got := make([]byte, size), make([]byte, size)
			if unzeroed {
				copy(want, content)
			}
			if err := f.ReadAt(got, 0); err != nil || !bytes.Equal(got, want) {
				t.Errorf("unzeroed %v: error %v, right bytes %v", unzeroed, err, bytes.Equal(got, want))
			}
			if err := errors.Join(f.Punch(4096, 8192), f.Resize(2*size)); err != nil {
				t.Fatal(err)
			}
			clear(want[4096:][:8192])
			want, got = append(want, make([]byte, size)...), make([]byte, 2*size)
			if err := errors.Join(f.ReadAt(got, 0), f.Close(), a.Remove("layers/2")); err != nil || !bytes.Equal(got, want) {
				t.Errorf("unzeroed %v, grown: error %v, right bytes %v", unzeroed, err, bytes.Equal(got, want))
			}
		}
	})
}
