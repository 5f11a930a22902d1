package target

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"skylun/block"
	"skylun/lun"
	"skylun/target/pdu"
	"skylun/test/initiator"
	"skylun/test/memdev"
)

const (
	testTarget    = "iqn.2026-11.io.skylun:test"
	testInitiator = "iqn.2026-11.com.example:client"
)

// testWriter sends log lines to the test.
type testWriter struct {
	mu sync.Mutex
	t  testing.TB // nil when the test has ended
}

func (w *testWriter) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.t != nil {
		w.t.Logf("%s", p[:len(p)-1])
	}
	return len(p), nil
}

func testLog(t testing.TB) *slog.Logger {
	if _, ok := t.(*testing.T); !ok {
		return slog.New(slog.DiscardHandler)
	}
	w := &testWriter{t: t}
	t.Cleanup(func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.t = nil
	})
	return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

// server is a Server on loopback.
type server struct {
	*Server
	addr   string
	served chan error
}

// start starts a server with one target that has the units as LUN 0, 1, ...
// It is stopped at the end of the test, which fails when that goes wrong.
func start(t testing.TB, cfg Config, units ...lun.Unit) *server {
	t.Helper()
	if cfg.Portals == nil {
		cfg.Portals = At("127.0.0.1:0")
	}
	if cfg.LogoutTimeout == 0 {
		cfg.LogoutTimeout = 10 * time.Millisecond
	}
	s, err := New(cfg, testLog(t))
	if err != nil {
		t.Fatal(err)
	}
	addTarget(t, s, Target{Name: testTarget, Alias: "for tests"}, units...)
	if err := s.Listen(); err != nil {
		t.Fatal(err)
	}
	return serve(t, s)
}

// serve is the rest of start, for a server that listens.
func serve(t testing.TB, s *Server) *server {
	t.Helper()
	srv := &server{s, s.Portals()[0].String(), make(chan error, 1)}
	go func() { srv.served <- s.Serve(context.Background()) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := s.Shutdown(ctx); err != nil {
			t.Errorf("Shutdown: %v", err)
		}
		if err := <-srv.served; err != nil {
			t.Errorf("Serve: %v", err)
		}
		if n := s.budget.used.Load(); n != 0 {
			t.Errorf("%d bytes are still counted as buffered", n)
		}
	})
	return srv
}

func addTarget(t testing.TB, s *Server, tgt Target, units ...lun.Unit) {
	t.Helper()
	tgt.Units = lun.NewMap()
	for i, u := range units {
		if err := tgt.Units.Add(uint16(i), u); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.AddTarget(tgt); err != nil {
		t.Fatal(err)
	}
}

// dial connects without logging in.
func (s *server) dial(t testing.TB) *initiator.Conn {
	t.Helper()
	c, err := initiator.Dial(s.addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// login opens a normal session; keys replace the friendly ones.
func (s *server) login(t testing.TB, keys ...string) *initiator.Conn {
	t.Helper()
	c := s.dial(t)
	mustLogin(t, c, keys...)
	return c
}

func mustLogin(t testing.TB, c *initiator.Conn, keys ...string) initiator.Keys {
	t.Helper()
	o := initiator.Options{Initiator: testInitiator, Target: testTarget}
	if keys != nil {
		o.Keys = keys
	}
	answers, err := c.Login(o)
	if err != nil {
		t.Fatalf("login: %v", err)
	}
	return answers
}

func send(t testing.TB, c *initiator.Conn, ps ...*initiator.PDU) {
	t.Helper()
	if err := c.Send(ps...); err != nil {
		t.Fatalf("send: %v", err)
	}
}

// receive receives a PDU, which must be of that kind.
func receive(t testing.TB, c *initiator.Conn, want pdu.Opcode) *initiator.PDU {
	t.Helper()
	p, err := c.Receive()
	if err != nil {
		t.Fatalf("waiting for %v: %v", want, err)
	}
	if p.Opcode() != want {
		t.Fatalf("received %v, want %v", p, want)
	}
	return p
}

// closed checks that the target has closed the connection, without sending
// anything before.
func closed(t testing.TB, c *initiator.Conn) {
	t.Helper()
	p, err := c.Receive()
	var timeout interface{ Timeout() bool }
	if err == nil || errors.As(err, &timeout) && timeout.Timeout() {
		t.Errorf("connection is open: received %v, %v", p, err)
	}
}

// alive checks that the connection still works.
func alive(t testing.TB, c *initiator.Conn) {
	t.Helper()
	p := c.NewRequest(pdu.NOPOut)
	p.Data = []byte("ping")
	send(t, c, p)
	if r := receive(t, c, pdu.NOPIn); r.ITT() != p.ITT() || string(r.Data) != "ping" {
		t.Errorf("ping answered by %v %q", r, r.Data)
	}
}

// do executes a command that must end with GOOD.
func do(t testing.TB, c *initiator.Conn, cdb []byte, in int, out []byte) *initiator.Result {
	t.Helper()
	r, err := c.Do(0, cdb, in, out)
	if err != nil {
		t.Fatalf("opcode 0x%02x: %v", cdb[0], err)
	}
	if r.Status != 0 {
		t.Fatalf("opcode 0x%02x: status %d, sense %06x", cdb[0], r.Status, r.Key())
	}
	return r
}

// eventually waits until f is true. It is for what other goroutines do in
// their own time; it polls because there is nothing to wait for.
func eventually(t testing.TB, what string, f func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !f(); {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain: %s", what)
		}
		time.Sleep(time.Millisecond)
	}
}

// fakeUnit does what a test says. Without a function, Try declines and Execute
// ends with GOOD.
type fakeUnit struct {
	try     func(c *lun.Command) bool
	execute func(ctx context.Context, c *lun.Command)
	nexuses atomic.Int32 // attached
}

func (u *fakeUnit) Try(c *lun.Command) bool { return u.try != nil && u.try(c) }
func (u *fakeUnit) Execute(ctx context.Context, c *lun.Command) {
	if u.execute != nil {
		u.execute(ctx, c)
	}
}
func (u *fakeUnit) Attach(*lun.Nexus) { u.nexuses.Add(1) }
func (u *fakeUnit) Detach(*lun.Nexus) { u.nexuses.Add(-1) }

// hanging is a unit whose commands hang until they are cancelled or released.
type hanging struct {
	fakeUnit
	started chan struct{}
	release chan struct{}
	running atomic.Int32
}

func newHanging() *hanging {
	h := &hanging{started: make(chan struct{}, 1000), release: make(chan struct{})}
	h.execute = func(ctx context.Context, c *lun.Command) {
		h.running.Add(1)
		defer h.running.Add(-1)
		h.started <- struct{}{}
		select {
		case <-ctx.Done():
			c.Status = lun.StatusTaskAborted
		case <-h.release:
		}
	}
	return h
}

// tryDevice answers without waiting, over a memory device.
type tryDevice struct{ *memdev.Device }

func (d tryDevice) TryReadAt(p []byte, off int64) (bool, error) {
	return true, d.ReadAt(context.Background(), p, off)
}

func (d tryDevice) TryWriteAt(p []byte, off int64) (bool, error) {
	return true, d.WriteAt(context.Background(), p, off)
}

// disk returns a disk over dev.
func disk(t testing.TB, dev block.Device) *lun.Disk {
	return lun.NewDisk(dev, lun.DiskConfig{Name: t.Name(), ID: [16]byte{1, 2, 3}}, testLog(t))
}
