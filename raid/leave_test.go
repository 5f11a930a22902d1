package raid_test

import (
	"errors"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"testing"

	"skylun/block"
	"skylun/raid"
)

func (s *site) status(a *raid.Array, name string) raid.MemberStatus {
	s.t.Helper()
	for _, m := range a.Members() {
		if m.Where == s.path(name) {
			return m
		}
	}
	s.t.Fatalf("no member %s", name)
	return raid.MemberStatus{}
}

// TestLeave empties a member and takes it out.
func TestLeave(t *testing.T) {
	s := newSite(t)
	chunks := preset(t, s.dir, "b", 8<<20, raid.Chunks)
	members := append(s.dirs("a", "c"), chunks)
	for i := range members {
		members[i].Weight = 1
	}
	s.must(members, func(a *raid.Array) {
		s.create(a, "layers/1")
		s.create(a, "caches/2")
		if err := a.Leave(s.path("b")); err != nil {
			t.Fatal(err)
		}
		s.create(a, "layers/3")
		if m := s.status(a, "b"); !m.Leaving || m.Files != 2 {
			t.Errorf("leaving: %+v", m)
		}
	})
	s.refused(members[:2], s.path("b"), "layers/1", "bring it back")
	s.must(members, func(a *raid.Array) {
		if m := s.status(a, "b"); !m.Leaving || m.Files != 2 {
			t.Errorf("leaving, opened again: %+v", m)
		}
		s.create(a, "layers/4")
		if err := a.Rebalance(t.Context(), nil); err != nil {
			t.Fatal(err)
		}
		if m := s.status(a, "b"); !m.Leaving || m.Files != 0 || m.Free != m.Total {
			t.Errorf("emptied: %+v", m)
		}
		if m := s.status(a, "a"); m.Leaving {
			t.Errorf("%+v", m)
		}
	})
	all := func(a *raid.Array) {
		for _, name := range []string{"layers/1", "caches/2", "layers/3", "layers/4"} {
			s.check(a, name)
		}
	}
	s.must(members, all) // it may stay as long as it likes
	if err := os.Remove(chunks.Path); err != nil {
		t.Fatal(err)
	}
	s.must(members[:2], func(a *raid.Array) {
		all(a)
		if log := s.log.String(); !strings.Contains(log, "level=INFO") || strings.Contains(log, "level=WARN") || len(a.Members()) != 2 {
			t.Errorf("%d members, log %s", len(a.Members()), log)
		}
	})

	// Another disk under its name is a new member, which takes part.
	members[2] = preset(t, s.dir, "b", 8<<20, raid.Chunks)
	members[2].Weight = 1
	s.must(members, func(a *raid.Array) {
		s.create(a, "layers/5")
		if m := s.status(a, "b"); m.Leaving || m.Free == m.Total {
			t.Errorf("new one: %+v", m)
		}
		all(a)
	})
}

// TestStay: a member that was leaving is one like the others again.
func TestStay(t *testing.T) {
	s := newSite(t)
	members := s.dirs("a", "b")
	s.must(members, func(a *raid.Array) {
		s.create(a, "layers/1")
		if err := errors.Join(a.Leave(s.path("a")), a.Rebalance(t.Context(), nil)); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(s.path("a/layers/1")); err == nil {
			t.Error("the file is still on it")
		}
		if err := errors.Join(a.Stay(s.path("a")), a.Rebalance(t.Context(), nil)); err != nil {
			t.Fatal(err)
		}
		s.check(a, "layers/1")
	})
	s.must(members, func(a *raid.Array) {
		if m := s.status(a, "a"); m.Leaving {
			t.Errorf("%+v", m)
		}
		s.check(a, "layers/1")
	})
	s.refused(s.dirs("b"), s.path("a"), "layers/1")
}

// TestLeaveRefused: the last one, an unknown one, and one for whose files there is no
// room.
func TestLeaveRefused(t *testing.T) {
	s := newSite(t)
	small := preset(t, s.dir, "small", 4<<20, raid.Chunks)
	members := append(s.dirs("a"), small)
	s.must(members[:1], func(a *raid.Array) {
		if err := a.Leave(s.path("a")); !errors.Is(err, raid.ErrMember) || !strings.Contains(err.Error(), s.path("a")) {
			t.Errorf("the only one: %v", err)
		}
		big, err := a.Create("layers/big", 6<<20)
		if err != nil {
			t.Fatal(err)
		}
		p := make([]byte, 6<<20)
		for i := range p {
			p[i] = byte(rand.Uint32() | 1)
		}
		if err := errors.Join(big.WriteAt(p, 0), big.Close()); err != nil {
			t.Fatal(err)
		}
		if err := a.Leave(s.path("none")); !errors.Is(err, raid.ErrMember) || !strings.Contains(err.Error(), s.path("none")) {
			t.Errorf("an unknown one: %v", err)
		}
	})
	s.must(members, func(a *raid.Array) {
		if err := a.Leave(s.path("a")); !errors.Is(err, block.ErrNoSpace) || !strings.Contains(err.Error(), s.path("a")) {
			t.Errorf("without room: %v", err)
		}
		if s.status(a, "a").Leaving {
			t.Error("it leaves nevertheless")
		}
		if err := errors.Join(a.Leave(s.path("small"))); err != nil {
			t.Fatal(err)
		}
		if err := a.Leave(s.path("a")); !errors.Is(err, raid.ErrMember) {
			t.Errorf("the last one that stays: %v", err)
		}
	})
}

// TestLeaveWhileMoved: the member that files are being moved onto leaves in the
// middle of it.
func TestLeaveWhileMoved(t *testing.T) {
	s := newSite(t)
	const size = 16 << 20
	s.must(s.dirs("a"), func(a *raid.Array) {
		f, err := a.Create("layers/1", size)
		if err != nil {
			t.Fatal(err)
		}
		f.Close()
		s.create(a, "layers/2")
	})
	s.must(s.dirs("a", "b"), func(a *raid.Array) {
		var once sync.Once
		err := a.Rebalance(t.Context(), func(raid.Progress) {
			once.Do(func() {
				if err := a.Leave(s.path("b")); err != nil {
					t.Error(err)
				}
			})
		})
		if err != nil {
			t.Fatal(err)
		}
		if m := s.status(a, "b"); m.Files != 0 || !m.Leaving {
			t.Errorf("emptied: %+v", m)
		}
	})
	s.must(s.dirs("a"), func(a *raid.Array) { s.check(a, "layers/2") })
}
