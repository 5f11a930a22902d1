//go:build e2e

package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"skylun/admin"
	"skylun/test/initiator"
)

// sparse makes a file of zeros.
func sparse(t *testing.T, size int64) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "member")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, size); err != nil {
		t.Fatal(err)
	}
	return path
}

// device makes a block device, or, without the right to, a file.
func device(t *testing.T, size int64) string {
	t.Helper()
	path := sparse(t, size)
	out, err := exec.Command("losetup", "--find", "--show", path).CombinedOutput()
	if err != nil {
		t.Logf("a file instead of a block device: %v: %s", err, out)
		return path
	}
	dev := strings.TrimSpace(string(out))
	t.Cleanup(func() { exec.Command("losetup", "--detach", dev).Run() })
	return dev
}

// qcow2 makes an image and exports it, and returns the process and the export.
func qcow2(t *testing.T, size int64) (start func() *exec.Cmd, export string) {
	t.Helper()
	dir := t.TempDir()
	image, socket := filepath.Join(dir, "image"), filepath.Join(dir, "socket")
	tool(t, "qemu-img", "create", "-q", "-f", "qcow2", image, fmt.Sprint(size))
	return func() *exec.Cmd {
		cmd := exec.Command("qemu-nbd", "-f", "qcow2", "-x", "disk", "-k", socket, "--discard=unmap", "-t", image)
		cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
		eventually(t, 20*time.Second, func() string {
			c, err := net.Dial("unix", socket)
			if err != nil {
				return err.Error()
			}
			c.Close()
			return ""
		})
		return cmd
	}, "unix:" + socket + "?export=disk"
}

// members makes the configuration name members, given as YAML each.
func (s *server) members(all ...string) {
	s.t.Helper()
	b, err := os.ReadFile(s.file)
	if err != nil {
		s.t.Fatal(err)
	}
	rest, _, _ := strings.Cut(string(b), "\nlocal:")
	s.configure(rest + "\nlocal:\n  low_space: 0\n  stripe_size: 64KiB\n  members:\n    - " + strings.Join(all, "\n    - ") + "\n")
}

// TestKillOnMembers is TestKill on an array of members of all kinds, which are
// given other weights all the time, while everything is moved accordingly.
func TestKillOnMembers(t *testing.T) {
	dir, dev, file := filepath.Join(t.TempDir(), "dir"), device(t, 512<<20), sparse(t, 256<<20)
	serve, export := qcow2(t, 512<<20)
	serve()
	killRun(t, newFileStore(t), killEvents{
		before: func(s *server, round int) {
			weight := func(i int) int { return 1 + (round+i)%3 }
			s.members(
				fmt.Sprintf("{path: %s, weight: %d}", dir, weight(0)), fmt.Sprintf("{path: %s, weight: %d}", dev, weight(1)),
				fmt.Sprintf("{path: %s, allocate: chunks, weight: %d}", file, weight(2)), fmt.Sprintf("{nbd: '%s', weight: %d}", export, weight(0)))
		},
		writing: func(s *server, _ int) {
			c, err := admin.Dial(t.Context(), filepath.Join(s.dir, "data", "skylun.sock"))
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			if _, err := c.Rebalance(t.Context()); err != nil {
				t.Fatal(err)
			}
		},
	})
}

// TestMemberAdded adds a member and moves everything while a disk is written to.
func TestMemberAdded(t *testing.T) {
	s := newServer(t, newFileStore(t), "volume: disk, size: 64MiB")
	a, file := filepath.Join(t.TempDir(), "a"), sparse(t, 200<<20)
	s.members(a)
	s.start()
	d := connect(t, s, 1)
	block := func(n int) []byte { return []byte(strings.Repeat(fmt.Sprintf("%08d", n), 512)) }
	write := func(d *initiator.Disk, first, end int) {
		t.Helper()
		for n := first; n < end; n++ {
			if err := d.WriteAt(t.Context(), block(n), int64(n)*4096); err != nil {
				t.Fatal(err)
			}
		}
	}
	write(d, 0, 4000)
	s.stop()
	s.members(a, "{path: "+file+", allocate: chunks}")
	s.start()
	d = connect(t, s, 1)
	moved := make(chan outcome)
	go func() { moved <- s.try("local", "rebalance", "-o", "json") }()
	write(d, 4000, 8000)
	o := <-moved
	var local struct {
		Members []struct {
			Name string `json:"name"`
			Size int64  `json:"size"`
			Free int64  `json:"free"`
		} `json:"members"`
		Rebalance struct {
			Running bool  `json:"running"`
			Done    int64 `json:"done"`
		} `json:"rebalance"`
	}
	if err := json.Unmarshal([]byte(o.stdout), &local); err != nil || o.status != 0 || local.Rebalance.Running || local.Rebalance.Done < 64<<20 {
		t.Fatalf("rebalance: %v %+v", err, o)
	}
	if m := local.Members; len(m) != 2 || m[1].Name != file || m[1].Free > m[1].Size-1<<20 {
		t.Errorf("members: %+v", m)
	}
	for n := range 8000 {
		got := make([]byte, 4096)
		if err := d.ReadAt(t.Context(), got, int64(n)*4096); err != nil || string(got) != string(block(n)) {
			t.Fatalf("block %d: %.16q", n, got)
		}
	}
	s.stop()
	s.members(a)
	if o := command(t, program, "serve", "-c", s.file); o.status != 1 || !strings.Contains(o.stderr, file) || !strings.Contains(o.stderr, "volume disk") {
		t.Errorf("serve without a member: %+v", o)
	}
}

