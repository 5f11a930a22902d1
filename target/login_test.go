package target

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"skylun/target/pdu"
	"skylun/test/initiator"
)

var testNames = initiator.Options{Initiator: testInitiator, Target: testTarget}.Names()

// RFC 7143 6.3: the stages in all legal orders, in one or several requests.
func TestLoginStages(t *testing.T) {
	type step struct {
		csg, nsg pdu.Stage
		transit  bool
		keys     initiator.Keys
	}
	const sec, op, full = pdu.Security, pdu.Operational, pdu.FullFeature
	auth := initiator.Keys{"AuthMethod", "CHAP,None"}
	for _, c := range []struct {
		name  string
		steps []step
	}{
		{"operational only", []step{{op, full, true, testNames}}},
		{"security only", []step{{sec, full, true, slices.Concat(testNames, auth)}}},
		{"security without AuthMethod", []step{{sec, full, true, testNames}}},
		{"both", []step{{sec, op, true, slices.Concat(testNames, auth)}, {op, full, true, nil}}},
		{"both, each in two requests", []step{
			{sec, 0, false, slices.Concat(testNames, auth)}, {sec, op, true, nil},
			{op, 0, false, initiator.Friendly}, {op, full, true, nil},
		}},
		{"keys one by one", []step{
			{op, 0, false, testNames}, {op, 0, false, initiator.Keys{"MaxBurstLength", "4096"}},
			{op, 0, false, initiator.Keys{"FirstBurstLength", "1024"}}, {op, full, true, initiator.Keys{"InitialR2T", "No"}},
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			conn := start(t, Config{}).dial(t)
			statSN := conn.ExpStatSN
			itt := conn.NextITT()
			var got initiator.Keys
			for i, s := range c.steps {
				p := conn.NewLogin(s.csg, s.nsg, s.transit, s.keys)
				p.SetITT(itt)
				send(t, conn, p)
				r, keys, err := conn.ReceiveLogin()
				if err != nil {
					t.Fatalf("step %d: %v", i, err)
				}
				got = append(got, keys...)
				if r.Final() != s.transit || r.CSG() != s.csg || s.transit && r.NSG() != s.nsg || r.ITT() != itt || r.ISID() != conn.ISID {
					t.Errorf("step %d: answer %x", i, r.Header)
				}
				if r.StatSN() != statSN {
					t.Errorf("step %d: StatSN %d, want %d", i, r.StatSN(), statSN)
				}
				statSN++
				if last := i == len(c.steps)-1; last != (r.TSIH() != 0) {
					t.Errorf("step %d: TSIH %d", i, r.TSIH())
				}
				if i == 0 && !slices.Equal(keys.Get("TargetPortalGroupTag"), []string{"1"}) {
					t.Errorf("first answer has no TargetPortalGroupTag: %q", keys)
				}
				if r.ExpCmdSN() != conn.CmdSN || r.MaxCmdSN() != conn.CmdSN+127 {
					t.Errorf("step %d: window %d to %d", i, r.ExpCmdSN(), r.MaxCmdSN())
				}
			}
			if a := got.Get("AuthMethod"); len(a) > 1 || len(a) == 1 && a[0] != "None" {
				t.Errorf("AuthMethod=%q", a)
			}
			alive(t, conn)
		})
	}
}

