package target

import (
	"context"
	"errors"
	"net"
	"runtime"
	"strings"
	"testing"
	"time"

	"skylun/lun"
	"skylun/target/pdu"
	"skylun/test/initiator"
)

func loginStatus(t testing.TB, c *initiator.Conn) pdu.LoginStatus {
	t.Helper()
	_, err := c.Login(initiator.Options{Initiator: testInitiator, Target: testTarget})
	if status := (initiator.StatusError{}); errors.As(err, &status) {
		return status.Status
	}
	if err != nil {
		t.Fatal(err)
	}
	return pdu.LoginSuccess
}

// RFC 7143 6.3.5: a login of the same initiator port takes the place of the old
// session, when no command of that is being executed any more.
func TestSessionReinstatement(t *testing.T) {
	h := newHanging()
	s := start(t, Config{}, h)
	old := s.login(t)
	send(t, old, old.NewCommand(0, make([]byte, 6)))
	<-h.started
	c := s.login(t)
	if h.running.Load() != 0 {
		t.Error("the new session begins before the old command has ended")
	}
	closed(t, old)
	if c.TSIH == old.TSIH {
		t.Error("both have the same TSIH")
	}
	alive(t, c)
	if n := len(s.Sessions()); n != 1 {
		t.Errorf("%d sessions", n)
	}
	if n := h.nexuses.Load(); n != 1 {
		t.Errorf("%d nexuses are attached", n)
	}
}

// A command that does not end keeps the new session out, but not for ever.
func TestReinstatementWaits(t *testing.T) {
	stuck := make(chan struct{})
	started := make(chan struct{})
	unit := &fakeUnit{execute: func(context.Context, *lun.Command) {
		close(started)
		<-stuck
	}}
	s := start(t, Config{LoginTimeout: 100 * time.Millisecond}, unit)
	old := s.login(t)
	send(t, old, old.NewCommand(0, make([]byte, 6)))
	<-started
	c := s.dial(t)
	if p, err := c.Login(initiator.Options{Initiator: testInitiator, Target: testTarget}); err == nil {
		t.Errorf("second login: %v", p)
	}
	close(stuck)
	eventually(t, "old session is gone", func() bool { return len(s.Sessions()) == 0 })
	alive(t, s.login(t))
}

// RFC 7143 4.4.3: sessions with different ISIDs, or to different targets, or
// of different initiators, live side by side.
func TestSessionsSideBySide(t *testing.T) {
	s := start(t, Config{}, giver(nil, 0, 0))
	addTarget(t, s.Server, Target{Name: testTarget + "2"}, giver(nil, 0, 0))
	var conns []*initiator.Conn
	for i := range 4 {
		c := s.dial(t)
		o := initiator.Options{Initiator: testInitiator, Target: testTarget}
		switch i {
		case 1:
			c.ISID[5]++
		case 2:
			o.Target += "2"
		case 3:
			o.Initiator += "2"
		}
		if _, err := c.Login(o); err != nil {
			t.Fatal(err)
		}
		conns = append(conns, c)
	}
	for _, c := range conns {
		do(t, c, make([]byte, 6), 0, nil)
	}
	infos := s.Sessions()
	if len(infos) != 4 {
		t.Fatalf("%d sessions", len(infos))
	}
	for i, info := range infos {
		if info.TSIH != conns[i].TSIH || info.Remote.String() != conns[i].LocalAddr().String() || info.Commands != 1 || info.Inline != 1 ||
			!strings.HasPrefix(info.Initiator, testInitiator) || !strings.HasPrefix(info.Target, testTarget) {
			t.Errorf("session %d: %+v", i, info)
		}
	}
}

// RFC 7143 6.3.4 and 13.2: a TSIH names a session, which has one connection.
func TestConnectionReinstatement(t *testing.T) {
	s := start(t, Config{}, giver(nil, 0, 0))
	old := s.login(t)

	second := s.dial(t)
	second.TSIH, second.CID = old.TSIH, 1
	if got := loginStatus(t, second); got != pdu.LoginTooManyConns {
		t.Errorf("second connection: status %04x", got)
	}
	other := s.dial(t)
	other.TSIH, other.ISID[5] = old.TSIH, 99
	if got := loginStatus(t, other); got != pdu.LoginNoSession {
		t.Errorf("with another ISID: status %04x", got)
	}
	alive(t, old)

	again := s.dial(t)
	again.TSIH, again.CID = old.TSIH, old.CID
	tsih := old.TSIH
	if got := loginStatus(t, again); got != pdu.LoginSuccess || again.TSIH != tsih {
		t.Errorf("the same connection: status %04x, TSIH %d, want %d", got, again.TSIH, tsih)
	}
	closed(t, old)
	do(t, again, make([]byte, 6), 0, nil)
}

