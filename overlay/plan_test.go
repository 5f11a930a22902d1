package overlay

import (
	"bytes"
	"sync"
	"testing"

	"skylun/block"
	"skylun/test/memdev"
)

// TestPlan reads an image whose parts are absent, present or empty in all
// combinations. What is fetched is all that is absent, nothing of it twice,
// nothing that is empty, in as few requests as the parts in between allow; and
// after that nothing is absent.
func TestPlan(t *testing.T) {
	const part, parts = 32 << 10, 7
	data := pattern(part * parts)
	for i, n := 0, pow(3, parts); i < n; i++ {
		var states [parts]state
		content := bytes.Clone(data)
		file := newPlainFile(part * parts)
		image := &countingImage{Device: memdev.Of(content)}
		c, err := OpenCache(CacheConfig{Name: "image", Image: image, File: file, Map: &memMap{}})
		if err != nil {
			t.Fatal(err)
		}
		for j, x := 0, i; j < parts; j, x = j+1, x/3 {
			states[j] = state(x % 3)
			r := block.Range{Off: int64(j) * part, End: int64(j+1) * part}
			switch states[j] {
			case zero:
				clear(content[r.Off:r.End])
			case present:
				if err := file.WriteAt(data[r.Off:r.End], r.Off); err != nil {
					t.Fatal(err)
				}
			}
			if states[j] != absent {
				c.copy.fill(r, states[j])
			}
		}
		got := make([]byte, len(content))
		var readers sync.WaitGroup
		for range 2 { // the second one waits for the first one's fetches
			readers.Go(func() {
				p := make([]byte, len(content))
				if err := c.ReadAt(t.Context(), p, 0); err != nil {
					t.Error(err)
				}
				if !bytes.Equal(p, content) {
					t.Errorf("%v: wrong bytes", states)
				}
			})
		}
		readers.Wait()
		if err := c.ReadAt(t.Context(), got, 0); err != nil {
			t.Fatal(err)
		}
		want, run := 0, -1 // requests; where the last absent part was
		for j, s := range states {
			switch {
			case s == zero:
				run = -1
			case s == absent && (run < 0 || j-run-1 > joinOver/part):
				want++
				run = j
			case s == absent:
				run = j
			}
		}
		taken := image.taken()
		if len(taken) != want {
			t.Errorf("%v: %d requests, want %d: %v", states, len(taken), want, taken)
		}
		for j, s := range states {
			n := 0
			for _, r := range taken {
				if !r.Intersect(block.Range{Off: int64(j) * part, End: int64(j+1) * part}).Empty() {
					n++
				}
			}
			if s == absent && n != 1 || s == zero && n > 0 || n > 1 {
				t.Errorf("%v: part %d was fetched %d times: %v", states, j, n, taken)
			}
		}
		if err := c.Close(); err != nil { // when all is stored
			t.Fatal(err)
		}
		if s := c.Stats(); s.Absent > 0 || s.Dropped > 0 {
			t.Errorf("%v: %+v", states, s)
		}
		if t.Failed() {
			return
		}
	}
}

func pow(x, n int) int {
	if n == 0 {
		return 1
	}
	return x * pow(x, n-1)
}
