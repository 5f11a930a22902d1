package raid_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"skylun/block"
	"skylun/raid"
	"skylun/raid/raidtest"
)

// site is a directory for members, with the records of an array.
type site struct {
	t       *testing.T
	dir     string
	records *raidtest.Records
	log     bytes.Buffer
}

func newSite(t *testing.T) *site {
	return &site{t: t, dir: t.TempDir(), records: raidtest.NewRecords(nil)}
}

func (s *site) path(name string) string { return filepath.Join(s.dir, name) }

func (s *site) dirs(names ...string) (all []raid.MemberConfig) {
	for _, n := range names {
		all = append(all, raid.MemberConfig{Path: s.path(n)})
	}
	return all
}

func (s *site) open(members []raid.MemberConfig) (*raid.Array, error) {
	s.log.Reset()
	return raid.OpenArray(raid.Config{
		Members: members, Stripe: 4 << 10, Records: s.records, Boot: "a boot",
		Expendable: func(name string) bool { return strings.HasPrefix(name, "caches/") },
		Log:        slog.New(slog.NewTextHandler(&s.log, nil)),
	})
}

// must opens an array, does something and closes it.
func (s *site) must(members []raid.MemberConfig, do func(a *raid.Array)) {
	s.t.Helper()
	a, err := s.open(members)
	if err != nil {
		s.t.Fatal(err)
	}
	if do != nil {
		do(a)
	}
	if err := a.Close(); err != nil {
		s.t.Fatal(err)
	}
}

// refused wants an array not to open, and its error to say all of the words.
func (s *site) refused(members []raid.MemberConfig, words ...string) {
	s.t.Helper()
	a, err := s.open(members)
	if err == nil {
		a.Close()
		s.t.Errorf("opened, want an error with %q", words)
		return
	}
	if !errors.Is(err, raid.ErrMember) {
		s.t.Errorf("%v: is no ErrMember", err)
	}
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			s.t.Errorf("%q does not say %q", err, w)
		}
	}
}

var content = bytes.Repeat([]byte("0123456789abcdef"), 4<<10) // of 16 stripes

func (s *site) create(a *raid.Array, name string) {
	s.t.Helper()
	f, err := a.Create(name, int64(len(content)))
	if err != nil {
		s.t.Fatal(err)
	}
	if err := errors.Join(f.WriteAt(content, 0), f.Sync(), f.Close()); err != nil {
		s.t.Fatal(err)
	}
}

func (s *site) check(a *raid.Array, name string) {
	s.t.Helper()
	f, err := a.Open(name, int64(len(content)))
	if err != nil {
		s.t.Fatal(err)
	}
	defer f.Close()
	got := make([]byte, len(content))
	if err := f.ReadAt(got, 0); err != nil || !bytes.Equal(got, content) {
		s.t.Errorf("%s: error %v, right bytes %v", name, err, bytes.Equal(got, content))
	}
}

func TestMembersSwapped(t *testing.T) {
	s := newSite(t)
	s.must(s.dirs("a", "b", "c"), func(a *raid.Array) { s.create(a, "layers/1") })
	s.must(s.dirs("c", "a", "b"), func(a *raid.Array) { s.check(a, "layers/1") })
	if !strings.Contains(s.log.String(), "another order") {
		t.Errorf("the log does not tell of the order: %s", &s.log)
	}
	// Directories that have changed places, too.
	for _, mv := range [][2]string{{"a", "x"}, {"b", "a"}, {"x", "b"}} {
		if err := os.Rename(s.path(mv[0]), s.path(mv[1])); err != nil {
			t.Fatal(err)
		}
	}
	s.must(s.dirs("a", "b", "c"), func(a *raid.Array) { s.check(a, "layers/1") })
	if err := os.Rename(s.path("c"), s.path("moved")); err != nil {
		t.Fatal(err)
	}
	s.must(s.dirs("a", "moved", "b"), func(a *raid.Array) { s.check(a, "layers/1") })
}

