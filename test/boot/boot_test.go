//go:build boot

package boot

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

const iqn = "iqn.2026-11.io.skylun:boot"

// The drive and the disks of the server, by their LUNs.
const (
	driveLUN = 0
	biosLUN  = 1
	uefiLUN  = 2
)

const config = `
data_dir: ./data
portals: ["127.0.0.1:0"]
targets:
  - iqn: ` + iqn + `
    luns:
      - {lun: 0, cdrom: {media: system.iso}}
      - {lun: 1, disk: {volume: bios, size: 256MiB}}
      - {lun: 2, disk: {volume: uefi, size: 256MiB}}
`

// server is a running server.
type server struct {
	t              *testing.T
	dir, binary    string
	portal, system string // system is what the one on the disc says of itself
}

// start makes the disc and starts a server with it in its drive.
func start(t *testing.T) *server {
	s := &server{t: t, dir: t.TempDir()}
	s.binary = filepath.Join(s.dir, "skylun")
	build := exec.CommandContext(t.Context(), "go", "build", "-o", s.binary, "skylun")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build the server: %v\n%s", err, out)
	}
	iso, system, err := makeDisc(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	s.system = system
	if err := os.WriteFile(filepath.Join(s.dir, "config.yaml"), []byte(config), 0o644); err != nil {
		t.Fatal(err)
	}
	if out := s.skylun("image", "import", iso); !strings.Contains(out, "SYSTEM") {
		t.Errorf("image import does not show the label: %s", out)
	}
	log, err := os.Create(filepath.Join(s.dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	serve := exec.CommandContext(ctx, s.binary, "serve")
	serve.Cancel = func() error { return serve.Process.Signal(syscall.SIGTERM) }
	serve.Dir, serve.Stdout, serve.Stderr = s.dir, log, log
	serve.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := serve.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cancel()
		serve.Wait()
		text, _ := os.ReadFile(log.Name())
		if t.Failed() || bytes.Contains(text, []byte("panic")) || bytes.Contains(text, []byte("level=ERROR")) {
			t.Errorf("the server's log:\n%s", text)
		}
		log.Close()
	})
	var status struct{ Portals []string }
	for deadline := time.Now().Add(20 * time.Second); len(status.Portals) == 0; time.Sleep(20 * time.Millisecond) {
		out, err := s.try("status", "-o", "json")
		if err == nil {
			err = json.Unmarshal(out, &status)
		}
		if err != nil && time.Now().After(deadline) {
			t.Fatalf("the server does not answer: %v\n%s", err, out)
		}
	}
	s.portal = status.Portals[0]
	return s
}

func (s *server) try(args ...string) ([]byte, error) {
	cmd := exec.CommandContext(s.t.Context(), s.binary, args...)
	cmd.Dir = s.dir
	return cmd.CombinedOutput()
}

func (s *server) skylun(args ...string) string {
	s.t.Helper()
	out, err := s.try(args...)
	if err != nil {
		s.t.Fatalf("skylun %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

func (s *server) url(lun int) string { return fmt.Sprintf("iscsi://%s/%s/%d", s.portal, iqn, lun) }

// boots switches a machine on and wants that its system says just this.
func boots(t *testing.T, m machine, want ...string) {
	t.Helper()
	begin := time.Now()
	said, err := m.run(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(said, want) {
		t.Errorf("the system said %q, want %q", said, want)
	}
	t.Logf("%s (%.0f s)", strings.Join(said, ", "), time.Since(begin).Seconds())
}

// TestBoot boots the disc in the drive, with both firmwares and both ways that
// QEMU has to show the drive to the machine; installs the system on a blank
// disk of the same target; and boots from that disk. It boots the disc by
// iPXE, too, which has an initiator of its own.
func TestBoot(t *testing.T) {
	s := start(t)
	for _, c := range []struct {
		firmware      string
		uefi          bool
		install, boot string // the device for the one and for the other
		disk          int
	}{
		{"bios", false, "scsi-block", "scsi-cd", biosLUN},
		{"uefi", true, "scsi-cd", "scsi-block", uefiLUN},
	} {
		fromDisc := fmt.Sprintf("booted from the disc by %s: %s", c.firmware, s.system)
		t.Run(c.firmware+"/"+c.boot, func(t *testing.T) {
			boots(t, machine{uefi: c.uefi, cd: s.url(driveLUN), device: c.boot}, fromDisc)
		})
		t.Run(c.firmware+"/"+c.install+"/install", func(t *testing.T) {
			boots(t, machine{uefi: c.uefi, cd: s.url(driveLUN), device: c.install, disk: s.url(c.disk)}, fromDisc, "installed")
		})
		t.Run(c.firmware+"/disk", func(t *testing.T) {
			boots(t, machine{uefi: c.uefi, disk: s.url(c.disk)}, fmt.Sprintf("booted from the disk by %s: %s", c.firmware, s.system))
		})
	}
	// QEMU's user network has the host at 10.0.2.2.
	_, port, _ := strings.Cut(s.portal, ":")
	t.Run("ipxe", func(t *testing.T) {
		boots(t, machine{san: fmt.Sprintf("iscsi:10.0.2.2::%s:%x:%s", port, driveLUN, iqn)}, "started from the disc by bios")
	})
	if out := s.skylun("check"); !strings.Contains(out, "is sound") {
		t.Errorf("check: %s", out)
	}
}
