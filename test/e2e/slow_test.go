//go:build e2e

package e2e

import (
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"
)

// An initiator that is stopped in the middle of reads, with megabytes of
// answers on their way that nobody takes, holds up nobody else, and is dropped
// when it does not answer pings.
func TestStoppedInitiator(t *testing.T) {
	s := newServer(t, newFileStore(t), "volume: disk, size: 64MiB", "volume: other, size: 64MiB")
	s.edit("targets:\n", "limits: {ping_interval: 1s, ping_timeout: 1s}\ntargets:\n")
	s.start()
	qemuIO(t, s.url(0), "write -P 0x5a 0 64M")

	perf := exec.Command("iscsi-perf", "-m", "32", "-b", "512", "-t", "60", s.url(0)) // reads of 256 KiB
	var out strings.Builder
	perf.Stdout, perf.Stderr = &out, &out
	if err := perf.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		perf.Process.Kill()
		perf.Wait()
	}()

	eventually(t, 20*time.Second, func() string {
		if s.ask().SCSI.BytesRead < 256<<20 {
			return "iscsi-perf does not read: " + out.String()
		}
		return ""
	})
	if err := perf.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	for _, url := range []string{s.url(0), s.url(1)} {
		qemuIO(t, url, "write -P 0x77 0 16M", "flush", "read -P 0x77 0 16M")
	}
	if d := time.Since(begin); d > 20*time.Second {
		t.Errorf("others took %v", d)
	}
	eventually(t, 30*time.Second, func() string {
		if n := s.ask().SCSI.Sessions; n > 0 {
			return "the stopped initiator has its session still"
		}
		return ""
	})
	if !strings.Contains(s.logged(), "peer does not answer") {
		t.Errorf("the log does not say why:\n%s", tail(s.logged()))
	}

	// It goes on with a new session when it goes on at all.
	if err := perf.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	eventually(t, 30*time.Second, func() string {
		if s.ask().SCSI.Sessions != 1 {
			return "the initiator has not come back: " + out.String()
		}
		return ""
	})
	perf.Process.Kill()
	s.stop()
	s.check()
}
