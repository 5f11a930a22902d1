package overlay

import (
	"bytes"
	"math/rand/v2"
	"testing"

	"skylun/block"
	"skylun/test/devicetest"
	"skylun/test/memdev"
)

// TestKilled kills the process after each of random operations: everything
// that was answered is there when the volume is opened again, and still there
// after a flush and a power cut.
func TestKilled(t *testing.T) {
	rnd := rand.New(rand.NewPCG(devicetest.Seed(t), 1))
	const size = 300*block.Size + 512
	image := pattern(200 * block.Size)
	cache := func() *Cache {
		c, err := OpenCache(CacheConfig{Name: "image", Image: memdev.Of(image), File: newMemFile(200 * block.Size), Map: &memMap{}})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return c
	}
	for _, base := range []*Cache{nil, cache()} {
		model := make([]byte, size)
		if base != nil {
			copy(model, image)
		}
		file, notes, disk := newMemFile(block.Ceil(size, block.Size)), newMemFile(NotesSize(size)), &memMap{}
		open := func(boot string) *Volume {
			v, err := openSingle(single{Name: "v", Size: size, File: file, Map: disk, Base: base, Notes: notes, Boot: boot})
			if err != nil {
				t.Fatal(err)
			}
			return v
		}
		check := func(v *Volume, when string) {
			t.Helper()
			got := make([]byte, size)
			if err := v.ReadAt(t.Context(), got, 0); err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got, model) {
				t.Fatalf("%s: some bytes are not what was answered", when)
			}
		}
		v := open("first")
		for i := range 120 {
			off := rnd.Int64N(size - 1)
			n := min(size-off, 1+rnd.Int64N(5*block.Size))
			var err error
			switch rnd.IntN(5) {
			case 0, 1:
				p := bytes.Repeat([]byte{byte(i + 1)}, int(n))
				copy(model[off:], p)
				err = v.WriteAt(t.Context(), p, off)
			case 2:
				clear(model[off : off+n])
				err = v.Discard(t.Context(), off, n)
			case 3:
				err = v.Flush(t.Context())
			case 4: // another process takes over; the old one is never heard of again
				v.top().commits.close()
				file, notes = file.killed(), notes.killed()
				v = open("first")
			}
			if err != nil {
				t.Fatal(err)
			}
			check(v, "after an operation")
		}
		v.top().commits.close()
		v = open("first")
		if err := v.Flush(t.Context()); err != nil { // of what only the notes tell
			t.Fatal(err)
		}
		v.top().commits.close()
		file, notes = file.cut(rnd), notes.cut(rnd)
		check(open("second"), "after a flush and a power cut")
	}
}
