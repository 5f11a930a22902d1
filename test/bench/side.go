package main

import (
	"cmp"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// iqn is the name of the target that each side has.
const iqn = "iqn.2026-11.io.skylun:bench"

// iqnDigests is the name of another one with the same units, for loads with
// digests, where a server has to be told of them.
const iqnDigests = iqn + "-digests"

// A side is a running server with a set of logical units, all of the same
// size.
type side struct {
	name string
	addr string

	network string // of addr, "": TCP

	lun   map[unit]int // the first logical unit of each kind
	fresh int          // how many units of kind freshUnit are left
	cmd   *exec.Cmd
	log   *os.File

	separate bool // iqnDigests is there, and iqn refuses digests

	litter []string // files outside of dir that the server leaves behind
}

// A unit is a kind of logical unit: how its blocks came to be.
type unit int

const (
	readUnit  unit = iota // random bytes, read before, in the page cache
	ownUnit               // every block written before, 4 KiB at a time
	freshUnit             // never written; each run takes one of its own
)

// start runs cmd with its output in dir and waits until addr takes
// connections.
func (s *side) start(dir string, cmd *exec.Cmd) error {
	log, err := os.Create(filepath.Join(dir, s.name+".log"))
	if err != nil {
		return err
	}
	s.cmd, s.log = cmd, log
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return err
	}
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		conn, err := net.Dial(cmp.Or(s.network, "tcp"), s.addr)
		if err == nil {
			conn.Close()
			return nil
		}
		if time.Now().After(deadline) {
			out, _ := os.ReadFile(log.Name())
			return fmt.Errorf("%s: %w\n%s", s.name, err, out)
		}
	}
}

// stop ends the server at once: nothing it holds is of use any more.
func (s *side) stop() {
	if s.cmd == nil || s.cmd.Process == nil {
		return
	}
	s.cmd.Process.Kill()
	s.cmd.Wait()
	s.log.Close()
	for _, name := range s.litter {
		os.Remove(name)
	}
}

// take returns the logical unit to use for the next run on a unit of kind u.
func (s *side) take(u unit) (int, error) {
	if u != freshUnit {
		return s.lun[u], nil
	}
	if s.fresh == 0 {
		return 0, fmt.Errorf("%s: no unwritten unit left", s.name)
	}
	s.fresh--
	return s.lun[freshUnit] + s.fresh, nil
}

// target returns the name of the target for loads with or without digests.
func (s *side) target(digests bool) string {
	if digests && s.separate {
		return iqnDigests
	}
	return iqn
}

// cpu returns the user and system time that the server has used so far.
func (s *side) cpu() (time.Duration, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", s.cmd.Process.Pid))
	if err != nil {
		return 0, err
	}
	f := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
	user, _ := strconv.ParseInt(f[11], 10, 64) // fields 14 and 15 of proc_pid_stat(5)
	system, _ := strconv.ParseInt(f[12], 10, 64)
	return time.Duration(user+system) * time.Second / 100, nil // USER_HZ
}

// freeAddr returns a loopback address that nobody listens on at the moment.
func freeAddr() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close()
	return l.Addr().String(), nil
}
