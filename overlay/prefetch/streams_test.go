package prefetch

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"skylun/block"
)

var update = flag.Bool("update", false, "write the golden files anew")

// golden compares what a test has found with a file.
func golden(t *testing.T, file string, got []byte) {
	t.Helper()
	if *update {
		if err := os.WriteFile(file, got, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		a, b := strings.Split(string(got), "\n"), strings.Split(string(want), "\n")
		i := 0
		for i < min(len(a), len(b)) && a[i] == b[i] {
			i++
		}
		t.Errorf("%s: line %d is %q, want %q; if that is better, run with -update", file, i+1, a[min(i, len(a)-1)], b[min(i, len(b)-1)])
	}
}

// world is an image of which some is local, in a model: what is asked for is
// there when the next read comes.
type world struct {
	size  int64
	local []bool // blocks
	ahead map[int64]bool
	seen  map[int64]bool
}

func newWorld(size int64) *world {
	return &world{size: size, local: make([]bool, size/block.Size), ahead: map[int64]bool{}, seen: map[int64]bool{}}
}

func (w *world) bring(r block.Range, ahead bool) (n int64) {
	r = r.Intersect(block.Range{Off: 0, End: w.size})
	for b := r.Off / block.Size; b < block.Ceil(r.End, block.Size)/block.Size; b++ {
		if !w.local[b] {
			w.local[b] = true
			n += block.Size
			if ahead {
				w.ahead[b] = true
			}
		}
	}
	return n
}

func (w *world) read(off, n int64) (waited bool) {
	for b := off / block.Size; b < block.Ceil(off+n, block.Size)/block.Size; b++ {
		waited = waited || !w.local[b]
		w.seen[b] = true
	}
	return waited
}

// TestStreamsRecorded says what is fetched ahead of reads that were recorded,
// and how well that serves them.
func TestStreamsRecorded(t *testing.T) {
	files, err := filepath.Glob("testdata/streams/*.reads")
	if err != nil || len(files) < 5 {
		t.Fatal(files, err)
	}
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".reads")
		t.Run(name, func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			var out bytes.Buffer
			w := newWorld(64 << 20)
			s := &Streams{spare: Unbounded}
			reads, waits, fetched := 0, 0, int64(0)
			for line := range strings.Lines(string(text)) {
				var off, n int64
				if strings.HasPrefix(line, "#") {
					continue
				}
				if _, err := fmt.Sscan(line, &off, &n); err != nil {
					t.Fatalf("%q: %v", line, err)
				}
				reads++
				waited := w.read(off, n)
				if waited {
					waits++
					w.bring(block.Range{Off: off, End: off + n}.Outward(sizeFirst), false)
				}
				a, ok := s.Read(off, n, waited)
				if !ok {
					continue
				}
				fmt.Fprintf(&out, "%4d  read %d+%d  ahead %d+%d", reads, off>>10, n>>10, a.First.Off>>10, a.First.Len()>>10)
				if a.Count > 1 {
					fmt.Fprintf(&out, ", %d times every %d", a.Count, a.Every>>10)
				}
				fmt.Fprintln(&out, " KiB")
				for r, i := a.First, 0; i < a.Count; i++ {
					fetched += w.bring(r, true)
					r.Off, r.End = r.Off+a.Every, r.End+a.Every
				}
			}
			unused := int64(0)
			for b := range w.ahead {
				if !w.seen[b] {
					unused += block.Size
				}
			}
			fmt.Fprintf(&out, "%d reads, %d waited, %d KiB fetched ahead, %d KiB of it not read\n", reads, waits, fetched>>10, unused>>10)
			golden(t, strings.TrimSuffix(file, ".reads")+".golden", out.Bytes())

			limit, ok := map[string]struct{ waits, unused float64 }{ // shares
				"convert": {0.07, 0.01}, "mixed": {0.12, 0.25}, "reordered": {0.1, 0.5}, "backward": {0.1, 0.5},
				"random": {1, 1}, "interleaved": {0.3, 0.5},
			}[name]
			if !ok {
				t.Fatal("no limits for this file")
			}
			if float64(waits) > limit.waits*float64(reads) {
				t.Errorf("%d of %d reads waited", waits, reads)
			}
			if float64(unused) > limit.unused*float64(fetched) {
				t.Errorf("%d of %d bytes were fetched for nothing", unused, fetched)
			}
			if name == "random" && fetched > int64(reads)*block.Size/10 {
				t.Errorf("%d bytes were fetched ahead of random reads", fetched)
			}
		})
	}
}

