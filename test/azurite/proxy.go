package azurite

import (
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
)

// Proxy passes requests on to an Azurite and counts them. A fault can be put
// before it.
type Proxy struct {
	Addr string // IP:PORT it listens on

	server *http.Server

	mu    sync.Mutex
	put   int64                                             // bytes of request bodies passed on
	reads map[string]int                                    // GETs of a blob's bytes, by path
	fault func(w http.ResponseWriter, r *http.Request) bool // nil, or what may answer in Azurite's place
}

// NewProxy listens on a free port of the loopback interface.
func NewProxy(target *Server) (*Proxy, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	p := &Proxy{Addr: l.Addr().String(), reads: make(map[string]int)}
	reverse := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: target.Addr})
	reverse.ErrorHandler = func(http.ResponseWriter, *http.Request, error) { panic(http.ErrAbortHandler) }
	p.server = &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if fault := p.count(r); fault != nil && fault(w, r) {
			return
		}
		reverse.ServeHTTP(w, r)
	})}
	go p.server.Serve(l)
	return p, nil
}

// Close ends the proxy and its connections.
func (p *Proxy) Close() { p.server.Close() }

// ConnectionString returns the connection string of the Azurite behind p.
func (p *Proxy) ConnectionString() string { return ConnectionString(p.Addr) }

// URL returns the address of a container.
func (p *Proxy) URL(container string) string {
	return "http://" + p.Addr + "/" + Account + "/" + container
}

// Reads returns how many requests for bytes of blobs there were so far whose
// path ends in suffix.
func (p *Proxy) Reads(suffix string) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := 0
	for path, count := range p.reads {
		if strings.HasSuffix(path, suffix) {
			n += count
		}
	}
	return n
}

// Stored returns how many bytes of content were sent to the store so far.
func (p *Proxy) Stored() int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.put
}

// SetFault puts f before Azurite: what f answers, by returning true, does not
// reach it. nil takes the fault away.
func (p *Proxy) SetFault(f func(w http.ResponseWriter, r *http.Request) bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.fault = f
}

func (p *Proxy) count(r *http.Request) func(http.ResponseWriter, *http.Request) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if r.Method == http.MethodPut && r.ContentLength > 0 {
		p.put += r.ContentLength
	}
	if r.Method == http.MethodGet && r.URL.Query().Get("comp") == "" && r.URL.Query().Get("restype") == "" {
		p.reads[r.URL.Path]++
	}
	return p.fault
}

// Unavailable is a fault: the service says that it cannot serve.
func Unavailable(w http.ResponseWriter, _ *http.Request) bool {
	w.Header().Set("x-ms-error-code", "ServerBusy")
	w.WriteHeader(http.StatusServiceUnavailable)
	return true
}

// HangUp is a fault: the connection breaks.
func HangUp(http.ResponseWriter, *http.Request) bool { panic(http.ErrAbortHandler) }
