package blobstore

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"skylun/block"
)

// dealt says byte by byte where an image's bytes are: stripes are dealt in turn.
func dealt(size, stripe, parts int64) (part []int, at []int64) {
	for off := range size {
		row, in := off/(stripe*parts), off%(stripe*parts)
		part, at = append(part, int(in/stripe)), append(at, row*stripe+in%stripe)
	}
	return part, at
}

func geometryOf(t *testing.T, size, stripe int64, parts int) geometry {
	t.Helper()
	g, err := newGeometry(size, stripe, parts)
	if err != nil {
		t.Fatal(err)
	}
	return g
}

func TestGeometry(t *testing.T) {
	const stripe = 4096
	for _, c := range []struct {
		size  int64
		parts int
	}{{5 * stripe, 1}, {7*stripe + 100, 3}, {8 * stripe, 4}, {8*stripe + 1, 4}, {8*stripe - 1, 4}, {3*stripe + 512, 4}, {25 * stripe, 5}} {
		g := geometryOf(t, c.size, stripe, c.parts)
		part, at := dealt(c.size, stripe, int64(c.parts))
		counts := make([]int64, c.parts)
		for off := int64(0); off <= c.size; off++ {
			for i := range c.parts {
				if got := g.share(i, off); got != counts[i] {
					t.Fatalf("%+v: part %d has %d of the first %d bytes, want %d", c, i, got, off, counts[i])
				}
			}
			if off == c.size {
				break
			}
			if got := g.position(part[off], at[off]); got != off {
				t.Fatalf("%+v: byte %d of part %d is at %d, want %d", c, at[off], part[off], got, off)
			}
			counts[part[off]]++
		}
		if !slices.Equal(g.sizes, counts) {
			t.Errorf("%+v: parts of %v, want %v", c, g.sizes, counts)
		}
		rnd := rand.New(rand.NewPCG(uint64(c.size), 1))
		for range 200 {
			off := rnd.Int64N(c.size)
			p := make([]byte, rnd.Int64N(c.size-off)+1)
			seen := map[int]bool{}
			for _, s := range g.split(p, off) {
				if seen[s.part] || len(s.pieces) == 0 {
					t.Fatalf("%+v: part %d has two slices of %d+%d, or an empty one", c, s.part, off, len(p))
				}
				seen[s.part] = true
				pos := s.off
				for _, piece := range s.pieces {
					for k := range piece {
						piece[k] = byte(g.position(s.part, pos)%251) + 1
						pos++
					}
				}
				if want := g.within(s.part, block.Range{Off: off, End: off + int64(len(p))}); s.off != want.Off || pos != want.End {
					t.Fatalf("%+v: %d+%d in part %d is [%d,%d), want %v", c, off, len(p), s.part, s.off, pos, want)
				}
			}
			for k := range p {
				if p[k] != byte((off+int64(k))%251)+1 {
					t.Fatalf("%+v: byte %d of %d+%d belongs to another part", c, k, off, len(p))
				}
			}
		}
	}
}

func TestSkip(t *testing.T) {
	for n := range int64(7) {
		a, b, c := []byte("ab"), []byte("c"), []byte("def")
		got := bytes.Join(skip([][]byte{a, b, c}, n), nil)
		if want := "abcdef"[n:]; string(got) != want {
			t.Errorf("skip %d leaves %q, want %q", n, got, want)
		}
	}
}

// sparse is the content of a part with data in ranges.
type sparse []block.Range

func (s sparse) readAt(context.Context, []byte, int64) error     { return nil }
func (s sparse) readInto(context.Context, [][]byte, int64) error { return nil }
func (s sparse) dataRanges(_ context.Context, in block.Range, f func(block.Range) error) error {
	for _, r := range s {
		if r.Intersect(in).Empty() {
			continue
		}
		if err := f(r); err != nil { // possibly beyond in
			return err
		}
	}
	return nil
}

