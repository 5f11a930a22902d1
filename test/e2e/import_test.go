//go:build e2e

package e2e

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// An import that is killed leaves nothing that could be taken for an image.
// The next one goes on where it ended.
func TestImportKilled(t *testing.T) {
	eachStore(t, func(t *testing.T, st store) {
		s := newServer(t, st)
		image := randomFile(t, 256)
		visible := func() bool { return strings.Contains(s.cli("image", "list"), "big") }

		cmd := exec.Command(program, "image", "import", image, "big", "-c", s.file)
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		ended := make(chan struct{})
		go func() {
			cmd.Wait()
			close(ended)
		}()
		eventually(t, time.Minute, func() string {
			select {
			case <-ended:
				t.Fatalf("the import ended before it could be killed: %s", stderr.String())
			default:
			}
			if st.stored() < 136<<20 {
				return "less than 136 MiB imported"
			}
			return ""
		})
		cmd.Process.Signal(syscall.SIGSTOP)
		if visible() {
			t.Error("the image is visible while it is imported")
		}
		cmd.Process.Kill()
		<-ended
		half := st.stored()
		if half > 230<<20 {
			t.Fatalf("%d MiB were stored before the kill: nothing is left to go on with", half>>20)
		}
		if visible() {
			t.Error("the image is visible after the import was killed")
		}
		if o := s.try("volume", "create", "v", "--image", "big"); o.status == 0 {
			t.Error("a volume could be made of half an image")
		}

		// What was stored since the last checkpoint is stored again. They are
		// 64 MiB apart, and some more were in flight.
		if again := bytesWritten(t, program, "image", "import", image, "big", "-c", s.file); again > 256<<20-half+96<<20 {
			t.Errorf("%d MiB were stored before the kill, and then %d MiB of 256", half>>20, again>>20)
		}
		if !visible() {
			t.Error("the image is not visible after the import")
		}
		out := filepath.Join(t.TempDir(), "out.img")
		f, err := os.Create(out)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		st.get("big", f)
		if digest(t, out) != digest(t, image) {
			t.Error("the image is not what was imported")
		}
		if o := s.try("image", "import", image, "big"); o.status != 1 || !strings.Contains(o.stderr, "big") {
			t.Errorf("a second import to that name: exit status %d, %s", o.status, o.stderr)
		}
	})
}

// A blob that somebody else stored is an image as it is, a fixed VHD too.
func TestPlainBlob(t *testing.T) {
	eachStore(t, func(t *testing.T, st store) {
		raw, vhd := patternImage(t, 8, 0x40), filepath.Join(t.TempDir(), "disk.vhd")
		tool(t, "qemu-img", "convert", "-f", "raw", "-O", "vpc", "-o", "subformat=fixed,force_size=on", raw, vhd)
		s := newServer(t, st, "volume: a, image: plain.img", "volume: b, image: disk.vhd", "volume: c, image: imported")
		s.cli("image", "import", vhd, "imported")
		st.put("plain.img", raw)
		st.put("disk.vhd", vhd)
		s.start()
		for n := range 3 {
			tool(t, "qemu-img", "compare", "-f", "raw", "-F", "raw", raw, s.url(n))
		}
		s.stop()
	})
}

// bytesWritten runs a command, which must succeed, and returns how many bytes
// it wrote to files and sockets.
func bytesWritten(t *testing.T, name string, args ...string) int64 {
	t.Helper()
	cmd := exec.Command(name, args...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	// The last look before the end counts: what comes after it is little.
	proc, io := fmt.Sprintf("/proc/%d/", cmd.Process.Pid), ""
	eventually(t, time.Minute, func() string {
		stat, err := os.ReadFile(proc + "stat")
		if err != nil || strings.Contains(string(stat), ") Z ") {
			return ""
		}
		if b, err := os.ReadFile(proc + "io"); err == nil {
			io = string(b)
		}
		return fmt.Sprintf("%s %v still runs", name, args)
	})
	if err := cmd.Wait(); err != nil {
		t.Fatalf("%s %v: %v: %s", name, args, err, stderr.String())
	}
	_, after, _ := strings.Cut(io, "wchar: ")
	var n int64
	if _, err := fmt.Sscan(after, &n); err != nil {
		t.Fatalf("%s: %v", io, err)
	}
	return n
}

// randomFile makes a file of so many MiB without any zeros to be skipped.
func randomFile(t *testing.T, mib int) string {
	t.Helper()
	data := make([]byte, mib<<20)
	x := uint64(88172645463325252)
	for i := 0; i < len(data); i += 8 {
		x ^= x << 13
		x ^= x >> 7
		x ^= x << 17
		binary.LittleEndian.PutUint64(data[i:], x)
	}
	name := filepath.Join(t.TempDir(), "random.img")
	if err := os.WriteFile(name, data, 0o644); err != nil {
		t.Fatal(err)
	}
	return name
}
