package guest

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// namespace holds processes that see only each other and a network of their
// own. It is alive as long as its first process, the anchor, which reads from
// a pipe that only we can write to: when we end, whatever the reason, it ends,
// and the kernel kills all others.
type namespace struct {
	anchor   *exec.Cmd
	hold     *os.File
	net, pid *os.File
}

func newNamespace() (*namespace, error) {
	if os.Geteuid() != 0 {
		return nil, errors.New("a guest needs root, for its network")
	}
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer r.Close()
	n := &namespace{anchor: exec.Command("cat"), hold: w}
	n.anchor.Stdin = r
	n.anchor.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWPID, Setsid: true}
	if err := n.anchor.Start(); err != nil {
		w.Close()
		return nil, fmt.Errorf("start a process with a network of its own: %w", err)
	}
	n.net, err = os.Open(fmt.Sprintf("/proc/%d/ns/net", n.anchor.Process.Pid))
	if err == nil {
		n.pid, err = os.Open(fmt.Sprintf("/proc/%d/ns/pid", n.anchor.Process.Pid))
	}
	if err != nil {
		n.close()
		return nil, err
	}
	return n, nil
}

// close ends all processes and waits until they are gone.
func (n *namespace) close() {
	n.hold.Close()
	n.anchor.Process.Kill()
	n.anchor.Wait() // returns when all others have ended, too
	n.net.Close()
	n.pid.Close()
}

// start starts a command inside.
func (n *namespace) start(cmd *exec.Cmd) error {
	started := make(chan error)
	go func() {
		// Namespaces belong to threads. This one is not used again: a goroutine
		// that ends locked takes its thread along.
		runtime.LockOSThread()
		started <- errors.Join(
			unix.Setns(int(n.net.Fd()), unix.CLONE_NEWNET),
			unix.Setns(int(n.pid.Fd()), unix.CLONE_NEWPID), // for children only
			cmd.Start())
	}()
	return <-started
}

// ip runs commands of ip, one in a line.
func (n *namespace) ip(commands string) error {
	cmd := exec.Command("ip", "-batch", "-")
	cmd.Stdin = strings.NewReader(commands)
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	err := n.start(cmd)
	if err == nil {
		err = cmd.Wait()
	}
	if err != nil {
		return fmt.Errorf("ip: %w: %s", err, said.Bytes())
	}
	return nil
}

// listens tells whether a process inside listens on a TCP port.
func (n *namespace) listens(port int) bool {
	table, _ := os.ReadFile(fmt.Sprintf("/proc/%d/net/tcp", n.anchor.Process.Pid))
	for line := range bytes.Lines(table) {
		f := strings.Fields(string(line)) // number, local address, remote address, state ...
		if len(f) > 3 && f[3] == "0A" && strings.HasSuffix(f[1], fmt.Sprintf(":%04X", port)) {
			return true
		}
	}
	return false
}
