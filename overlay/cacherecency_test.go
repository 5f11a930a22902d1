package overlay

import (
	"bytes"
	"log/slog"
	"slices"
	"testing"
)

// TestRecencyIsKept closes two caches and opens them with another pool: what was
// used the longest time ago leaves first, in the order of before.
func TestRecencyIsKept(t *testing.T) {
	pool := NewPool(16<<20, slog.New(slog.DiscardHandler))
	a, b := newPooled(t, 200<<20, pool), newPooled(t, 32<<20, pool)
	far := int64(150) // in a group of its own
	order := []struct {
		x *pooled
		i int64
	}{{b, 3}, {a, far}, {a, 2}, {b, 0}, {a, 7}, {b, 9}, {a, 1}, {b, 1}, {a, 4}, {b, 4}, {a, 5}, {b, 5}, {a, 6}, {b, 6}, {a, 0}, {b, 7}}
	for i := range order { // in another order first
		o := order[len(order)-1-i]
		o.x.want(t, mib(o.i))
	}
	for _, o := range order {
		pool.clock.Add(1)
		o.x.want(t, mib(o.i))
	}
	ranks := Ranks([]Recency{a.Recency(), b.Recency()})
	pool = NewPool(16<<20, slog.New(slog.DiscardHandler))
	for i, x := range []*pooled{a, b} {
		if err := x.Close(); err != nil {
			t.Fatal(err)
		}
		x.recency = Ranked(ranks[i])
		x.open(t, pool)
	}
	b.want(t, mib(3)) // the oldest of before
	for i := range int64(6) {
		a.want(t, mib(20+i))
		left := 0
		for _, o := range order[1:] {
			if o.x.copy.all(mib(o.i), present) {
				break
			}
			left++
		}
		if left <= int(i) {
			t.Fatalf("%d have left of those that were used the longest time ago, after %d came", left, i+1)
		}
		for _, o := range order[1+left:] {
			if !o.x.copy.all(mib(o.i), present) {
				t.Errorf("MiB %d has left too early, after %d came", o.i, i+1)
			}
		}
	}
	if !b.copy.all(mib(3), present) {
		t.Error("what was used after the restart has left")
	}
}

// TestRanks keeps the order, across caches and within as many ranks as there are.
func TestRanks(t *testing.T) {
	many := make(Recency, 1000)
	for i := range many {
		many[i] = uint64(5000 - 3*i)
	}
	ranks := Ranks([]Recency{{0, 7, 3, 7}, nil, {5, 0, 9}})
	if want := [][]byte{{0, 128, 1, 128}, {}, {64, 0, 192}}; !slices.EqualFunc(ranks, want, bytes.Equal) {
		t.Errorf("%v, want %v", ranks, want)
	}
	r := Ranked(Ranks([]Recency{many})[0])
	if !slices.IsSortedFunc(r, func(a, b uint64) int { return int(b) - int(a) }) || r[0] != recencyRanks || r[999] != 1 {
		t.Errorf("the order of many is lost: %v", r)
	}
	if got := Ranks([]Recency{{0, 0}}); !bytes.Equal(got[0], []byte{0, 0}) {
		t.Errorf("nothing used: %v", got)
	}
}
