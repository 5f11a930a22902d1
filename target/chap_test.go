package target

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"skylun/target/pdu"
	"skylun/test/initiator"
)

const (
	testUser   = "alice"
	testSecret = "correct horse battery"
	testMutual = "the target's own secret"
	chapTarget = "iqn.2026-11.io.skylun:chap"
)

func secret(t testing.TB, s string) Secret {
	t.Helper()
	v, err := NewSecret([]byte(s))
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// testCHAP lets in alice, who can ask the target for its secret, and bob, who
// cannot.
func testCHAP(t testing.TB, algorithms ...Algorithm) *CHAP {
	return &CHAP{Algorithms: algorithms, Users: []User{
		{Name: testUser, Secret: secret(t, testSecret), MutualName: "skylun", MutualSecret: secret(t, testMutual)},
		{Name: "bob", Secret: secret(t, "bob's own secret")},
	}}
}

// startCHAP starts a server that asks for CHAP, also for discovery.
func startCHAP(t testing.TB, algorithms ...Algorithm) *server {
	t.Helper()
	s := start(t, Config{DiscoveryCHAP: &CHAP{Users: []User{{Name: "finder", Secret: secret(t, "who may look around")}}}})
	addTarget(t, s.Server, Target{Name: chapTarget, CHAP: testCHAP(t, algorithms...)}, giver(nil, 0, 0))
	return s
}

// RFC 7143 12.1.3: all algorithms, one-way and mutual, in hexadecimal and in
// base64.
func TestCHAP(t *testing.T) {
	s := startCHAP(t)
	for _, algorithm := range []string{"5", "6", "7", "8"} {
		for _, base64 := range []bool{false, true} {
			for _, mutual := range []string{"", testMutual} {
				t.Run(fmt.Sprintf("algorithm %s base64=%t mutual=%t", algorithm, base64, mutual != ""), func(t *testing.T) {
					c := s.dial(t)
					h := &initiator.CHAP{User: testUser, Secret: testSecret, Algorithms: algorithm, Base64: base64, Mutual: mutual, MutualUser: "skylun"}
					got, err := c.Login(initiator.Options{Initiator: testInitiator, Target: chapTarget, CHAP: h})
					if err != nil {
						t.Fatal(err)
					}
					if a := got.Get("AuthMethod"); !slices.Equal(a, []string{"CHAP"}) {
						t.Errorf("AuthMethod=%q", a)
					}
					if h.Chosen != algorithm {
						t.Errorf("CHAP_A=%s", h.Chosen)
					}
					if infos := s.Sessions(); len(infos) != 1 || infos[0].User != testUser {
						t.Errorf("sessions: %+v", infos)
					}
					alive(t, c)
					if err := c.Logout(); err != nil {
						t.Error(err)
					}
					eventually(t, "session is gone", func() bool { return len(s.Sessions()) == 0 })
				})
			}
		}
	}
}

// RFC 7143 12.1.3: of the algorithms that both have, ours that comes first.
func TestCHAPAlgorithm(t *testing.T) {
	for _, c := range []struct {
		ours   []Algorithm
		offer  string
		chosen string // "": refused
	}{
		{nil, "5", "5"}, {nil, "5,6,7,8", "8"}, {nil, "5,7,6", "7"}, {nil, "6,5", "6"}, {nil, "0x5", "5"},
		{nil, "200,5,5", "5"}, {nil, "x,5", "5"}, {nil, "4", ""}, {nil, "55", ""}, {nil, "", ""}, {nil, "5 ,6 ", ""}, {nil, "261", ""},
		{[]Algorithm{SHA256, SHA3256}, "8,7", "7"}, {[]Algorithm{SHA256}, "5,6,8", ""}, {[]Algorithm{MD5}, "8,5", "5"},
	} {
		t.Run(fmt.Sprint(c.ours, c.offer), func(t *testing.T) {
			conn := startCHAP(t, c.ours...).dial(t)
			l := &script{t: t, c: conn, itt: conn.NextITT()}
			l.send(false, slices.Concat(chapNames, initiator.Keys{"AuthMethod", "CHAP"}))
			l.must(false)
			l.send(false, initiator.Keys{"CHAP_A", c.offer})
			if c.chosen == "" {
				l.denied()
				return
			}
			if got := l.must(false).Get("CHAP_A"); !slices.Equal(got, []string{c.chosen}) {
				t.Errorf("CHAP_A=%q, want %s", got, c.chosen)
			}
		})
	}
}

var chapNames = initiator.Options{Initiator: testInitiator, Target: chapTarget}.Names()

// script is a login, request by request, that begins in the security stage.
type script struct {
	t   *testing.T
	c   *initiator.Conn
	itt uint32
	csg pdu.Stage
}

func (l *script) send(transit bool, keys initiator.Keys) {
	l.t.Helper()
	nsg := pdu.Operational
	if l.csg == pdu.Operational {
		nsg = pdu.FullFeature
	}
	p := l.c.NewLogin(l.csg, nsg, transit, keys)
	p.SetITT(l.itt)
	send(l.t, l.c, p)
}

// must returns the keys of an answer, which has to go on or to stay.
func (l *script) must(transit bool) initiator.Keys {
	l.t.Helper()
	r, keys, err := l.c.ReceiveLogin()
	if err != nil {
		l.t.Fatal(err)
	}
	if r.Final() != transit || r.CSG() != l.csg {
		l.t.Fatalf("answer %x with %q", r.Header, keys)
	}
	if transit {
		l.csg = r.NSG()
	}
	return keys
}

// denied wants the login to be refused as all are that lack authentication.
func (l *script) denied() {
	l.t.Helper()
	r := receive(l.t, l.c, pdu.LoginResp)
	if r.LoginStatus() != pdu.LoginAuthFailure || r.Final() || len(r.Data) > 0 {
		l.t.Errorf("status %04x, answer %x, text %q", r.LoginStatus(), r.Header, r.Data)
	}
	closed(l.t, l.c)
}

// RFC 7143 6.3.2 and 12.1.3: the orders in which initiators may go through the
// security stage.
func TestCHAPOrder(t *testing.T) {
	method := initiator.Keys{"AuthMethod", "KRB5,CHAP,None"}
	offer := initiator.Keys{"CHAP_A", "7,5"}
	for _, c := range []struct {
		name string
		run  func(l *script, h *initiator.CHAP)
	}{
		{"keys one after the other", func(l *script, h *initiator.CHAP) {
			l.send(false, chapNames)
			l.must(false)
			l.send(false, method)
			l.must(false)
			l.send(false, offer)
			l.send2(h, false, l.must(false))
			l.send(true, nil)
			l.must(true)
		}},
		{"all that can come first in one request", func(l *script, h *initiator.CHAP) {
			l.send(false, slices.Concat(chapNames, method, offer))
			l.send2(h, true, l.must(false))
		}},
		{"T early, which is not granted", func(l *script, h *initiator.CHAP) {
			l.send(true, slices.Concat(chapNames, method))
			l.must(false)
			l.send(true, nil)
			l.must(false)
			l.send(true, offer)
			l.send2(h, true, l.must(false))
		}},
		{"operational keys with those of security", func(l *script, h *initiator.CHAP) {
			l.send(false, slices.Concat(chapNames, method, initiator.Friendly, offer))
			got := l.must(false)
			if got.Get("MaxBurstLength") == nil || got.Get("InitialR2T") == nil {
				l.t.Errorf("answer %q", got)
			}
			l.send2(h, true, got)
		}},
		{"keys twice", func(l *script, h *initiator.CHAP) {
			l.send(false, slices.Concat(chapNames, initiator.Keys{"AuthMethod", "None"}, method))
			l.must(false)
			l.send(false, slices.Concat(method, offer, offer))
			l.send2(h, true, l.must(false))
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			conn := startCHAP(t).dial(t)
			l := &script{t: t, c: conn, itt: conn.NextITT()}
			c.run(l, &initiator.CHAP{User: testUser, Secret: testSecret, Mutual: testMutual})
			l.send(true, initiator.Friendly)
			l.must(true)
			alive(t, conn)
		})
	}
	t.Run("security straight to full feature", func(t *testing.T) {
		conn := startCHAP(t).dial(t)
		l := &script{t: t, c: conn, itt: conn.NextITT()}
		l.send(false, slices.Concat(chapNames, method, offer))
		h := &initiator.CHAP{User: testUser, Secret: testSecret}
		answer, err := h.Answer(l.must(false))
		if err != nil {
			t.Fatal(err)
		}
		p := conn.NewLogin(pdu.Security, pdu.FullFeature, true, answer)
		p.SetITT(l.itt)
		send(t, conn, p)
		l.must(true)
		alive(t, conn)
	})
}

// send2 answers the challenge, and checks how the target answers.
func (l *script) send2(h *initiator.CHAP, transit bool, got initiator.Keys) {
	l.t.Helper()
	answer, err := h.Answer(got)
	if err != nil {
		l.t.Fatal(err)
	}
	l.send(transit, answer)
	if err := h.Check(l.must(transit)); err != nil {
		l.t.Error(err)
	}
}

// RFC 7143 12.1.3: whatever is wrong, the answer is the same.
func TestCHAPDenied(t *testing.T) {
	method := initiator.Keys{"AuthMethod", "CHAP"}
	// replace changes one key of a good answer to the challenge.
	replace := func(key string, value func(old string) string) func(initiator.Keys) initiator.Keys {
		return func(k initiator.Keys) initiator.Keys {
			for i := 0; i < len(k); i += 2 {
				if k[i] == key {
					k[i+1] = value(k[i+1])
				}
			}
			return k
		}
	}
	drop := func(key string) func(initiator.Keys) initiator.Keys {
		return func(k initiator.Keys) initiator.Keys {
			i := slices.Index(k, key)
			return slices.Delete(slices.Clone(k), i, i+2)
		}
	}
	is := func(v string) func(string) string { return func(string) string { return v } }
	long := strings.Repeat("ab", maxCHAPValue+1)
	for _, c := range []struct {
		name  string
		chap  initiator.CHAP
		spoil func(initiator.Keys) initiator.Keys
	}{
		{"wrong secret", initiator.CHAP{User: testUser, Secret: testSecret + "x"}, nil},
		{"unknown user", initiator.CHAP{User: "mallory", Secret: testSecret}, nil},
		{"another user's secret", initiator.CHAP{User: "bob", Secret: testSecret}, nil},
		{"user of discovery", initiator.CHAP{User: "finder", Secret: "who may look around"}, nil},
		{"user in capitals", initiator.CHAP{User: "Alice", Secret: testSecret}, nil},
		{"no CHAP_N", initiator.CHAP{}, drop("CHAP_N")},
		{"no CHAP_R", initiator.CHAP{}, drop("CHAP_R")},
		{"empty CHAP_R", initiator.CHAP{}, replace("CHAP_R", is(""))},
		{"CHAP_R of no digits", initiator.CHAP{}, replace("CHAP_R", is("0x"))},
		{"CHAP_R without 0x", initiator.CHAP{}, replace("CHAP_R", func(v string) string { return v[2:] })},
		{"CHAP_R not hexadecimal", initiator.CHAP{}, replace("CHAP_R", func(v string) string { return v[:len(v)-1] + "g" })},
		{"CHAP_R cut", initiator.CHAP{}, replace("CHAP_R", func(v string) string { return v[:len(v)-2] })},
		{"CHAP_R longer", initiator.CHAP{}, replace("CHAP_R", func(v string) string { return v + "00" })},
		{"CHAP_R in base64 cut", initiator.CHAP{Base64: true}, replace("CHAP_R", func(v string) string { return v[:len(v)-1] })},
		{"CHAP_R in base64 of another alphabet", initiator.CHAP{Base64: true}, replace("CHAP_R", func(v string) string { return v[:6] + "-_" + v[8:] })},
		{"CHAP_R=Reject", initiator.CHAP{}, replace("CHAP_R", is("Reject"))},
		{"mutual where there is no secret for it", initiator.CHAP{User: "bob", Secret: "bob's own secret", Mutual: testMutual}, nil},
		{"no CHAP_I", initiator.CHAP{Mutual: testMutual}, drop("CHAP_I")},
		{"no CHAP_C", initiator.CHAP{Mutual: testMutual}, drop("CHAP_C")},
		{"CHAP_I too large", initiator.CHAP{Mutual: testMutual}, replace("CHAP_I", is("256"))},
		{"CHAP_C empty", initiator.CHAP{Mutual: testMutual}, replace("CHAP_C", is("0x"))},
		{"CHAP_C is a number", initiator.CHAP{Mutual: testMutual}, replace("CHAP_C", is("12345"))},
		{"CHAP_C too long", initiator.CHAP{Mutual: testMutual}, replace("CHAP_C", is("0x"+long))},
		{"CHAP_A once more", initiator.CHAP{}, func(k initiator.Keys) initiator.Keys { return initiator.Keys{"CHAP_A", "5"} }},
		{"CHAP_A with the answer", initiator.CHAP{}, func(k initiator.Keys) initiator.Keys { return append(k, "CHAP_A", "5") }},
		{"AuthMethod=None at the end", initiator.CHAP{}, func(initiator.Keys) initiator.Keys { return initiator.Keys{"AuthMethod", "None"} }},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := startCHAP(t)
			conn := s.dial(t)
			if c.chap.User == "" {
				c.chap.User, c.chap.Secret = testUser, testSecret
			}
			l := &script{t: t, c: conn, itt: conn.NextITT()}
			l.send(false, slices.Concat(chapNames, method, c.chap.Offer()))
			answer, err := c.chap.Answer(l.must(false))
			if err != nil {
				t.Fatal(err)
			}
			if c.spoil != nil {
				answer = c.spoil(answer)
			}
			l.send(true, answer)
			l.denied()
			eventually(t, "failure is counted", func() bool { return s.Stats().LoginFailures == 1 })
		})
	}
}

