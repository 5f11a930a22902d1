//go:build e2e

package e2e

import (
	"crypto/sha256"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// An image that is striped over several objects is one image: killed in its
// import it is nowhere, then it is served, and when a part is damaged it says so.
func TestStripedImage(t *testing.T) {
	eachStore(t, func(t *testing.T, st store) {
		const name = "wide.img"
		s := newServer(t, st, "volume: a, image: "+name)
		image := randomFile(t, 200)
		args := []string{"image", "import", image, name, "--stripes", "4", "--stripe-size", "64KiB"}
		cmd := exec.Command(program, append(args, "-c", s.file)...)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		eventually(t, time.Minute, func() string {
			if st.stored() < 50<<20 {
				return "less than 50 MiB imported"
			}
			return ""
		})
		cmd.Process.Kill()
		cmd.Wait()
		if out := s.cli("image", "list"); strings.Contains(out, name) {
			t.Errorf("the image is visible after its import was killed:\n%s", out)
		}
		s.cli(args...)
		if out := s.cli("image", "show", name); !strings.Contains(out, "64 KiB in turn to each of 4 blobs") {
			t.Errorf("image show:\n%s", out)
		}
		if out := s.cli("image", "list"); strings.Count(out, "\n") != 2 || !strings.Contains(out, "200 MiB") {
			t.Errorf("image list:\n%s", out)
		}

		s.start()
		tool(t, "qemu-img", "compare", "-f", "raw", "-F", "raw", image, s.url(0))
		tool(t, "qemu-io", "-f", "raw", "-c", "write -P 0x5a 100M 1M", "-c", "flush", s.url(0))
		s.stop()
		s.start() // with what it remembers of the image
		tool(t, "qemu-io", "-f", "raw", "-c", "read -P 0x5a 100M 1M", s.url(0))
		s.stop()

		// Something else where a part is.
		h := sha256.Sum256([]byte(name))
		other := filepath.Join(t.TempDir(), "other")
		if err := os.WriteFile(other, make([]byte, 50<<20), 0o600); err != nil {
			t.Fatal(err)
		}
		part := fmt.Sprintf(".stripes/%x/2", h[:16])
		st.put(part, other)
		if o := s.try("image", "show", name); o.status != 1 || !strings.Contains(o.stderr, "part 2 of 4 ("+part+") was changed") {
			t.Errorf("image show: exit status %d, %s", o.status, o.stderr)
		}
		config, err := os.ReadFile(s.file)
		if err != nil {
			t.Fatal(err)
		}
		s.configure(strings.Replace(string(config), "disk: {volume: a, image: "+name+"}", "cdrom: {}", 1))
		s.cli("volume", "rm", "a")
		s.cli("image", "rm", name)
		if out := s.cli("image", "list"); !strings.Contains(out, "no images") {
			t.Errorf("image list:\n%s", out)
		}
		if o := s.try("image", "rm", name); o.status != 1 || !strings.Contains(o.stderr, "not found") {
			t.Errorf("image rm again: exit status %d, %s", o.status, o.stderr)
		}
	})
}
