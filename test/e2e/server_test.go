//go:build e2e

package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

const iqn = "iqn.2026-11.io.skylun:e2e"

// server is a configuration and, between start and stop or kill, the process
// that serves it.
type server struct {
	t    *testing.T
	dir  string // of the configuration; everything local is below it
	file string // the configuration

	cmd    *exec.Cmd
	exited chan struct{} // closed when the process has ended
	log    string        // file that the process writes to
	starts int
	portal string // IP:PORT it listens on
}

// status is what the tests look at in the output of "skylun status -o json".
type status struct {
	PID     int      `json:"pid"`
	Portals []string `json:"portals"`
	SCSI    struct {
		Sessions  int   `json:"sessions"`
		BytesRead int64 `json:"bytes_read"`
	} `json:"iscsi"`
	Store struct {
		Gets    int   `json:"gets"`
		Puts    int   `json:"puts"`
		BytesIn int64 `json:"bytes_in"`
	} `json:"store"`
	Volumes []struct {
		Name    string `json:"name"`
		Written int64  `json:"written"`
	} `json:"volumes"`
	Caches []struct {
		Image        string `json:"image"`
		Cached       int64  `json:"cached"`
		Zero         int64  `json:"zero"`
		Absent       int64  `json:"absent"`
		Fetches      int    `json:"fetches"`
		FetchedBytes int64  `json:"fetched_bytes"`
		Damaged      int    `json:"damaged"`
		Misses       int    `json:"misses"`
		Prefetch     struct {
			State  string `json:"state"`
			Reason string `json:"reason"`
			Errors int    `json:"errors"`
			Filled int64  `json:"filled_bytes"`
		} `json:"prefetch"`
	} `json:"caches"`
	Cache struct {
		Limit   int64 `json:"limit"`
		Held    int64 `json:"held"`
		Pinned  int64 `json:"pinned"`
		Evicted int64 `json:"evicted"`
		GaveWay int64 `json:"gave_way"`
	} `json:"cache"`
}

// newServer writes a configuration with the given store and one logical unit
// for each of the disks, "volume: a, image: b", numbered from 0.
func newServer(t *testing.T, st store, disks ...string) *server {
	t.Helper()
	var luns strings.Builder
	for i, d := range disks {
		fmt.Fprintf(&luns, "      - {lun: %d, disk: {%s}}\n", i, d)
	}
	dir := t.TempDir()
	s := &server{t: t, dir: dir, file: filepath.Join(dir, "config.yaml")}
	s.configure(fmt.Sprintf(`node: e2e
data_dir: ./data
log: {level: debug, format: text}
cache: {prefetch: off}
blobstore:
%s
portals: ["127.0.0.1:0"]
targets:
  - iqn: %s
    luns:
%s`, indent(st.config()), iqn, luns.String()))
	return s
}

func indent(lines string) string {
	return "  " + strings.ReplaceAll(strings.TrimSpace(lines), "\n", "\n  ")
}

// configure replaces the configuration.
func (s *server) configure(yaml string) {
	s.t.Helper()
	if err := os.WriteFile(s.file, []byte(yaml), 0o600); err != nil {
		s.t.Fatal(err)
	}
}

// start runs the server and waits until it serves.
func (s *server) start() {
	s.t.Helper()
	s.startWith(exec.Command(program, "serve", "-c", s.file))
}

// startWith is start with a command that becomes the server.
func (s *server) startWith(cmd *exec.Cmd) {
	s.t.Helper()
	s.starts++
	s.log = filepath.Join(s.dir, fmt.Sprintf("serve.%d.log", s.starts))
	log, err := os.Create(s.log)
	if err != nil {
		s.t.Fatal(err)
	}
	defer log.Close()
	cmd.Stdout, cmd.Stderr = log, log
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
	if err := cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	exited := make(chan struct{})
	s.cmd, s.exited = cmd, exited
	go func() {
		cmd.Wait()
		close(exited)
	}()
	s.t.Cleanup(func() {
		cmd.Process.Kill()
		<-exited
		if s.t.Failed() && s.starts > 0 {
			s.t.Logf("server log %s:\n%s", filepath.Base(s.log), tail(s.logged()))
		}
		s.starts = 0 // once
	})
	eventually(s.t, 30*time.Second, func() string {
		select {
		case <-exited:
			s.t.Fatalf("the server ended: %v\n%s", cmd.ProcessState, s.logged())
		default:
		}
		o := command(s.t, program, "status", "-o", "json", "-c", s.file)
		var st status
		if err := json.Unmarshal([]byte(o.stdout), &st); err != nil || len(st.Portals) == 0 || st.PID != cmd.Process.Pid {
			return "the server is not ready: " + o.stdout + o.stderr
		}
		s.portal = st.Portals[0]
		return ""
	})
}

// stop ends the server as an operator would, and requires that it ends well,
// and soon.
func (s *server) stop() {
	s.t.Helper()
	s.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-s.exited:
	case <-time.After(15 * time.Second):
		s.t.Fatalf("the server did not end within 15 s of SIGTERM\n%s", tail(s.logged()))
	}
	if log := s.logged(); strings.Contains(log, "DATA RACE") || strings.Contains(log, "panic: ") {
		s.t.Errorf("the server's log holds a race or a panic:\n%s", log)
	}
	if code := s.cmd.ProcessState.ExitCode(); code != 0 {
		s.t.Fatalf("after SIGTERM: exit status %d\n%s", code, tail(s.logged()))
	}
}

// kill ends the server as a crash would.
func (s *server) kill() {
	s.cmd.Process.Kill()
	<-s.exited
}

// url names a logical unit for libiscsi and QEMU.
func (s *server) url(lun int) string { return fmt.Sprintf("iscsi://%s/%s/%d", s.portal, iqn, lun) }

// try runs a subcommand that may fail.
func (s *server) try(args ...string) outcome {
	s.t.Helper()
	return command(s.t, program, append(args, "-c", s.file)...)
}

// cli runs a subcommand that must succeed, and returns what it printed.
func (s *server) cli(args ...string) string {
	s.t.Helper()
	return tool(s.t, program, append(args, "-c", s.file)...)
}

// ask returns what the running server says about itself.
func (s *server) ask() status {
	s.t.Helper()
	var st status
	if err := json.Unmarshal([]byte(s.cli("status", "-o", "json")), &st); err != nil {
		s.t.Fatalf("status: %v", err)
	}
	return st
}

// check requires that "skylun check" finds nothing wrong. The server may run
// or not.
func (s *server) check() {
	s.t.Helper()
	s.cli("check")
}

// logged returns the log since the last start.
func (s *server) logged() string {
	b, err := os.ReadFile(s.log)
	if err != nil {
		s.t.Error(err)
	}
	return string(b)
}

// tail returns the last part of a long text.
func tail(s string) string {
	lines := bytes.Split([]byte(s), []byte("\n"))
	return string(bytes.Join(lines[max(0, len(lines)-60):], []byte("\n")))
}