// RFC 7143 12.1.3: a challenge must not come back as one of the initiator's.
func TestCHAPReflection(t *testing.T) {
	for _, base64 := range []bool{false, true} {
		conn := startCHAP(t).dial(t)
		l := &script{t: t, c: conn, itt: conn.NextITT()}
		h := &initiator.CHAP{User: testUser, Secret: testSecret, Mutual: testMutual, Base64: base64}
		l.send(false, slices.Concat(chapNames, initiator.Keys{"AuthMethod", "CHAP"}, h.Offer()))
		got := l.must(false)
		h.Challenge, _ = initiator.Decode(got.Get("CHAP_C")[0])
		answer, err := h.Answer(got)
		if err != nil {
			t.Fatal(err)
		}
		l.send(true, answer)
		l.denied()
	}
}

// RFC 7143 12.1.3: challenges of the initiator have up to 1024 bytes, and any
// length below.
func TestCHAPChallengeLength(t *testing.T) {
	s := startCHAP(t)
	for _, n := range []int{1, 2, 3, 16, 17, 255, 1023, 1024} {
		for _, base64 := range []bool{false, true} {
			h := &initiator.CHAP{User: testUser, Secret: testSecret, Mutual: testMutual, Challenge: bytes.Repeat([]byte{7}, n), Base64: base64}
			c := s.dial(t)
			if _, err := c.Login(initiator.Options{Initiator: testInitiator, Target: chapTarget, CHAP: h}); err != nil {
				t.Errorf("%d bytes, base64=%t: %v", n, base64, err)
			}
		}
	}
}

