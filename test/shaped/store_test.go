package shaped

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"skylun/blobstore"
)

// The store serves skylun's client of Azure and anybody who speaks HTTP, and
// is as slow as it should be.
func TestStore(t *testing.T) {
	s, err := New(Link{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	content := bytes.Repeat([]byte("0123456789abcdef"), 64<<10)
	s.Put("os.img", bytes.NewReader(content), int64(len(content)))
	key := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(key, []byte(Key+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	store, err := blobstore.Open(t.Context(), blobstore.Config{URL: s.ContainerURL(), AccountKeyFile: key}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	info, err := store.Stat(t.Context(), "os.img")
	if err != nil || info.Size != int64(len(content)) {
		t.Fatalf("%+v, %v", info, err)
	}
	image := store.Image(info)
	p := make([]byte, 5000)
	if err := image.ReadAt(t.Context(), p, 4096); err != nil || !bytes.Equal(p, content[4096:9096]) {
		t.Errorf("read: %v", err)
	}
	if _, _, err := store.Document(t.Context(), "os.img", blobstore.Profile); !errors.Is(err, blobstore.ErrNotFound) {
		t.Errorf("no document: %v", err)
	}
	if err := store.PutDocument(t.Context(), "os.img", blobstore.Profile, []byte("one"), ""); err != nil {
		t.Error(err)
	}
	doc, tag, err := store.Document(t.Context(), "os.img", blobstore.Profile)
	if err != nil || string(doc) != "one" {
		t.Errorf("document %q: %v", doc, err)
	}
	if err := store.PutDocument(t.Context(), "os.img", blobstore.Profile, []byte("two"), "0x77"); !errors.Is(err, blobstore.ErrChanged) {
		t.Errorf("with another tag: %v", err)
	}
	if err := store.PutDocument(t.Context(), "os.img", blobstore.Profile, []byte("two"), tag); err != nil {
		t.Error(err)
	}

	req, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, s.URL("os.img"), nil)
	req.Header.Set("Range", "bytes=16-31")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	got, _ := io.ReadAll(resp.Body)
	resp.Body.Close()
	http.DefaultClient.CloseIdleConnections()
	if resp.StatusCode != http.StatusPartialContent || string(got) != "0123456789abcdef" {
		t.Errorf("%d %q", resp.StatusCode, got)
	}

	// Four reads of 256 KiB over a link of 4 MiB/s take a quarter of a second
	// together, and their latencies side by side.
	before := s.Stats()
	s.SetLink(Link{Latency: 50 * time.Millisecond, Bandwidth: 4 << 20})
	begin := time.Now()
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			if err := image.ReadAt(context.Background(), make([]byte, 256<<10), int64(i)*256<<10); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if took := time.Since(begin); took < 290*time.Millisecond {
		t.Errorf("took %v, less than the link allows", took)
	}
	if now := s.Stats(); now.Reads-before.Reads != 4 || now.Bytes-before.Bytes != 1<<20 {
		t.Errorf("%+v after %+v", now, before)
	}
	s.SetLink(Link{})
	s.SetFault(func(w http.ResponseWriter, r *http.Request) bool { w.WriteHeader(http.StatusForbidden); return true })
	if err := image.ReadAt(t.Context(), p, 0); !errors.Is(err, blobstore.ErrAuth) {
		t.Errorf("with a fault: %v", err)
	}
}
