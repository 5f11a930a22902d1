package target

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"skylun/target/pdu"
	"skylun/test/initiator"
)

// One source cannot take all places of those who log in.
func TestTooManyLoginsOfSource(t *testing.T) {
	s := start(t, Config{MaxLogins: 10, MaxSourceLogins: 2})
	there := s.login(t)
	inLogin := func() int {
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.inLogin
	}
	eventually(t, "one has finished", func() bool { return inLogin() == 0 })
	a, _ := s.dial(t), s.dial(t)
	eventually(t, "two are accepted", func() bool { return inLogin() == 2 })
	closed(t, s.dial(t))
	other := dialFrom(t, "127.0.0.9", s.addr)
	mustLogin(t, other)
	alive(t, other)
	closed(t, s.dial(t))
	a.Close()
	eventually(t, "room for one", func() bool { return inLogin() == 1 })
	mustLogin(t, s.dial(t))
	closed(t, there) // it was the same initiator port
	if n := s.Stats().Refused; n != 2 {
		t.Errorf("%d refused", n)
	}
}

// The log says that connections are refused, but not about each.
func TestRefusedInLog(t *testing.T) {
	var log syncBuffer
	s, err := New(Config{Portals: At("127.0.0.1:0"), MaxLogins: 1}, slog.New(slog.NewTextHandler(&log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		p := &portal{group: defaultGroup}
		dial := func() net.Conn {
			here, there := net.Pipe()
			s.admit(context.Background(), there, p)
			return here
		}
		first := dial()
		for range 100 {
			dial()
		}
		if n := strings.Count(log.String(), "as many as are configured"); n != 1 {
			t.Errorf("said %d times: %s", n, log.String())
		}
		time.Sleep(tellInterval) // ends the first one, too
		first.Close()
		synctest.Wait()
		defer dial().Close()
		dial()
		if n := strings.Count(log.String(), "as many as are configured"); n != 2 {
			t.Errorf("said %d times, want once more: %s", n, log.String())
		}
	})
}

// syncBuffer is a buffer for several writers.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// Nor can it take all sessions. Those that are there live on, and can be taken
// up again.
func TestTooManySessionsOfSource(t *testing.T) {
	s := start(t, Config{MaxSessions: 3, MaxSourceSessions: 2})
	login := func(from string, isid byte) (*initiator.Conn, pdu.LoginStatus) {
		c := dialFrom(t, from, s.addr)
		c.ISID[5] = isid
		return c, loginStatus(t, c)
	}
	first, _ := login("127.0.0.1", 1)
	second, _ := login("127.0.0.1", 2)
	if _, got := login("127.0.0.1", 3); got != pdu.LoginOutOfResources {
		t.Errorf("third session of the source: status %04x", got)
	}
	other, got := login("127.0.0.9", 4)
	if got != pdu.LoginSuccess {
		t.Errorf("session of another source: status %04x", got)
	}
	if _, got := login("127.0.0.9", 5); got != pdu.LoginOutOfResources {
		t.Errorf("fourth session: status %04x", got)
	}
	again, got := login("127.0.0.1", 2)
	if got != pdu.LoginSuccess {
		t.Errorf("a session again: status %04x", got)
	}
	closed(t, second)
	for _, c := range []*initiator.Conn{first, again, other} {
		alive(t, c)
	}
}

func TestSourceOf(t *testing.T) {
	for in, want := range map[string]string{
		"192.0.2.1": "192.0.2.1", "::ffff:192.0.2.1": "192.0.2.1", "2001:db8::1": "2001:db8::1", "fe80::1%eth0": "fe80::1",
	} {
		if got := sourceOf(netip.MustParseAddr(in)).String(); got != want {
			t.Errorf("%s: %s, want %s", in, got, want)
		}
	}
}

// inUse returns how many bytes of memory are in use.
func inUse() int {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int(m.HeapAlloc + m.StackInuse)
}

// A connection that has not logged in holds a few KiB, whatever it announces.
// The figures include the test's end of the connection.
func TestLoginMemory(t *testing.T) {
	const conns = 200
	for _, c := range []struct {
		name  string
		bytes func(c *initiator.Conn) []byte
		limit int
	}{
		{"nothing sent", func(*initiator.Conn) []byte { return nil }, 16 << 10},
		{"8 KiB announced", func(c *initiator.Conn) []byte {
			p := c.NewLogin(pdu.Operational, pdu.FullFeature, true, nil)
			p.Data = make([]byte, loginData)
			return p.Bytes()[:pdu.HeaderSize]
		}, 26 << 10},
		{"all that a login may have", func(c *initiator.Conn) []byte {
			text := testNames.Text()
			for i := 0; len(text) < 6800; i++ {
				text = pdu.AppendPair(text, fmt.Sprint("k", i), "")
			}
			filler := bytes.Repeat([]byte{0}, 8000) // padding, which is passed over
			p := c.NewLogin(pdu.Operational, 0, false, nil)
			p.SetStages(pdu.FlagContinue, pdu.Operational, 0)
			p.Data = filler
			q := c.NewLogin(pdu.Operational, 0, false, nil)
			q.SetITT(p.ITT())
			q.Data = text
			return append(p.Bytes(), q.Bytes()...)
		}, 64 << 10},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, served := quietServer(t, Config{MaxLogins: conns, MaxSourceLogins: conns})
			first := c.bytes(initiator.New(nil))
			before := inUse()
			var open []net.Conn
			for range conns {
				nc, err := net.Dial("tcp", s.Portals()[0].String())
				if err != nil {
					t.Fatal(err)
				}
				defer nc.Close()
				nc.Write(first)
				open = append(open, nc)
			}
			eventually(t, "all are in login", func() bool { return s.Stats().Connections == conns })
			if len(first) > pdu.HeaderSize { // the second answer is on its way when its header is there
				for _, nc := range open {
					if _, err := io.ReadFull(nc, make([]byte, 2*pdu.HeaderSize)); err != nil {
						t.Fatal(err)
					}
				}
			} else {
				eventually(t, "all have read the header", func() bool { return len(first) == 0 || reads(s) == conns })
			}
			each := (inUse() - before) / conns
			t.Logf("%d bytes each", each)
			if each > c.limit {
				t.Errorf("%d bytes each, want no more than %d", each, c.limit)
			}
			runtime.KeepAlive(open)
			served()
		})
	}
}

