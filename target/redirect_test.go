package target

import (
	"context"
	"slices"
	"testing"

	"skylun/target/pdu"
	"skylun/test/initiator"
)

// RFC 7143 11.13.5 and 13.8: a login is sent elsewhere with the address alone,
// without portal group, in either stage, whether the target is here or not.
func TestRedirect(t *testing.T) {
	const elsewhere = "iqn.2026-11.io.skylun:elsewhere"
	s, stop := quietServer(t, Config{})
	defer stop()
	asked := make(chan LoginAttempt, 10)
	s.RedirectLogins(func(a LoginAttempt) (Redirection, bool) {
		asked <- a
		switch a.Target {
		case elsewhere:
			return Redirection{Address: "192.0.2.9:3260"}, true
		case chapTarget:
			return Redirection{Address: "[2001:db8::9]:3261", Permanent: true}, true
		}
		return Redirection{}, false
	})
	for _, c := range []struct {
		target  string
		stage   pdu.Stage
		status  pdu.LoginStatus
		address string
	}{
		{elsewhere, pdu.Operational, pdu.LoginMovedTemporarily, "192.0.2.9:3260"},
		{elsewhere, pdu.Security, pdu.LoginMovedTemporarily, "192.0.2.9:3260"},
		{chapTarget, pdu.Security, pdu.LoginMovedPermanently, "[2001:db8::9]:3261"},
	} {
		conn, err := initiator.Dial(s.Portals()[0].String())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		keys := initiator.Options{Initiator: "IQN.2026-11.com.example:Client", Target: c.target}.Names()
		send(t, conn, conn.NewLogin(c.stage, pdu.FullFeature, true, append(keys, "AuthMethod", "None")))
		r := receive(t, conn, pdu.LoginResp)
		got, err := initiator.ParseKeys(r.Data)
		if err != nil || r.LoginStatus() != c.status || r.Final() || !slices.Equal(got, initiator.Keys{"TargetAddress", c.address}) {
			t.Errorf("%s: status %04x with %q, %v", c.target, r.LoginStatus(), got, err)
		}
		closed(t, conn)
		want := LoginAttempt{Initiator: testInitiator, Target: c.target, Remote: addrPort(conn.LocalAddr()), Local: addrPort(conn.RemoteAddr())}
		if a := <-asked; a != want {
			t.Errorf("asked for %+v, want %+v", a, want)
		}
	}
	// The others stay, and discovery is not asked about.
	for _, o := range []initiator.Options{{Initiator: testInitiator, Target: testTarget}, {Initiator: testInitiator}} {
		conn, err := initiator.Dial(s.Portals()[0].String())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if _, err := conn.Login(o); err != nil {
			t.Error(err)
		}
		alive(t, conn)
	}
	if n := len(asked); n != 1 {
		t.Errorf("asked %d times more, want once", n)
	}
}

// RFC 7143 11.13.5, status 0x0300: what goes wrong here is told.
func TestLoginTargetError(t *testing.T) {
	s, stop := quietServer(t, Config{})
	defer stop()
	s.RedirectLogins(func(LoginAttempt) (Redirection, bool) { panic("this is a test") })
	conn, err := initiator.Dial(s.Portals()[0].String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if got := loginStatus(t, conn); got != pdu.LoginTargetError {
		t.Errorf("status %04x", got)
	}
	closed(t, conn)
}

// RFC 7143 11.13.5, status 0x0204: a target that goes while somebody logs in.
func TestLoginTargetRemoved(t *testing.T) {
	s := start(t, Config{})
	conn := s.dial(t)
	l := &script{t: t, c: conn, itt: conn.NextITT(), csg: pdu.Operational}
	l.send(false, testNames)
	l.must(false)
	if err := s.RemoveTarget(context.Background(), testTarget); err != nil {
		t.Fatal(err)
	}
	l.send(true, nil)
	if r := receive(t, conn, pdu.LoginResp); r.LoginStatus() != pdu.LoginTargetRemoved {
		t.Errorf("status %04x", r.LoginStatus())
	}
	closed(t, conn)
}

// Unknown keys are answered at more than their length, so the answer is bounded.
func TestLoginAnswerBounded(t *testing.T) {
	conn := start(t, Config{}).dial(t)
	l := &script{t: t, c: conn, itt: conn.NextITT(), csg: pdu.Operational}
	var many initiator.Keys
	for range 2500 {
		many = append(many, "a", "")
	}
	l.send(true, slices.Concat(testNames, many))
	if r := receive(t, conn, pdu.LoginResp); r.LoginStatus() != pdu.LoginOutOfResources {
		t.Errorf("status %04x", r.LoginStatus())
	}
	closed(t, conn)
}

// RFC 7143 13.14: FirstBurstLength does not exceed MaxBurstLength, in whatever
// order they come.
func TestFirstBurstWithinMaxBurst(t *testing.T) {
	for _, keys := range []initiator.Keys{
		{"MaxBurstLength", "8192", "FirstBurstLength", "65536"}, {"FirstBurstLength", "65536", "MaxBurstLength", "8192"},
	} {
		conn := start(t, Config{}).dial(t)
		if got := mustLogin(t, conn, keys...).Get("FirstBurstLength"); !slices.Equal(got, []string{"8192"}) {
			t.Errorf("%q: FirstBurstLength=%q", keys, got)
		}
	}
}