func TestMembersRefused(t *testing.T) {
	s := newSite(t)
	s.must(s.dirs("a", "b"), func(a *raid.Array) { s.create(a, "layers/1") })
	if err := os.Symlink(s.path("a"), s.path("link")); err != nil {
		t.Fatal(err)
	}
	s.refused(s.dirs("a", "a"), "same member", s.path("a"))
	s.refused(s.dirs("a", "b", "link"), "same member", s.path("link"))
	s.refused(s.dirs("a", "b", "a/below"), "within", s.path("a/below"))
	s.refused(s.dirs("a"), "missing", s.path("b"), "layers/1")

	// A copy of a member is that member.
	stamp, err := os.ReadFile(s.path("a/.skylun-member"))
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.Mkdir(s.path("copy"), 0o700), os.WriteFile(s.path("copy/.skylun-member"), stamp, 0o600)); err != nil {
		t.Fatal(err)
	}
	s.refused(s.dirs("a", "b", "copy"), "same member", s.path("copy"))

	// An empty directory in the place of a member is what is left of one that is
	// not mounted.
	if err := os.Rename(s.path("b"), s.path("away")); err != nil {
		t.Fatal(err)
	}
	s.refused(s.dirs("a", "b"), "missing", s.path("b"), "layers/1")
	if err := os.Mkdir(s.path("b"), 0o700); err != nil {
		t.Fatal(err)
	}
	s.refused(s.dirs("a", "b"), "missing", s.path("b"), "layers/1")
	if err := errors.Join(os.Remove(s.path("b")), os.Rename(s.path("away"), s.path("b"))); err != nil {
		t.Fatal(err)
	}

	// Those of another array.
	other := &site{t: t, dir: s.dir, records: raidtest.NewRecords(nil)}
	other.must(s.dirs("x"), nil)
	s.refused(s.dirs("a", "b", "x"), "another array", s.path("x"))
	other.refused(s.dirs("a", "x"), "another array", s.path("a"), ".skylun-member")

	// While another node has them.
	busy, err := s.open(s.dirs("a", "b"))
	if err != nil {
		t.Fatal(err)
	}
	s.refused(s.dirs("b", "a"), "in use by another node", s.path("b"))
	if err := busy.Close(); err != nil {
		t.Fatal(err)
	}

	// A damaged stamp.
	stamp[len(stamp)/2] ^= 1
	if err := os.WriteFile(s.path("a/.skylun-member"), stamp, 0o600); err != nil {
		t.Fatal(err)
	}
	s.refused(s.dirs("a", "b"), "damaged", s.path("a"))
	stamp[len(stamp)/2] ^= 1
	if err := os.WriteFile(s.path("a/.skylun-member"), stamp, 0o600); err != nil {
		t.Fatal(err)
	}
	s.must(s.dirs("a", "b"), func(a *raid.Array) { s.check(a, "layers/1") })
}

