//go:build guest

package guest

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestKilled kills a run in the middle: its processes end with it, and the
// next run removes its folder.
func TestKilled(t *testing.T) {
	const variable = "SKYLUN_TEST_KILLED"
	if os.Getenv(variable) != "" { // the run that is killed
		_, err := Do(t.Context(), "echo folder $(sed 's/.*host=\\([^ ]*\\).*/\\1/' /proc/cmdline)\nsleep 600\n", Options{Binary: binary, Output: os.Stdout})
		t.Fatalf("it ended: %v", err)
	}
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, os.Args[0], "-test.run=^TestKilled$")
	cmd.Env = append(os.Environ(), variable+"=1", binaryVariable+"="+binary)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	dir := ""
	for s := bufio.NewScanner(out); dir == "" && s.Scan(); {
		t.Log(s.Text())
		dir, _ = strings.CutPrefix(s.Text(), "folder ")
		if dir == s.Text() {
			dir = ""
		}
	}
	if dir == "" {
		t.Fatalf("no script has run: %v", cmd.Wait())
	}
	if n := len(processes(dir)); n < 2 {
		t.Fatalf("%d processes of the run, want server and guest", n)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	cmd.Wait()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		left := processes(dir)
		if len(left) == 0 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("processes are left: %q", left)
		}
	}

	mine, release, err := newDir()
	if err != nil {
		t.Fatal(err)
	}
	defer release.Remove()
	if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the folder of the killed run is there after the next has begun: %v", err)
	}
	if _, err := os.Stat(mine); err != nil {
		t.Error(err)
	}
}

// processes returns those that work in a folder.
func processes(dir string) []string {
	var found []string
	all, _ := filepath.Glob("/proc/[0-9]*")
	for _, p := range all {
		cwd, err := os.Readlink(filepath.Join(p, "cwd"))
		if err == nil && (cwd == dir || strings.HasPrefix(cwd, dir+"/")) {
			line, _ := os.ReadFile(filepath.Join(p, "cmdline"))
			found = append(found, string(bytes.ReplaceAll(line, []byte{0}, []byte{' '})))
		}
	}
	return found
}
