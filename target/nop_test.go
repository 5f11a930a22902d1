package target

import (
	"bytes"
	"context"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"skylun/target/pdu"
	"skylun/test/initiator"
)

// pipe connects to a server without a network, for tests in which time
// matters. It is to be called within a bubble of synctest.
func pipe(t *testing.T, cfg Config) (*Server, *initiator.Conn) {
	t.Helper()
	cfg.Portals = At("127.0.0.1:0") // never bound
	s, err := New(cfg, testLog(t))
	if err != nil {
		t.Fatal(err)
	}
	addTarget(t, s, Target{Name: testTarget}, giver(nil, 0, 0))
	here, there := net.Pipe()
	s.admit(context.Background(), there, &portal{group: defaultGroup})
	c := initiator.New(here)
	c.Timeout = 0
	return s, c
}

// RFC 7143 11.18, 11.19: pings of the initiator, with what data ever.
func TestNOPOut(t *testing.T) {
	conn := start(t, Config{}).login(t, "MaxRecvDataSegmentLength", "4096")
	for _, n := range []int{0, 1, 4, 4096, 4097, 100_000} {
		p := conn.NewRequest(pdu.NOPOut)
		p.SetLUN([8]byte{0, 3})
		p.Data = content(n)
		send(t, conn, p)
		r := receive(t, conn, pdu.NOPIn)
		if r.ITT() != p.ITT() || r.TTT() != pdu.NoTag || r.LUN() != p.LUN() || !bytes.Equal(r.Data, p.Data[:min(n, 4096)]) {
			t.Errorf("%d bytes: answer %x with %d bytes", n, r.Header, len(r.Data))
		}
	}
	// One that is not immediate takes a CmdSN.
	p := conn.NewRequest(pdu.NOPOut)
	p.SetOpcode(pdu.NOPOut)
	conn.CmdSN++
	send(t, conn, p)
	if r := receive(t, conn, pdu.NOPIn); r.ExpCmdSN() != conn.CmdSN {
		t.Errorf("ExpCmdSN %d, want %d", r.ExpCmdSN(), conn.CmdSN)
	}
	// One with the reserved tag gets no answer.
	p = conn.NewRequest(pdu.NOPOut)
	p.SetITT(pdu.NoTag)
	send(t, conn, p)
	alive(t, conn)
}

// An idle initiator is pinged, and stays as long as it answers.
func TestPing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, c := pipe(t, Config{PingInterval: 10 * time.Second, PingTimeout: 5 * time.Second})
		mustLogin(t, c)
		for range 20 {
			before := time.Now()
			p := receive(t, c, pdu.NOPIn)
			if p.ITT() != pdu.NoTag || p.TTT() == pdu.NoTag || p.StatSN() != c.ExpStatSN {
				t.Fatalf("ping %x", p.Header)
			}
			if d := time.Since(before); d < 10*time.Second || d > 20*time.Second {
				t.Fatalf("ping after %v", d)
			}
			if err := c.Pong(p); err != nil {
				t.Fatal(err)
			}
		}
		c.Logout()
		synctest.Wait()
		if n := len(s.Sessions()); n != 0 {
			t.Errorf("%d sessions", n)
		}
	})
}

// One that does not answer is dropped.
func TestPingUnanswered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, c := pipe(t, Config{PingInterval: 10 * time.Second, PingTimeout: 5 * time.Second})
		mustLogin(t, c)
		start := time.Now()
		receive(t, c, pdu.NOPIn)
		closed(t, c)
		if d := time.Since(start); d < 15*time.Second || d > 26*time.Second {
			t.Errorf("dropped after %v", d)
		}
		synctest.Wait()
		if n := len(s.Sessions()); n != 0 {
			t.Errorf("%d sessions", n)
		}
	})
}

// One that does not even read is dropped too: nothing leaves.
func TestPingUnread(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, c := pipe(t, Config{PingInterval: 10 * time.Second, PingTimeout: 5 * time.Second})
		mustLogin(t, c)
		send(t, c, c.NewCommand(0, make([]byte, 6)))
		time.Sleep(time.Minute)
		synctest.Wait()
		if n := len(s.Sessions()); n != 0 {
			t.Errorf("%d sessions", n)
		}
	})
}

// One that sends commands is not pinged.
func TestNoPingWhenBusy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, c := pipe(t, Config{PingInterval: 10 * time.Second, PingTimeout: 5 * time.Second})
		mustLogin(t, c)
		for range 50 {
			time.Sleep(4 * time.Second)
			send(t, c, c.NewCommand(0, make([]byte, 6)))
			receive(t, c, pdu.SCSIResponse)
		}
		c.Close()
		synctest.Wait()
	})
}

func TestNoPings(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, c := pipe(t, Config{PingInterval: -1})
		mustLogin(t, c)
		time.Sleep(24 * time.Hour)
		alive(t, c)
		c.Close()
		synctest.Wait()
		if n := len(s.Sessions()); n != 0 {
			t.Errorf("%d sessions", n)
		}
	})
}

// A discovery session with nothing to do ends.
func TestIdleDiscovery(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, c := pipe(t, Config{PingInterval: 10 * time.Second})
		if _, err := c.Login(initiator.Options{Initiator: testInitiator}); err != nil {
			t.Fatal(err)
		}
		begin := time.Now()
		closed(t, c)
		if d := time.Since(begin); d > 20*time.Second {
			t.Errorf("ended after %v", d)
		}
		synctest.Wait()
	})
}

// A login that takes too long ends, however busy it is.
func TestLoginTimeout(t *testing.T) {
	for name, during := range map[string]func(c *initiator.Conn){
		"silent":      func(*initiator.Conn) {},
		"half header": func(c *initiator.Conn) { c.Write(make([]byte, 20)) },
		"half login": func(c *initiator.Conn) {
			c.Send(c.NewLogin(pdu.Operational, 0, false, testNames))
			c.ReceiveLogin()
		},
		"does not read": func(c *initiator.Conn) { c.Send(c.NewLogin(pdu.Operational, 0, false, testNames)) },
		"byte by byte": func(c *initiator.Conn) {
			for _, b := range c.NewLogin(pdu.Operational, 0, false, testNames).Bytes() {
				time.Sleep(time.Second)
				if _, err := c.Write([]byte{b}); err != nil {
					return
				}
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s, c := pipe(t, Config{LoginTimeout: 15 * time.Second})
				go during(c)
				time.Sleep(15*time.Second + 1)
				synctest.Wait()
				c.Close()
				time.Sleep(time.Second)
				if n := s.Stats().Connections; n != 0 {
					t.Errorf("%d connections after 15s", n)
				}
			})
		})
	}
}
