package overlay

import (
	"bytes"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"

	"skylun/test/memdev"
)

// calls notes what is asked of a file and of a map, in order.
type calls struct {
	mu   sync.Mutex
	list []string // guarded by mu
}

func (c *calls) add(call string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.list = append(c.list, call)
	return nil
}

// take returns the calls since it was called last.
func (c *calls) take() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	list := c.list
	c.list = nil
	return list
}

// TestDiscardCosts: discarding and writing zeros cost a change of state, reading
// what was discarded costs nothing, and the space comes back only after the state
// is durable.
func TestDiscardCosts(t *testing.T) {
	const size = 64 << 20
	for _, over := range []string{"blank", "image"} {
		t.Run(over, func(t *testing.T) {
			var base *Cache
			image := &countingImage{Device: memdev.Of(pattern(size))}
			if over == "image" {
				var err error
				if base, err = OpenCache(CacheConfig{Name: "image", Image: image, File: newMemFile(size), Map: &memMap{}}); err != nil {
					t.Fatal(err)
				}
				defer base.Close()
			}
			var did calls
			file, notes, disk := newMemFile(size), newMemFile(NotesSize(size)), &memMap{}
			v, err := openSingle(single{Name: "v", Size: size, File: file, Map: disk, Notes: notes, Boot: "1", Base: base})
			if err != nil {
				t.Fatal(err)
			}
			defer closeAll(v)
			ctx := t.Context()
			if err := v.WriteAt(ctx, pattern(32<<20), 0); err != nil {
				t.Fatal(err)
			}
			if err := v.Flush(ctx); err != nil {
				t.Fatal(err)
			}
			file.failing = did.add
			disk.failing = did.add
			if err := v.Discard(ctx, 0, size); err != nil {
				t.Fatal(err)
			}
			if got := did.take(); len(got) > 0 {
				t.Errorf("discarding %d MiB calls %v", size>>20, got)
			}
			reads := func(when string) {
				t.Helper()
				did.take()
				p := bytes.Repeat([]byte{1}, 1<<20)
				for off := int64(0); off < size; off += 5 << 20 {
					if err := v.ReadAt(ctx, p, off+700); err != nil || !bytes.Equal(p, make([]byte, 1<<20)) {
						t.Errorf("%s: at %d not zeros, %v", when, off, err)
					}
					p[0] = 1
					if done, err := v.TryReadAt(p, off); !done || err != nil || !bytes.Equal(p, make([]byte, 1<<20)) {
						t.Errorf("%s: at %d not zeros, or it waits: %v, %v", when, off, done, err)
					}
				}
				if got := did.take(); len(got) > 0 || len(image.taken()) > 0 {
					t.Errorf("%s: reading zeros calls %v and fetches %v", when, got, image.taken())
				}
			}
			reads("discarded")
			if err := v.Flush(ctx); err != nil {
				t.Fatal(err)
			}
			v.top().commits.wait()
			got := did.take()
			appended, punched := slices.Index(got, "append"), slices.Index(got, "punch")
			if appended < 0 || punched < appended {
				t.Errorf("calls of the flush: %v, want the state first and then the hole", got)
			}
			reads("given back")
			if n := bytes.Count(file.now, []byte{0}); n != size {
				t.Errorf("%d bytes are still there", size-n)
			}
			// Once more: nothing is left to do.
			did.take()
			if err := v.Discard(ctx, 0, size); err != nil {
				t.Fatal(err)
			}
			if err := v.Flush(ctx); err != nil {
				t.Fatal(err)
			}
			v.top().commits.wait()
			if got := did.take(); len(got) > 0 {
				t.Errorf("discarding what is discarded calls %v", got)
			}
		})
	}
}

// TestDiscardWithoutFlush: a power cut before the state is durable finds the bytes
// where they were.
func TestDiscardWithoutFlush(t *testing.T) {
	const size = 1 << 20
	file, disk := newMemFile(size), &memMap{}
	v, err := openSingle(single{Name: "v", Size: size, File: file, Map: disk})
	if err != nil {
		t.Fatal(err)
	}
	defer closeAll(v)
	ctx := t.Context()
	data := pattern(size)
	if err := v.WriteAt(ctx, data, 0); err != nil {
		t.Fatal(err)
	}
	if err := v.Flush(ctx); err != nil {
		t.Fatal(err)
	}
	if err := v.Discard(ctx, 0, size); err != nil {
		t.Fatal(err)
	}
	for i := range uint64(20) {
		left := &memMap{extents: disk.durable()}
		w, err := openSingle(single{Name: "v", Size: size, File: file.cut(rand.New(rand.NewPCG(i, 1))), Map: left})
		if err != nil {
			t.Fatal(err)
		}
		got := make([]byte, size)
		if err := w.ReadAt(ctx, got, 0); err != nil || !bytes.Equal(got, data) {
			t.Fatalf("cut %d: the bytes are gone before the discard was flushed (%v)", i, err)
		}
		if err := closeAll(w); err != nil {
			t.Fatal(err)
		}
	}
}
