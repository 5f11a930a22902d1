package blobstore

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// fakeAzure speaks as much of Azure's REST interface as the store uses, and
// misbehaves on demand. It does what Azurite cannot be made to do; what Azurite
// can is tested against that. It lives in memory, so that time can be
// testing/synctest's.
type fakeAzure struct {
	conns chan net.Conn
	down  func() error // when set and it returns an error, nobody can connect

	mu    sync.Mutex
	blobs map[string]*fakeBlob
	tags  int

	// fault is asked before every request is answered: n counts those of the
	// same kind, from one. It returns whether it has answered.
	fault func(w http.ResponseWriter, r *http.Request, kind string, n int) bool
	seen  map[string]int
	gets  []string // the ranges asked for, in order
	loose int      // reads without If-Match
}

type fakeBlob struct {
	content  []byte
	page     bool
	etag     string
	metadata http.Header
	leaseID  string
	leaseEnd time.Time
	written  time.Time
}

const fakeURL = "http://127.0.0.1:1/account/images"

// newFake starts a fake and opens a store on it.
func newFake(t *testing.T, cfg Config) (*fakeAzure, *azureStore) {
	t.Helper()
	f := &fakeAzure{conns: make(chan net.Conn), blobs: map[string]*fakeBlob{}, seen: map[string]int{}}
	srv := &http.Server{Handler: f, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, 0)}
	l := &pipeListener{conns: f.conns, closed: make(chan struct{})}
	done := make(chan struct{})
	go func() {
		defer close(done)
		srv.Serve(l)
	}()
	cfg.URL = fakeURL
	if cfg.SASTokenFile == "" {
		cfg.AccountKeyFile = filepath.Join(t.TempDir(), "key")
		if err := os.WriteFile(cfg.AccountKeyFile, []byte("a2V5\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cfg = cfg.WithDefaults()
	if err := cfg.Validate(); err != nil {
		t.Fatal(err)
	}
	s, err := openAzure(cfg, f.dial, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		s.Close()
		srv.Close()
		<-done
	})
	return f, s
}

func (f *fakeAzure) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	if f.down != nil {
		if err := f.down(); err != nil {
			return nil, err
		}
	}
	client, server := net.Pipe()
	select {
	case f.conns <- server:
		return client, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

type pipeListener struct {
	conns  chan net.Conn
	once   sync.Once
	closed chan struct{}
}

func (l *pipeListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}
func (l *pipeListener) Close() error   { l.once.Do(func() { close(l.closed) }); return nil }
func (l *pipeListener) Addr() net.Addr { return &net.TCPAddr{} }

// put makes or replaces a block blob.
func (f *fakeAzure) put(name string, content []byte) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.blobs[name] = &fakeBlob{content: content}
	f.touch(f.blobs[name])
}

func (f *fakeAzure) touch(b *fakeBlob) {
	f.tags++
	b.etag = fmt.Sprintf(`"0x%d"`, f.tags)
	b.written = time.Now()
}

// setFault replaces the fault.
func (f *fakeAzure) setFault(fault func(w http.ResponseWriter, r *http.Request, kind string, n int) bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.fault = fault
}

// unpinned returns how many reads did not name the content they want.
func (f *fakeAzure) unpinned() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.loose
}

// asked returns the ranges of all reads, in order.
func (f *fakeAzure) asked() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.gets)
}

// kind names a request by what it does.
func kind(r *http.Request) string {
	q := r.URL.Query()
	switch {
	case q.Get("restype") == "container" && r.Method == http.MethodPut:
		return "create container"
	case q.Get("comp") != "":
		k := q.Get("comp")
		if k == "lease" {
			k += " " + r.Header.Get("x-ms-lease-action")
		}
		return k
	case r.Method == http.MethodPut:
		return "create"
	}
	return strings.ToLower(r.Method)
}

func (f *fakeAzure) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	k := kind(r)
	f.mu.Lock()
	f.seen[k]++
	n := f.seen[k]
	if k == "get" {
		f.gets = append(f.gets, strings.TrimPrefix(r.Header.Get("x-ms-range"), "bytes="))
		if r.Header.Get("If-Match") == "" {
			f.loose++
		}
	}
	fault := f.fault
	f.mu.Unlock()
	r.Body = io.NopCloser(bytes.NewReader(body))
	if fault == nil || !fault(w, r, k, n) {
		f.serve(w, r)
	}
}

