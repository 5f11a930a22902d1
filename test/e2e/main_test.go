//go:build e2e

package e2e

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"skylun/test/azurite"
)

// What all tests share, made by TestMain.
var (
	program string // the server
	scratch string // a folder that is removed at the end
)

// shared is the Azurite of all tests that do not stop it.
var shared struct {
	sync.Once
	server *azurite.Server
	err    error
}

func sharedAzurite() (*azurite.Server, error) {
	shared.Do(func() {
		dir, err := os.MkdirTemp(scratch, "azurite-")
		if err != nil {
			shared.err = err
			return
		}
		shared.server, shared.err = azurite.Start(dir)
	})
	return shared.server, shared.err
}

func TestMain(m *testing.M) { os.Exit(run(m)) }

var race = flag.Bool("server.race", false, "build the server with the race detector")

func run(m *testing.M) int {
	flag.Parse()
	for _, name := range os.Environ() {
		// What the server would take for an override of its configuration.
		if name, _, _ := strings.Cut(name, "="); strings.HasPrefix(name, "AZURE_") || strings.HasPrefix(name, "SKYLUN_") {
			os.Unsetenv(name)
		}
	}
	var err error
	if scratch, err = os.MkdirTemp("", "skylun-e2e-"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(scratch)
	program = filepath.Join(scratch, "skylun")
	build := exec.Command("go", "build", "-o", program, "skylun")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if *race {
		build = exec.Command("go", "build", "-race", "-o", program, "skylun")
	}
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "go build: %v\n%s", err, out)
		return 1
	}
	code := m.Run()
	if shared.server != nil {
		shared.server.Stop()
	}
	return code
}
