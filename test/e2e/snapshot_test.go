//go:build e2e

package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// snapshotStatus is what the tests look at in "skylun snapshot list -o json".
type snapshotStatus struct {
	Name string  `json:"name"`
	Held float64 `json:"held_seconds"`
	Own  int64   `json:"own"`
}

func (s *server) snapshots() (all []snapshotStatus) {
	s.t.Helper()
	if err := json.Unmarshal([]byte(s.cli("snapshot", "list", "-o", "json")), &all); err != nil {
		s.t.Fatal(err)
	}
	return all
}

// layerBytes returns what all layers take on the disk.
func (s *server) layerBytes() (n int64) {
	s.t.Helper()
	files, err := filepath.Glob(filepath.Join(s.dir, "data", "local", "layers", "*"))
	if err != nil {
		s.t.Fatal(err)
	}
	for _, name := range files {
		if st, err := os.Stat(name); err == nil {
			n += st.Sys().(*syscall.Stat_t).Blocks * 512
		}
	}
	return n
}

// Snapshots are taken, shown as volumes, rolled back to and removed while
// clients that others wrote use the disks, and give their space back.
func TestSnapshots(t *testing.T) {
	const mib = 1 << 20
	s := newServer(t, newFileStore(t), "volume: a, size: 64MiB", "volume: b, size: 64MiB")
	s.start()
	qemuIO(t, s.url(0), "write -P 1 0 16M", "flush")
	qemuIO(t, s.url(1), "write -P 2 0 16M") // not flushed
	if out := s.cli("snapshot", "create", "monday", "a", "b"); !strings.Contains(out, "snapshot monday of 2 volumes; writes were held for ") {
		t.Errorf("snapshot create prints %q", out)
	}
	qemuIO(t, s.url(0), "write -P 3 8M 16M", "flush")
	s.cli("snapshot", "create", "tuesday", "a")
	qemuIO(t, s.url(0), "write -P 4 0 24M", "discard 0 4M", "flush")
	if all := s.snapshots(); len(all) != 2 || all[0].Name != "monday" || all[0].Own != 32*mib || all[1].Own != 16*mib {
		t.Errorf("snapshots: %+v", all)
	}

	look := func() {
		t.Helper()
		s.cli("clone", "monday/a", "copy")
		s.cli("lun", "map", iqn, "7", "--volume", "copy")
		qemuIO(t, s.url(7), "read -P 1 0 16M", "read -P 0 16M 48M", "write -P 9 0 1M", "flush")
		s.cli("lun", "unmap", iqn, "7")
		s.cli("volume", "rm", "copy")
		file := filepath.Join(t.TempDir(), "monday.img")
		s.cli("snapshot", "export", "monday/a", file)
		qemuIO(t, file, "read -P 1 0 16M", "read -P 0 16M 48M")
		s.cli("snapshot", "export", "monday/b", file, "--force")
		qemuIO(t, file, "read -P 2 0 16M", "read -P 0 16M 48M")
		qemuIO(t, s.url(0), "read -P 0 0 4M", "read -P 4 4M 20M", "read -P 0 24M 40M")
		s.check()
	}
	look()
	s.kill()
	s.check()
	s.start()
	look()

	before := s.layerBytes()
	s.cli("snapshot", "rm", "tuesday") // all that it had is hidden by the volume
	eventually(t, 20*time.Second, func() string {
		if now := s.layerBytes(); now > before-15*mib {
			return fmt.Sprintf("layers took %d bytes, and take %d", before, now)
		}
		return ""
	})
	look()

	m := join(t, s, "host", 0)
	s.refuse(1, []string{"volume a is lun 0", "logged in", "--force"}, "snapshot", "rollback", "monday")
	s.cli("snapshot", "rollback", "monday", "a", "--force")
	m.ends("first command after a rollback", m.do(make([]byte, 6), 0, nil), 2, 0x062800) // MEDIUM MAY HAVE CHANGED
	m.ends("second one", m.do(make([]byte, 6), 0, nil), 0, 0)
	qemuIO(t, s.url(0), "read -P 1 0 16M", "read -P 0 16M 48M")
	s.kill()
	s.check()
	s.start()
	qemuIO(t, s.url(0), "read -P 1 0 16M", "read -P 0 16M 48M")
	s.cli("snapshot", "rm", "monday")
	s.check()
	s.stop()
	s.check()
	s.cli("snapshot", "create", "stopped", "a", "b")
	s.start()
	qemuIO(t, s.url(1), "read -P 2 0 16M")
	s.stop()
}