// A challenge is never the same, RFC 1994 2.3.
func TestCHAPChallengeIsFresh(t *testing.T) {
	s := startCHAP(t)
	seen := map[string]bool{}
	for range 20 {
		conn := s.dial(t)
		l := &script{t: t, c: conn, itt: conn.NextITT()}
		l.send(false, slices.Concat(chapNames, initiator.Keys{"AuthMethod", "CHAP", "CHAP_A", "7"}))
		v := l.must(false).Get("CHAP_C")
		if len(v) != 1 || len(v[0]) != 2+64 || seen[v[0]] {
			t.Fatalf("CHAP_C=%q", v)
		}
		seen[v[0]] = true
		conn.Close()
	}
}

// RFC 7143 6.3.2 and 12: nobody gets around CHAP.
func TestCHAPEvaded(t *testing.T) {
	for _, c := range []struct {
		name string
		run  func(l *script)
	}{
		{"AuthMethod=None", func(l *script) { l.send(true, slices.Concat(chapNames, initiator.Keys{"AuthMethod", "None"})) }},
		{"AuthMethod=None,KRB5", func(l *script) { l.send(false, slices.Concat(chapNames, initiator.Keys{"AuthMethod", "None,KRB5"})) }},
		{"AuthMethod=Reject", func(l *script) { l.send(true, slices.Concat(chapNames, initiator.Keys{"AuthMethod", "Reject"})) }},
		{"no AuthMethod", func(l *script) { l.send(true, chapNames) }},
		{"no security stage", func(l *script) {
			l.csg = pdu.Operational
			l.send(true, chapNames)
		}},
		{"no security stage, slowly", func(l *script) {
			l.csg = pdu.Operational
			l.send(false, chapNames)
		}},
		{"CHAP in the operational stage", func(l *script) {
			l.csg = pdu.Operational
			l.send(false, slices.Concat(chapNames, initiator.Keys{"AuthMethod", "CHAP"}))
		}},
		{"CHAP_A without AuthMethod", func(l *script) { l.send(false, slices.Concat(chapNames, initiator.Keys{"CHAP_A", "5"})) }},
		{"CHAP_N without a challenge", func(l *script) {
			l.send(false, slices.Concat(chapNames, initiator.Keys{"AuthMethod", "CHAP"}))
			l.must(false)
			l.send(true, initiator.Keys{"CHAP_N", testUser, "CHAP_R", "0x00"})
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			conn := startCHAP(t).dial(t)
			l := &script{t: t, c: conn, itt: conn.NextITT()}
			c.run(l)
			l.denied()
		})
	}
	t.Run("stage changed by the initiator alone", func(t *testing.T) {
		conn := startCHAP(t).dial(t)
		l := &script{t: t, c: conn, itt: conn.NextITT()}
		l.send(true, slices.Concat(chapNames, initiator.Keys{"AuthMethod", "CHAP"}))
		l.must(false)
		l.csg = pdu.Operational
		l.send(true, nil)
		if r := receive(t, conn, pdu.LoginResp); r.LoginStatus() != pdu.LoginInitiatorError {
			t.Errorf("status %04x", r.LoginStatus())
		}
		closed(t, conn)
	})
}

