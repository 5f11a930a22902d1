//go:build e2e

package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// inSmall returns a command that runs with a file system of so many MiB on
// dir, which only the command and its children see.
func inSmall(dir string, mib int, name string, args ...string) *exec.Cmd {
	// Private, or others would see it too. In a chroot / is no mount point.
	script := `mount --make-rprivate / 2>/dev/null
		mount -t tmpfs -o size="$1m" skylun-e2e "$2" && shift 2 && exec "$@"`
	cmd := exec.Command("sh", append([]string{"-c", script, "sh", fmt.Sprint(mib), dir, name}, args...)...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS}
	if os.Geteuid() != 0 {
		cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{HostID: os.Geteuid(), Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{HostID: os.Getegid(), Size: 1}}
	}
	return cmd
}

// A local disk that is full fails the writes that do not fit, and nothing
// else: not the disk, not what is on it, not the volume beside it.
func TestLocalDiskFull(t *testing.T) {
	s := newServer(t, newFileStore(t), "volume: a, size: 1GiB", "volume: b, size: 1GiB")
	members := filepath.Join(s.dir, "members")
	if err := os.Mkdir(members, 0o700); err != nil {
		t.Fatal(err)
	}
	s.edit("portals:", "local: {members: [./members]}\nportals:")
	s.startWith(inSmall(members, 32, program, "serve", "-c", s.file))
	qemuIO(t, s.url(0), "write -P 0x11 0 8M", "flush")
	qemuIO(t, s.url(1), "write -P 0x22 0 1M", "flush")

	o := tryQemuIO(t, s.url(0), "write -P 0x33 8M 64M")
	if !failedIO(o.stdout + o.stderr) {
		t.Errorf("64 MiB went to a disk of 32 MiB:\n%s", o.stdout)
	}
	if !strings.Contains(o.stderr, "SPACE ALLOCATION FAILED") && !strings.Contains(o.stderr, "0x2707") {
		t.Errorf("the sense data does not tell that there is no space:\n%s", o.stderr)
	}
	if log := s.logged(); !strings.Contains(log, "no space") {
		t.Errorf("no log line says that the disk is full:\n%s", tail(log))
	}
	qemuIO(t, s.url(0), "read -P 0x11 0 8M", "write -P 0x12 1M 1M", "flush", "read -P 0x12 1M 1M")
	qemuIO(t, s.url(1), "read -P 0x22 0 1M")
	qemuIO(t, s.url(0), "discard 4M 4M") // room again
	qemuIO(t, s.url(1), "write -P 0x23 1M 1M", "flush", "read -P 0x23 1M 1M")
	s.check()
	s.stop()
}

// Before the local disk is full, initiators hear of it: once, and again after
// there was room in between.
func TestLocalSpaceLow(t *testing.T) {
	s := newServer(t, newFileStore(t), "volume: a, size: 1GiB")
	members := filepath.Join(s.dir, "members")
	if err := os.Mkdir(members, 0o700); err != nil {
		t.Fatal(err)
	}
	s.edit("portals:", "local: {members: [./members], low_space: 16MiB}\nportals:")
	s.startWith(inSmall(members, 64, program, "serve", "-c", s.file))
	m := join(t, s, "host", 0)
	attention := func() {
		t.Helper()
		eventually(t, 30*time.Second, func() string {
			r := m.do(make([]byte, 6), 0, nil)
			if r.Key() == 0 {
				return "nothing said"
			}
			m.ends("warned", r, 2, 0x063807) // THIN PROVISIONING SOFT THRESHOLD REACHED
			return ""
		})
		m.ends("after that", m.do(make([]byte, 6), 0, nil), 0, 0)
	}
	qemuIO(t, s.url(0), "write -P 0x11 0 52M", "flush")
	attention()
	if log := s.logged(); !strings.Contains(log, "local space gets low") {
		t.Errorf("the log says nothing:\n%s", tail(log))
	}
	qemuIO(t, s.url(0), "discard 0 32M", "flush")
	time.Sleep(5 * time.Second) // there is room for longer than the server takes to look
	m.ends("with room again", m.do(make([]byte, 6), 0, nil), 0, 0)
	qemuIO(t, s.url(0), "write -P 0x22 0 32M", "flush")
	attention()
	s.stop()
}

// A store that is full ends an import, and there is no image.
func TestStoreFull(t *testing.T) {
	st := newFileStore(t)
	s := newServer(t, st)
	out, err := inSmall(st.dir, 32, "sh", "-c", `
		"$0" image import "$1" big -c "$2"
		echo "status $?"
		"$0" image list -c "$2" -o json`, program, randomFile(t, 64), s.file).CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	var said []string
	for line := range strings.Lines(string(out)) {
		if strings.HasPrefix(line, "skylun: ") {
			said = append(said, line)
		}
	}
	if len(said) != 1 || !strings.Contains(said[0], "big") || !strings.Contains(said[0], "space") {
		t.Errorf("want one line that tells what is full, got:\n%s", out)
	}
	if !strings.Contains(string(out), "status 1\n[]") {
		t.Errorf("want exit status 1 and no image, got:\n%s", out)
	}
}

// A data directory on a full disk is one line too.
func TestDataDirFull(t *testing.T) {
	s := newServer(t, newFileStore(t), "volume: a, size: 1GiB")
	data := filepath.Join(s.dir, "data")
	if err := os.Mkdir(data, 0o700); err != nil {
		t.Fatal(err)
	}
	out, err := inSmall(data, 1, "sh", "-c", `
		dd if=/dev/zero of="$2/fill" bs=4k 2>/dev/null
		"$0" serve -c "$1"
		echo "status $?"`, program, s.file, data).CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if n := strings.Count(string(out), "skylun: "); n != 1 || !strings.Contains(string(out), data) || !strings.Contains(string(out), "status 1\n") {
		t.Errorf("want one line that names %s, and exit status 1, got:\n%s", data, out)
	}
}
