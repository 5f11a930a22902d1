package azurite

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"time"
)

// The account that every Azurite has. Its key is public.
const (
	Account    = "devstoreaccount1"
	AccountKey = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
)

// DirVariable names the environment variable that tells where Azurite was
// installed.
const DirVariable = "AZURITE_DIR"

// Server is an Azurite. It keeps its blobs in a folder, so that what was
// stored is there again after Stop and Restart.
type Server struct {
	Addr string // IP:PORT it listens on, the same after a Restart

	dir string
	cmd *exec.Cmd
}

// Start runs an Azurite on a free port of the loopback interface, with its
// blobs and its log below dir, and waits until it answers.
func Start(dir string) (*Server, error) {
	s := &Server{dir: dir}
	return s, s.start("0")
}

// A start that says nothing for startTime has hung, which node does once in a
// few hundred times on a busy machine, and is tried again.
const (
	startTime  = 20 * time.Second
	startTries = 3
)

func (s *Server) start(port string) (err error) {
	for range startTries {
		if err = s.startOnce(port); err == nil {
			return nil
		}
	}
	return err
}

// Restart starts a stopped server again.
func (s *Server) Restart() error {
	_, port, _ := strings.Cut(s.Addr, ":")
	return s.start(port)
}

// Stop ends the server. Its connections break.
func (s *Server) Stop() {
	if s.cmd == nil {
		return
	}
	s.cmd.Process.Signal(syscall.SIGTERM)
	kill := time.AfterFunc(5*time.Second, func() { s.cmd.Process.Kill() })
	s.cmd.Wait()
	kill.Stop()
	s.cmd = nil
}

// URL returns the address of a container.
func (s *Server) URL(container string) string {
	return fmt.Sprintf("http://%s/%s/%s", s.Addr, Account, container)
}

// ConnectionString returns what Azure's SDKs and tools take as one.
func (s *Server) ConnectionString() string { return ConnectionString(s.Addr) }

// ConnectionString returns the connection string for an Azurite, or a proxy
// before one, at addr.
func ConnectionString(addr string) string {
	return fmt.Sprintf("DefaultEndpointsProtocol=http;AccountName=%s;AccountKey=%s;BlobEndpoint=http://%s/%s;",
		Account, AccountKey, addr, Account)
}

var listening = regexp.MustCompile(`successfully listens on http://(\S+)`)

func (s *Server) startOnce(port string) error {
	home := os.Getenv(DirVariable)
	if home == "" {
		return fmt.Errorf("%s is not set: run ./test/run, which installs Azurite and sets it", DirVariable)
	}
	log, err := os.Create(filepath.Join(s.dir, "azurite.log"))
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := exec.Command("node", filepath.Join(home, "node_modules/azurite/dist/src/blob/main.js"),
		"--disableTelemetry", "--skipApiVersionCheck", "--location", filepath.Join(s.dir, "azurite"),
		"--blobHost", "127.0.0.1", "--blobPort", port)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start azurite: %w", err)
	}
	s.cmd = cmd
	for deadline := time.Now().Add(startTime); ; time.Sleep(50 * time.Millisecond) {
		out, err := os.ReadFile(log.Name())
		if err != nil {
			return err
		}
		if m := listening.FindSubmatch(out); m != nil {
			s.Addr = string(m[1])
			return nil
		}
		if exited(cmd.Process.Pid) || time.Now().After(deadline) {
			s.Stop()
			return fmt.Errorf("azurite does not listen; it said:\n%s", out)
		}
	}
}

// exited tells whether a child has ended and was not waited for yet.
func exited(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err != nil || strings.Contains(string(stat), ") Z ")
}
