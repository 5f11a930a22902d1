//go:build e2e

package e2e

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"skylun/target/pdu"
	"skylun/test/initiator"
)

// Logins with CHAP, by libiscsi and by the initiator of these tests, are
// well-formed, and secrets do not pass.
func TestWellFormedCHAP(t *testing.T) {
	s := newServer(t, newFileStore(t), "volume: disk, size: 64MiB")
	secrets := map[string]string{"alice": "what alice knows", "skylun": "what skylun knows", "finder": "what finder knows"}
	for name, secret := range secrets {
		if err := os.WriteFile(filepath.Join(s.dir, name), []byte(secret+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s.edit("    luns:\n", "    chap: {user: alice, secret_file: alice, mutual_user: skylun, mutual_secret_file: skylun}\n    luns:\n")
	s.edit("targets:\n", "discovery:\n  chap: {user: finder, secret_file: finder}\ntargets:\n")
	s.start()
	c := newCapture(t, s.portal)

	// libiscsi's tools take a secret from the environment.
	libiscsi := func(user, password string, args ...string) outcome {
		cmd := append([]string{"LIBISCSI_CHAP_USERNAME=" + user, "LIBISCSI_CHAP_PASSWORD=" + password}, args...)
		return command(t, "env", cmd...)
	}
	if o := libiscsi("finder", secrets["finder"], "iscsi-ls", "iscsi://"+c.addr); !strings.Contains(o.stdout, iqn) {
		t.Errorf("discovery: %s%s", o.stdout, o.stderr)
	}
	if o := libiscsi("alice", secrets["alice"], "iscsi-inq", c.url(iqn+"/0")); o.status != 0 {
		t.Errorf("login: %s%s", o.stdout, o.stderr)
	}
	if o := libiscsi("alice", "what bob knows", "iscsi-inq", c.url(iqn+"/0")); o.status == 0 {
		t.Errorf("a login with a wrong secret: %s%s", o.stdout, o.stderr)
	}
	mutual := []string{"LIBISCSI_CHAP_TARGET_USERNAME=skylun", "LIBISCSI_CHAP_TARGET_PASSWORD=" + secrets["skylun"], "iscsi-inq", c.url(iqn + "/0")}
	if o := libiscsi("alice", secrets["alice"], mutual...); o.status != 0 {
		t.Errorf("mutual CHAP: %s%s", o.stdout, o.stderr)
	}
	if o := command(t, "iscsi-inq", c.url(iqn+"/0")); o.status == 0 {
		t.Errorf("a login without CHAP: %s%s", o.stdout, o.stderr)
	}
	for _, algorithm := range []string{"5", "6", "7", "8"} {
		for _, base64 := range []bool{false, true} {
			i, err := initiator.Dial(c.addr)
			if err != nil {
				t.Fatal(err)
			}
			_, err = i.Login(initiator.Options{Initiator: "iqn.2026-11.com.example:wire", Target: iqn, CHAP: &initiator.CHAP{
				User: "alice", Secret: secrets["alice"], Mutual: secrets["skylun"], MutualUser: "skylun", Algorithms: algorithm, Base64: base64,
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
	for name, secret := range secrets {
		if bytes.Contains(passed, []byte(secret)) || strings.Contains(s.logged(), secret) {
			t.Errorf("the secret of %s is on the wire or in the log", name)
		}
	}
	s.stop()
}
