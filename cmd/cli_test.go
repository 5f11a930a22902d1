package cmd

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"skylun/node"
)

// cli runs commands in a directory of its own.
type cli struct {
	t   *testing.T
	dir string
}

const testYAML = `
data_dir: d
portals: ["127.0.0.1:0"]
targets:
  - iqn: iqn.2026-11.io.skylun:t
    luns: [{lun: 3, disk: {volume: demo, size: 8MiB}}, {lun: 4, cdrom: {}}]
`

func newCLI(t *testing.T, config string) *cli {
	t.Helper()
	c := &cli{t, t.TempDir()}
	if err := os.WriteFile(c.path("config.yaml"), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	return c
}

func (c *cli) path(name string) string { return filepath.Join(c.dir, name) }

// run runs one command and returns what it wrote.
func (c *cli) run(args ...string) (stdout, stderr string, status int) {
	var out, err bytes.Buffer
	status = Run(c.t.Context(), append([]string{"-c", c.path("config.yaml")}, args...), &out, &err)
	return out.String(), err.String(), status
}

// want runs a command that must succeed, and wants parts of its output.
func (c *cli) want(parts []string, args ...string) {
	c.t.Helper()
	out, stderr, status := c.run(args...)
	if status != 0 || stderr != "" {
		c.t.Errorf("skylun %s: exit status %d\n%s", strings.Join(args, " "), status, stderr)
	}
	for _, p := range parts {
		if !strings.Contains(strings.Join(strings.Fields(out), " "), p) {
			c.t.Errorf("skylun %s: no %q in\n%s", strings.Join(args, " "), p, out)
		}
	}
}

// refuse runs a command that must fail with one line that has want in it.
func (c *cli) refuse(status int, want string, args ...string) {
	c.t.Helper()
	out, stderr, got := c.run(args...)
	lines := strings.Count(stderr, "\n")
	if strings.Contains(stderr, "\nSee 'skylun") && strings.HasSuffix(stderr, " --help'.\n") {
		lines--
	}
	if got != status || !strings.Contains(stderr, want) || lines != 1 || out != "" || strings.Contains(stderr, "Usage:") {
		c.t.Errorf("skylun %s: exit status %d, want %d and one line with %q\nstdout: %s\nstderr: %s", strings.Join(args, " "), got, status, want, out, stderr)
	}
}

func TestUsage(t *testing.T) {
	c := newCLI(t, testYAML)
	c.refuse(2, `unknown command "sevre" for "skylun"; did you mean serve`, "sevre")
	c.refuse(2, "unknown flag: --nope", "serve", "--nope")
	c.refuse(2, "unknown command \"now\"", "serve", "now")
	c.refuse(2, "skylun volume what? One of: create", "volume")
	c.refuse(2, "unknown command \"bogus\" for \"skylun volume\"\nSee 'skylun volume --help'.", "volume", "bogus")
	c.refuse(2, "accepts 1 arg(s), received 0", "volume", "show")
	c.refuse(2, "-o xml: want text or json", "-o", "xml", "status")
	c.refuse(2, "needs --size, an overlay --image", "volume", "create", "x")
	c.refuse(2, `"10G" is not a size`, "volume", "create", "x", "--size", "10G")
	c.refuse(2, `volume resize x: "10G" is not a size`, "volume", "resize", "x", "10G")
	c.refuse(2, "a disk of no size", "volume", "resize", "x", "0")
	c.refuse(2, "accepts 2 arg(s), received 1\nSee 'skylun volume resize --help'.", "volume", "resize", "x")
	c.refuse(2, "a disk of no size", "volume", "create", "x", "--size", "0")
	c.refuse(2, "--format qcow2: want auto, raw, vhd, iso", "image", "import", "x", "--format", "qcow2")
	c.refuse(2, "importing from a URL is not supported yet", "image", "import", "https://example.com/x.img")
	c.refuse(2, "give another NAME", "image", "import", "x", "../x")
	c.refuse(2, `log.level: "loud" is none of`, "--log-level", "loud", "lun", "list")
	c.refuse(2, `--strategy: "silly" is none of off, readahead, idle, full, config`, "prefetch", "start", "x", "--strategy", "silly")
	c.refuse(2, "skylun cdrom what? One of: eject, insert", "cdrom")
	c.refuse(2, "accepts 3 arg(s), received 2", "cdrom", "insert", "iqn.x:y", "1")
	c.refuse(2, `"one" is not a LUN`, "cdrom", "insert", "iqn.x:y", "one", "x.iso")
	c.refuse(2, `"-1" is not a LUN`, "cdrom", "eject", "iqn.x:y", "--", "-1")
	c.refuse(2, "config.yaml does not exist", "-c", c.path("missing/config.yaml"), "serve")
	c.want([]string{"skylun"}, "version")
	c.want([]string{"Available Commands"}, "help")
}

// TestWithoutNode runs what works on a data directory that no process uses.
func TestWithoutNode(t *testing.T) {
	c := newCLI(t, testYAML)
	data := c.path("d")
	c.refuse(1, "no node is running (nobody listens on "+data+"/skylun.sock); start it with: skylun serve", "status")
	c.refuse(1, "data directory "+data+" holds no node yet", "volume", "list")
	c.refuse(1, "there is nothing to check", "check")
	if _, err := os.Stat(data); err == nil {
		t.Error("looking at it created the data directory")
	}

	c.want([]string{"name v1", "size 1.5 MiB (1572864 bytes)"}, "volume", "create", "v1", "--size", "1.5MiB")
	c.want([]string{"NAME SIZE WRITTEN IMAGE TARGET LUN v1 1.5 MiB 0 B - - -"}, "volume", "list")
	c.want([]string{"written 0 B"}, "volume", "show", "v1")
	c.want([]string{`"size": 1572864`}, "volume", "show", "v1", "-o", "json")
	c.want([]string{"iqn.2026-11.io.skylun:t 4 cdrom - 0 B empty"}, "lun", "list")
	c.want([]string{"d is sound"}, "check")
	c.want([]string{`"problems": []`, `"running": false`}, "check", "-o", "json")
	c.refuse(1, "volume v1 already exists", "volume", "create", "v1", "--size", "1MiB")
	c.refuse(1, "volume nope: no such volume", "volume", "show", "nope")
	c.refuse(1, "is not there: mount it", "volume", "create", "v2", "--image", "none")

	c.want([]string{"volume v1 is in"}, "volume", "export", "v1", c.path("out"))
	if st, err := os.Stat(c.path("out")); err != nil || st.Size() != 1572864 {
		t.Errorf("exported %v %v", st, err)
	}
	c.refuse(1, "out exists; name another file, or overwrite it with --force", "volume", "export", "v1", c.path("out"))
	c.want(nil, "volume", "export", "v1", c.path("out"), "--force")
	pipe := c.path("pipe") // what has a name without being a file stays: with a device it is the same
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	reader, err := os.OpenFile(pipe, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	c.refuse(1, "pipe is no file but a device or the like; name a file", "volume", "export", "v1", pipe, "--force")
	reader.Close()
	if _, err := os.Lstat(pipe); err != nil {
		t.Error(err)
	}
	c.want([]string{"volume v1 has 2 MiB (2097152 bytes)"}, "volume", "resize", "v1", "2MiB")
	c.refuse(1, "make the file system on it smaller first, and then force it with --force", "volume", "resize", "v1", "1MiB")
	c.want([]string{"volume v1 has 1 MiB (1048576 bytes)"}, "volume", "resize", "v1", "1MiB", "--force")
	c.refuse(1, "volume nope: no such volume", "volume", "resize", "nope", "1MiB")
	c.refuse(1, "volume v1: it is no overlay of an image: all of it is local", "volume", "pin", "v1")
	c.want([]string{"volume v1 is removed"}, "volume", "rm", "v1")
	c.refuse(1, "volume v1: no such volume", "volume", "rm", "v1")
	if _, err := os.Stat(c.path("d/skylun.sock")); err == nil {
		t.Error("a command left a socket")
	}
}

func TestCheckFinds(t *testing.T) {
	c := newCLI(t, testYAML)
	c.want(nil, "volume", "create", "v1", "--size", "1MiB")
	layers, _ := filepath.Glob(c.path("d/local/layers/*"))
	if err := os.Remove(layers[0]); err != nil {
		t.Fatal(err)
	}
	out, stderr, status := c.run("check")
	if status != 1 || !strings.Contains(out, "volume v1: ") || !strings.Contains(stderr, "d: 1 problem found") {
		t.Errorf("exit status %d\n%s%s", status, out, stderr)
	}
}

func TestImages(t *testing.T) {
	c := newCLI(t, testYAML)
	content := make([]byte, 3<<20)
	copy(content[1<<20:], "not zero")
	if err := os.WriteFile(c.path("disk.img"), content, 0o600); err != nil {
		t.Fatal(err)
	}
	if out, stderr, status := c.run("image", "list", "-o", "json"); out != "[]\n" || status != 0 || stderr != "" {
		t.Errorf("empty store: exit status %d\n%s%s", status, out, stderr)
	}
	c.want([]string{"no images in file:" + c.path("d/blobs")}, "image", "list")
	c.want([]string{"image disk.img is in the store: 3 MiB, raw"}, "image", "import", c.path("disk.img"))
	c.want([]string{`"name": "dir/two"`, `"size": 3145728`}, "image", "import", c.path("disk.img"), "dir/two", "-o", "json")
	c.want([]string{"dir/two 3 MiB raw", "disk.img 3 MiB raw"}, "image", "list")
	c.want([]string{"size 3 MiB (3145728 bytes)"}, "image", "show", "dir/two")
	c.refuse(1, "disk.img", "image", "import", c.path("disk.img")) // exists
	c.refuse(1, "none", "image", "import", c.path("none"))
	c.refuse(1, "none", "image", "show", "none")
	c.refuse(1, "disk.img", "image", "import", c.path("disk.img"), "x.vhd", "--format", "vhd")
	if _, err := os.Stat(c.path("d/skylun.db")); err == nil {
		t.Error("image commands made a database")
	}
	c.want([]string{"image dir/two is removed"}, "image", "rm", "dir/two")

	c.want([]string{"image disk.img"}, "volume", "create", "over", "--image", "disk.img")
	c.want([]string{"image local 0% (0 B copied, 0 B empty, 3 MiB to be fetched)", "pinned no"}, "volume", "show", "over")
	c.want([]string{"volume over is pinned; its image is copied when the node runs"}, "volume", "pin", "over")
	c.want([]string{"pinned yes"}, "volume", "show", "over")
	c.refuse(1, "image disk.img: volume over is an overlay of it", "image", "rm", "disk.img")
	c.want(nil, "volume", "export", "over", c.path("out"))
	if got, err := os.ReadFile(c.path("out")); err != nil || !bytes.Equal(got, content) {
		t.Errorf("the export is not the image: %v", err)
	}
	c.want([]string{"image local 100% (4 KiB copied, 3 MiB empty, 0 B to be fetched)"}, "volume", "show", "over")
	c.want([]string{"volume over is pinned; 100% of its image is local"}, "volume", "pin", "over")
	c.want([]string{"volume over is not pinned any more"}, "volume", "unpin", "over")
	c.want([]string{"pinned no"}, "volume", "show", "over")
	c.refuse(1, "volume nope: no such volume", "volume", "pin", "nope")
	c.want(nil, "volume", "rm", "over")
	c.want(nil, "image", "rm", "disk.img")
	c.refuse(1, "disk.img", "image", "rm", "disk.img")

	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(stopped{os.Interrupt})
	var said bytes.Buffer
	status := Run(ctx, []string{"-c", c.path("config.yaml"), "image", "import", c.path("disk.img")}, io.Discard, &said)
	if status != 1 || !strings.Contains(said.String(), "run the same command again to go on") {
		t.Errorf("interrupted: exit status %d, %s", status, said.String())
	}
}

// waiter is output that can be waited for.
type waiter struct {
	mu    sync.Mutex
	text  string
	want  string
	found chan struct{}
}

func (w *waiter) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	before := strings.Contains(w.text, w.want)
	w.text += string(p)
	if !before && strings.Contains(w.text, w.want) {
		close(w.found)
	}
	return len(p), nil
}

func (w *waiter) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.text
}