// The ranges of parts become those of the image, whatever they are.
func TestStripedDataRanges(t *testing.T) {
	seed := rand.Uint64()
	t.Log("seed", seed)
	rnd := rand.New(rand.NewPCG(seed, 0))
	for range 300 {
		const stripe = 4096
		n := 1 + rnd.IntN(5)
		g := geometryOf(t, int64(n)*stripe+1+rnd.Int64N(stripe*int64(n)*8), stripe, n)
		data := make([]bool, g.size)
		c := &stripedContent{geometry: g}
		for i := range n {
			var s sparse
			n := g.sizes[i]
			for off := rnd.Int64N(4); off < n; {
				end := min(n, off+1+rnd.Int64N(stripe*4))
				s = append(s, block.Range{Off: off, End: end})
				for ; off < end; off++ {
					data[g.position(i, off)] = true
				}
				off += rnd.Int64N(stripe * 3) // perhaps none: neighbours
			}
			c.contents = append(c.contents, s)
		}
		in := block.Range{Off: rnd.Int64N(g.size)}
		in.End = in.Off + 1 + rnd.Int64N(g.size-in.Off)
		got := make([]bool, g.size)
		last := int64(-1)
		err := c.dataRanges(t.Context(), in, func(r block.Range) error {
			if r.Off < last || r.Empty() || r.Intersect(in) != r {
				t.Fatalf("%d bytes in %d: range %v of %v after %d", g.size, n, r, in, last)
			}
			last = r.End
			for ; r.Off < r.End; r.Off++ {
				got[r.Off] = true
			}
			return nil
		})
		if err != nil || !slices.Equal(got[in.Off:in.End], data[in.Off:in.End]) {
			t.Fatalf("%d bytes in %d: wrong ranges of %v, error %v", g.size, n, in, err)
		}
		stop := errors.New("stop")
		if slices.Contains(data[in.Off:in.End], true) {
			if err := c.dataRanges(t.Context(), in, func(block.Range) error { return stop }); err != stop {
				t.Fatalf("dataRanges: %v, want the error of the call", err)
			}
		}
	}
}

// A part that fails makes all of it fail.
func TestStripedDataRangesFail(t *testing.T) {
	broken := errors.New("broken")
	c := &stripedContent{geometry: geometryOf(t, 1<<20, 4096, 2),
		contents: []partContent{sparse{{Off: 0, End: 1 << 19}}, failing{broken}}}
	err := c.dataRanges(t.Context(), block.Range{Off: 0, End: 1 << 20}, func(block.Range) error { return nil })
	if err != broken {
		t.Errorf("dataRanges: %v, want the error of the part", err)
	}
}

type failing struct{ err error }

func (f failing) readAt(context.Context, []byte, int64) error     { return f.err }
func (f failing) readInto(context.Context, [][]byte, int64) error { return f.err }
func (f failing) dataRanges(context.Context, block.Range, func(block.Range) error) error {
	return f.err
}