// RFC 7143 6.2: a request whose keys are cut anywhere and continued with the C
// bit.
func TestLoginContinued(t *testing.T) {
	s := start(t, Config{})
	text := slices.Concat(testNames, initiator.Friendly).Text()
	for _, size := range []int{1, 7, 100, len(text) - 1} {
		conn := s.dial(t)
		itt := conn.NextITT()
		if size == 1 {
			text = testNames.Text()[:50] // a PDU for every byte: not more than a login may have
			text = append(text, testNames.Text()[50:]...)
			size = len(text)/40 + 1
		}
		for rest := text; len(rest) > 0; {
			n := min(size, len(rest))
			last := n == len(rest)
			p := conn.NewLogin(pdu.Operational, pdu.FullFeature, last, nil)
			p.SetITT(itt)
			if !last {
				p.SetStages(pdu.FlagContinue, pdu.Operational, 0)
			}
			p.Data, rest = rest[:n], rest[n:]
			send(t, conn, p)
			r, keys, err := conn.ReceiveLogin()
			if err != nil {
				t.Fatalf("pieces of %d: %v", size, err)
			}
			if r.Final() != last || !last && (len(r.Data) > 0 || r.Flags()&pdu.FlagContinue != 0) {
				t.Errorf("pieces of %d: answer %x %q", size, r.Header, r.Data)
			}
			if last && keys.Get("TargetPortalGroupTag") == nil {
				t.Errorf("pieces of %d: no TargetPortalGroupTag", size)
			}
		}
		alive(t, conn)
	}
}

// RFC 7143 6.2: an answer longer than a PDU is continued with the C bit, while
// the initiator sends empty requests. Every unknown key is answered.
func TestLoginLongAnswer(t *testing.T) {
	conn := start(t, Config{}).dial(t)
	var unknown initiator.Keys
	for i := range 900 {
		unknown = append(unknown, fmt.Sprintf("X-k%d", i), "1")
	}
	p := conn.NewLogin(pdu.Operational, pdu.FullFeature, true, slices.Concat(testNames, unknown))
	if len(p.Data) > 8192 {
		t.Fatalf("request of %d bytes", len(p.Data))
	}
	itt := p.ITT()
	send(t, conn, p)
	var text []byte
	for i := 0; ; i++ {
		r := receive(t, conn, pdu.LoginResp)
		text = append(text, r.Data...)
		if len(r.Data) > 8192 || r.LoginStatus() != 0 {
			t.Fatalf("answer %v, status %04x", r, r.LoginStatus())
		}
		if r.Final() {
			break
		}
		more := r.Flags()&pdu.FlagContinue != 0
		if i == 0 && !more {
			t.Error("first answer is not continued")
		}
		p = conn.NewLogin(pdu.Operational, pdu.FullFeature, !more, nil)
		p.SetITT(itt)
		send(t, conn, p)
	}
	keys, err := initiator.ParseKeys(text)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(unknown); i += 2 {
		if got := keys.Get(unknown[i]); !slices.Equal(got, []string{"NotUnderstood"}) {
			t.Fatalf("%s answered by %q", unknown[i], got)
		}
	}
	alive(t, conn)
}