// TestStreamsWaste makes windows small after streams that end early, and large
// again after others.
func TestStreamsWaste(t *testing.T) {
	s := &Streams{spare: Unbounded}
	s.SetWindow(8 << 20)
	largest := func(from int64, reads int) (most int64) {
		for i := range int64(reads) {
			if a, ok := s.Read(from+i*64<<10, 64<<10, i < 2); ok {
				most = max(most, a.First.End-(from+(i+1)*64<<10))
			}
		}
		return most
	}
	at := int64(0)
	next := func() int64 { at += 1 << 32; return at }
	if n := largest(next(), 400); n != 8<<20 {
		t.Errorf("a window became %d", n)
	}
	for range 6 * streamCount { // each jumps away in the middle of its window
		largest(next(), 3)
	}
	if n := largest(next(), 400); n >= 8<<20 {
		t.Errorf("a window became %d after streams that were not read to their end", n)
	}
	// Each of these reads all that is fetched ahead of it, but for a little at its end.
	for range 6 * streamCount {
		largest(next(), 1000)
	}
	if n := largest(next(), 400); n != 8<<20 {
		t.Errorf("a window became %d after streams that were", n)
	}
}

// TestStreamsSpare: files that are read from start to end, short ones and some
// that are not, leave little behind that was fetched ahead of them in vain; a long
// one soon has the link full nevertheless.
func TestStreamsSpare(t *testing.T) {
	const full, size = 4 << 20, 1 << 31
	rnd := newSim(3, store{}).rnd
	w, s := newWorld(size), &Streams{}
	s.SetWindow(32 << 20)
	read, open, most := int64(0), int64(0), int64(0)
	file := func(off, length int64) (window int64) {
		for end := off + length; off < end; off += 64 << 10 {
			n := min(64<<10, end-off)
			waited := w.read(off, n)
			met := int64(0)
			for b := off / block.Size; b < (off+n)/block.Size; b++ {
				if w.ahead[b] {
					delete(w.ahead, b)
					met += block.Size
				}
			}
			open -= met
			read += met + w.bring(block.Range{Off: off, End: off + n}, false)
			s.SetSpare(SpareAhead(read, open, full), full)
			if a, ok := s.Read(off, n, waited); ok && a.Every == 0 {
				open += w.bring(a.First, true)
				window = a.First.End - (off + n)
				most = max(most, open-SpareAhead(read, 0, full))
			}
		}
		return window
	}
	at := int64(0)
	for range 100 {
		length := int64(4096) << rnd.IntN(11)
		file(at, length)
		at += length + 2<<20
	}
	if most > 2*block.Size || open > read/10 {
		t.Errorf("%d bytes were fetched ahead of short files in vain, %d too many once, %d were read", open, most, read)
	}
	if window := file(at, 128<<20); window < full {
		t.Errorf("the window of a long file became %d", window)
	}
}

// TestStreamsLastFirst: readers with several reads in flight, which end last first
// each time, read forward.
func TestStreamsLastFirst(t *testing.T) {
	for _, n := range []int64{4 << 10, 64 << 10, 256 << 10} {
		for _, flight := range []int64{2, 3, 8, 16} {
			w, s := newWorld(1<<31), &Streams{spare: Unbounded}
			s.SetWindow(streamMost)
			waited, reads := int64(0), flight*64
			for first := int64(0); first < reads; first += flight {
				for i := flight - 1; i >= 0; i-- {
					off := (first + i) * n
					missed := w.read(off, n)
					if missed {
						waited++
					}
					w.bring(block.Range{Off: off, End: off + n}, false)
					if a, ok := s.Read(off, n, missed); ok && a.Every == 0 {
						w.bring(a.First, true)
					}
				}
			}
			if waited > 10*flight { // until the window has grown
				t.Errorf("%d KiB, %d in flight: %d of %d reads waited", n>>10, flight, waited, reads)
			}
		}
	}
}

