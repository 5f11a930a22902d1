package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

const (
	portal     = "127.0.0.1:3260"
	targetName = "iqn.2026-11.io.skylun:powercut"
	luns       = 2
	blank      = 0 // LUN of the volume over nothing
	overlay    = 1 // LUN of the one over the image
)

// server is the binary with its configuration.
type server struct {
	binary string
	work   string // a directory that no cut reaches: configuration, logs, the blob store
	data   string // its data_dir

	process *os.Process
	exited  chan error
}

// configure writes the configuration and makes the image: sectors that say that
// nobody has written them yet.
func (s *server) configure(volume int64) error {
	config := fmt.Sprintf(`data_dir: %s
local: {low_space: 0}
blobstore: {url: "file:%s/blobs"}
portals: [%q]
targets:
  - iqn: %s
    luns:
      - {lun: %d, disk: {volume: blank, size: %d}}
      - {lun: %d, disk: {volume: overlay, image: image}}
`, s.data, s.work, portal, targetName, blank, volume, overlay)
	if err := os.WriteFile(s.config(), []byte(config), 0o600); err != nil {
		return err
	}
	image := make([]byte, volume)
	for sector := range volume / sectorSize {
		stamp(image[sector*sectorSize:][:sectorSize], overlay, sector, 0)
	}
	file := filepath.Join(s.work, "image")
	if err := os.WriteFile(file, image, 0o600); err != nil {
		return err
	}
	_, err := s.run("image", "import", file, "image")
	return err
}

func (s *server) config() string { return filepath.Join(s.work, "config.yaml") }

// run runs a command of the binary and returns what it prints.
func (s *server) run(args ...string) ([]byte, error) {
	out, err := exec.Command(s.binary, append(args, "-c", s.config())...).CombinedOutput()
	if err != nil {
		return nil, fmt.Errorf("skylun %s: %w\n%s", strings.Join(args, " "), err, out)
	}
	return out, nil
}

// start starts the server and returns when it listens to initiators and commands.
func (s *server) start() error {
	log, err := os.Create(s.logFile())
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := exec.Command(s.binary, "serve", "-c", s.config())
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		return err
	}
	s.process, s.exited = cmd.Process, make(chan error, 1)
	go func() { s.exited <- cmd.Wait() }()
	for deadline := time.Now().Add(30 * time.Second); ; {
		// the socket first: a portal takes few connections that do not log in
		if listens("unix", filepath.Join(s.data, "skylun.sock")) && listens("tcp", portal) {
			return nil
		}
		select {
		case err := <-s.exited:
			return s.with(fmt.Errorf("the server ended: %w", err))
		case <-time.After(10 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			return s.with(errors.Join(errors.New("the server does not listen"), s.kill()))
		}
	}
}

func listens(network, addr string) bool {
	conn, err := net.Dial(network, addr)
	return err == nil && conn.Close() == nil
}

// stop ends the server as users do.
func (s *server) stop() error {
	if err := s.process.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	select {
	case err := <-s.exited:
		if err != nil {
			return s.with(fmt.Errorf("the server was asked to end: %w", err))
		}
		return nil
	case <-time.After(30 * time.Second):
		return s.with(errors.Join(errors.New("the server does not end"), s.kill()))
	}
}

// kill ends the server at once.
func (s *server) kill() error {
	if err := s.process.Kill(); err != nil {
		return err
	}
	<-s.exited
	return nil
}

// with adds the server's log to an error.
func (s *server) with(err error) error {
	text, _ := os.ReadFile(s.logFile())
	return fmt.Errorf("%w\n%s", err, text)
}

func (s *server) logFile() string { return filepath.Join(s.work, "log") }