func TestDevicesRefused(t *testing.T) {
	s := newSite(t)
	a := preset(t, s.dir, "a", 8<<20, raid.Identical)
	b := preset(t, s.dir, "b", 8<<20, raid.Chunks)
	s.must([]raid.MemberConfig{a, b}, func(a *raid.Array) { s.create(a, "layers/1") })
	other := a
	other.Allocate = raid.Chunks
	s.refused([]raid.MemberConfig{other, b}, "identical", "chunks", a.Path)
	full := preset(t, s.dir, "full", 8<<20, raid.Identical)
	for _, off := range []int64{510, 1<<20 - 1, 8<<20 - 4096} { // where others have their marks
		f, err := os.OpenFile(full.Path, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		f.WriteAt([]byte{0x55}, off)
		f.Close()
		s.refused([]raid.MemberConfig{a, b, full}, "not skylun's", full.Path)
		if err := errors.Join(os.Truncate(full.Path, 0), os.Truncate(full.Path, 8<<20)); err != nil {
			t.Fatal(err)
		}
	}
	s.refused([]raid.MemberConfig{a, b, preset(t, s.dir, "small", 1<<20, "")}, "small")
	s.must([]raid.MemberConfig{b, a}, func(a *raid.Array) { s.check(a, "layers/1") })
	if err := os.Remove(b.Path); err != nil {
		t.Fatal(err)
	}
	s.refused([]raid.MemberConfig{a, b}, "missing", b.Path, "layers/1")
}

// TestMemberAdded: what is there stays where it is, what is new is everywhere.
func TestMemberAdded(t *testing.T) {
	s := newSite(t)
	s.must(s.dirs("a"), func(a *raid.Array) { s.create(a, "layers/1") })
	s.must(s.dirs("a", "b"), func(a *raid.Array) {
		s.check(a, "layers/1")
		s.create(a, "layers/2")
	})
	s.must(s.dirs("a", "b"), func(a *raid.Array) { s.check(a, "layers/1"); s.check(a, "layers/2") })
	if _, err := os.Stat(s.path("b/layers/1")); err == nil {
		t.Error("the old file has a part on the new member")
	}
	for _, m := range []string{"a", "b"} {
		if st, err := os.Stat(s.path(m + "/layers/2")); err != nil || st.Size() != int64(len(content)/2) {
			t.Errorf("the new file's part on %s: %v %v", m, st, err)
		}
	}
}

// TestMemberLost: what may be lost goes with it, and it comes back as an empty one.
func TestMemberLost(t *testing.T) {
	s := newSite(t)
	s.must(s.dirs("a"), func(a *raid.Array) { s.create(a, "layers/1") })
	s.must(s.dirs("a", "b"), func(a *raid.Array) { s.create(a, "caches/2") })
	if err := os.Rename(s.path("b"), s.path("away")); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		s.must(s.dirs("a", "b"), func(a *raid.Array) {
			s.check(a, "layers/1")
			if _, err := a.Open("caches/2", 1); !errors.Is(err, raid.ErrNotExist) {
				t.Errorf("open of a cache with a part on a lost member: %v", err)
			}
		})
	}
	if err := os.Rename(s.path("away"), s.path("b")); err != nil {
		t.Fatal(err)
	}
	s.must(s.dirs("a", "b"), func(a *raid.Array) {
		if !strings.Contains(s.log.String(), "is back") {
			t.Errorf("the log does not tell of it: %s", &s.log)
		}
		s.check(a, "layers/1")
		s.create(a, "layers/3")
		s.check(a, "layers/3")
	})
	if _, err := os.Stat(s.path("b/caches/2")); err == nil {
		t.Error("what was lost is still on the member")
	}
	s.refused(s.dirs("a"), "layers/3")
}

// TestMemberTakenOut: one with nothing on it may go, and come back.
func TestMemberTakenOut(t *testing.T) {
	s := newSite(t)
	s.must(s.dirs("a"), func(a *raid.Array) { s.create(a, "layers/1") })
	s.must(s.dirs("a", "b"), func(a *raid.Array) { s.create(a, "caches/2") })
	s.must(s.dirs("a"), func(a *raid.Array) { s.check(a, "layers/1") })
	s.must(s.dirs("b", "a"), func(a *raid.Array) {
		s.check(a, "layers/1")
		s.create(a, "layers/3")
	})
	if _, err := os.Stat(s.path("b/caches/2")); err == nil {
		t.Error("what was on it is still there")
	}
	s.must(s.dirs("a", "b"), func(a *raid.Array) { s.check(a, "layers/1"); s.check(a, "layers/3") })

	// But not when it has what nobody knows of: an older database was put back.
	if err := s.records.Store(map[string][]byte{"array": forgetMember(t, s.records, s.path("b")), "file/layers/3": nil}); err != nil {
		t.Fatal(err)
	}
	s.refused(s.dirs("a", "b"), "taken out", s.path("b"), ".skylun-member")
}