// RFC 7143 11.14: logout.
func TestLogout(t *testing.T) {
	for _, c := range []struct {
		name   string
		reason byte
		cid    uint16
		want   byte
		ends   bool
	}{
		{"session", pdu.LogoutSession, 99, pdu.LogoutDone, true},
		{"connection", pdu.LogoutConnection, 0, pdu.LogoutDone, true},
		{"other connection", pdu.LogoutConnection, 5, pdu.LogoutNoCID, false},
		{"for recovery", pdu.LogoutRecovery, 0, pdu.LogoutNoRecovery, false},
		{"unknown reason", 9, 0, pdu.LogoutCleanupFail, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := newHanging()
			s := start(t, Config{}, h)
			conn := s.login(t)
			send(t, conn, conn.NewCommand(0, make([]byte, 6)))
			<-h.started
			p := conn.NewRequest(pdu.LogoutReq)
			p.SetFlags(pdu.FlagFinal | c.reason)
			p.SetTTT(0)
			p.SetCID(c.cid)
			send(t, conn, p)
			r := receive(t, conn, pdu.LogoutResp)
			if r.ResponseCode() != c.want || r.ITT() != p.ITT() {
				t.Errorf("response %d", r.ResponseCode())
			}
			if !c.ends {
				alive(t, conn)
				close(h.release)
				return
			}
			if h.running.Load() != 0 {
				t.Error("a command is still being executed")
			}
			closed(t, conn)
			eventually(t, "nexus is gone", func() bool { return h.nexuses.Load() == 0 && len(s.Sessions()) == 0 })
		})
	}
}

// The response to a logout waits for all commands.
func TestLogoutWaits(t *testing.T) {
	started, ends := make(chan struct{}), make(chan struct{})
	stubborn := &fakeUnit{execute: func(ctx context.Context, c *lun.Command) {
		close(started)
		<-ctx.Done()
		<-ends
	}}
	quick := newHanging()
	conn := start(t, Config{}, stubborn, quick).login(t)
	send(t, conn, conn.NewCommand(0, make([]byte, 6)), conn.NewCommand(1, make([]byte, 6)))
	<-started
	<-quick.started
	send(t, conn, conn.NewRequest(pdu.LogoutReq))
	eventually(t, "one has ended", func() bool { return quick.running.Load() == 0 })
	conn.Timeout = 50 * time.Millisecond
	if p, err := conn.Receive(); err == nil {
		t.Errorf("received %v while a command is being executed", p)
	}
	close(ends)
	conn.Timeout = 10 * time.Second
	receive(t, conn, pdu.LogoutResp)
}

// What comes after a logout is not looked at.
func TestCommandsAfterLogout(t *testing.T) {
	s := start(t, Config{}, giver(nil, 0, 0))
	conn := s.login(t)
	p := conn.NewRequest(pdu.LogoutReq)
	send(t, conn, p, conn.NewCommand(0, make([]byte, 6)), conn.NewCommand(0, make([]byte, 6)))
	eventually(t, "session is gone", func() bool { return len(s.Sessions()) == 0 })
	if n := s.Stats().Commands; n != 0 {
		t.Errorf("%d commands were taken", n)
	}
}

// A connection that breaks ends its commands and its nexus.
func TestConnectionLost(t *testing.T) {
	h := newHanging()
	s := start(t, Config{}, h)
	conn := s.login(t)
	send(t, conn, conn.NewCommand(0, make([]byte, 6)))
	<-h.started
	conn.Close()
	eventually(t, "nexus is gone", func() bool { return h.nexuses.Load() == 0 })
	if h.running.Load() != 0 {
		t.Error("nexus was detached before the command had ended")
	}
}

