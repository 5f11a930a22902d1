package target

import (
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"

	"skylun/target/pdu"
	"skylun/test/initiator"
)

func (s *server) discover(t testing.TB, keys ...string) *initiator.Conn {
	t.Helper()
	c := s.dial(t)
	o := initiator.Options{Initiator: testInitiator}
	if keys != nil {
		o.Keys = keys
	}
	if _, err := c.Login(o); err != nil {
		t.Fatal(err)
	}
	return c
}

// RFC 7143 13.3 and 4.3: SendTargets in a discovery session.
func TestSendTargets(t *testing.T) {
	s := start(t, Config{Portals: At("127.0.0.1:0", "127.0.0.2:0")})
	addTarget(t, s.Server, Target{Name: testTarget + "-mine", Initiators: []string{testInitiator, "iqn.2026-11.com.example:other"}})
	addTarget(t, s.Server, Target{Name: testTarget + "-other", Initiators: []string{"iqn.2026-11.com.example:other"}})
	a, b := s.Portals()[0].String()+",1", s.Portals()[1].String()+",1"
	all := initiator.Keys{
		"TargetName", testTarget, "TargetAlias", "for tests", "TargetAddress", a, "TargetAddress", b,
		"TargetName", testTarget + "-mine", "TargetAddress", a, "TargetAddress", b,
	}
	c := s.discover(t)
	for _, q := range []struct {
		value string
		want  initiator.Keys
	}{
		{"All", all},
		{testTarget, all[:8]},
		{strings.ToUpper(testTarget), all[:8]},
		{testTarget + "-other", nil},
		{"iqn.2026-11.com.example:nothing", nil},
		{"", initiator.Keys{"SendTargets", "Reject"}},
		{"a b", initiator.Keys{"SendTargets", "Reject"}},
	} {
		if got, err := c.Discover(q.value); err != nil || !slices.Equal(got, q.want) {
			t.Errorf("SendTargets=%s: %q, %v; want %q", q.value, got, err, q.want)
		}
	}
	if err := c.Logout(); err != nil {
		t.Error(err)
	}
}

// RFC 7143 13.3: SendTargets within a normal session.
func TestSendTargetsNormal(t *testing.T) {
	s := start(t, Config{}, giver(nil, 0, 0))
	addTarget(t, s.Server, Target{Name: testTarget + "-more"}, giver(nil, 0, 0))
	addr := s.addr + ",1"
	c := s.login(t)
	for _, q := range []struct {
		value string
		want  initiator.Keys
	}{
		{"", initiator.Keys{"TargetName", testTarget, "TargetAlias", "for tests", "TargetAddress", addr}},
		{testTarget + "-more", initiator.Keys{"TargetName", testTarget + "-more", "TargetAddress", addr}},
		{"All", initiator.Keys{"SendTargets", "Reject"}},
	} {
		if got, err := c.Discover(q.value); err != nil || !slices.Equal(got, q.want) {
			t.Errorf("SendTargets=%s: %q, %v; want %q", q.value, got, err, q.want)
		}
	}
	do(t, c, make([]byte, 6), 0, nil)
}

// A portal that listens everywhere answers with the address that the peer has
// used.
func TestSendTargetsWildcard(t *testing.T) {
	for _, c := range []struct{ portal, dial string }{
		{"0.0.0.0:0", "127.0.0.1"}, {"0.0.0.0:0", "127.0.0.9"}, {"[::]:0", "::1"}, {"[::]:0", "127.0.0.9"},
	} {
		s := start(t, Config{Portals: At(c.portal)})
		_, port, _ := net.SplitHostPort(s.addr)
		s.addr = net.JoinHostPort(c.dial, port)
		got, err := s.discover(t).Discover("All")
		if want := []string{s.addr + ",1"}; err != nil || !slices.Equal(got.Get("TargetAddress"), want) {
			t.Errorf("%s seen from %s: %q, %v", c.portal, c.dial, got, err)
		}
	}
}

// RFC 7143 11.10.4: an answer longer than a PDU is continued.
func TestSendTargetsContinued(t *testing.T) {
	s := start(t, Config{})
	var names []string
	for i := range 500 {
		names = append(names, fmt.Sprintf("%s-%03d", testTarget, i))
		addTarget(t, s.Server, Target{Name: names[i]})
	}
	for _, segment := range []int{512, 8192} {
		c := s.discover(t, "MaxRecvDataSegmentLength", fmt.Sprint(segment))
		got, err := c.Discover("All")
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(got.Get("TargetName"), append([]string{testTarget}, names...)) {
			t.Errorf("in PDUs of %d: %d targets", segment, len(got.Get("TargetName")))
		}
		alive(t, c)
	}
}

