package blobstore

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"io"
	"log/slog"
	"maps"
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

	"skylun/block"
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
	size     int64            // when there is no content: of a sparse blob
	pages    map[int64][]byte // of a sparse blob, what was put, by offset
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
	if k == "list" {
		f.list(w, r)
		return
	}
	if k == "create" {
		if b != nil && r.Header.Get("If-None-Match") == "*" {
			fail(w, 409, "BlobAlreadyExists")
			return
		}
		size, _ := strconv.ParseInt(r.Header.Get("x-ms-blob-content-length"), 10, 64)
		created := &fakeBlob{page: true, metadata: metadata(r)}
		if size <= 64<<20 {
			created.content = make([]byte, size)
		} else {
			created.size, created.pages = size, map[int64][]byte{}
		}
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
		w.Header().Set("Content-Length", strconv.FormatInt(b.len(), 10))
		answer(w, b, 200)
	case "pagelist":
		b.pageList(w, r)
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
		var from, to int64
		switch k {
		case "page":
			fmt.Sscanf(r.Header.Get("x-ms-range"), "bytes=%d-%d", &from, &to)
			if b.pages != nil {
				b.pages[from] = bytes.Clone(body)
			} else {
				copy(b.content[from:to+1], body)
			}
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

func (b *fakeBlob) len() int64 {
	if b.pages != nil {
		return b.size
	}
	return int64(len(b.content))
}

// read returns the bytes of [from, to).
func (b *fakeBlob) read(from, to int64) []byte {
	if b.pages == nil {
		return b.content[from:to]
	}
	p := make([]byte, to-from)
	for off, page := range b.pages {
		in := block.Range{Off: off, End: off + int64(len(page))}.Intersect(block.Range{Off: from, End: to})
		if !in.Empty() {
			copy(p[in.Off-from:], page[in.Off-off:in.End-off])
		}
	}
	return p
}

// serve answers a ranged GET.
func (b *fakeBlob) serve(w http.ResponseWriter, r *http.Request) {
	var from, to int64
	fmt.Sscanf(r.Header.Get("x-ms-range"), "bytes=%d-%d", &from, &to)
	if from >= b.len() {
		fail(w, 416, "InvalidRange")
		return
	}
	to = min(to, b.len()-1)
	w.Header().Set("Content-Length", strconv.FormatInt(to+1-from, 10))
	w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", from, to, b.len()))
	answer(w, b, 206)
	w.Write(b.read(from, to+1))
}

// pageList answers Get Page Ranges: what was put, or blocks that are not zeros.
func (b *fakeBlob) pageList(w http.ResponseWriter, r *http.Request) {
	in := block.Range{End: b.len()}
	if _, err := fmt.Sscanf(r.Header.Get("x-ms-range"), "bytes=%d-%d", &in.Off, &in.End); err == nil {
		in.End++
	}
	var ranges []block.Range
	for off, page := range b.pages {
		ranges = append(ranges, block.Range{Off: off, End: off + int64(len(page))})
	}
	for off := int64(0); off < int64(len(b.content)); off += block.Size {
		if end := min(off+block.Size, int64(len(b.content))); !isZero(b.content[off:end]) {
			ranges = append(ranges, block.Range{Off: off, End: end})
		}
	}
	slices.SortFunc(ranges, func(a, b block.Range) int { return cmp.Compare(a.Off, b.Off) })
	var text strings.Builder
	for _, r := range ranges {
		if r = r.Intersect(in); !r.Empty() {
			fmt.Fprintf(&text, "<PageRange><Start>%d</Start><End>%d</End></PageRange>", r.Off, r.End-1)
		}
	}
	w.Header().Set("Content-Type", "application/xml")
	answer(w, b, 200)
	fmt.Fprintf(w, `<?xml version="1.0" encoding="utf-8"?><PageList>%s</PageList>`, text.String())
}

// list answers List Blobs.
func (f *fakeAzure) list(w http.ResponseWriter, r *http.Request) {
	var text strings.Builder
	for _, name := range slices.Sorted(maps.Keys(f.blobs)) {
		b := f.blobs[name]
		if !strings.HasPrefix(name, r.URL.Query().Get("prefix")) {
			continue
		}
		fmt.Fprintf(&text, "<Blob><Name>%s</Name><Properties><Last-Modified>%s</Last-Modified><Etag>%s</Etag><Content-Length>%d</Content-Length></Properties><Metadata>",
			name, b.written.UTC().Format(http.TimeFormat), strings.Trim(b.etag, `"`), b.len())
		for k, v := range b.metadata {
			k = strings.TrimPrefix(k, "X-Ms-Meta-")
			fmt.Fprintf(&text, "<%s>%s</%s>", k, v[0], k)
		}
		text.WriteString("</Metadata></Blob>")
	}
	w.Header().Set("Content-Type", "application/xml")
	fmt.Fprintf(w, `<?xml version="1.0" encoding="utf-8"?><EnumerationResults><Blobs>%s</Blobs><NextMarker/></EnumerationResults>`, text.String())
}
