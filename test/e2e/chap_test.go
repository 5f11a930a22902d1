//go:build e2e

package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const (
	chapUser     = "alice"
	chapSecret   = "a secret of alice"
	chapMutual   = "a secret of skylun"
	mutualServer = "skylun"
)

// chapServer returns a server whose target and discovery ask for CHAP.
func chapServer(t *testing.T, extra string) *server {
	t.Helper()
	s := newServer(t, newFileStore(t), "volume: disk, size: 64MiB")
	for name, secret := range map[string]string{"alice": chapSecret, "skylun": chapMutual + "\n"} {
		if err := os.WriteFile(filepath.Join(s.dir, name), []byte(secret), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s.edit("    luns:", "    chap: *chap\n    luns:")
	s.edit("targets:", "discovery:\n  chap: &chap {user: alice, secret_file: alice, mutual_user: skylun, mutual_secret_file: skylun"+extra+"}\ntargets:")
	s.start()
	return s
}

// withSecret puts a user and a secret into a URL, as libiscsi wants it.
func withSecret(url, user, secret string) string {
	return strings.Replace(url, "iscsi://", fmt.Sprintf("iscsi://%s%%%s@", user, secret), 1)
}

// libiscsi and QEMU authenticate by CHAP, and are refused when they cannot.
func TestCHAP(t *testing.T) {
	s := chapServer(t, "")
	good := withSecret(s.url(0), chapUser, chapSecret)
	if want := "CHAP is asked for by " + iqn; !strings.Contains(s.logged(), want) {
		t.Errorf("serve does not say %q:\n%s", want, s.logged())
	}

	t.Run("libiscsi", func(t *testing.T) {
		tool(t, "iscsi-inq", good)
		for name, url := range map[string]string{
			"no user": s.url(0), "wrong secret": withSecret(s.url(0), chapUser, chapSecret+"!"), "unknown user": withSecret(s.url(0), "mallory", chapSecret),
		} {
			o := command(t, "iscsi-inq", url)
			if o.status == 0 || !strings.Contains(o.stderr, "Authentication failure") {
				t.Errorf("%s: exit status %d\n%s%s", name, o.status, o.stdout, o.stderr)
			}
		}
	})
	t.Run("discovery", func(t *testing.T) {
		if ls := tool(t, "iscsi-ls", "-s", withSecret("iscsi://"+s.portal+"/", chapUser, chapSecret)); !strings.Contains(ls, "Target:"+iqn) || !strings.Contains(ls, "Lun:0") {
			t.Errorf("iscsi-ls:\n%s", ls)
		}
		if o := command(t, "iscsi-ls", "iscsi://"+s.portal+"/"); strings.Contains(o.stdout, iqn) {
			t.Errorf("iscsi-ls without a user:\n%s", o.stdout)
		}
	})
	t.Run("mutual", func(t *testing.T) {
		t.Setenv("LIBISCSI_CHAP_TARGET_USERNAME", mutualServer)
		t.Setenv("LIBISCSI_CHAP_TARGET_PASSWORD", chapMutual)
		tool(t, "iscsi-inq", good)
		qemuIO(t, good, "write -P 7 1M 64k", "flush", "read -P 7 1M 64k")
		t.Setenv("LIBISCSI_CHAP_TARGET_PASSWORD", "not what it is")
		if o := command(t, "iscsi-inq", good); o.status == 0 {
			t.Errorf("libiscsi takes the server for another one:\n%s%s", o.stdout, o.stderr)
		}
	})
	t.Run("QEMU", func(t *testing.T) {
		qemuIO(t, good, "read 0 4k")
		opts := func(file string) []string {
			return []string{"info", "--object", "secret,id=chap,file=" + file, "--image-opts",
				"driver=iscsi,transport=tcp,portal=" + s.portal + ",target=" + iqn + ",lun=0,user=alice,password-secret=chap"}
		}
		if out := tool(t, "qemu-img", opts(filepath.Join(s.dir, "alice"))...); !strings.Contains(out, "64 MiB") {
			t.Errorf("qemu-img info:\n%s", out)
		}
		if o := command(t, "qemu-img", opts(filepath.Join(s.dir, "skylun"))...); o.status == 0 {
			t.Error("qemu-img logs in with another secret")
		}
	})
	s.stop()
	for _, secret := range []string{chapSecret, chapMutual} {
		if strings.Contains(s.logged(), secret) {
			t.Errorf("a secret is in the log:\n%s", s.logged())
		}
	}
	for _, want := range []string{`CHAP user \"mallory\" is unknown`, `CHAP user \"alice\" has given the wrong secret`} {
		if !strings.Contains(s.logged(), want) {
			t.Errorf("the log does not say %s:\n%s", want, s.logged())
		}
	}
}

// An algorithm that is not configured is not used: libiscsi 1.19 has MD5 only.
func TestCHAPAlgorithms(t *testing.T) {
	s := chapServer(t, ", algorithms: [SHA3-256, SHA-256]")
	if o := command(t, "iscsi-inq", withSecret(s.url(0), chapUser, chapSecret)); o.status == 0 {
		t.Errorf("logged in with MD5:\n%s%s", o.stdout, o.stderr)
	}
	s.stop()
	if want := "none of the algorithms that the initiator offers is configured: CHAP_A=5"; !strings.Contains(s.logged(), want) {
		t.Errorf("the log does not say %q:\n%s", want, s.logged())
	}
	s.edit("SHA3-256, SHA-256", "SHA-256, MD5")
	s.start()
	tool(t, "iscsi-inq", withSecret(s.url(0), chapUser, chapSecret))
}
