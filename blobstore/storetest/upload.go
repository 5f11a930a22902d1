package storetest

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"skylun/blobstore"
	"skylun/block"
)

func testUpload(t *testing.T, p Place) {
	s := open(t, p)
	const size = 9 << 20
	want := make([]byte, size)
	u := create(t, s, "new/a", size, "src")
	if n := u.Stored(); n != 0 {
		t.Errorf("Stored = %d, want 0", n)
	}
	put := func(off int64, data []byte) {
		copy(want[off:], data)
		write(t, u, data, off)
	}
	put(0, Random(512, 1))
	put(size-512, Random(512, 2))
	put(1<<20, Random(5<<20, 3)) // more than one request takes
	put(7<<20, make([]byte, 1<<20))
	must(t, u.WriteAt(t.Context(), nil, 0))
	requireInvisible(t, p, "new/a")
	must(t, u.Checkpoint(t.Context(), size))
	requireInvisible(t, p, "new/a")
	info, err := u.Commit(t.Context())
	must(t, err)
	must(t, u.Close())
	if got := stat(t, open(t, p), "new/a"); !same(got, info) || info.Size != size || info.BlobSize != size || info.Format != blobstore.Raw {
		t.Errorf("Commit says %+v, Stat %+v", info, got)
	}
	requireContent(t, open(t, p), info, want)
	if infos := list(t, s); len(infos) != 1 || !same(infos[0], info) {
		t.Errorf("List = %+v, want only %+v", infos, info)
	}
	if st := s.Stats(); st.PutBytes != 5<<20+1024 {
		t.Errorf("%d bytes stored, want those that are not zeros, %d", st.PutBytes, 5<<20+1024)
	}
}

func testUploadArguments(t *testing.T, p Place) {
	s := open(t, p)
	for _, size := range []int64{0, -512, 511, 513} {
		if _, err := s.Create(t.Context(), "a", size, ""); !errors.Is(err, blobstore.ErrFormat) {
			t.Errorf("Create of %d bytes: %v, want ErrFormat", size, err)
		}
	}
	u := create(t, s, "a", 4096, "")
	for _, w := range []struct{ off, n int64 }{{-512, 512}, {4096, 512}, {3584, 1024}, {100, 512}, {0, 100}} {
		if err := u.WriteAt(t.Context(), Random(int(w.n), 1), w.off); !errors.Is(err, block.ErrOutOfRange) {
			t.Errorf("WriteAt %d+%d: %v, want ErrOutOfRange", w.off, w.n, err)
		}
	}
}

func testUploadResumes(t *testing.T, p Place) {
	const size = 2 << 20
	want := Random(size, 1)
	u := create(t, open(t, p), "a", size, "src")
	write(t, u, want[:1<<20], 0)
	must(t, u.Checkpoint(t.Context(), 1<<20))
	must(t, u.Checkpoint(t.Context(), 1<<19)) // never back
	write(t, u, want[1<<20:1<<20+4096], 1<<20)
	must(t, u.Close())
	requireInvisible(t, p, "a")

	s := open(t, p)
	u = create(t, s, "a", size, "src")
	if n := u.Stored(); n != 1<<20 {
		t.Fatalf("Stored = %d, want %d", n, 1<<20)
	}
	write(t, u, want[1<<20:], 1<<20)
	info, err := u.Commit(t.Context())
	must(t, err)
	requireContent(t, s, info, want)
}

// What was stored of another source, or another size, must not show.
func testUploadOfOtherSource(t *testing.T, p Place) {
	s := open(t, p)
	leave := func(size int64, source string) {
		u := create(t, s, "a", size, source)
		if n := u.Stored(); n != 0 {
			t.Errorf("%d bytes from %q: Stored = %d, want 0", size, source, n)
		}
		write(t, u, Random(4096, 9), 0)
		must(t, u.Checkpoint(t.Context(), 4096))
		must(t, u.Close())
	}
	leave(8192, "one")
	leave(8192, "two")
	leave(12288, "two")
	leave(4096, "two")
	leave(4096, "")
	leave(4096, "")
	u := create(t, s, "a", 8192, "one")
	if n := u.Stored(); n != 0 {
		t.Errorf("Stored = %d, want 0", n)
	}
	write(t, u, Random(512, 3), 4096)
	info, err := u.Commit(t.Context())
	must(t, err)
	want := make([]byte, 8192)
	copy(want[4096:], Random(512, 3))
	requireContent(t, s, info, want)
}