// RFC 7143 13: the result of each key; "" for a declaration, which has none.
func TestLoginKeys(t *testing.T) {
	for _, c := range []struct{ key, offer, answer string }{
		{"HeaderDigest", "None", "None"}, {"HeaderDigest", "CRC32C,None", "CRC32C"}, {"HeaderDigest", "X-sha,CRC32C", "CRC32C"},
		{"DataDigest", "None,CRC32C", "None"}, {"DataDigest", "CRC32C", "CRC32C"}, {"DataDigest", "", "Reject"}, {"DataDigest", "crc32c", "Reject"},
		{"MaxConnections", "4", "4"}, {"MaxConnections", "65535", "8"}, {"MaxConnections", "1", "1"}, {"MaxConnections", "0", "Reject"}, {"MaxConnections", "65536", "Reject"},
		{"InitialR2T", "Yes", "Yes"}, {"InitialR2T", "No", "No"}, {"InitialR2T", "yes", "Reject"},
		{"ImmediateData", "Yes", "Yes"}, {"ImmediateData", "No", "No"}, {"ImmediateData", "", "Reject"},
		{"MaxRecvDataSegmentLength", "512", ""}, {"MaxRecvDataSegmentLength", "16777215", ""},
		{"MaxRecvDataSegmentLength", "511", "Reject"}, {"MaxRecvDataSegmentLength", "16777216", "Reject"}, {"MaxRecvDataSegmentLength", "0x1000", ""},
		{"MaxBurstLength", "262144", "262144"}, {"MaxBurstLength", "16777215", "16776704"}, {"MaxBurstLength", "100", "Reject"}, {"MaxBurstLength", "0X400", "1024"},
		{"FirstBurstLength", "65536", "65536"}, {"FirstBurstLength", "1048576", "262144"}, {"FirstBurstLength", "-1", "Reject"},
		{"DefaultTime2Wait", "2", "2"}, {"DefaultTime2Wait", "3601", "Reject"}, {"DefaultTime2Retain", "20", "0"},
		{"MaxOutstandingR2T", "1", "1"}, {"MaxOutstandingR2T", "100", "8"}, {"MaxOutstandingR2T", "0", "Reject"},
		{"DataPDUInOrder", "No", "Yes"}, {"DataPDUInOrder", "Yes", "Yes"}, {"DataSequenceInOrder", "No", "Yes"},
		{"ErrorRecoveryLevel", "2", "0"}, {"ErrorRecoveryLevel", "0", "0"}, {"ErrorRecoveryLevel", "3", "Reject"},
		{"TaskReporting", "FastAbort,RFC3720", "RFC3720"}, {"iSCSIProtocolLevel", "2", "1"}, {"iSCSIProtocolLevel", "0", "0"},
		{"IFMarker", "Yes", "No"}, {"OFMarker", "No", "No"}, {"OFMarkInt", "2048~8192", "Reject"}, {"IFMarkInt", "2048", "Reject"},
		{"InitiatorAlias", "some host", ""}, {"X-com.example.thing", "1", "NotUnderstood"}, {"X#NodeArchitecture", "z80", "NotUnderstood"},
		{"Nonsense", "1", "NotUnderstood"}, {"SendTargets", "All", "Reject"}, {"TargetAddress", "1.2.3.4:3260,1", "Reject"},
		{"HeaderDigest", "Reject", ""}, {"Nonsense", "NotUnderstood", ""}, {"MaxBurstLength", "Irrelevant", ""},
	} {
		t.Run(c.key+"="+c.offer, func(t *testing.T) {
			conn := start(t, Config{}).dial(t)
			keys := mustLogin(t, conn, c.key, c.offer)
			got := keys.Get(c.key)
			if c.key == "MaxRecvDataSegmentLength" {
				if len(got) == 0 || got[len(got)-1] != "262144" {
					t.Fatalf("target declares %q", got)
				}
				got = got[:len(got)-1]
			}
			if c.answer == "" && len(got) > 0 || c.answer != "" && !slices.Equal(got, []string{c.answer}) {
				t.Errorf("answered by %q, want %q", got, c.answer)
			}
			alive(t, conn)
		})
	}
}

// Initiators send keys twice, and more keys than anybody needs.
func TestLoginDuplicateKeys(t *testing.T) {
	conn := start(t, Config{}).dial(t)
	keys := mustLogin(t, conn, "InitialR2T", "Yes", "InitialR2T", "No", "MaxBurstLength", "4096", "InitiatorName", testInitiator, "MaxBurstLength", "8192")
	if got := keys.Get("InitialR2T"); got[len(got)-1] != "No" {
		t.Errorf("InitialR2T=%q", got)
	}
	alive(t, conn)
}