func TestRemoveTarget(t *testing.T) {
	h := newHanging()
	s := start(t, Config{}, h)
	conn := s.login(t)
	send(t, conn, conn.NewCommand(0, make([]byte, 6)))
	<-h.started
	if err := s.RemoveTarget(t.Context(), testTarget); err != nil {
		t.Fatal(err)
	}
	if h.running.Load() != 0 || h.nexuses.Load() != 0 {
		t.Error("a command is still being executed, or its nexus attached")
	}
	dismissed(t, conn)
	if got := loginStatus(t, s.dial(t)); got != pdu.LoginNotFound {
		t.Errorf("login: status %04x", got)
	}
	if err := s.RemoveTarget(t.Context(), testTarget); err == nil {
		t.Error("removed twice")
	}
}

// Shutdown lets commands end and their answers leave, and closes.
func TestShutdownDrains(t *testing.T) {
	h := newHanging()
	s := start(t, Config{}, h)
	conn := s.login(t)
	idle := s.dial(t)
	idle.ISID[5]++
	mustLogin(t, idle)
	alive(t, idle)
	before := s.dial(t) // has not logged in
	eventually(t, "three connections", func() bool { return s.Stats().Connections == 3 })
	send(t, conn, conn.NewCommand(0, make([]byte, 6)))
	<-h.started
	done := make(chan error, 1)
	go func() { done <- s.Shutdown(context.Background()) }()
	asked(t, conn)
	dismissed(t, idle)
	closed(t, before)
	if _, err := net.Dial("tcp", s.addr); err == nil {
		t.Error("portal is open")
	}
	select {
	case err := <-done:
		t.Fatalf("Shutdown returns %v while a command is being executed", err)
	default:
	}
	close(h.release)
	receive(t, conn, pdu.SCSIResponse)
	leaves(t, conn)
	if err := <-done; err != nil {
		t.Error(err)
	}
	if n := h.nexuses.Load(); n != 0 {
		t.Errorf("%d nexuses are attached", n)
	}
}

// Shutdown cancels what does not end in time.
func TestShutdownTimeout(t *testing.T) {
	h := newHanging()
	s := start(t, Config{}, h)
	conn := s.login(t)
	send(t, conn, conn.NewCommand(0, make([]byte, 6)))
	<-h.started
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Shutdown(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("Shutdown: %v", err)
	}
	if h.running.Load() != 0 {
		t.Error("a command is still being executed")
	}
}