// reads returns how often connections have read from their sockets.
func reads(s *Server) (n uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.conns {
		n += c.reads.Load()
	}
	return n
}

// quietServer returns a server without a log, and a function that stops it.
func quietServer(t testing.TB, cfg Config) (*Server, func()) {
	t.Helper()
	cfg.Portals, cfg.LogoutTimeout = At("127.0.0.1:0"), 10*time.Millisecond
	s, err := New(cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	addTarget(t, s, Target{Name: testTarget}, giver(nil, 0, 0))
	addTarget(t, s, Target{Name: chapTarget, CHAP: testCHAP(t)}, giver(nil, 0, 0))
	if err := s.Listen(); err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- s.Serve(context.Background()) }()
	return s, func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := errors.Join(s.Shutdown(ctx), <-served); err != nil {
			t.Error(err)
		}
	}
}

// RFC 7143 6.3: 10,000 connections that come and go, most of them in the middle
// of a login, leave nothing behind.
func TestLoginChurn(t *testing.T) {
	const cycles, parallel = 10_000, 4
	s, stop := quietServer(t, Config{})
	defer stop()
	addr := s.Portals()[0].String()
	method := slices.Concat(chapNames, initiator.Keys{"AuthMethod", "CHAP", "CHAP_A", "5"})
	once := func(worker, i int) error {
		nc, err := net.Dial("tcp", addr)
		if err != nil {
			return err
		}
		defer nc.Close()
		nc.(*net.TCPConn).SetLinger(0) // leaves no port behind either
		c := initiator.New(nc)
		c.ISID[5] = byte(worker)
		switch i % 8 {
		case 0: // nothing
		case 1:
			nc.Write([]byte("GET / HTTP/1.1\r\n\r\n"))
		case 2:
			nc.Write(c.NewLogin(pdu.Operational, pdu.FullFeature, true, testNames).Bytes()[:50])
		case 3:
			c.Send(c.NewLogin(pdu.Operational, 0, false, testNames))
			_, _, err = c.ReceiveLogin()
		case 4:
			c.Send(c.NewLogin(pdu.Security, 0, false, method))
			_, _, err = c.ReceiveLogin()
		case 5: // refused
			p := c.NewLogin(pdu.Security, 0, false, method)
			c.Send(p)
			if _, _, err = c.ReceiveLogin(); err != nil {
				return err
			}
			p.Data = initiator.Keys{"CHAP_N", testUser, "CHAP_R", "0x00"}.Text()
			c.Send(p)
			if _, _, err := c.ReceiveLogin(); !errors.As(err, new(initiator.StatusError)) {
				return err
			}
		case 6:
			_, err = c.Login(initiator.Options{Initiator: testInitiator})
		case 7:
			_, err = c.Login(initiator.Options{Initiator: testInitiator, Target: testTarget})
		}
		return err
	}
	run := func(n int) {
		var wg sync.WaitGroup
		for worker := range parallel {
			wg.Go(func() {
				for i := range n / parallel {
					if err := once(worker, i); err != nil {
						t.Errorf("cycle %d: %v", i, err)
						return
					}
				}
			})
		}
		wg.Wait()
		eventually(t, "no connection is left", func() bool { return s.Stats().Connections == 0 && len(s.Sessions()) == 0 })
	}
	descriptors := func() int {
		all, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return len(all)
	}
	run(400) // fills pools
	routines, files, used := runtime.NumGoroutine(), descriptors(), inUse()
	run(cycles)
	eventually(t, "no goroutine is left", func() bool { return runtime.NumGoroutine() <= routines })
	eventually(t, "no descriptor is left", func() bool { return descriptors() <= files })
	if now := inUse(); now > used+1<<20 {
		t.Errorf("%d bytes are in use, %d before", now, used)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.conns)+len(s.sessions)+len(s.ports)+len(s.loginsFrom)+s.inLogin > 0 {
		t.Errorf("tables: %d connections, %d sessions, %d ports, %d sources, %d in login", len(s.conns), len(s.sessions), len(s.ports), len(s.loginsFrom), s.inLogin)
	}
}
