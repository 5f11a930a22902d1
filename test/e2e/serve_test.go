//go:build e2e

package e2e

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// The configuration that comes with the program works as it is, without
// account and without root, and its output tells how to attach.
func TestDefaultConfiguration(t *testing.T) {
	s := &server{t: t, dir: t.TempDir()}
	s.file = filepath.Join(s.dir, "config.yaml")
	b, err := os.ReadFile("../../config.yaml")
	if err != nil {
		t.Fatal(err)
	}
	s.configure(string(b))
	portal := freePort(t)
	s.edit("127.0.0.1:3260", portal)
	s.start()
	if s.portal != portal {
		t.Errorf("listens on %s, not on %s", s.portal, portal)
	}
	const demo = "iqn.2026-11.io.skylun:demo"
	for _, want := range []string{
		"iscsiadm -m discovery -t sendtargets -p " + portal,
		"iscsiadm -m node -T " + demo + " -p " + portal + " --login",
	} {
		if !strings.Contains(s.logged(), want) {
			t.Errorf("serve does not say %q:\n%s", want, s.logged())
		}
	}
	url := "iscsi://" + portal + "/" + demo + "/0"
	qemuIO(t, url, "read -P 0 0 1M", "write -P 0x42 9G 1M", "flush", "read -P 0x42 9G 1M")
	if out := s.cli("lun", "list"); !strings.Contains(out, demo) || !strings.Contains(out, "demo") {
		t.Errorf("lun list:\n%s", out)
	}
	if info, err := os.Stat(filepath.Join(s.dir, "data", "skylun.sock")); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("socket: %v, %v", info, err)
	}
	if info, err := os.Stat(filepath.Join(s.dir, "data", "skylun.db")); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("database: %v, %v", info, err)
	}
	s.stop()
	s.check()
}

// Volumes are made, shown, exported and removed, with and without a server.
func TestVolumeCommands(t *testing.T) {
	s := newServer(t, newFileStore(t))
	s.cli("image", "import", patternImage(t, 8, 0x40), "eight")
	commands := func(t *testing.T) {
		s.cli("volume", "create", "over", "--image", "eight", "--size", "16MiB")
		s.cli("volume", "create", "blank", "--size", "8MiB")
		s.refuse(1, []string{"blank"}, "volume", "create", "blank", "--size", "8MiB")
		for _, name := range []string{"over", "blank"} {
			if out := s.cli("volume", "list"); !strings.Contains(out, name) {
				t.Errorf("volume list shows no %s:\n%s", name, out)
			}
			s.cli("volume", "show", name)
		}
		out := filepath.Join(t.TempDir(), "over.img")
		s.cli("volume", "export", "over", out)
		qemuIO(t, out, "read -P 0x40 0 1M", "read -P 0x47 7M 1M", "read -P 0 8M 8M")
		s.refuse(1, []string{"eight"}, "image", "rm", "eight")
		s.cli("volume", "rm", "over")
		s.cli("volume", "rm", "blank")
		if out := s.cli("volume", "list", "-o", "json"); strings.Contains(out, "over") {
			t.Errorf("removed, and still there:\n%s", out)
		}
		s.check()
	}
	t.Run("without a server", commands)
	s.start()
	t.Run("with a server", commands)
	s.stop()
	s.cli("image", "rm", "eight")
	s.cli("version")
}

// freePort returns a loopback address that nobody listens on at the moment.
func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}