// RFC 7143 11.13.5: why a login is refused.
func TestLoginRefused(t *testing.T) {
	type request = initiator.PDU
	for _, c := range []struct {
		name  string
		keys  initiator.Keys
		spoil func(p *request)
		want  pdu.LoginStatus
	}{
		{"no InitiatorName", initiator.Keys{"TargetName", testTarget}, nil, pdu.LoginMissingParameter},
		{"no TargetName", initiator.Keys{"InitiatorName", testInitiator}, nil, pdu.LoginMissingParameter},
		{"nothing", nil, nil, pdu.LoginMissingParameter},
		{"unknown target", initiator.Keys{"InitiatorName", testInitiator, "TargetName", testTarget + "x"}, nil, pdu.LoginNotFound},
		{"initiator not admitted", initiator.Keys{"InitiatorName", testInitiator, "TargetName", "iqn.2026-11.io.skylun:private"}, nil, pdu.LoginForbidden},
		{"session type", slices.Concat(testNames, initiator.Keys{"SessionType", "Strange"}), nil, pdu.LoginBadSessionType},
		{"name with a blank", initiator.Keys{"InitiatorName", "iqn. x", "TargetName", testTarget}, nil, pdu.LoginInitiatorError},
		{"name too long", initiator.Keys{"InitiatorName", strings.Repeat("x", 224), "TargetName", testTarget}, nil, pdu.LoginInitiatorError},
		{"CHAP only", slices.Concat(testNames, initiator.Keys{"AuthMethod", "CHAP"}), nil, pdu.LoginAuthFailure},
		{"version", testNames, func(p *request) { p.SetVersions(2, 1) }, pdu.LoginBadVersion},
		{"no immediate bit", testNames, func(p *request) { p.SetOpcode(pdu.LoginReq) }, pdu.LoginInitiatorError},
		{"stage 2", testNames, func(p *request) { p.SetStages(0, 2, 0) }, pdu.LoginInitiatorError},
		{"stage 3", testNames, func(p *request) { p.SetStages(0, 3, 0) }, pdu.LoginInitiatorError},
		{"transit to the same stage", testNames, func(p *request) { p.SetStages(pdu.FlagFinal, 1, 1) }, pdu.LoginInitiatorError},
		{"transit backwards", testNames, func(p *request) { p.SetStages(pdu.FlagFinal, 1, 0) }, pdu.LoginInitiatorError},
		{"transit to stage 2", testNames, func(p *request) { p.SetStages(pdu.FlagFinal, 1, 2) }, pdu.LoginInitiatorError},
		{"T and C", testNames, func(p *request) { p.SetStages(pdu.FlagFinal|pdu.FlagContinue, 1, 3) }, pdu.LoginInitiatorError},
		{"AHS", testNames, func(p *request) { p.AHS = []byte{0, 1, 1, 0} }, pdu.LoginInitiatorError},
		{"no key=value", testNames, func(p *request) { p.Data = []byte("hello\x00") }, pdu.LoginInitiatorError},
		{"unknown session", testNames, func(p *request) { p.SetTSIH(77) }, pdu.LoginNoSession},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := start(t, Config{})
			addTarget(t, s.Server, Target{Name: "iqn.2026-11.io.skylun:private", Initiators: []string{"iqn.2026-11.com.example:other"}})
			conn := s.dial(t)
			p := conn.NewLogin(pdu.Operational, pdu.FullFeature, true, c.keys)
			if c.spoil != nil {
				c.spoil(p)
			}
			send(t, conn, p)
			r := receive(t, conn, pdu.LoginResp)
			if r.LoginStatus() != c.want || r.Final() || r.ITT() != p.ITT() {
				t.Errorf("answer %x with status %04x, want %04x", r.Header, r.LoginStatus(), c.want)
			}
			closed(t, conn)
			eventually(t, "failure is counted", func() bool { return s.Stats().LoginFailures == 1 })
		})
	}
}

// RFC 7143 6.3: what may not change between the requests of a login.
func TestLoginSecondRequest(t *testing.T) {
	for _, c := range []struct {
		name  string
		spoil func(p *initiator.PDU)
		want  pdu.LoginStatus
	}{
		{"task tag", func(p *initiator.PDU) { p.SetITT(p.ITT() + 1) }, pdu.LoginInitiatorError},
		{"ISID", func(p *initiator.PDU) { p.SetISID([6]byte{}) }, pdu.LoginInitiatorError},
		{"TSIH", func(p *initiator.PDU) { p.SetTSIH(1) }, pdu.LoginInitiatorError},
		{"CID", func(p *initiator.PDU) { p.SetCID(9) }, pdu.LoginInitiatorError},
		{"stage", func(p *initiator.PDU) { p.SetStages(0, pdu.Security, 0) }, pdu.LoginInitiatorError},
		{"opcode", func(p *initiator.PDU) { p.SetOpcode(pdu.NOPOut) }, pdu.LoginInvalidRequest},
	} {
		t.Run(c.name, func(t *testing.T) {
			conn := start(t, Config{}).dial(t)
			p := conn.NewLogin(pdu.Operational, 0, false, testNames)
			send(t, conn, p)
			receive(t, conn, pdu.LoginResp)
			p.Data = nil
			c.spoil(p)
			send(t, conn, p)
			if r := receive(t, conn, pdu.LoginResp); r.LoginStatus() != c.want {
				t.Errorf("status %04x, want %04x", r.LoginStatus(), c.want)
			}
			closed(t, conn)
		})
	}
}