// What an import left at any point before its manifest is seen by nobody, and
// the next one goes on. What others leave behind is cleared away.
func TestStripedUploadLeftBehind(t *testing.T) {
	backends(t, func(t *testing.T, s striperStore, parts func() []string) {
		const size = 1 << 20
		st := Striping{Parts: 4, Size: 64 << 10}
		want := pattern(size)
		invisible := func(when string) {
			t.Helper()
			if _, err := s.Stat(t.Context(), "a"); !errors.Is(err, ErrNotFound) {
				t.Errorf("%s: Stat: %v, want ErrNotFound", when, err)
			}
			if infos, err := s.List(t.Context()); err != nil || len(infos) != 0 {
				t.Errorf("%s: List: %v, %v", when, infos, err)
			}
		}
		begin := func(st Striping, source string) *stripedUpload {
			t.Helper()
			u, err := s.CreateStriped(t.Context(), "a", size, source, st)
			if err != nil {
				t.Fatal(err)
			}
			return u.(*stripedUpload)
		}
		u := begin(st, "src")
		if err := errors.Join(u.WriteAt(t.Context(), want[:size/2], 0), u.Checkpoint(t.Context(), size/2), u.Close()); err != nil {
			t.Fatal(err)
		}
		invisible("half of it stored")
		u = begin(st, "src")
		if n := u.Stored(); n != size/2 {
			t.Errorf("Stored = %d, want %d", n, size/2)
		}
		if err := u.WriteAt(t.Context(), want[size/2:], size/2); err != nil {
			t.Fatal(err)
		}
		for _, p := range u.objects {
			if _, err := p.seal(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		if err := u.Close(); err != nil {
			t.Fatal(err)
		}
		invisible("all parts sealed")
		if n := len(parts()); n != 4 {
			t.Errorf("%d parts, want 4", n)
		}

		// Another layout, or no stripes, begins anew and leaves no part over.
		u = begin(Striping{Parts: 2, Size: 64 << 10}, "src")
		if n := u.Stored(); n != 0 {
			t.Errorf("Stored = %d in another layout, want 0", n)
		}
		if n := len(parts()); n != 2 {
			t.Errorf("%d parts, want 2: %v", n, parts())
		}
		if err := u.Close(); err != nil {
			t.Fatal(err)
		}
		plain, err := s.Create(t.Context(), "a", size, "src")
		if err != nil {
			t.Fatal(err)
		}
		if n := len(parts()); n != 0 || plain.Stored() != 0 {
			t.Errorf("%d parts, %d bytes stored, want none", n, plain.Stored())
		}
		if err := plain.Close(); err != nil {
			t.Fatal(err)
		}

		u = begin(st, "src")
		if err := u.WriteAt(t.Context(), want, 0); err != nil {
			t.Fatal(err)
		}
		info, err := u.Commit(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		got := make([]byte, size)
		if err := s.Image(info).ReadAt(t.Context(), got, 0); err != nil || !bytes.Equal(got, want) {
			t.Errorf("wrong content, error %v", err)
		}
		if info.Striping() != st {
			t.Errorf("Striping = %+v, want %+v", info.Striping(), st)
		}
		if err := s.Delete(t.Context(), "a"); err != nil {
			t.Error(err)
		}
		if n := len(parts()); n != 0 {
			t.Errorf("%d parts after Delete", n)
		}
		if err := s.Image(info).ReadAt(t.Context(), got, 0); !errors.Is(err, block.ErrMedium) {
			t.Errorf("ReadAt after Delete: %v, want ErrMedium", err)
		}
		invisible("deleted")

		u = begin(st, "src")
		if err := errors.Join(u.WriteAt(t.Context(), want, 0), u.Abort(t.Context())); err != nil {
			t.Fatal(err)
		}
		if n := len(parts()); n != 0 {
			t.Errorf("%d parts after Abort", n)
		}
		invisible("aborted")
	})
}

// A part that was changed or is missing is named.
func TestStripedImageDamaged(t *testing.T) {
	backends(t, func(t *testing.T, s striperStore, parts func() []string) {
		const size = 1 << 20
		upload := func() Info {
			t.Helper()
			u, err := s.CreateStriped(t.Context(), "a", size, "", Striping{Parts: 4, Size: 64 << 10})
			if err != nil {
				t.Fatal(err)
			}
			defer u.Close()
			if err := u.WriteAt(t.Context(), pattern(size), 0); err != nil {
				t.Fatal(err)
			}
			info, err := u.Commit(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			return info
		}
		for _, c := range []struct {
			says   string
			damage func(name string)
		}{
			{"was changed", s.change},
			{"is missing", s.lose},
		} {
			info := upload()
			c.damage(partName("a", 2))
			_, err := s.Stat(t.Context(), "a")
			if !errors.Is(err, ErrChanged) || !strings.Contains(err.Error(), "part 2 of 4") || !strings.Contains(err.Error(), c.says) {
				t.Errorf("Stat: %v, want ErrChanged that says part 2 %s", err, c.says)
			}
			if infos, err := s.List(t.Context()); err != nil || len(infos) != 0 {
				t.Errorf("List: %v, %v, want it left out", infos, err)
			}
			m := s.Image(info)
			err = m.ReadAt(t.Context(), make([]byte, size), 0)
			if !errors.Is(err, block.ErrMedium) || !errors.Is(err, ErrChanged) && !errors.Is(err, ErrNotFound) || !strings.Contains(err.Error(), "part 2 of 4") && !strings.Contains(err.Error(), partName("a", 2)) {
				t.Errorf("ReadAt: %v, want an error of part 2", err)
			}
			if err := m.ReadAt(t.Context(), make([]byte, 4096), 0); err != nil { // part 0 is as it was
				t.Errorf("ReadAt of another part: %v", err)
			}
			err = m.DataRanges(t.Context(), block.Range{End: size}, func(block.Range) error { return nil })
			if !errors.Is(err, block.ErrMedium) {
				t.Errorf("DataRanges: %v, want ErrMedium", err)
			}
			if err := s.Delete(t.Context(), "a"); err != nil {
				t.Error(err)
			}
			if n := len(parts()); n != 0 {
				t.Errorf("%d parts after Delete", n)
			}
		}
	})
}

// A crash of Delete between manifest and parts leaves parts that the next
// Delete removes.
func TestStripedDeleteCrash(t *testing.T) {
	backends(t, func(t *testing.T, s striperStore, parts func() []string) {
		u, err := s.CreateStriped(t.Context(), "a", 1<<20, "src", Striping{Parts: 4, Size: 64 << 10})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := u.Commit(t.Context()); err != nil {
			t.Fatal(err)
		}
		s.lose("a")
		if err := s.Delete(t.Context(), "a"); err != nil {
			t.Error(err)
		}
		if n := len(parts()); n != 0 {
			t.Errorf("%d parts are left", n)
		}
		if err := s.Delete(t.Context(), "a"); !errors.Is(err, ErrNotFound) {
			t.Errorf("Delete again: %v, want ErrNotFound", err)
		}
	})
}

// striperStore is a store of either kind, and what may happen to its objects.
type striperStore struct {
	Store
	change func(name string)
	lose   func(name string)
}

// backends runs a test on a directory and on a fake of Azure.
func backends(t *testing.T, f func(t *testing.T, s striperStore, parts func() []string)) {
	t.Run("file", func(t *testing.T) {
		s := openDir(t, filepath.Join(t.TempDir(), "blobs"))
		if err := os.MkdirAll(s.dir, 0o755); err != nil {
			t.Fatal(err)
		}
		f(t, striperStore{s,
			func(name string) {
				if err := os.WriteFile(s.path(name), make([]byte, 1<<18), 0o600); err != nil {
					t.Fatal(err)
				}
			},
			func(name string) {
				if err := os.Remove(s.path(name)); err != nil {
					t.Fatal(err)
				}
			},
		}, func() []string {
			found, _ := filepath.Glob(filepath.Join(s.dir, stripesDir, "*", "*[0-9]"))
			return found
		})
	})
	t.Run("azure", func(t *testing.T) {
		fake, s := newFake(t, Config{})
		f(t, striperStore{s,
			func(name string) {
				fake.mu.Lock()
				defer fake.mu.Unlock()
				fake.touch(fake.blobs[name])
			},
			func(name string) {
				fake.mu.Lock()
				defer fake.mu.Unlock()
				delete(fake.blobs, name)
			},
		}, func() (found []string) {
			fake.mu.Lock()
			defer fake.mu.Unlock()
			for name := range fake.blobs {
				if isPart(name) {
					found = append(found, name)
				}
			}
			return found
		})
	})
}

// An image of more than one blob can hold is imported from a sparse file, and
// only its data moves.
func TestImportBeyondOneBlob(t *testing.T) {
	const size = 9 << 40
	src := filepath.Join(t.TempDir(), "huge.img")
	f, err := os.Create(src)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(size); err != nil {
		t.Skipf("no sparse file of %d bytes here: %v", int64(size), err)
	}
	data := map[int64][]byte{0: pattern(4096), 5<<40 - 4096: pattern(8192), size - 8192: pattern(8192)}
	for off, p := range data {
		if _, err := f.WriteAt(p, off); err != nil {
			t.Fatal(err)
		}
	}
	backends(t, func(t *testing.T, s striperStore, _ func() []string) {
		if _, azure := s.Store.(*azureStore); azure {
			_, err := Import(t.Context(), s, src, "a", ImportOptions{})
			if !errors.Is(err, ErrFormat) || !strings.Contains(err.Error(), "with 2 stripes or more") {
				t.Errorf("Import into one blob: %v, want ErrFormat that says how many stripes", err)
			}
		}
		info, err := Import(t.Context(), s, src, "a", ImportOptions{Striping: Striping{Parts: 2, Size: 1 << 20}})
		if err != nil {
			t.Fatal(err)
		}
		if info.Size != size || info.BlobSize != size {
			t.Errorf("Info = %+v, want %d bytes", info, int64(size))
		}
		if n := s.Stats().PutBytes; n > 64<<10 {
			t.Errorf("%d bytes were stored", n)
		}
		m := s.Image(info)
		for off, want := range data {
			got := make([]byte, len(want))
			if err := m.ReadAt(t.Context(), got, off); err != nil || !bytes.Equal(got, want) {
				t.Errorf("read at %d: wrong bytes, error %v", off, err)
			}
		}
		var total int64
		err = m.DataRanges(t.Context(), block.Range{End: size}, func(r block.Range) error {
			total += r.Len()
			return nil
		})
		if err != nil || total < 20480 || total > 1<<20 {
			t.Errorf("%d bytes of data, error %v", total, err)
		}
	})
}

// While the import of an image is under way by one, another one cannot begin,
// striped or not, nor can it be deleted.
func TestStripedUploadKeepsOthersOut(t *testing.T) {
	s := openDir(t, filepath.Join(t.TempDir(), "blobs"))
	u, err := s.CreateStriped(t.Context(), "a", 1<<20, "src", Striping{Parts: 4, Size: 64 << 10})
	if err != nil {
		t.Fatal(err)
	}
	defer u.Close()
	if _, err := s.CreateStriped(t.Context(), "a", 1<<20, "src", Striping{Parts: 4, Size: 64 << 10}); !errors.Is(err, ErrBusy) {
		t.Errorf("CreateStriped: %v, want ErrBusy", err)
	}
	if _, err := s.Create(t.Context(), "a", 1<<20, "src"); !errors.Is(err, ErrBusy) {
		t.Errorf("Create: %v, want ErrBusy", err)
	}
	if err := s.Delete(t.Context(), "a"); !errors.Is(err, ErrBusy) {
		t.Errorf("Delete: %v, want ErrBusy", err)
	}
	if _, err := u.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// An import over a store that fails now and then ends with the image it should.
func TestStripedImportOverBadStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, s := newFake(t, Config{})
		f.setFault(func(w http.ResponseWriter, r *http.Request, kind string, n int) bool {
			switch n % 7 {
			case 3:
				fail(w, 503, "ServerBusy")
				return true
			case 5: // done, but the answer is lost
				rec := &lostAnswer{header: http.Header{}}
				f.serve(rec, r)
				panic(http.ErrAbortHandler)
			}
			return false
		})
		want := pattern(3 << 20)
		src := filepath.Join(t.TempDir(), "src")
		if err := os.WriteFile(src, want, 0o600); err != nil {
			t.Fatal(err)
		}
		info, err := Import(t.Context(), s, src, "a", ImportOptions{Striping: Striping{Parts: 4, Size: 64 << 10}})
		if err != nil {
			t.Fatal(err)
		}
		got := make([]byte, len(want))
		if err := s.Image(info).ReadAt(t.Context(), got, 0); err != nil || !bytes.Equal(got, want) {
			t.Errorf("wrong content, error %v", err)
		}
		if n := f.unpinned(); n != 0 {
			t.Errorf("%d reads did not name the content they want", n)
		}
	})
}

type lostAnswer struct{ header http.Header }

func (l *lostAnswer) Header() http.Header         { return l.header }
func (l *lostAnswer) Write(p []byte) (int, error) { return len(p), nil }
func (l *lostAnswer) WriteHeader(int)             {}