func testUploadAborted(t *testing.T, p Place) {
	s := open(t, p)
	u := create(t, s, "a", 4096, "src")
	write(t, u, Random(4096, 1), 0)
	must(t, u.Checkpoint(t.Context(), 4096))
	must(t, u.Abort(t.Context()))
	must(t, u.Close())
	if err := s.Delete(t.Context(), "a"); !errors.Is(err, blobstore.ErrNotFound) {
		t.Errorf("Delete after Abort: %v, want ErrNotFound", err)
	}
	u = create(t, s, "a", 4096, "src")
	if n := u.Stored(); n != 0 {
		t.Errorf("Stored = %d after Abort, want 0", n)
	}
}

// Delete removes what an unfinished upload left, but not what is under way.
func testUploadDeleted(t *testing.T, p Place) {
	s := open(t, p)
	u := create(t, s, "a", 4096, "src")
	write(t, u, Random(4096, 1), 0)
	must(t, u.Checkpoint(t.Context(), 4096))
	if err := s.Delete(t.Context(), "a"); !errors.Is(err, blobstore.ErrBusy) {
		t.Errorf("Delete during the upload: %v, want ErrBusy", err)
	}
	must(t, u.Close())
	must(t, s.Delete(t.Context(), "a"))
	if err := s.Delete(t.Context(), "a"); !errors.Is(err, blobstore.ErrNotFound) {
		t.Errorf("Delete again: %v, want ErrNotFound", err)
	}
	u = create(t, s, "a", 4096, "src")
	if n := u.Stored(); n != 0 {
		t.Errorf("Stored = %d after Delete, want 0", n)
	}
}

// A second upload to the same name is kept out as long as there is the first.
func testUploadTwice(t *testing.T, p Place) {
	s := open(t, p)
	u := create(t, s, "a", 4096, "src")
	start := time.Now()
	if _, err := open(t, p).Create(t.Context(), "a", 4096, "src"); !errors.Is(err, blobstore.ErrBusy) || !strings.Contains(err.Error(), "imported by another process") {
		t.Errorf("second Create: %v after %v, want ErrBusy that says why", err, time.Since(start))
	}
	write(t, u, Random(4096, 1), 0) // the first is not harmed
	info, err := u.Commit(t.Context())
	must(t, err)
	requireContent(t, s, info, Random(4096, 1))
}

func testUploadOfTakenName(t *testing.T, p Place) {
	s := open(t, p)
	p.Put(t, "a", Random(512, 1))
	before := stat(t, s, "a")
	if _, err := s.Create(t.Context(), "a", 512, "src"); !errors.Is(err, blobstore.ErrExists) {
		t.Errorf("Create: %v, want ErrExists", err)
	}
	if after := stat(t, s, "a"); after != before {
		t.Errorf("image was %+v, is %+v", before, after)
	}
	u := create(t, s, "b", 4096, "src")
	write(t, u, Random(4096, 2), 0)
	first, err := u.Commit(t.Context())
	must(t, err)
	if _, err := s.Create(t.Context(), "b", 4096, "src"); !errors.Is(err, blobstore.ErrExists) {
		t.Errorf("Create of a committed name: %v, want ErrExists", err)
	}
	requireContent(t, s, first, Random(4096, 2))
	must(t, s.Delete(t.Context(), "b"))
	u = create(t, s, "b", 4096, "src")
	if n := u.Stored(); n != 0 {
		t.Errorf("Stored = %d after Delete, want 0", n)
	}
	second, err := u.Commit(t.Context())
	must(t, err)
	if second.Identity == first.Identity {
		t.Errorf("identity %q is that of the deleted image", first.Identity)
	}
	if err := s.Image(first).ReadAt(t.Context(), make([]byte, 512), 0); !errors.Is(err, blobstore.ErrChanged) {
		t.Errorf("reading the deleted image: %v, want ErrChanged", err)
	}
}

func testUploadsInParallel(t *testing.T, p Place) {
	s := open(t, p)
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			name := fmt.Sprintf("folder/%d", i)
			u, err := s.Create(t.Context(), name, 1<<20, "")
			if err != nil {
				t.Error(err)
				return
			}
			defer u.Close()
			want := Random(1<<20, uint64(i))
			var parts sync.WaitGroup
			for off := int64(0); off < 1<<20; off += 1 << 18 {
				parts.Go(func() {
					if err := u.WriteAt(t.Context(), want[off:off+1<<18], off); err != nil {
						t.Error(err)
					}
				})
			}
			parts.Wait()
			info, err := u.Commit(t.Context())
			if err != nil {
				t.Error(err)
				return
			}
			got := make([]byte, 1<<20)
			if err := s.Image(info).ReadAt(t.Context(), got, 0); err != nil || !bytes.Equal(got, want) {
				t.Errorf("%s: wrong content, error %v", name, err)
			}
		})
	}
	wg.Wait()
}
