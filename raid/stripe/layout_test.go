package stripe

import (
	"math/rand/v2"
	"slices"
	"testing"
)

// checkLayout compares a layout with the plainest dealing there is, stripe by
// stripe, and checks that every byte is in one place and every place has one.
func checkLayout(t *testing.T, stripe int64, members []Member) {
	t.Helper()
	l, err := New(stripe, members)
	if err != nil {
		t.Fatalf("%v: %v", members, err)
	}
	var whole int64
	for _, m := range members {
		whole += m.Size / stripe * stripe
	}
	if l.Size() != whole {
		t.Fatalf("%v: size %d, want all of the members, %d", members, l.Size(), whole)
	}
	next := make([]int64, len(members)) // each member is filled from its beginning, in order
	for off := int64(0); off < whole; off += stripe {
		r := l.At(off)
		if r.Off != next[r.Member] {
			t.Fatalf("%v: %d is at %d of member %d, want %d", members, off, r.Off, r.Member, next[r.Member])
		}
		if r.Len < stripe || r.Len%stripe != 0 {
			t.Fatalf("%v: run of %d bytes at %d", members, r.Len, off)
		}
		for n := stripe; n < r.Len; n += stripe { // of a zone with one member
			if more := l.At(off + n); more != (Run{r.Member, r.Off + n, r.Len - n}) {
				t.Fatalf("%v: the run at %d does not go on at %d: %v %v", members, off, n, r, more)
			}
		}
		for _, in := range []int64{0, 1, stripe - 1} {
			inner := l.At(off + in)
			if inner != (Run{r.Member, r.Off + in, r.Len - in}) {
				t.Fatalf("%v: %d+%d is at %v, the stripe at %v", members, off, in, inner, r)
			}
			if back, ok := l.Offset(r.Member, r.Off+in); !ok || back != off+in {
				t.Fatalf("%v: %d of member %d is %d (%v), want %d", members, r.Off+in, r.Member, back, ok, off+in)
			}
		}
		next[r.Member] += stripe
	}
	for i, m := range members {
		if used := m.Size / stripe * stripe; next[i] != used || l.Used(i) != used {
			t.Fatalf("%v: member %d is used up to %d, told as %d", members, i, next[i], l.Used(i))
		}
		if off, ok := l.Offset(i, next[i]); ok {
			t.Fatalf("%v: behind the end of member %d there is %d", members, i, off)
		}
	}
}

// TestSmallLayouts goes through all layouts of up to four members, with sizes and
// weights up to a few.
func TestSmallLayouts(t *testing.T) {
	const stripe = MinSize
	layouts := 0
	var try func(members []Member, n int, sizes, weights int)
	try = func(members []Member, n int, sizes, weights int) {
		if n == 0 {
			layouts++
			checkLayout(t, stripe, members)
			return
		}
		for size := range sizes {
			for weight := range weights {
				try(append(slices.Clone(members), Member{int64(size) * stripe, weight + 1}), n-1, sizes, weights)
			}
		}
	}
	try(nil, 1, 20, 8)
	try(nil, 2, 14, 5)
	try(nil, 3, 8, 3)
	try(nil, 4, 5, 2)
	if layouts < 20000 {
		t.Errorf("only %d layouts", layouts)
	}
}

// TestZones shows the drawing of the package's comment.
func TestZones(t *testing.T) {
	l, err := New(4096, []Member{{Size: 2 * 4096}, {Size: 4*4096 + 4095}, {Size: 5 * 4096}})
	if err != nil {
		t.Fatal(err)
	}
	var got [][2]int64
	for off := int64(0); off < l.Size(); off += 4096 {
		r := l.At(off)
		got = append(got, [2]int64{int64(r.Member), r.Off / 4096})
	}
	want := [][2]int64{{0, 0}, {1, 0}, {2, 0}, {0, 1}, {1, 1}, {2, 1}, {1, 2}, {2, 2}, {1, 3}, {2, 3}, {2, 4}}
	if !slices.Equal(got, want) {
		t.Errorf("stripes are at %v, want %v", got, want)
	}
}

// TestWeights: the dealing is part of a format, and it is even.
func TestWeights(t *testing.T) {
	for _, c := range []struct {
		weights []int
		round   []int
	}{
		{[]int{1, 1}, []int{0, 1}},
		{[]int{6, 2}, []int{0, 0, 1, 0}},
		{[]int{3, 2, 1}, []int{0, 1, 0, 2, 1, 0}},
		{[]int{1, 4}, []int{1, 1, 0, 1, 1}},
	} {
		var members []Member
		for _, w := range c.weights {
			members = append(members, Member{Size: int64(w) << 20, Weight: w})
		}
		l, err := New(4096, members)
		if err != nil {
			t.Fatal(err)
		}
		var got []int
		for i := range len(c.round) * 2 {
			got = append(got, l.At(int64(i)*4096).Member)
		}
		if want := slices.Concat(c.round, c.round); !slices.Equal(got, want) {
			t.Errorf("weights %v: members %v, want %v", c.weights, got, want)
		}
	}
}

