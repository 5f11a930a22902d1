// Package toxic puts toxiproxy before a server: a link with latency and
// bandwidth, connections that are reset, and none at all.
package toxic

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"time"

	toxiproxy "github.com/Shopify/toxiproxy/v2"
	"github.com/rs/zerolog"
)

func init() { zerolog.SetGlobalLevel(zerolog.Disabled) } // some of it logs to the global logger

// Proxy is a toxiproxy in this process, before one server.
type Proxy struct {
	Addr string // IP:PORT it listens on

	proxy *toxiproxy.Proxy
}

// New listens on a free port of the loopback interface for a server at upstream.
func New(upstream string) (*Proxy, error) {
	server := toxiproxy.NewServer(toxiproxy.NewMetricsContainer(nil), zerolog.Nop())
	p := &Proxy{proxy: toxiproxy.NewProxy(server, "store", "127.0.0.1:0", upstream)}
	if err := p.proxy.Start(); err != nil {
		return nil, err
	}
	p.Addr = p.proxy.Listen
	return p, nil
}

// Close ends the proxy and its connections.
func (p *Proxy) Close() { p.proxy.Stop() }

// Clear makes the link perfect.
func (p *Proxy) Clear(ctx context.Context) { p.proxy.Toxics.ResetToxics(ctx) }

// Latency delays every answer.
func (p *Proxy) Latency(d time.Duration) error {
	return p.add("latency", map[string]any{"latency": d.Milliseconds()})
}

// Bandwidth limits each connection to rate bytes/s, in thousands.
func (p *Proxy) Bandwidth(rate int64) error {
	return p.add("bandwidth", map[string]any{"rate": rate / 1000})
}

// Reset breaks each connection, the open ones too, after the first bytes of an
// answer and some time.
func (p *Proxy) Reset(after time.Duration) error {
	return p.add("reset_peer", map[string]any{"timeout": after.Milliseconds()})
}

// Stall lets nothing of answers through, and keeps the connections.
func (p *Proxy) Stall() error { return p.add("timeout", map[string]any{"timeout": 0}) }

// CutAfter closes each connection after n bytes of answers.
func (p *Proxy) CutAfter(n int64) error { return p.add("limit_data", map[string]any{"bytes": n}) }

func (p *Proxy) add(kind string, attributes map[string]any) error {
	b, err := json.Marshal(map[string]any{"type": kind, "attributes": attributes})
	if err != nil {
		return err
	}
	if _, err := p.proxy.Toxics.AddToxicJson(bytes.NewReader(b)); err != nil {
		return fmt.Errorf("toxic %s: %w", kind, err)
	}
	return nil
}

// Down breaks all connections and accepts none until Up.
func (p *Proxy) Down() { p.proxy.Stop() }

// Up accepts connections again, at the same address.
func (p *Proxy) Up() error { return p.proxy.Start() }
