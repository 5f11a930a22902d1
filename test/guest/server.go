package guest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// server is the binary, started as users start it.
type server struct {
	ns      *namespace
	command []string
	dir     string // with config.yaml and the log
	port    int

	cmd    *exec.Cmd // nil when it does not run
	exited chan error
}

// start starts the server and waits until it listens.
func (s *server) start(ctx context.Context) error {
	if s.cmd != nil {
		return errors.New("the server runs already")
	}
	log, err := os.OpenFile(filepath.Join(s.dir, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := exec.Command(s.command[0], s.command[1:]...)
	cmd.Dir = s.dir
	cmd.Stdout, cmd.Stderr = log, log
	if err := s.ns.start(cmd); err != nil {
		return fmt.Errorf("start the server: %w", err)
	}
	exited := make(chan error, 1)
	go func() { exited <- cmd.Wait() }()
	s.cmd, s.exited = cmd, exited

	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(20 * time.Second)
	for {
		select {
		case err := <-exited:
			s.cmd = nil
			return fmt.Errorf("the server ended: %w; see %s", err, log.Name())
		case <-deadline:
			return fmt.Errorf("the server does not listen on port %d; see %s", s.port, log.Name())
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
			if s.ns.listens(s.port) {
				return nil
			}
		}
	}
}

// stop sends a signal and waits for the end. After SIGTERM the exit status has
// to be 0.
func (s *server) stop(signal syscall.Signal) error {
	if s.cmd == nil {
		return errors.New("the server does not run")
	}
	if err := s.cmd.Process.Signal(signal); err != nil {
		return err
	}
	begin := time.Now()
	select {
	case err := <-s.exited:
		s.cmd = nil
		if signal == syscall.SIGTERM && err != nil {
			return fmt.Errorf("the server was asked to end: %w", err)
		}
		return nil
	case <-time.After(30 * time.Second):
		s.cmd.Process.Signal(syscall.SIGQUIT) // tells where it hangs
		return fmt.Errorf("the server has not ended %.0f s after %s", time.Since(begin).Seconds(), unix.SignalName(signal))
	}
}