func TestRuns(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	for range 300 {
		var members []Member
		for range 1 + rnd.IntN(5) {
			members = append(members, Member{rnd.Int64N(40 * 4096), 1 + rnd.IntN(4)})
		}
		checkRuns(t, rnd, members)
	}
}

func checkRuns(t *testing.T, rnd *rand.Rand, members []Member) {
	t.Helper()
	l, err := New(4096, members)
	if err != nil {
		t.Fatal(err)
	}
	if l.Size() == 0 {
		return
	}
	for range 20 {
		off := rnd.Int64N(l.Size())
		n := rnd.Int64N(l.Size() - off + 1)
		at, last := off, Run{Member: -1}
		for r := range l.Runs(off, n) {
			if r.Member == last.Member && r.Off == last.Off+last.Len {
				t.Fatalf("%v: runs %v and %v of [%d,%d) are one", members, last, r, off, off+n)
			}
			for _, in := range []int64{0, rnd.Int64N(r.Len), r.Len - 1} {
				if back, ok := l.Offset(r.Member, r.Off+in); !ok || back != at+in {
					t.Fatalf("%v: run %v has %d at %d, want %d", members, r, back, in, at+in)
				}
			}
			at, last = at+r.Len, r
		}
		if at != off+n {
			t.Fatalf("%v: the runs of [%d,%d) end at %d", members, off, off+n, at)
		}
	}
}

func FuzzLayout(f *testing.F) {
	f.Add(uint64(1), []byte{3, 1, 9, 2})
	f.Add(uint64(2), []byte{200, 1, 0, 7, 255, 255})
	f.Fuzz(func(t *testing.T, seed uint64, b []byte) {
		var members []Member
		for i := 0; i+1 < len(b) && len(members) < 12; i += 2 {
			members = append(members, Member{int64(b[i])*4096 + int64(seed%4096), int(b[i+1])})
		}
		if len(members) == 0 {
			return
		}
		checkLayout(t, 4096, members)
		checkRuns(t, rand.New(rand.NewPCG(seed, 3)), members)
	})
}

func TestNewRefuses(t *testing.T) {
	one := []Member{{Size: 1 << 20}}
	for _, c := range []struct {
		stripe  int64
		members []Member
	}{
		{0, one}, {2048, one}, {12288, one}, {-4096, one}, {4096, nil}, {4096, []Member{{Size: -1}}},
		{4096, []Member{{Size: 1 << 20, Weight: -1}}}, {4096, []Member{{Size: 1 << 20, Weight: MaxWeight + 1}}},
		{4096, make([]Member, MaxMembers+1)}, {4096, []Member{{Size: 1 << 62}, {Size: 1 << 62}, {Size: 1 << 62}}},
	} {
		if _, err := New(c.stripe, c.members); err == nil {
			t.Errorf("New(%d, %v) was accepted", c.stripe, c.members)
		}
	}
}

func TestShare(t *testing.T) {
	const s = 4096
	for _, c := range []struct {
		size        int64
		parts, want []int64
	}{
		{10 * s, []int64{1, 1}, []int64{5, 5}},
		{10*s + 1, []int64{1, 1}, []int64{6, 5}},
		{0, []int64{1, 1}, []int64{0, 0}},
		{1, []int64{1, 3}, []int64{0, 1}},
		{8 * s, []int64{1 << 40, 3 << 40}, []int64{2, 6}},
		{10 * s, []int64{1, 0, 1}, []int64{5, 0, 5}},
		{3 * s, []int64{0, 0}, []int64{2, 1}},
		{7 * s, []int64{1, 1, 1}, []int64{3, 2, 2}},
	} {
		got := Share(c.size, s, c.parts)
		for i := range got {
			got[i] /= s
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("Share(%d, %v) = %v stripes, want %v", c.size, c.parts, got, c.want)
		}
	}
	rnd := rand.New(rand.NewPCG(5, 6))
	for range 2000 {
		parts, total := make([]int64, 1+rnd.IntN(6)), int64(0)
		for i := range parts {
			parts[i] = rnd.Int64N(1 << 44)
			total += parts[i]
		}
		size, sum := rnd.Int64N(1<<45), int64(0)
		for i, n := range Share(size, s, parts) {
			if exact := float64(size) * float64(parts[i]) / float64(total); float64(n) < exact-2*s || float64(n) > exact+2*s {
				t.Fatalf("Share(%d, %v): %d for member %d, want about %.0f", size, parts, n, i, exact)
			}
			sum += n
		}
		if want := (size + s - 1) / s * s; sum != want {
			t.Fatalf("Share(%d, %v): %d together, want %d", size, parts, sum, want)
		}
	}
}

func BenchmarkAt(b *testing.B) {
	l, err := New(DefaultSize, []Member{{Size: 1 << 40}, {Size: 1 << 41}, {Size: 1 << 40}, {Size: 1 << 42}})
	if err != nil {
		b.Fatal(err)
	}
	off := int64(0)
	for b.Loop() {
		off = (off + 123456789) % l.Size()
		l.At(off)
	}
}