// RFC 7143 11.10: a request cut anywhere, and one that says F in a PDU of its
// own.
func TestTextContinued(t *testing.T) {
	s := start(t, Config{})
	c := s.discover(t)
	text := pdu.AppendPair(nil, "SendTargets", testTarget)
	itt, ttt := c.NextITT(), uint32(pdu.NoTag)
	for i, part := range [][]byte{text[:5], text[5:20], text[20:], nil} {
		p := c.NewRequest(pdu.TextReq)
		p.SetITT(itt)
		p.SetTTT(ttt)
		p.SetFlags([]byte{pdu.FlagContinue, pdu.FlagContinue, 0, pdu.FlagFinal}[i])
		p.Data = part
		send(t, c, p)
		r := receive(t, c, pdu.TextResp)
		if ttt = r.TTT(); (ttt == pdu.NoTag) != (i == 3) || r.Final() != (i == 3) || (len(r.Data) > 0) != (i == 2) {
			t.Errorf("part %d: answer %x with %q", i, r.Header, r.Data)
		}
	}
	// The exchange is over, and its tag means nothing any more.
	p := c.NewRequest(pdu.TextReq)
	p.SetTTT(1)
	send(t, c, p)
	receive(t, c, pdu.Reject)
}

// RFC 7143 11.10.5: other keys in the full feature phase.
func TestTextKeys(t *testing.T) {
	c := start(t, Config{}, giver(content(4096), 4096, 0)).login(t)
	p := c.NewRequest(pdu.TextReq)
	p.Data = initiator.Keys{"MaxRecvDataSegmentLength", "1024", "X-key", "1", "MaxBurstLength", "512"}.Text()
	send(t, c, p)
	got, _ := initiator.ParseKeys(receive(t, c, pdu.TextResp).Data)
	if want := (initiator.Keys{"X-key", "NotUnderstood", "MaxBurstLength", "Reject"}); !slices.Equal(got, want) {
		t.Errorf("answer %q, want %q", got, want)
	}
	if r := do(t, c, []byte{0x28}, 4096, nil); len(r.PDUs) != 4 {
		t.Errorf("4096 bytes come in %d PDUs of at most 1024", len(r.PDUs))
	}
}

// One SendTargets in a request is answered.
func TestSendTargetsTwice(t *testing.T) {
	c := start(t, Config{}).discover(t)
	p := c.NewRequest(pdu.TextReq)
	p.Data = initiator.Keys{"SendTargets", "All", "SendTargets", "All"}.Text()
	send(t, c, p)
	got, _ := initiator.ParseKeys(receive(t, c, pdu.TextResp).Data)
	if n := len(got.Get("TargetName")); n != 1 || !slices.Equal(got.Get("SendTargets"), []string{"Reject"}) {
		t.Errorf("answer %q", got)
	}
}

// A text request is bounded.
func TestTextBounds(t *testing.T) {
	c := start(t, Config{}).discover(t)
	itt, ttt := c.NextITT(), uint32(pdu.NoTag)
	for range 10 {
		p := c.NewRequest(pdu.TextReq)
		p.SetITT(itt)
		p.SetTTT(ttt)
		p.SetFlags(pdu.FlagContinue)
		p.Data = []byte(strings.Repeat("x", 8000))
		send(t, c, p)
		r, err := c.Receive()
		if err != nil {
			t.Fatal(err)
		}
		if r.Opcode() == pdu.Reject {
			alive(t, c)
			return
		}
		ttt = r.TTT()
	}
	t.Error("request goes on for ever")
}

// A discovery session has no SCSI commands.
func TestDiscoveryHasNoCommands(t *testing.T) {
	c := start(t, Config{}, giver(nil, 0, 0)).discover(t)
	for _, op := range []pdu.Opcode{pdu.SCSICommand, pdu.TaskRequest, pdu.DataOut} {
		send(t, c, c.NewRequest(op))
		if r := receive(t, c, pdu.Reject); r.RejectReason() != pdu.RejectProtocol {
			t.Errorf("%v: reason %02x", op, r.RejectReason())
		}
	}
	alive(t, c)
}