// serve does what a request asks for.
func (f *fakeAzure) serve(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	k := kind(r)
	f.mu.Lock()
	defer f.mu.Unlock()
	name := strings.TrimPrefix(r.URL.Path, "/account/images/")
	b := f.blobs[name]
	if k == "create" {
		if b != nil && r.Header.Get("If-None-Match") == "*" {
			fail(w, 409, "BlobAlreadyExists")
			return
		}
		size, _ := strconv.Atoi(r.Header.Get("x-ms-blob-content-length"))
		created := &fakeBlob{content: make([]byte, size), page: true, metadata: metadata(r)}
		if b != nil {
			created.leaseID, created.leaseEnd = b.leaseID, b.leaseEnd
		}
		f.blobs[name] = created
		f.touch(created)
		answer(w, created, 201)
		return
	}
	if b == nil {
		fail(w, 404, "BlobNotFound")
		return
	}
	if m := r.Header.Get("If-Match"); m != "" && m != b.etag {
		fail(w, 412, "ConditionNotMet")
		return
	}
	id := r.Header.Get("x-ms-lease-id")
	held := b.leaseID != "" && time.Now().Before(b.leaseEnd)
	switch k {
	case "head":
		for key, v := range b.metadata {
			w.Header()[key] = v
		}
		w.Header().Set("Content-Length", strconv.Itoa(len(b.content)))
		answer(w, b, 200)
	case "get":
		b.serve(w, r)
	case "lease acquire":
		if held {
			fail(w, 409, "LeaseAlreadyPresent")
			return
		}
		b.leaseID, b.leaseEnd = r.Header.Get("x-ms-proposed-lease-id"), time.Now().Add(15*time.Second)
		w.Header().Set("x-ms-lease-id", b.leaseID)
		answer(w, b, 201)
	case "lease renew":
		if b.leaseID != id || b.written.After(b.leaseEnd) {
			fail(w, 409, "LeaseIdMismatchWithLeaseOperation")
			return
		}
		b.leaseEnd = time.Now().Add(15 * time.Second)
		answer(w, b, 200)
	case "lease release":
		if b.leaseID != id {
			fail(w, 409, "LeaseIdMismatchWithLeaseOperation")
			return
		}
		b.leaseID = ""
		answer(w, b, 200)
	case "page", "metadata", "delete":
		switch {
		case id != "" && b.leaseID == id && !held:
			fail(w, 412, "LeaseLost")
			return
		case id != b.leaseID && (held || id != ""):
			fail(w, 412, "LeaseIdMismatchWithBlobOperation")
			return
		}
		var from, to int
		switch k {
		case "page":
			fmt.Sscanf(r.Header.Get("x-ms-range"), "bytes=%d-%d", &from, &to)
			copy(b.content[from:to+1], body)
		case "metadata":
			b.metadata = metadata(r)
		case "delete":
			delete(f.blobs, name)
		}
		f.touch(b)
		answer(w, b, map[string]int{"page": 201, "metadata": 200, "delete": 202}[k])
	default:
		fail(w, 400, "UnsupportedHttpVerb")
	}
}

func metadata(r *http.Request) http.Header {
	m := http.Header{}
	for k, v := range r.Header {
		if strings.HasPrefix(k, "X-Ms-Meta-") {
			m[k] = v
		}
	}
	return m
}

func answer(w http.ResponseWriter, b *fakeBlob, status int) {
	w.Header().Set("ETag", b.etag)
	w.Header().Set("Last-Modified", b.written.UTC().Format(http.TimeFormat))
	w.WriteHeader(status)
}

func fail(w http.ResponseWriter, status int, code string) {
	w.Header().Set("x-ms-error-code", code)
	w.WriteHeader(status)
}

// serve answers a ranged GET.
func (b *fakeBlob) serve(w http.ResponseWriter, r *http.Request) {
	var from, to int
	fmt.Sscanf(r.Header.Get("x-ms-range"), "bytes=%d-%d", &from, &to)
	if from >= len(b.content) {
		fail(w, 416, "InvalidRange")
		return
	}
	to = min(to, len(b.content)-1)
	w.Header().Set("Content-Length", strconv.Itoa(to+1-from))
	w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", from, to, len(b.content)))
	answer(w, b, 206)
	w.Write(b.content[from : to+1])
}
