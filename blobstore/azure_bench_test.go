package blobstore

import (
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"testing"
)

// BenchmarkRead compares a read of an image with a bare ranged GET of the same
// server: the difference is what the SDK, the checks and the retry cost.
func BenchmarkRead(b *testing.B) {
	content := pattern(4 << 20)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked := r.Header.Get("x-ms-range")
		var from, to int
		fmt.Sscanf(asked, "bytes=%d-%d", &from, &to)
		w.Header().Set("ETag", `"0x1"`)
		w.Header().Set("Content-Length", strconv.Itoa(to+1-from))
		w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", from, to, len(content)))
		w.WriteHeader(206)
		w.Write(content[from : to+1])
	}))
	defer srv.Close()
	key := filepath.Join(b.TempDir(), "key")
	if err := os.WriteFile(key, []byte("a2V5"), 0o600); err != nil {
		b.Fatal(err)
	}
	s, err := Open(b.Context(), Config{URL: srv.URL + "/account/images", AccountKeyFile: key}, slog.New(slog.DiscardHandler))
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	m := s.Image(disk(content))
	for _, size := range []int{4 << 10, 64 << 10, 1 << 20} {
		b.Run(fmt.Sprintf("image/%dKiB", size>>10), func(b *testing.B) {
			p := make([]byte, size)
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for b.Loop() {
				if err := m.ReadAt(b.Context(), p, 0); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(fmt.Sprintf("bare/%dKiB", size>>10), func(b *testing.B) {
			p := make([]byte, size)
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for b.Loop() {
				req, err := http.NewRequestWithContext(b.Context(), http.MethodGet, srv.URL+"/account/images/disk", nil)
				if err != nil {
					b.Fatal(err)
				}
				req.Header.Set("x-ms-range", fmt.Sprintf("bytes=0-%d", size-1))
				resp, err := http.DefaultClient.Do(req)
				if err != nil {
					b.Fatal(err)
				}
				if _, err := io.ReadFull(resp.Body, p); err != nil {
					b.Fatal(err)
				}
				resp.Body.Close()
			}
		})
	}
}
