package raid_test

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"skylun/block"
	"skylun/raid"
)

// TestGrowWhileMoved: by what the last stripe of the new place has had all along.
func TestGrowWhileMoved(t *testing.T) {
	s := newSite(t)
	members := []raid.MemberConfig{loop(t, s.dir, "a", 16<<20, raid.Identical), loop(t, s.dir, "b", 16<<20, raid.Identical)} // they do not tell what is data
	open := func(members []raid.MemberConfig, do func(a *raid.Array)) {
		t.Helper()
		a, err := raid.OpenArray(raid.Config{Members: members, Stripe: 64 << 10, MovePiece: 32 << 10, Records: s.records})
		if err != nil {
			t.Fatal(err)
		}
		do(a)
		if err := a.Close(); err != nil {
			t.Fatal(err)
		}
	}
	const before, after = 100 << 10, 128 << 10
	want := make([]byte, after)
	open(members[:1], func(a *raid.Array) {
		f, err := a.Create("layers/1", before)
		if err != nil {
			t.Fatal(err)
		}
		copy(want, content)
		if err := errors.Join(f.WriteAt(want[:len(content)], 0), f.Close()); err != nil {
			t.Fatal(err)
		}
	})
	open(members, func(a *raid.Array) {
		f, err := a.Open("layers/1", before)
		if err != nil {
			t.Fatal(err)
		}
		err = a.Rebalance(t.Context(), func(raid.Progress) {
			if f.Size() == before {
				if err := f.Resize(after); err != nil {
					t.Error(err)
				}
				copy(want[before:], "the end")
				if err := f.WriteAt(want[before:], before); err != nil {
					t.Error(err)
				}
			}
		})
		got := make([]byte, after)
		if err := errors.Join(err, f.ReadAt(got, 0), f.Close()); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			t.Error("other content")
		}
	})
	open(members, func(a *raid.Array) {
		f, err := a.Open("layers/1", after)
		if err != nil {
			t.Fatal(err)
		}
		got := make([]byte, after)
		if err := errors.Join(f.ReadAt(got, 0), f.Close()); err != nil || !bytes.Equal(got, want) {
			t.Errorf("opened again: error %v, right bytes %v", err, bytes.Equal(got, want))
		}
	})
}

// TestGrowFails: where a file that cannot grow would have had a part, nothing is left.
func TestGrowFails(t *testing.T) {
	s := newSite(t)
	first := preset(t, s.dir, "a", 16<<20, raid.Identical)
	room, full := preset(t, s.dir, "b", 32<<20, raid.Identical), preset(t, s.dir, "c", 5<<20, raid.Identical)
	members := []raid.MemberConfig{first, room, full}
	for i := range members {
		members[i].Weight = 1
	}
	s.must(members[:1], func(a *raid.Array) { s.create(a, "layers/1") })
	for range 3 { // the order in which members get their parts is by chance
		s.must(members, func(a *raid.Array) {
			f, err := a.Open("layers/1", int64(len(content)))
			if err != nil {
				t.Fatal(err)
			}
			if err := f.Resize(40 << 20); !errors.Is(err, block.ErrNoSpace) || !strings.Contains(err.Error(), s.path("c")) && !strings.Contains(err.Error(), s.path("a")) {
				t.Errorf("without room: %v", err)
			}
			if err := errors.Join(f.Close(), a.Rebalance(t.Context(), nil), a.Remove("layers/1")); err != nil {
				t.Fatal(err)
			}
			for _, m := range a.Members() {
				if m.Free != m.Total {
					t.Errorf("%+v: has something", m)
				}
			}
			s.create(a, "layers/1")
		})
	}
}
