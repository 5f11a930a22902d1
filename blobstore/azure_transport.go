package blobstore

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"sync/atomic"
	"time"
)

const (
	dialTimeout   = 5 * time.Second
	keepAlive     = 15 * time.Second
	idleConns     = 64               // kept per host
	idleTimeout   = 90 * time.Second // Azure closes after more
	uploadMinRate = 64 << 10         // bytes/s: what a body may take on top of a try's timeout
)

var errStalled = errors.New("no answer in time")

// transport sends the SDK's requests. It ends one that makes no progress for
// the time of a try: no answer, or no further byte of the body. A slow body is
// no reason to begin again.
//
// The time does not run while the SDK waits for a token: that happens above.
type transport struct {
	client   *http.Client
	try      time.Duration
	inFlight *atomic.Int64
}

// newTransport returns a transport that connects with dial, or if that is nil
// as usual.
func newTransport(try time.Duration, dial dialer, inFlight *atomic.Int64) *transport {
	if dial == nil {
		dial = (&net.Dialer{Timeout: min(dialTimeout, try), KeepAlive: keepAlive}).DialContext
	}
	return &transport{
		try:      try,
		inFlight: inFlight,
		client: &http.Client{
			Transport: &http.Transport{
				Proxy:               http.ProxyFromEnvironment,
				DialContext:         dial,
				TLSHandshakeTimeout: dialTimeout,
				MaxIdleConns:        0,
				MaxIdleConnsPerHost: idleConns,
				IdleConnTimeout:     idleTimeout,
				DisableCompression:  true, // a range is the bytes as they are
				WriteBufferSize:     64 << 10,
			},
			// Azure does not redirect; what does is not Azure.
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	}
}

// Do implements policy.Transporter.
func (t *transport) Do(req *http.Request) (*http.Response, error) {
	patience := t.try
	if req.ContentLength > 0 {
		patience += time.Duration(req.ContentLength) * time.Second / uploadMinRate
	}
	ctx, cancel := context.WithCancelCause(req.Context())
	w := &watched{ctx: ctx, cancel: cancel, try: t.try, inFlight: t.inFlight}
	t.inFlight.Add(1)
	w.timer = time.AfterFunc(patience, func() { cancel(errStalled) })
	resp, err := t.client.Do(req.WithContext(ctx))
	if err != nil {
		err = w.cause(err)
		w.end()
		return nil, err
	}
	w.timer.Reset(t.try)
	w.body = resp.Body
	resp.Body = w
	return resp, nil
}

// watched is the body of a response that has to keep coming.
type watched struct {
	body     io.ReadCloser
	ctx      context.Context // of this request alone
	cancel   context.CancelCauseFunc
	timer    *time.Timer
	try      time.Duration
	inFlight *atomic.Int64
	ended    bool
}

func (w *watched) Read(p []byte) (int, error) {
	n, err := w.body.Read(p)
	if err != nil && err != io.EOF {
		return n, w.cause(err)
	}
	if n > 0 && err == nil {
		w.timer.Reset(w.try)
	}
	return n, err
}

func (w *watched) Close() error {
	err := w.body.Close()
	w.end()
	return err
}

func (w *watched) end() {
	if !w.ended {
		w.ended = true
		w.timer.Stop()
		w.cancel(nil)
		w.inFlight.Add(-1)
	}
}

// cause returns errStalled when that is why err came.
func (w *watched) cause(err error) error {
	if context.Cause(w.ctx) == errStalled {
		return errStalled
	}
	return err
}