// RFC 7143 6.3.1: who wants what is said in the first request, and remains.
func TestLoginNamesChange(t *testing.T) {
	for _, k := range []initiator.Keys{
		{"InitiatorName", testInitiator + "2"}, {"TargetName", testTarget}, {"SessionType", "Discovery"},
	} {
		t.Run(k[0], func(t *testing.T) {
			conn := startCHAP(t).dial(t)
			h := &initiator.CHAP{User: testUser, Secret: testSecret}
			l := &script{t: t, c: conn, itt: conn.NextITT()}
			l.send(false, slices.Concat(chapNames, initiator.Keys{"AuthMethod", "CHAP"}, h.Offer()))
			l.send2(h, true, l.must(false))
			l.send(true, k)
			if r := receive(t, conn, pdu.LoginResp); r.LoginStatus() != pdu.LoginInitiatorError {
				t.Errorf("status %04x", r.LoginStatus())
			}
			closed(t, conn)
		})
	}
}

// Discovery has users of its own.
func TestCHAPDiscovery(t *testing.T) {
	s := startCHAP(t)
	for _, c := range []struct {
		user, secret string
		ok           bool
	}{
		{"finder", "who may look around", true}, {testUser, testSecret, false},
	} {
		conn := s.dial(t)
		_, err := conn.Login(initiator.Options{Initiator: testInitiator, CHAP: &initiator.CHAP{User: c.user, Secret: c.secret}})
		if status := (initiator.StatusError{}); c.ok && err != nil || !c.ok && (!errors.As(err, &status) || status.Status != pdu.LoginAuthFailure) {
			t.Errorf("%s: %v", c.user, err)
		}
		if c.ok {
			if got, err := conn.Discover("All"); err != nil || !slices.Contains(got, chapTarget) {
				t.Errorf("SendTargets: %q, %v", got, err)
			}
		}
	}
	conn := s.dial(t)
	_, err := conn.Login(initiator.Options{Initiator: testInitiator})
	if status := (initiator.StatusError{}); !errors.As(err, &status) || status.Status != pdu.LoginAuthFailure {
		t.Errorf("without a user: %v", err)
	}
}

