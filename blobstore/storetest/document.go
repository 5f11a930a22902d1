package storetest

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"skylun/blobstore"
)

const kind = blobstore.Profile

func testDocuments(t *testing.T, p Place) {
	s := open(t, p)
	if _, _, err := s.Document(t.Context(), "a/b", kind); err == nil {
		t.Error("there is a document in an empty store")
	}
	p.Put(t, "a/b", Random(4096, 1))
	p.Put(t, "other", Random(4096, 2))
	requireNone := func(name string) {
		t.Helper()
		if _, _, err := open(t, p).Document(t.Context(), name, kind); !errors.Is(err, blobstore.ErrNotFound) {
			t.Errorf("document of %s: %v, want not found", name, err)
		}
	}
	get := func(name string, want []byte) (tag string) {
		t.Helper()
		data, tag, err := open(t, p).Document(t.Context(), name, kind)
		must(t, err)
		if !bytes.Equal(data, want) || tag == "" {
			t.Fatalf("document of %s: %d bytes, tag %q, want %d bytes", name, len(data), tag, len(want))
		}
		return tag
	}
	put := func(name string, data []byte, tag string) error {
		return s.PutDocument(t.Context(), name, kind, data, tag)
	}
	requireNone("a/b")
	first, second := Random(70000, 3), []byte("second")
	if err := put("a/b", first, "0x123"); !errors.Is(err, blobstore.ErrChanged) {
		t.Errorf("replacing what is not there: %v", err)
	}
	must(t, put("a/b", first, ""))
	tag := get("a/b", first)
	requireNone("other")
	for _, bad := range []string{"", "0x123"} {
		if err := put("a/b", second, bad); !errors.Is(err, blobstore.ErrChanged) {
			t.Errorf("with tag %q: %v, want that it has changed", bad, err)
		}
	}
	must(t, put("a/b", second, tag))
	if again := get("a/b", second); again == tag {
		t.Error("the tag did not change")
	}
	if err := put("a/b", first, tag); !errors.Is(err, blobstore.ErrChanged) {
		t.Errorf("with the tag before: %v", err)
	}
	must(t, put("other", make([]byte, blobstore.MaxDocument), ""))
	get("other", make([]byte, blobstore.MaxDocument))
	if err := put("a/b", make([]byte, blobstore.MaxDocument+1), tag); !errors.Is(err, blobstore.ErrFormat) {
		t.Errorf("too long: %v", err)
	}
	for _, name := range []string{"", "../a", ".documents/profile/a", strings.Repeat("n", 600)} {
		if err := put(name, first, ""); !errors.Is(err, blobstore.ErrName) {
			t.Errorf("image %q: %v", name, err)
		}
		if _, _, err := s.Document(t.Context(), name, kind); !errors.Is(err, blobstore.ErrName) {
			t.Errorf("image %q: %v", name, err)
		}
	}

	// Nobody takes a document for an image.
	if all := list(t, s); len(all) != 2 {
		t.Errorf("listed: %+v", all)
	}
	// It goes with the image, and leaves the others.
	must(t, s.Delete(t.Context(), "a/b"))
	requireNone("a/b")
	get("other", make([]byte, blobstore.MaxDocument))
	p.Put(t, "a/b", Random(4096, 4))
	must(t, put("a/b", first, ""))
	get("a/b", first)
}

// Of several that write with the same tag one succeeds. So nobody undoes what
// he has not seen.
func testDocumentsInParallel(t *testing.T, p Place) {
	p.Put(t, "a", Random(4096, 1))
	const writers, rounds = 4, 5
	var wg sync.WaitGroup
	for w := range writers {
		s := open(t, p)
		wg.Go(func() {
			for i := range rounds {
				for {
					data, tag, err := s.Document(t.Context(), "a", kind)
					if err != nil && !errors.Is(err, blobstore.ErrNotFound) {
						t.Error(err)
						return
					}
					err = s.PutDocument(t.Context(), "a", kind, fmt.Appendf(data, "%d.%d ", w, i), tag)
					if err == nil {
						break
					}
					if !errors.Is(err, blobstore.ErrChanged) {
						t.Error(err)
						return
					}
				}
			}
		})
	}
	wg.Wait()
	data, _, err := open(t, p).Document(t.Context(), "a", kind)
	must(t, err)
	for w := range writers {
		for i := range rounds {
			if n := bytes.Count(data, fmt.Appendf(nil, "%d.%d ", w, i)); n != 1 {
				t.Errorf("%d.%d is there %d times in %s", w, i, n, data)
			}
		}
	}
}