func TestServe(t *testing.T) {
	c := newCLI(t, testYAML)
	ctx, cancel := context.WithCancelCause(t.Context())
	out := &waiter{want: "--login\n", found: make(chan struct{})}
	var log bytes.Buffer
	done := make(chan int, 1)
	go func() { done <- Run(ctx, []string{"-c", c.path("config.yaml"), "serve"}, out, &log) }()
	select {
	case <-out.found:
	case status := <-done:
		t.Fatalf("serve ended with %d\n%s", status, log.String())
	}

	stdout, _, _ := c.run("status", "-o", "json")
	var s node.Status
	if err := json.Unmarshal([]byte(stdout), &s); err != nil || len(s.Portals) != 1 {
		t.Fatalf("status: %v\n%s", err, stdout)
	}
	portal := s.Portals[0]
	for _, line := range []string{
		"iscsiadm -m discovery -t sendtargets -p " + portal + "\n",
		"iscsiadm -m node -T iqn.2026-11.io.skylun:t -p " + portal + " --login\n",
	} {
		if !strings.Contains(out.String(), line) {
			t.Errorf("serve did not print %q:\n%s", line, out)
		}
	}
	c.want([]string{"portals " + portal, "iqn.2026-11.io.skylun:t 3 disk demo 8 MiB 0 B - 0"}, "status")
	c.want([]string{"demo 8 MiB 0 B - iqn.2026-11.io.skylun:t 3"}, "volume", "list")
	c.want([]string{"iqn.2026-11.io.skylun:t 3 disk demo 8 MiB -"}, "lun", "list")
	c.want([]string{"is sound, as the running node sees it"}, "check")

	const iqn = "iqn.2026-11.io.skylun:t"
	disc := make([]byte, 40<<10)
	copy(disc[16*2048:], "\x01CD001\x01")
	copy(disc[16*2048+40:], "INSTALL 1")
	if err := os.WriteFile(c.path("install.iso"), disc, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(c.path("raw.img"), make([]byte, 8192), 0o600); err != nil {
		t.Fatal(err)
	}
	c.want([]string{"image install.iso is in the store: 40 KiB, iso, INSTALL 1"}, "image", "import", c.path("install.iso"))
	c.want([]string{"raw"}, "image", "import", c.path("raw.img"), "--format", "raw")
	c.want([]string{"INSTALL 1 raw.img 8 KiB raw"}, "image", "list")
	c.want([]string{"label INSTALL 1"}, "image", "show", "install.iso")
	c.refuse(1, "image raw.img is no ISO but raw", "cdrom", "insert", iqn, "4", "raw.img")
	c.refuse(1, "target "+iqn+" has no CD-ROM drive at lun 3; the drives are: "+iqn+" lun 4", "cdrom", "insert", iqn, "3", "install.iso")
	c.want([]string{"drive " + iqn + " lun 4: raw.img"}, "cdrom", "insert", iqn, "4", "raw.img", "--any")
	c.want([]string{"drive " + iqn + " lun 4: install.iso (INSTALL 1)"}, "cdrom", "insert", iqn, "4", "install.iso", "--force")
	c.want([]string{iqn + " 4 cdrom - 40 KiB - install.iso (INSTALL 1) 0", "install.iso 40 KiB"}, "status")
	c.want([]string{iqn + " 4 cdrom - 40 KiB install.iso (INSTALL 1)"}, "lun", "list")
	c.refuse(1, "it is in drive "+iqn+" lun 4; take it out first with: skylun cdrom eject "+iqn+" 4", "image", "rm", "install.iso")
	c.want([]string{`"tray": "open"`}, "cdrom", "eject", iqn, "4", "-o", "json")
	c.want([]string{"empty, tray open"}, "cdrom", "eject", iqn, "4", "--force")
	c.want([]string{"removed"}, "image", "rm", "install.iso")
	c.want([]string{"name more"}, "volume", "create", "more", "--size", "1MiB")
	c.want([]string{"removed"}, "volume", "rm", "more")
	c.refuse(1, "volume demo is lun 3 of target", "volume", "rm", "demo")
	c.want([]string{"volume demo is in"}, "volume", "export", "demo", c.path("out"))
	c.refuse(1, "is in use by another skylun process", "serve", "--log-level", "error")

	cancel(stopped{os.Interrupt})
	if status := <-done; status != 0 {
		t.Errorf("serve ended with %d\n%s", status, log.String())
	}
	for _, want := range []string{"disk", "volume=demo", "listening", "portal=" + portal, "stopped by signal: interrupt", "everything written is on disk"} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("no %q in the log:\n%s", want, log.String())
		}
	}
	if _, err := os.Stat(c.path("d/skylun.sock")); err == nil {
		t.Error("the socket is left")
	}
	c.refuse(1, "no node is running", "status")
}