// An initiator that offers CHAP to a target that does not want it goes on
// without.
func TestCHAPNotWanted(t *testing.T) {
	conn := start(t, Config{}).dial(t)
	l := &script{t: t, c: conn, itt: conn.NextITT()}
	l.send(true, slices.Concat(testNames, initiator.Keys{"AuthMethod", "CHAP,None", "CHAP_A", "5,7"}))
	got := l.must(true)
	if a := got.Get("AuthMethod"); !slices.Equal(a, []string{"None"}) {
		t.Errorf("AuthMethod=%q", a)
	}
	if a := got.Get("CHAP_A"); !slices.Equal(a, []string{"Irrelevant"}) {
		t.Errorf("CHAP_A=%q", a)
	}
	l.send(true, nil)
	l.must(true)
	alive(t, conn)
}

// Another user cannot end a session by claiming to be its initiator.
func TestCHAPReinstatement(t *testing.T) {
	s := startCHAP(t)
	login := func(user, secret string) (*initiator.Conn, error) {
		c := s.dial(t)
		_, err := c.Login(initiator.Options{Initiator: testInitiator, Target: chapTarget, CHAP: &initiator.CHAP{User: user, Secret: secret}})
		return c, err
	}
	old, err := login(testUser, testSecret)
	if err != nil {
		t.Fatal(err)
	}
	_, err = login("bob", "bob's own secret")
	if status := (initiator.StatusError{}); !errors.As(err, &status) || status.Status != pdu.LoginForbidden {
		t.Errorf("another user: %v", err)
	}
	alive(t, old)
	again, err := login(testUser, testSecret)
	if err != nil {
		t.Fatal(err)
	}
	closed(t, old)
	alive(t, again)
}

