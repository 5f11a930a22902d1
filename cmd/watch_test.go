package cmd

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"skylun/node"
)

// A watch shows the node's state again and again, and ends cleanly when it is
// stopped; when the node ends before it, that is an error.
func TestStatusWatch(t *testing.T) {
	c := newCLI(t, strings.Replace(testYAML, "size: 8MiB", "image: os.img", 1))
	if err := os.MkdirAll(c.path("d/blobs"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(c.path("d/blobs/os.img"), bytes.Repeat([]byte("os"), 4096), 0o600); err != nil {
		t.Fatal(err)
	}
	serving, stop := context.WithCancelCause(t.Context())
	out := &waiter{want: "--login\n", found: make(chan struct{})}
	var log bytes.Buffer
	served := make(chan int, 1)
	go func() { served <- Run(serving, []string{"-c", c.path("config.yaml"), "serve"}, out, &log) }()
	select {
	case <-out.found:
	case status := <-served:
		t.Fatalf("serve ended with %d\n%s", status, log.String())
	}
	watch := func(want string, args ...string) (text string, status int) {
		t.Helper()
		ctx, cancel := context.WithCancelCause(t.Context())
		seen := &waiter{want: want, found: make(chan struct{})}
		var stderr bytes.Buffer
		done := make(chan int, 1)
		go func() {
			done <- Run(ctx, append([]string{"-c", c.path("config.yaml"), "status", "--watch", "--every", "100ms"}, args...), seen, &stderr)
		}()
		select {
		case <-seen.found:
			cancel(stopped{os.Interrupt})
			status = <-done
		case status = <-done:
			cancel(nil)
		}
		if stderr.Len() > 0 {
			t.Errorf("stderr: %s", stderr.String())
		}
		return seen.String(), status
	}
	text, status := watch("demo: image os.img")
	if status != 0 || !strings.Contains(text, " hits, ") || strings.Contains(text, "\x1b") {
		t.Errorf("exit status %d\n%s", status, text)
	}
	text, status = watch(`"caches"`, "-o", "json")
	var s node.Status
	if err := json.Unmarshal([]byte(strings.SplitAfter(text, "\n")[0]), &s); err != nil || status != 0 || s.Caches[0].Prefetch == nil {
		t.Errorf("exit status %d, %v\n%s", status, err, text)
	}
	c.refuse(2, "want 100ms or more", "status", "--watch", "--every", "1ms")
	c.want([]string{"DISK IMAGE LOCAL HITS MISSES SHARED PREFETCH STATE", "demo os.img"}, "status")

	ended := make(chan int, 1)
	var last bytes.Buffer
	seen := &waiter{want: "demo: image", found: make(chan struct{})}
	go func() {
		ended <- Run(t.Context(), []string{"-c", c.path("config.yaml"), "status", "--watch", "--every", "100ms"}, seen, &last)
	}()
	<-seen.found
	stop(stopped{os.Interrupt})
	if status := <-served; status != 0 {
		t.Errorf("serve: exit status %d\n%s", status, log.String())
	}
	if status := <-ended; status != 1 || last.Len() == 0 {
		t.Errorf("the node has ended, and the watch with exit status %d: %s", status, last.String())
	}
}

func TestImageUseLine(t *testing.T) {
	s := node.Status{
		Volumes: []node.VolumeStatus{{Name: "vm1", Size: 100 << 20, Far: 25 << 20, Prefetch: "idle", PrefetchPaused: true, Hits: 12, Misses: 3, Shared: 7 << 20}, {Name: "other"}},
		Caches: []node.CacheStatus{{Image: "os.img", Size: 100 << 20, Absent: 50 << 20, Volumes: []string{"vm1"}, Hits: 99,
			Prefetch: &node.PrefetchStatus{Strategy: "full", State: "yielding", Reason: "readers wait for the store", Rate: 10 << 20, Left: 65, Filled: 60 << 20, Ahead: 4 << 20, Used: 1 << 20}}},
	}
	uses := imageUses(s)
	if len(uses) != 1 {
		t.Fatalf("%+v", uses)
	}
	u := uses[0]
	const want = "vm1: image os.img, 75% local, prefetch idle paused: yielding (readers wait for the store), 10 MiB/s, 1m5s left, 12 hits, 3 misses, 64 MiB ahead, 1 MiB of it used, 7 MiB shared"
	if got := u.String(); got != want {
		t.Errorf("%s\nwant\n%s", got, want)
	}
}

// On a terminal each picture is drawn over the one before.
func TestWatchOnTerminal(t *testing.T) {
	pty, tty := openTerminal(t)
	e := &env{stdout: tty, output: "text"}
	st := node.Status{Node: "n1", Volumes: []node.VolumeStatus{{Name: "vm1"}}, Caches: []node.CacheStatus{{Image: "os.img", Volumes: []string{"vm1"}, Prefetch: &node.PrefetchStatus{Strategy: "full", State: "filling"}}}}
	if err := e.watched(st, time.Now()); err != nil {
		t.Fatal(err)
	}
	tty.Close()
	var b bytes.Buffer
	if _, err := b.ReadFrom(pty); err != nil && !errors.Is(err, unix.EIO) { // what a closed terminal reads as
		t.Fatal(err)
	}
	text := b.String()
	if !strings.HasPrefix(text, clearScreen) || !strings.HasSuffix(text, clearRest) || !strings.Contains(text, "vm1") || !strings.Contains(text, clearLine+"\r\n") {
		t.Errorf("%q", text)
	}
}

// openTerminal returns a terminal and what sees its screen.
func openTerminal(t *testing.T) (screen, terminal *os.File) {
	t.Helper()
	screen, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Skipf("no terminals here: %v", err)
	}
	t.Cleanup(func() { screen.Close() })
	if err := unix.IoctlSetPointerInt(int(screen.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(int(screen.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	if terminal, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0); err != nil {
		t.Fatal(err)
	}
	return screen, terminal
}