// TestMemberRemoved moves everything off a member while a disk is written to and the
// server is killed in between, and goes on without it.
func TestMemberRemoved(t *testing.T) {
	s := newServer(t, newFileStore(t), "volume: disk, size: 256MiB")
	a, file := filepath.Join(t.TempDir(), "a"), sparse(t, 600<<20)
	both := []string{"{path: " + a + ", weight: 1}", "{path: " + file + ", allocate: chunks, weight: 1}"}
	s.members(both...)
	s.start()
	d := connect(t, s, 1)
	const size, piece = 256 << 20, 1 << 20
	want := make([]byte, size)
	round := byte(0)
	write := func() {
		t.Helper()
		round++
		for off := int64(0); off < size; off += piece {
			p := want[off:][:piece]
			for i := range p {
				p[i] = round ^ byte(off/piece) ^ byte(i/4096)
			}
			if err := d.WriteAt(t.Context(), p, off); err != nil {
				t.Fatal(err)
			}
		}
		if err := d.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	verify := func() {
		t.Helper()
		got := make([]byte, piece)
		for off := int64(0); off < size; off += piece {
			if err := d.ReadAt(t.Context(), got, off); err != nil || !bytes.Equal(got, want[off:][:piece]) {
				t.Fatalf("the MiB at %d: error %v, right bytes %v", off, err, bytes.Equal(got, want[off:][:piece]))
			}
		}
	}
	write()
	removed := make(chan outcome)
	remove := func() { removed <- s.try("local", "remove", a) }
	go remove()
	eventually(t, 20*time.Second, func() string {
		if o := s.try("status"); !strings.Contains(o.stdout, "is leaving") {
			return o.stdout
		}
		return ""
	})
	s.kill()
	<-removed
	s.start()
	d = connect(t, s, 1)
	verify()
	go remove()
	write()
	if o := <-removed; o.status != 0 || !strings.Contains(o.stdout, "is leaving: nothing is on it") {
		t.Fatalf("remove: %+v", o)
	}
	write()
	s.check()
	s.stop()
	if err := os.RemoveAll(a); err != nil {
		t.Fatal(err)
	}
	s.members(both[1])
	s.start()
	d = connect(t, s, 1)
	verify()
	s.check()
	s.stop()
}

// TestExportAway: while the server of an export is away, what is on it fails, and
// works again afterwards.
func TestExportAway(t *testing.T) {
	serve, export := qcow2(t, 128<<20)
	nbd := serve()
	s := newServer(t, newFileStore(t), "volume: disk, size: 16MiB")
	s.members("{nbd: '" + export + "'}")
	s.start()
	d := connect(t, s, 1)
	p := []byte(strings.Repeat("skylun..", 512))
	if err := d.WriteAt(t.Context(), p, 0); err != nil {
		t.Fatal(err)
	}
	if err := d.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	nbd.Process.Kill()
	nbd.Wait()
	got := make([]byte, 4096)
	if err := d.ReadAt(t.Context(), got, 0); err == nil {
		t.Error("a read of what is away succeeded")
	}
	serve()
	eventually(t, 20*time.Second, func() string {
		if err := d.ReadAt(t.Context(), got, 0); err != nil {
			return err.Error()
		}
		if string(got) != string(p) {
			t.Fatalf("other content: %.16q", got)
		}
		return ""
	})
	if err := d.WriteAt(t.Context(), p, 4096); err != nil {
		t.Errorf("write when it is back: %v", err)
	}
	s.stop()
}