// RFC 7143 6.3.1: every connection of a session is authenticated, as the user of
// the first one.
func TestCHAPEveryConnection(t *testing.T) {
	s := startCHAP(t)
	keys := slices.Concat(initiator.Friendly, initiator.Keys{"MaxConnections", "4"})
	first := s.dial(t)
	if _, err := first.Login(initiator.Options{Initiator: testInitiator, Target: chapTarget, Keys: keys, CHAP: &initiator.CHAP{User: testUser, Secret: testSecret}}); err != nil {
		t.Fatal(err)
	}
	for i, c := range []struct {
		chap   *initiator.CHAP
		status pdu.LoginStatus
	}{
		{nil, pdu.LoginAuthFailure},
		{&initiator.CHAP{User: testUser, Secret: testSecret + "x"}, pdu.LoginAuthFailure},
		{&initiator.CHAP{User: "bob", Secret: "bob's own secret"}, pdu.LoginForbidden},
		{&initiator.CHAP{User: testUser, Secret: testSecret}, pdu.LoginSuccess},
	} {
		conn := s.dial(t)
		conn.TSIH, conn.CID = first.TSIH, uint16(i+1)
		_, err := conn.Login(initiator.Options{Initiator: testInitiator, Target: chapTarget, CHAP: c.chap})
		if status := (initiator.StatusError{}); c.status == pdu.LoginSuccess && err != nil || c.status != pdu.LoginSuccess && (!errors.As(err, &status) || status.Status != c.status) {
			t.Errorf("connection %d: %v, want status %04x", i+1, err, uint16(c.status))
		}
	}
	alive(t, first)
}
