//go:build e2e

package e2e

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"time"
)

// outcome is what became of a program.
type outcome struct {
	status         int // exit status, -1 after a signal
	stdout, stderr string
}

// command runs a program that may fail. One that runs longer than a minute
// fails the test.
func command(t *testing.T, name string, args ...string) outcome {
	t.Helper()
	return commandWithin(t, time.Minute, name, args...)
}

func commandWithin(t *testing.T, limit time.Duration, name string, args ...string) outcome {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.WaitDelay = 5 * time.Second
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	o := outcome{cmd.ProcessState.ExitCode(), stdout.String(), stderr.String()}
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) || ctx.Err() != nil {
		t.Fatalf("%s %s: %v, within %v\n%s%s", name, strings.Join(args, " "), err, limit, o.stdout, o.stderr)
	}
	return o
}

// tool runs a program that must succeed, and returns what it printed.
func tool(t *testing.T, name string, args ...string) string {
	t.Helper()
	o := command(t, name, args...)
	if o.status != 0 {
		t.Fatalf("%s %s: exit status %d\n%s%s", name, strings.Join(args, " "), o.status, o.stdout, o.stderr)
	}
	return o.stdout
}

// qemuIO runs commands of qemu-io on a logical unit, all of which must
// succeed. A read with -P fails when it reads something else.
func qemuIO(t *testing.T, url string, commands ...string) {
	t.Helper()
	if o := tryQemuIO(t, url, commands...); o.status != 0 || failedIO(o.stdout+o.stderr) {
		t.Fatalf("qemu-io %q: exit status %d\n%s%s", commands, o.status, o.stdout, o.stderr)
	}
}

// tryQemuIO is qemuIO for commands that may fail.
func tryQemuIO(t *testing.T, url string, commands ...string) outcome {
	t.Helper()
	args := []string{"-f", "raw", "-d", "unmap"}
	if strings.HasPrefix(url, "iscsi:") {
		args = append(args, "-t", "none") // flush when told to, and only then
	}
	for _, c := range commands {
		args = append(args, "-c", c)
	}
	return command(t, "qemu-io", append(args, url)...)
}

// failedIO tells whether qemu-io reported an error. Its exit status does not
// always.
func failedIO(output string) bool {
	return strings.Contains(output, "Pattern verification failed") || strings.Contains(output, "failed: ")
}

var senseLine = regexp.MustCompile(`SENSE KEY:\S*\((\d+)\)`)

// Sense keys, SPC-4 4.5.6.
const (
	mediumError   = "3"
	hardwareError = "4"
)

// senseOf reads a block that must not be readable, and returns the sense key
// that comes back.
func senseOf(t *testing.T, url string, off int64) string {
	t.Helper()
	o := tryQemuIO(t, url, fmt.Sprintf("read %d 4k", off))
	m := senseLine.FindStringSubmatch(o.stderr)
	if m == nil || !failedIO(o.stdout+o.stderr) {
		t.Errorf("qemu-io shows no error with a sense key:\n%s%s", o.stdout, o.stderr)
		return ""
	}
	return m[1]
}

// eventually waits until f returns "", for limit at most, and fails the test
// with what f returned last.
func eventually(t *testing.T, limit time.Duration, f func() string) {
	t.Helper()
	for deadline := time.Now().Add(limit); ; time.Sleep(20 * time.Millisecond) {
		problem := f()
		if problem == "" {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("after %v: %s", limit, problem)
		}
	}
}

// digest returns the hash of a file.
func digest(t *testing.T, name string) string {
	t.Helper()
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	return digestOf(t, f)
}

func digestOf(t *testing.T, r io.Reader) string {
	t.Helper()
	h := sha256.New()
	if _, err := io.Copy(h, r); err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%x", h.Sum(nil))
}
