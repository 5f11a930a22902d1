package raid_test

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"sync"
	"testing"

	"skylun/block"
	"skylun/raid"
	"skylun/raid/raidtest"
)

// TestRebalanceInUse moves a file onto a member that was added while others write
// to it, read it, punch and sync it.
func TestRebalanceInUse(t *testing.T) {
	s := newSite(t)
	const size = 20 << 20
	s.must(s.dirs("a"), func(a *raid.Array) {
		f, err := a.Create("layers/1", size)
		if err != nil {
			t.Fatal(err)
		}
		f.Close()
		s.create(a, "layers/2")
	})
	a, err := s.open(s.dirs("a", "b"))
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	f, err := a.Open("layers/1", size)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	const users = 4
	want := make([]byte, size)
	done := make(chan struct{})
	var wg sync.WaitGroup
	for u := range users {
		wg.Go(func() {
			rnd := rand.New(rand.NewPCG(uint64(u), 3))
			part := block.Range{Off: size / users * int64(u), End: size / users * int64(u+1)}
			for n := 0; n < 200 || !closed(done); n++ {
				off := part.Off + rnd.Int64N(part.Len())/4096*4096
				n := min(part.End-off, (1+rnd.Int64N(30))*4096)
				var err error
				switch rnd.IntN(6) {
				case 0, 1, 2:
					p := bytes.Repeat([]byte{byte(rnd.Uint32() | 1)}, int(n))
					copy(want[off:], p)
					err = f.WriteAt(p, off)
				case 3:
					clear(want[off : off+n])
					err = f.Punch(off, n)
				case 4:
					err = f.Sync()
				default:
					p := make([]byte, n)
					if err = f.ReadAt(p, off); err == nil && !bytes.Equal(p, want[off:off+n]) {
						err = errors.New("not what was written")
					}
				}
				if err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	// Stopped again and again, it goes on where it was.
	stops := 0
	for last := int64(0); ; stops++ {
		ctx, cancel := context.WithCancel(t.Context())
		err := a.Rebalance(ctx, func(p raid.Progress) {
			if p.File == "layers/1" && p.Done < last {
				t.Errorf("goes on at %d, was at %d", p.Done, last)
			}
			last = p.Done
			cancel()
		})
		cancel()
		if err == nil {
			break
		}
		if !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
		if stops > 20 {
			t.Fatal("does not come to an end")
		}
	}
	close(done)
	wg.Wait()
	if stops < 4 {
		t.Errorf("stopped %d times only", stops)
	}
	got := make([]byte, size)
	if err := f.ReadAt(got, 0); err != nil || !bytes.Equal(got, want) {
		t.Errorf("at the end: error %v, right bytes %v", err, bytes.Equal(got, want))
	}
	s.check(a, "layers/2")
	for path, there := range map[string]bool{"a/layers/1": false, "a/layers/1~1": true, "b/layers/1~1": true, "a/layers/2": false, "b/layers/2~1": true} {
		if _, err := os.Stat(s.path(path)); (err == nil) != there {
			t.Errorf("%s: there %v, want %v", path, err == nil, there)
		}
	}
	if err := a.Rebalance(t.Context(), func(p raid.Progress) { t.Errorf("moved again: %+v", p) }); err != nil {
		t.Error(err)
	}
}

func closed(c chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// TestRebalanceFull: without room the move stops, and nothing is lost.
func TestRebalanceFull(t *testing.T) {
	s := newSite(t)
	s.must(s.dirs("a"), func(a *raid.Array) { s.create(a, "layers/1") })
	full := preset(t, s.dir, "full", 4<<20, raid.Chunks)
	full.Weight = 200
	members := append(s.dirs("a"), full)
	s.must(members, func(a *raid.Array) {
		big, err := a.Create("layers/big", 6<<20)
		if err != nil {
			t.Fatal(err)
		}
		defer big.Close()
		if err := big.WriteAt(make([]byte, 6<<20), 0); !errors.Is(err, block.ErrNoSpace) {
			t.Fatalf("write of more than there is: %v", err)
		}
		if err := a.Rebalance(t.Context(), nil); !errors.Is(err, block.ErrNoSpace) {
			t.Errorf("rebalance without room: %v", err)
		}
		s.check(a, "layers/1")
	})
	s.must(members, func(a *raid.Array) {
		s.check(a, "layers/1")
		if err := errors.Join(a.Remove("layers/big"), a.Rebalance(t.Context(), nil)); err != nil {
			t.Errorf("with room again: %v", err)
		}
		s.check(a, "layers/1")
	})
	if _, err := os.Stat(s.path("a/layers/1")); err == nil {
		t.Error("the old piece is still there")
	}
}

// TestRemovedWhileMoved removes a file, and makes another of its name, while it is
// moved.
func TestRemovedWhileMoved(t *testing.T) {
	s := newSite(t)
	const size = 16 << 20
	s.must(s.dirs("a"), func(a *raid.Array) {
		f, err := a.Create("layers/1", size)
		if err != nil {
			t.Fatal(err)
		}
		f.Close()
	})
	s.must(s.dirs("a", "b"), func(a *raid.Array) {
		reports := 0
		err := a.Rebalance(t.Context(), func(raid.Progress) {
			if reports++; reports == 1 {
				s.create(a, "layers/1")
			}
		})
		if err != nil || reports != 1 {
			t.Errorf("rebalance: %v, %d reports", err, reports)
		}
		s.check(a, "layers/1")
	})
	s.must(s.dirs("a", "b"), func(a *raid.Array) { s.check(a, "layers/1") })
}

// unsure are records of which some are stored although storing them has failed.
type unsure struct {
	*raidtest.Records
	failing func(changes map[string][]byte) (fails, stored bool)
}

func (u *unsure) Store(changes map[string][]byte) error {
	fails, stored := u.failing(changes)
	if !fails || stored {
		if err := u.Records.Store(changes); err != nil || !fails {
			return err
		}
	}
	return errors.New("input/output error")
}

// TestRebalanceUnsure: when it is not known whether a step of a move was stored, what
// is synced afterwards is there after the next start.
func TestRebalanceUnsure(t *testing.T) {
	const size = 64 << 10
	for first := range 6 { // which store is the first that fails
		for times := 1; times <= 2; times++ {
			for _, stored := range []bool{true, false} {
				s := newSite(t)
				u := &unsure{Records: s.records, failing: func(map[string][]byte) (bool, bool) { return false, false }}
				open := func(names ...string) *raid.Array {
					t.Helper()
					a, err := raid.OpenArray(raid.Config{Members: s.dirs(names...), Stripe: 4 << 10, MovePiece: 32 << 10, Records: u})
					if err != nil {
						t.Fatal(err)
					}
					return a
				}
				a := open("a")
				s.create(a, "layers/1")
				if err := a.Close(); err != nil {
					t.Fatal(err)
				}
				a = open("a", "b")
				f, err := a.Open("layers/1", size)
				if err != nil {
					t.Fatal(err)
				}
				stores := 0
				u.failing = func(map[string][]byte) (bool, bool) {
					stores++
					return stores > first && stores <= first+times, stored
				}
				if err := a.Rebalance(t.Context(), nil); err == nil && stores > first {
					t.Errorf("store %d fails %d times: moved nevertheless", first, times)
				}
				want := bytes.Clone(content[:size])
				p := bytes.Repeat([]byte("changed "), size/8)
				if err := f.WriteAt(p, 0); err != nil {
					t.Fatal(err)
				}
				synced := f.Sync() == nil
				if synced {
					want = p
				} else if times == 1 {
					t.Errorf("store %d fails once: no sync succeeds any more", first)
				}
				u.failing = func(map[string][]byte) (bool, bool) { return false, false }
				// As after a crash: nothing is closed but what locks the members.
				if err := a.Close(); err != nil {
					t.Fatal(err)
				}
				a = open("a", "b")
				g, err := a.Open("layers/1", size)
				if err != nil {
					t.Fatalf("store %d fails %d times, stored %v: %v", first, times, stored, err)
				}
				got := make([]byte, size)
				if err := g.ReadAt(got, 0); err != nil || synced && !bytes.Equal(got, want) {
					t.Errorf("store %d fails %d times, stored %v, synced %v: error %v, right bytes %v", first, times, stored, synced, err, bytes.Equal(got, want))
				}
				if err := a.Rebalance(t.Context(), nil); err != nil {
					t.Error(err)
				}
				f.Close()
				if err := errors.Join(g.Close(), a.Close()); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
}
