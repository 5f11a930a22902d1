//go:build e2e

package e2e

import (
	"net"
	"path/filepath"
	"strings"
	"testing"
)

// Initiators are told the addresses that are configured for them, and only the
// targets that they may use from where they are.
func TestPortals(t *testing.T) {
	s := &server{t: t, dir: t.TempDir()}
	s.file = filepath.Join(s.dir, "config.yaml")
	portal := freePort(t)
	_, port, _ := net.SplitHostPort(portal)
	s.configure(`
data_dir: ./data
portals:
  - ` + portal + `
  - {listen: "[::1]:` + port + `", group: 5}
  - {listen: "127.0.0.3:` + port + `", advertise: [san.example.com, "192.0.2.1:99"], group: 7}
targets:
  - iqn: iqn.2026-11.io.skylun:here
    networks: [127.0.0.0/8]
    luns: [{lun: 0, disk: {volume: a, size: 1MiB}}]
  - iqn: iqn.2026-11.io.skylun:there
    networks: [10.0.0.0/8, "::1"]
    luns: [{lun: 0, disk: {volume: b, size: 1MiB}}]
`)
	s.start()
	ls := tool(t, "iscsi-ls", "iscsi://"+portal+"/")
	for _, want := range []string{portal + ",1", "[::1]:" + port + ",5", "san.example.com:" + port + ",7", "192.0.2.1:99,7", "iqn.2026-11.io.skylun:here"} {
		if !strings.Contains(ls, want) {
			t.Errorf("iscsi-ls shows no %s:\n%s", want, ls)
		}
	}
	if strings.Contains(ls, "skylun:there") || strings.Contains(ls, "127.0.0.3") {
		t.Errorf("iscsi-ls shows what it should not:\n%s", ls)
	}
	if ls := tool(t, "iscsi-ls", "iscsi://[::1]:"+port+"/"); !strings.Contains(ls, "skylun:there") || strings.Contains(ls, "skylun:here") {
		t.Errorf("iscsi-ls by IPv6:\n%s", ls)
	}
	tool(t, "iscsi-inq", "iscsi://"+portal+"/iqn.2026-11.io.skylun:here/0")
	tool(t, "iscsi-inq", "iscsi://[::1]:"+port+"/iqn.2026-11.io.skylun:there/0")
	o := command(t, "iscsi-inq", "iscsi://"+portal+"/iqn.2026-11.io.skylun:there/0")
	if o.status == 0 || !strings.Contains(o.stderr, "Authorization failure") {
		t.Errorf("login from another network: exit status %d\n%s%s", o.status, o.stdout, o.stderr)
	}
	if want := "the target admits nobody from the network of 127.0.0.1"; !strings.Contains(s.logged(), want) {
		t.Errorf("the log does not say %q:\n%s", want, s.logged())
	}
	s.stop()
}

// Portals of the environment take the place of those of the file.
func TestPortalsOfEnvironment(t *testing.T) {
	s := newServer(t, newFileStore(t), "volume: a, size: 1MiB")
	s.edit(`portals: ["127.0.0.1:0"]`, "portals: [{listen: 192.0.2.77, advertise: [192.0.2.78]}]")
	t.Setenv("SKYLUN_PORTALS", "127.0.0.1:0, 127.0.0.2:0")
	s.start()
	if st := s.ask(); len(st.Portals) != 2 || !strings.HasPrefix(st.Portals[1], "127.0.0.2:") {
		t.Errorf("portals %q", st.Portals)
	}
	if ls := tool(t, "iscsi-ls", "iscsi://"+s.portal+"/"); strings.Contains(ls, "192.0.2") {
		t.Errorf("iscsi-ls:\n%s", ls)
	}
	s.stop()
}
