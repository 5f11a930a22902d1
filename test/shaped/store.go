package shaped

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Link is how slow the way to a store is.
type Link struct {
	Latency   time.Duration // of every request
	Bandwidth int64         // bytes/s of all answers together; 0: any
	PerBlob   int64         // bytes/s of all answers of one blob; 0: any
}

// Account and Key are what a client of Azure calls itself. Nobody looks.
const (
	Account = "account"
	Key     = "c2hhcGVk"
)

const container = "images"

// Store is a store that listens on the loopback interface.
type Store struct {
	server *http.Server
	addr   string
	served sync.WaitGroup

	mu    sync.Mutex
	link  Link             // guarded by mu
	free  time.Time        // guarded by mu: when the link has brought what was asked for so far
	blobs map[string]*blob // guarded by mu
	tags  int              // guarded by mu
	stats Stats            // guarded by mu
	fault Fault            // guarded by mu
}

// A Fault may answer a request in the store's place, by returning true.
type Fault func(w http.ResponseWriter, r *http.Request) bool

// Stats counts what the store was asked for.
type Stats struct {
	Reads int   // requests for bytes of images
	Bytes int64 // that were sent for them
}

type blob struct {
	content io.ReaderAt
	size    int64
	etag    string
	since   time.Time
	small   bool      // a document, whole in memory
	free    time.Time // guarded by Store.mu: as Store.free, of this blob
}

// New starts a store without images. Close ends it.
func New(link Link) (*Store, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	s := &Store{addr: l.Addr().String(), link: link, blobs: map[string]*blob{}}
	s.server = &http.Server{Handler: s, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, 0)}
	s.served.Go(func() { s.server.Serve(l) })
	return s, nil
}

// Close ends the store and its connections.
func (s *Store) Close() {
	s.server.Close()
	s.served.Wait()
}

// Config returns the lines of a configuration file that name the store, and
// what has to be in the file that they name with keyFile.
func (s *Store) Config(keyFile string) (lines, key string) {
	return fmt.Sprintf("blobstore: {url: %q, account_key_file: %q}\n", s.ContainerURL(), keyFile), Key + "\n"
}

// ContainerURL returns the address of the container of images.
func (s *Store) ContainerURL() string {
	return fmt.Sprintf("http://%s/%s/%s", s.addr, Account, container)
}

// URL returns the address of an image, for plain HTTP too.
func (s *Store) URL(name string) string { return s.ContainerURL() + "/" + name }

// Put makes an image, or replaces it.
func (s *Store) Put(name string, content io.ReaderAt, size int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.put(name, &blob{content: content, size: size})
}

func (s *Store) put(name string, b *blob) {
	s.tags++
	b.etag, b.since = fmt.Sprintf(`"0x%d"`, s.tags), time.Now()
	s.blobs[name] = b
}

// SetLink changes the link from the next request on.
func (s *Store) SetLink(l Link) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.link, s.free = l, time.Time{}
}

// SetFault puts f before the store; nil takes it away.
func (s *Store) SetFault(f Fault) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fault = f
}

// Stats returns the figures now.
func (s *Store) Stats() Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.stats
}

// ServeHTTP implements http.Handler.
func (s *Store) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	link, fault := s.link, s.fault
	s.mu.Unlock()
	if sleep(r.Context(), time.Now().Add(link.Latency)) != nil {
		return
	}
	if fault != nil && fault(w, r) {
		return
	}
	name, ok := strings.CutPrefix(r.URL.Path, "/"+Account+"/"+container)
	if !ok || r.URL.Query().Get("restype") != "" {
		fail(w, http.StatusBadRequest, "UnsupportedOperation")
		return
	}
	name = strings.TrimPrefix(name, "/")
	s.mu.Lock()
	b := s.blobs[name]
	s.mu.Unlock()
	if r.Method == http.MethodPut {
		s.document(w, r, name, b)
		return
	}
	switch {
	case b == nil:
		fail(w, http.StatusNotFound, "BlobNotFound")
	case r.Header.Get("If-Match") != "" && r.Header.Get("If-Match") != b.etag:
		fail(w, http.StatusPreconditionFailed, "ConditionNotMet")
	case r.URL.Query().Get("comp") == "pagelist":
		fail(w, http.StatusConflict, "InvalidBlobType")
	case r.URL.Query().Get("comp") != "":
		fail(w, http.StatusBadRequest, "UnsupportedOperation")
	case r.Method == http.MethodDelete:
		s.mu.Lock()
		delete(s.blobs, name)
		s.mu.Unlock()
		w.WriteHeader(http.StatusAccepted)
	case r.Method == http.MethodGet, r.Method == http.MethodHead:
		s.get(w, r, b)
	default:
		fail(w, http.StatusBadRequest, "UnsupportedHttpVerb")
	}
}

