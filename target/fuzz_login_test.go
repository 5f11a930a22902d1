package target

import (
	"bytes"
	"errors"
	"io"
	"os"
	"strings"
	"syscall"
	"testing"

	"skylun/target/pdu"
	"skylun/test/initiator"
)

// FuzzLogin sends login requests: flags has byte 1 of each, and texts their
// text, split where a byte 0xff is; a byte 0xfe stands for the right response to
// the challenge. Whatever they are, the answers are login responses that agree
// with their requests, and when one says that the full feature phase begins, it
// does. Where CHAP is asked for, that takes a right response.
func FuzzLogin(f *testing.F) {
	const (
		toOperational = pdu.FlagFinal | byte(pdu.Security)<<2 | byte(pdu.Operational)
		toFull        = pdu.FlagFinal | byte(pdu.Operational)<<2 | byte(pdu.FullFeature)
		fromSecurity  = pdu.FlagFinal | byte(pdu.Security)<<2 | byte(pdu.FullFeature)
		stay          = byte(pdu.Operational) << 2
		more          = pdu.FlagContinue | byte(pdu.Operational)<<2
	)
	names, keys := string(testNames.Text()), string(initiator.Friendly.Text())
	discovery := string(initiator.Options{Initiator: testInitiator}.Names().Text())
	const chapTarget, user, userSecret = "iqn.2026-11.io.skylun:chap", "user", "secret of the user"
	protected := string(initiator.Options{Initiator: testInitiator, Target: chapTarget}.Names().Text())
	add := func(flags []byte, texts ...string) { f.Add(flags, []byte(strings.Join(texts, "\xff"))) }
	add([]byte{toFull}, names+keys)
	add([]byte{toOperational, toFull}, names+"AuthMethod=None\x00", keys)
	add([]byte{fromSecurity}, names+"AuthMethod=CHAP,None\x00")
	add([]byte{stay, more, more, toFull}, names, keys[:20], keys[20:70], keys[70:])
	add([]byte{toFull}, discovery+"HeaderDigest=CRC32C,None\x00DataDigest=None,CRC32C\x00")
	add([]byte{toFull}, names+"X-com.example.key=1\x00MaxBurstLength=0x1000\x00OFMarker=Yes\x00ErrorRecoveryLevel=2\x00")
	add([]byte{stay, stay, stay, toFull}, names+"MaxConnections=8\x00", "InitialR2T=No\x00ImmediateData=No\x00", "FirstBurstLength=512\x00", "")
	add([]byte{0, 0, toOperational, toFull}, protected+"AuthMethod=CHAP\x00", "CHAP_A=8,7,6,5\x00", "CHAP_N=user\x00CHAP_R=\xfe\x00", keys)
	add([]byte{0, fromSecurity}, protected+"AuthMethod=CHAP,None\x00CHAP_A=5\x00", "CHAP_N=user\x00CHAP_R=\xfe\x00CHAP_I=7\x00CHAP_C=0b"+strings.Repeat("A", 64)+"\x00")
	add([]byte{0, 0, toOperational}, protected+"AuthMethod=CHAP\x00", "CHAP_A=7\x00", "CHAP_N=user\x00CHAP_R=0x00\x00")
	add([]byte{toFull}, protected+keys)
	add([]byte{fromSecurity}, protected+"AuthMethod=CHAP\x00")

	s := startFuzzed(f)
	addTarget(f, s.Server, Target{Name: chapTarget, CHAP: &CHAP{Users: []User{{
		Name: user, Secret: secret(f, userSecret), MutualName: "target", MutualSecret: secret(f, "secret of the target"),
	}}}})
	f.Fuzz(func(t *testing.T, flags, texts []byte) {
		c := s.dialOther(t)
		itt := c.NextITT()
		var said []byte // by the target, all of it
		answered, on := false, true
		for i, text := range bytes.Split(texts, []byte{0xff}) {
			p := c.NewRequest(pdu.LoginReq)
			p.SetITT(itt)
			p.SetTTT(0)
			p.SetISID(c.ISID)
			p.SetFlags(toFull)
			if i < len(flags) {
				p.SetFlags(flags[i])
			}
			if h := (&initiator.CHAP{User: user, Secret: userSecret}); bytes.Contains(text, []byte{0xfe}) {
				keys, _ := initiator.ParseKeys(said)
				if answer, err := h.Answer(keys); err == nil {
					answered = true
					text = bytes.ReplaceAll(text, []byte{0xfe}, []byte(answer.Get("CHAP_R")[0]))
				}
			}
			p.Data = text
			var answer []byte
			if answer, on = fuzzedLogin(t, c, p); !on {
				break
			}
			said = append(said, answer...)
			if c.TSIH != 0 {
				break
			}
		}
		if on && c.TSIH != 0 {
			keys, err := initiator.ParseKeys(said)
			if err != nil {
				t.Errorf("text %q: %v", said, err)
			}
			last := func(key string) string { return append([]string{""}, keys.Get(key)...)[len(keys.Get(key))] }
			c.HeaderDigest, c.DataDigest = last("HeaderDigest") == "CRC32C", last("DataDigest") == "CRC32C"
			alive(t, c)
			for _, info := range s.Sessions() {
				if info.TSIH == c.TSIH && info.Target == chapTarget && !answered {
					t.Error("a session without authentication")
				}
			}
		}
		c.Close()
		s.serves(t)
	})
}

// fuzzedLogin sends a login request, looks at the answer, and returns its
// text and whether the login is not refused. When it is at its end, c has a TSIH.
func fuzzedLogin(t *testing.T, c *initiator.Conn, p *initiator.PDU) (text []byte, ok bool) {
	t.Helper()
	if c.Send(p) != nil {
		return nil, false
	}
	r, err := c.Receive()
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		t.Fatal("no answer, and no end of the connection")
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET):
		return nil, false
	case err != nil:
		t.Fatal(err)
	case r.Opcode() != pdu.LoginResp || r.ITT() != p.ITT() || r.ISID() != p.ISID():
		t.Fatalf("%v is no answer to this login: %x", r, r.Header)
	case r.LoginStatus() != pdu.LoginSuccess:
		if class := r.LoginStatus() >> 8; class == 0 || class > 3 || r.Final() || len(r.Data) > 0 {
			t.Errorf("refused with status 0x%04x, flags 0x%02x, %d bytes of text", uint16(r.LoginStatus()), r.Flags(), len(r.Data))
		}
		closed(t, c)
		return nil, false
	}
	more := r.Flags()&pdu.FlagContinue != 0
	switch {
	case r.CSG() != p.CSG():
		t.Errorf("answer in stage %v to a request in stage %v", r.CSG(), p.CSG())
	case r.Final() && (!p.Final() || r.NSG() != p.NSG() || more || p.Flags()&pdu.FlagContinue != 0):
		t.Errorf("flags 0x%02x answer 0x%02x", r.Flags(), p.Flags())
	case p.Flags()&pdu.FlagContinue != 0 && len(r.Data) > 0:
		t.Errorf("%d bytes of text answer a request that is not complete", len(r.Data))
	}
	if r.Final() && r.NSG() == pdu.FullFeature {
		if c.TSIH = r.TSIH(); c.TSIH == 0 {
			t.Error("a session without TSIH")
		}
	}
	return r.Data, true
}