// forgetMember returns the record of the array without a member.
func forgetMember(t *testing.T, r *raidtest.Records, where string) []byte {
	var all map[string]any
	err := r.Load("array", func(_ string, v []byte) error { return json.Unmarshal(v, &all) })
	if err != nil {
		t.Fatal(err)
	}
	all["members"] = slices.DeleteFunc(all["members"].([]any), func(m any) bool { return m.(map[string]any)["where"] == where })
	v, err := json.Marshal(all)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// TestOldArray: a directory as it was before there were stamps, and a copy of
// one without its stamp.
func TestOldArray(t *testing.T) {
	s := newSite(t)
	old, err := raid.Open([]string{s.path("a")})
	if err != nil {
		t.Fatal(err)
	}
	s.create(old, "layers/1")
	odd, err := old.Create("layers/1.notes", 4096+17)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(odd.WriteAt([]byte("noted"), 4096), odd.Close(), os.Truncate(s.path("a/layers/1.notes"), 4096+17), old.Close()); err != nil {
		t.Fatal(err)
	}
	look := func(a *raid.Array) {
		s.check(a, "layers/1")
		f, err := a.Open("layers/1.notes", 4096+17)
		if err != nil {
			t.Fatal(err)
		}
		got := make([]byte, 17)
		if err := f.ReadAt(got, 4096); err != nil || string(got[:5]) != "noted" {
			t.Errorf("notes: %q %v", got, err)
		}
		f.Close()
	}
	s.must(s.dirs("new", "a"), look)
	s.must(s.dirs("new", "a"), look)
	if err := os.Remove(s.path("a/.skylun-member")); err != nil {
		t.Fatal(err)
	}
	s.must(s.dirs("new", "a"), look)
	if !strings.Contains(s.log.String(), "has no stamp") {
		t.Errorf("the log does not tell of it: %s", &s.log)
	}
}

// TestBackup: a copy of the only member without its stamp, at another place.
func TestBackup(t *testing.T) {
	s := newSite(t)
	s.must(s.dirs("a"), func(a *raid.Array) { s.create(a, "layers/1") })
	if err := os.Mkdir(s.path("restored"), 0o700); err != nil {
		t.Fatal(err)
	}
	s.refused(s.dirs("restored"), "missing", s.path("a"), "layers/1")
	if err := os.Rename(s.path("a/layers"), s.path("restored/layers")); err != nil {
		t.Fatal(err)
	}
	s.must(s.dirs("restored"), func(a *raid.Array) { s.check(a, "layers/1") })
	s.must(s.dirs("restored"), func(a *raid.Array) { s.check(a, "layers/1") })
}

// TestStampsAfterCrash stops at every step of setting up an array, and starts again.
func TestStampsAfterCrash(t *testing.T) {
	for at := 1; ; at++ {
		s := newSite(t)
		calls, crashed := 0, errors.New("crash")
		s.records.Faults = &raidtest.Faults{Failing: func(string) error {
			if calls++; calls == at {
				return crashed
			}
			return nil
		}}
		a, err := s.open(s.dirs("a", "b"))
		if err == nil {
			a.Close()
			if at < 3 {
				t.Errorf("only %d steps", at)
			}
			return
		}
		if !errors.Is(err, crashed) {
			t.Fatal(err)
		}
		s.must(s.dirs("a", "b"), func(a *raid.Array) { s.create(a, "layers/1") })
		s.must(s.dirs("b", "a"), func(a *raid.Array) { s.check(a, "layers/1") })
	}
}

// TestFree: what is full by design is not short of space.
func TestFree(t *testing.T) {
	s := newSite(t)
	s.must([]raid.MemberConfig{preset(t, s.dir, "a", 8<<20, raid.Identical)}, func(a *raid.Array) {
		f, err := a.Create("layers/1", 7<<20)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if free, err := f.Free(); err != nil || free < 1<<40 {
			t.Errorf("a file with all its space: %d bytes free, %v", free, err)
		}
		if _, err := a.Create("layers/2", 4096); !errors.Is(err, block.ErrNoSpace) {
			t.Errorf("a file without space: %v", err)
		}
	})
	s = newSite(t)
	s.must([]raid.MemberConfig{preset(t, s.dir, "a", 8<<20, raid.Chunks), preset(t, s.dir, "b", 20<<20, raid.Chunks)}, func(a *raid.Array) {
		f, err := a.Create("layers/1", 64<<20)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if free, err := f.Free(); err != nil || free < 15<<20 || free > 28<<20 {
			t.Errorf("a file that may use all chunks: %d bytes free, %v", free, err)
		}
	})
}