// The end of Serve's context drops everything.
func TestServeContext(t *testing.T) {
	h := newHanging()
	s, err := New(Config{Portals: At("127.0.0.1:0")}, testLog(t))
	if err != nil {
		t.Fatal(err)
	}
	addTarget(t, s, Target{Name: testTarget}, h)
	if err := s.Listen(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan error)
	go func() { served <- s.Serve(ctx) }()
	conn, err := initiator.Dial(s.Portals()[0].String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	mustLogin(t, conn)
	send(t, conn, conn.NewCommand(0, make([]byte, 6)))
	<-h.started
	cancel()
	if err := <-served; !errors.Is(err, context.Canceled) {
		t.Errorf("Serve: %v", err)
	}
	closed(t, conn)
}

// An initiator that finds no targets yet may not come back: connections wait
// until Serve is called.
func TestBacklogWaits(t *testing.T) {
	s, err := New(Config{Portals: At("127.0.0.1:0")}, testLog(t))
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Listen(); err != nil {
		t.Fatal(err)
	}
	conn, err := initiator.Dial(s.Portals()[0].String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	send(t, conn, conn.NewLogin(pdu.Operational, pdu.FullFeature, true, testNames))
	addTarget(t, s, Target{Name: testTarget}, giver(nil, 0, 0))
	served := make(chan error)
	go func() { served <- s.Serve(context.Background()) }()
	if _, _, err := conn.ReceiveLogin(); err != nil {
		t.Error(err)
	}
	if err := s.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
	if err := <-served; err != nil {
		t.Error(err)
	}
}

func TestListenErrors(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	for _, c := range []struct {
		portals []string
		want    []string
	}{
		{nil, []string{"portals", "none"}},
		{[]string{"localhost:3260"}, []string{"portals", `"localhost:3260"`}},
		{[]string{"127.0.0.1:99999"}, []string{"portals", "99999"}},
		{[]string{"127.0.0.1:0", taken.Addr().String()}, []string{taken.Addr().String(), "in use", "another port"}},
		{[]string{"192.0.2.77:0"}, []string{"192.0.2.77", "does not have that address"}},
	} {
		s, err := New(Config{Portals: At(c.portals...)}, testLog(t))
		if err == nil {
			err = s.Listen()
		}
		if err == nil {
			t.Errorf("%q: no error", c.portals)
			continue
		}
		for _, w := range c.want {
			if !strings.Contains(err.Error(), w) {
				t.Errorf("%q: %q lacks %q", c.portals, err, w)
			}
		}
		if strings.Contains(err.Error(), "\n") {
			t.Errorf("%q: %q is more than a line", c.portals, err)
		}
	}
}

// Connections that come and go leave nothing behind.
func TestChurn(t *testing.T) {
	s := start(t, Config{}, newHanging())
	s.login(t).Close()
	eventually(t, "settled", func() bool { return s.Stats().Connections == 0 })
	runtime.GC()
	before := runtime.NumGoroutine()
	for i := range 300 {
		c, err := initiator.Dial(s.addr)
		if err != nil {
			t.Fatal(err)
		}
		switch i % 4 {
		case 0: // nothing
		case 1:
			c.Write([]byte("garbage"))
		case 2:
			c.Send(c.NewLogin(pdu.Operational, 0, false, testNames))
		case 3:
			mustLogin(t, c)
			c.Send(c.NewCommand(0, make([]byte, 6)), c.NewCommand(0, make([]byte, 6)))
		}
		c.Close()
	}
	eventually(t, "no connection is left", func() bool { return s.Stats().Connections == 0 && len(s.Sessions()) == 0 })
	eventually(t, "no goroutine is left", func() bool { return runtime.NumGoroutine() <= before })
}

func TestValidIQN(t *testing.T) {
	for _, name := range []string{
		"iqn.2026-11.io.skylun:demo", "iqn.2001-04.com.example", "iqn.2001-04.com.example:storage:diskarrays-sn-a8675309",
		"eui.02004567a425678d", "naa.52004567ba64678d", "naa.62004567ba64678d0123456789abcdef",
	} {
		if err := ValidIQN(name); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, name := range []string{
		"", "demo", "iqn", "iqn.", "iqn.2026-11", "iqn.2026-11.", "iqn.2026-13.io.skylun", "iqn.2026-00.io.skylun", "iqn.202-11.io.skylun",
		"iqn.2026-11.io..skylun", "iqn.2026-11.io.skylun:", "iqn.2026-11.-io.skylun", "iqn.2026-11.io.skylun:Demo", "iqn.2026-11.io.skylun:a b",
		"iqn.2026-11.io.skylun:\u00fc", "eui.123", "eui.02004567a425678g", "naa.123", "iqn.2026-11.io.skylun:" + strings.Repeat("x", 210),
	} {
		if err := ValidIQN(name); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestAddTargetErrors(t *testing.T) {
	s, err := New(Config{Portals: At("127.0.0.1:0")}, testLog(t))
	if err != nil {
		t.Fatal(err)
	}
	addTarget(t, s, Target{Name: testTarget})
	for _, tgt := range []Target{
		{Name: "demo", Units: lun.NewMap()},
		{Name: testTarget, Units: lun.NewMap()},
		{Name: testTarget + "2"},
		{Name: testTarget + "2", Units: lun.NewMap(), Initiators: []string{"a b"}},
	} {
		if err := s.AddTarget(tgt); err == nil {
			t.Errorf("%+v was added", tgt)
		}
	}
	if names := s.targetList(); len(names) != 1 {
		t.Errorf("%d targets", len(names))
	}
}

func TestConfigValidate(t *testing.T) {
	err := Config{Portals: At("x", "y:1"), MaxLogins: -1, QueueDepth: 1 << 20}.Validate()
	for _, w := range []string{`"x"`, `"y:1"`, "max_logins", "queue_depth"} {
		if err == nil || !strings.Contains(err.Error(), w) {
			t.Errorf("%v lacks %s", err, w)
		}
	}
	for in, want := range map[string]string{"10.0.0.1": "10.0.0.1:3260", "::1": "[::1]:3260", "::ffff:10.0.0.1": "10.0.0.1:3260", "[::]:99": "[::]:99", "0.0.0.0:1": "0.0.0.0:1"} {
		if got, err := ParsePortal(in); got.String() != want || err != nil {
			t.Errorf("%s: %s, %v", in, got, err)
		}
	}
	for _, in := range []string{"", "a:b", "1.2.3.4:x"} {
		if got, err := ParsePortal(in); err == nil {
			t.Errorf("%q is taken for %s", in, got)
		}
	}
}