// TestStreamsBounds never lets a window get out of hand, whatever is read.
func TestStreamsBounds(t *testing.T) {
	rnd := newSim(5, store{}).rnd
	s := &Streams{spare: Unbounded}
	s.SetWindow(1 << 40)
	for i := range 200000 {
		off, n := rnd.Int64N(1<<28)/512*512, (1+rnd.Int64N(256))*512
		if i%3 > 0 {
			off = int64(i) * n % (1 << 28)
		}
		a, ok := s.Read(off, n, rnd.IntN(2) == 0)
		if !ok {
			continue
		}
		if a.Count < 1 || a.Count > strideReads || a.First.Empty() || a.First.Len() > 2*streamMost || a.Count > 1 && a.Every == 0 {
			t.Fatalf("read %d+%d: %+v", off, n, a)
		}
	}
}

func TestStreamsAllocateNothing(t *testing.T) {
	s := &Streams{spare: Unbounded}
	off := int64(0)
	if n := testing.AllocsPerRun(1000, func() {
		s.Read(off, 4096, off%3 == 0)
		off += 4096
		if off%(1<<18) == 0 {
			off += 1 << 22
		}
	}); n != 0 {
		t.Errorf("%v allocations for a read", n)
	}
}

// TestOrder fills images in which anything is local, under way or empty, in all
// combinations: each block is asked for once, what is wanted first comes first.
func TestOrder(t *testing.T) {
	const blocks = 8
	for states := range 1 << blocks { // bit set: nothing to fetch there
		for profile := range blocks {
			for missed := -1; missed < blocks; missed++ {
				o := NewOrder(blocks * block.Size)
				o.SetProfile([]block.Range{{Off: int64(profile) * block.Size, End: int64(profile+2) * block.Size}})
				if missed >= 0 {
					o.Missed(int64(missed) * block.Size)
				}
				here := states
				find := func(in block.Range) (block.Range, bool) {
					for b := in.Off / block.Size; b*block.Size < in.End; b++ {
						if here>>b&1 == 0 {
							end := b
							for end*block.Size < in.End && here>>end&1 == 0 {
								end++
							}
							return block.Range{Off: b * block.Size, End: min(end*block.Size, in.End)}, true
						}
					}
					return block.Range{}, false
				}
				var order []int
				for {
					r, ok := o.Next(2*block.Size, false, find)
					if !ok {
						break
					}
					if r.Empty() || r.Len() > 2*block.Size || r.End > blocks*block.Size {
						t.Fatalf("states %b: %v", states, r)
					}
					for b := r.Off / block.Size; b*block.Size < r.End; b++ {
						if here>>b&1 != 0 {
							t.Fatalf("states %b: block %d twice, or in vain", states, b)
						}
						here |= 1 << b
						order = append(order, int(b))
					}
				}
				if here != 1<<blocks-1 {
					t.Fatalf("states %b: %b is missing", states, ^here)
				}
				first := slices.DeleteFunc([]int{profile, profile + 1}, func(b int) bool { return b >= blocks || states>>b&1 != 0 })
				if !slices.Equal(order[:len(first)], first) {
					t.Fatalf("states %b: in the order %v, not first %v", states, order, first)
				}
			}
		}
	}
}

// TestOrderNear goes on near to what readers had to wait for, the latest
// first.
func TestOrderNear(t *testing.T) {
	o := NewOrder(1 << 40)
	local := map[int64]bool{}
	find := func(in block.Range) (block.Range, bool) {
		for off := in.Off; off < in.End; off += 1 << 20 {
			if !local[off] {
				return block.Range{Off: off, End: off + 1<<20}, true
			}
		}
		return block.Range{}, false
	}
	o.Missed(100<<30 + 5<<20)
	o.Missed(300 << 30)
	o.Missed(300<<30 + 4096)
	var got []int64
	for range 10 {
		r, ok := o.Next(1<<20, false, find)
		if !ok {
			t.Fatal("nothing left")
		}
		local[r.Off] = true
		got = append(got, r.Off>>20)
	}
	want := []int64{300 << 10, 300<<10 + 1, 300<<10 + 2, 300<<10 + 3, 100<<10 + 4, 100<<10 + 5, 100<<10 + 6, 100<<10 + 7, 0, 1}
	if !slices.Equal(got, want) {
		t.Errorf("in the order %v, want %v", got, want)
	}
	for i := range int64(10 * nearKept) { // only so many are remembered
		o.Missed(i << 30)
	}
	if r, ok := o.Next(1<<20, false, find); !ok || r.Off != (10*nearKept-1)<<30 {
		t.Errorf("next %v %v", r, ok)
	}
	if o.Urgent() {
		t.Error("urgent without a profile")
	}
}