// A name is the same in upper and lower case, RFC 7143 4.2.7.
func TestLoginNameCase(t *testing.T) {
	s := start(t, Config{})
	addTarget(t, s.Server, Target{Name: "iqn.2026-11.io.skylun:private", Initiators: []string{"IQN.2026-11.com.example:Client"}})
	c := s.dial(t)
	if _, err := c.Login(initiator.Options{Initiator: "iqn.2026-11.COM.example:client", Target: "iqn.2026-11.io.SkyLUN:private"}); err != nil {
		t.Error(err)
	}
}

// What comes before a login is not answered, and costs nothing.
func TestGarbageBeforeLogin(t *testing.T) {
	s := start(t, Config{})
	for _, data := range [][]byte{
		[]byte("GET / HTTP/1.1\r\nHost: example.com\r\nUser-Agent: something long enough\r\n\r\n"),
		slices.Repeat([]byte{0}, 100),
		slices.Repeat([]byte{0xff}, 4096),
		append([]byte{0x43, 0x87, 0, 0, 0, 0xff, 0xff, 0xff}, make([]byte, 40)...), // a login with 16 MiB of data
	} {
		c := s.dial(t)
		c.Write(data)
		closed(t, c)
	}
	alive(t, s.login(t))
}

// A login is bounded in PDUs and in bytes.
func TestLoginBounds(t *testing.T) {
	s := start(t, Config{})
	c := s.dial(t)
	p := c.NewLogin(pdu.Operational, 0, false, testNames)
	var err error
	for range loginPDUs + 1 {
		if err = c.Send(p); err != nil {
			break
		}
		if _, _, err = c.ReceiveLogin(); err != nil {
			break
		}
	}
	if err == nil {
		t.Error("login goes on for ever")
	}

	c = s.dial(t)
	p = c.NewLogin(pdu.Operational, 0, false, nil)
	p.SetStages(pdu.FlagContinue, pdu.Operational, 0)
	p.Data = []byte(strings.Repeat("x", 8000))
	for range 3 {
		c.Send(p)
	}
	for err = nil; err == nil; {
		_, _, err = c.ReceiveLogin()
	}
	if status := (initiator.StatusError{}); !errors.As(err, &status) || status.Status != pdu.LoginOutOfResources {
		t.Errorf("endless continuation ends with %v", err)
	}
}

func TestTooManyLogins(t *testing.T) {
	s := start(t, Config{MaxLogins: 2})
	inLogin := func() int {
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.inLogin
	}
	waiting := s.login(t)
	eventually(t, "one has finished", func() bool { return inLogin() == 0 })
	a, b := s.dial(t), s.dial(t)
	eventually(t, "two are accepted", func() bool { return inLogin() == 2 })
	closed(t, s.dial(t))
	alive(t, waiting)
	if n := s.Stats().Refused; n != 1 {
		t.Errorf("%d refused", n)
	}
	a.Close()
	eventually(t, "room for one", func() bool { return inLogin() == 1 })
	mustLogin(t, b)
	s.login(t)
}

func TestTooManySessions(t *testing.T) {
	s := start(t, Config{MaxSessions: 1})
	first := s.login(t)
	c := s.dial(t)
	c.ISID[5]++
	_, err := c.Login(initiator.Options{Initiator: testInitiator, Target: testTarget})
	if status := (initiator.StatusError{}); !errors.As(err, &status) || status.Status != pdu.LoginOutOfResources {
		t.Errorf("second session: %v", err)
	}
	alive(t, first)
}
