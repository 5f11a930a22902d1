//go:build e2e

package e2e

import (
	"bytes"
	"os"
	"testing"

	"skylun/target/pdu"
	"skylun/test/initiator"
)

// Logins with CHAP, by libiscsi and by the initiator of these tests, are
// well-formed, and secrets do not pass.
func TestWellFormedCHAP(t *testing.T) {
	s := chapServer(t, "")
	c := newCapture(t, s.portal)
	tool(t, "iscsi-ls", withSecret("iscsi://"+c.addr, chapUser, chapSecret))
	tool(t, "iscsi-inq", withSecret(c.url(iqn+"/0"), chapUser, chapSecret))
	for _, url := range []string{withSecret(c.url(iqn+"/0"), chapUser, "what bob knows"), c.url(iqn + "/0")} {
		if o := command(t, "iscsi-inq", url); o.status == 0 {
			t.Errorf("a login as %s: %s%s", url, o.stdout, o.stderr)
		}
	}
	for _, algorithm := range []string{"5", "6", "7", "8"} {
		for _, base64 := range []bool{false, true} {
			i, err := initiator.Dial(c.addr)
			if err != nil {
				t.Fatal(err)
			}
			_, err = i.Login(initiator.Options{Initiator: "iqn.2026-11.com.example:wire", Target: iqn, CHAP: &initiator.CHAP{
				User: chapUser, Secret: chapSecret, Mutual: chapMutual, MutualUser: mutualServer, Algorithms: algorithm, Base64: base64,
			}})
			if err != nil {
				t.Fatalf("algorithm %s, Base64 %t: %v", algorithm, base64, err)
			}
			if err := i.Logout(); err != nil {
				t.Fatal(err)
			}
		}
	}
	c.wellFormed(pdu.LoginReq, pdu.LoginResp, pdu.TextResp, pdu.SCSICommand, pdu.LogoutResp)
	passed, err := os.ReadFile(c.file)
	if err != nil {
		t.Fatal(err)
	}
	for _, secret := range []string{chapSecret, chapMutual} {
		if bytes.Contains(passed, []byte(secret)) {
			t.Errorf("%q is on the wire", secret)
		}
	}
	s.stop()
}
