//go:build e2e

package e2e

import (
	"strings"
	"testing"
)

// A volume is shown and taken away while the server runs.
func TestLUNMap(t *testing.T) {
	s := newServer(t, newFileStore(t), "volume: a, size: 1MiB")
	s.start()
	s.cli("volume", "create", "b", "--size", "2MiB")
	s.cli("lun", "map", iqn, "7", "--volume", "b")
	qemuIO(t, s.url(7), "write -P 5 0 2M", "flush", "read -P 5 0 2M")
	if out := s.cli("lun", "list"); !strings.Contains(out, " 7 ") || !strings.Contains(out, "b") {
		t.Errorf("lun list:\n%s", out)
	}
	s.refuse(2, []string{"--volume"}, "lun", "map", iqn, "8")
	s.refuse(1, []string{"volume b", "lun 7"}, "lun", "map", iqn, "8", "--volume", "b")
	s.refuse(1, []string{"configuration"}, "lun", "unmap", iqn, "0")
	s.kill()
	s.start()
	qemuIO(t, s.url(7), "read -P 5 0 2M")
	s.cli("lun", "unmap", iqn, "7")
	if o := command(t, "iscsi-inq", s.url(7)); o.status == 0 && !strings.Contains(o.stdout, "Qualifier:NOT_SUPPORTED") {
		t.Errorf("lun 7 is still there:\n%s", o.stdout)
	}
	s.cli("volume", "rm", "b")
	s.check()
	s.stop()
}