// document stores what a request holds, if its condition is met.
func (s *Store) document(w http.ResponseWriter, r *http.Request, name string, now *blob) {
	content, err := io.ReadAll(io.LimitReader(r.Body, 4<<20))
	if err != nil {
		return
	}
	switch match := r.Header.Get("If-Match"); {
	case r.Header.Get("If-None-Match") == "*" && now != nil:
		fail(w, http.StatusConflict, "BlobAlreadyExists")
		return
	case match != "" && (now == nil || now.etag != match):
		fail(w, http.StatusPreconditionFailed, "ConditionNotMet")
		return
	}
	b := &blob{content: strings.NewReader(string(content)), size: int64(len(content)), small: true}
	s.mu.Lock()
	s.put(name, b)
	s.mu.Unlock()
	head(w, b)
	w.WriteHeader(http.StatusCreated)
}

func head(w http.ResponseWriter, b *blob) {
	w.Header().Set("ETag", b.etag)
	w.Header().Set("Last-Modified", b.since.UTC().Format(http.TimeFormat))
	w.Header().Set("Accept-Ranges", "bytes")
	w.Header().Set("x-ms-blob-type", "BlockBlob")
}

func fail(w http.ResponseWriter, status int, code string) {
	w.Header().Set("x-ms-error-code", code)
	w.WriteHeader(status)
}

// chunk is how much is sent at a time: less than a millisecond of a fast link.
const chunk = 64 << 10

var chunks = sync.Pool{New: func() any { return new([chunk]byte) }}

// get sends a blob or a range of it.
func (s *Store) get(w http.ResponseWriter, r *http.Request, b *blob) {
	off, n, err := span(r, b.size)
	if err != nil {
		fail(w, http.StatusRequestedRangeNotSatisfiable, "InvalidRange")
		return
	}
	head(w, b)
	w.Header().Set("Content-Length", strconv.FormatInt(n, 10))
	status := http.StatusOK
	if off > 0 || n < b.size {
		w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", off, off+n-1, b.size))
		status = http.StatusPartialContent
	}
	w.WriteHeader(status)
	if r.Method == http.MethodHead {
		return
	}
	if !b.small {
		s.mu.Lock()
		s.stats.Reads++
		s.mu.Unlock()
	}
	p := chunks.Get().(*[chunk]byte)
	defer chunks.Put(p)
	for n > 0 {
		q := p[:min(n, chunk)]
		if _, err := b.content.ReadAt(q, off); err != nil && !errors.Is(err, io.EOF) {
			panic(http.ErrAbortHandler)
		}
		if sleep(r.Context(), s.turn(b, len(q))) != nil {
			return
		}
		if _, err := w.Write(q); err != nil {
			return
		}
		off, n = off+int64(len(q)), n-int64(len(q))
	}
}

// turn returns when the link has brought n bytes more of a blob.
func (s *Store) turn(b *blob, n int) time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !b.small {
		s.stats.Bytes += int64(n)
	}
	now := time.Now()
	all, one := advance(&s.free, now, n, s.link.Bandwidth), advance(&b.free, now, n, s.link.PerBlob)
	if all.Before(one) {
		return one
	}
	return all
}

// advance moves free on by what n bytes take at a bandwidth.
func advance(free *time.Time, now time.Time, n int, bandwidth int64) time.Time {
	if bandwidth == 0 {
		return time.Time{}
	}
	if free.Before(now) {
		*free = now
	}
	*free = free.Add(time.Duration(int64(n) * int64(time.Second) / bandwidth))
	return *free
}

// span returns what part of size bytes a request asks for.
func span(r *http.Request, size int64) (off, n int64, err error) {
	spec := r.Header.Get("x-ms-range")
	if spec == "" {
		spec = r.Header.Get("Range")
	}
	if spec == "" || r.Method == http.MethodHead {
		return 0, size, nil
	}
	from, to, ok := strings.Cut(strings.TrimPrefix(spec, "bytes="), "-")
	if off, err = strconv.ParseInt(from, 10, 64); err != nil || !ok || off < 0 || off >= size {
		return 0, 0, errors.New("no such range")
	}
	last := size - 1
	if to != "" {
		if last, err = strconv.ParseInt(to, 10, 64); err != nil || last < off {
			return 0, 0, errors.New("no such range")
		}
	}
	return off, min(last, size-1) - off + 1, nil
}

func sleep(ctx context.Context, until time.Time) error {
	d := time.Until(until)
	if d <= 0 {
		return ctx.Err()
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
