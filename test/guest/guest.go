package guest

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"skylun/test/guest/image"
)

// What scripts find at the server, by these names in their environment.
const (
	Target = "iqn.2026-11.io.skylun:demo"
	Portal = "192.0.2.1:3260"    // by path0
	Second = "198.51.100.1:3260" // by path1
)

// Config is the configuration of the server unless Options say otherwise: one
// blank disk.
const Config = `
data_dir: ./data
portals: ["` + Portal + `", "` + Second + `"]
targets:
  - iqn: ` + Target + `
    luns:
      - {lun: 0, disk: {volume: demo, size: 2GiB}}
`

// Options say in what a script runs. The zero value is a guest and a server
// with one blank disk.
type Options struct {
	Binary  string            // of the server; "": it is built
	Config  string            // of the server; "": the constant Config
	Files   map[string]string // beside the configuration, for nobody else to read: name -> content
	Images  map[string]string // imported before the server starts: name -> file
	Serve   []string          // another server instead, to compare: its command line
	Alone   bool              // no server at all
	Host    map[string]string // put into the folder that the script has on /host: name -> file
	Disks   []*os.File        // what are /dev/ubda, /dev/ubdb and so on; see NewDisk
	Env     map[string]string // of the script
	Memory  int               // of the guest in MiB; 0: 512
	Timeout time.Duration     // for all; 0: five minutes
	Output  io.Writer         // takes what the script says while it runs; nil: nobody
	Shell   bool              // a shell on our terminal instead of a script
	Again   bool              // make the guest's image again, with today's packages
}

// Result is what came of a script.
type Result struct {
	Status int    // of the script, 0 when it passed
	Dir    string // the folder of the run; out in it is what the script put into /out
	release
}

// Do runs a script. An error means that it could not run to its end. The
// folder of the run is there in any case, if its name is not "".
func Do(ctx context.Context, script string, o Options) (r Result, err error) {
	if o.Memory == 0 {
		o.Memory = 512
	}
	if o.Timeout == 0 {
		o.Timeout = 5 * time.Minute
	}
	if o.Config == "" {
		o.Config = Config
	}
	if o.Output == nil {
		o.Output = io.Discard
	}
	logf := func(format string, args ...any) { fmt.Fprintf(o.Output, format+"\n", args...) }
	img, err := image.Make(ctx, o.Again, logf)
	if err != nil {
		return r, err
	}
	if !o.Shell {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, o.Timeout, fmt.Errorf("the script has not ended after %s", o.Timeout))
		defer cancel()
	}
	if r.Dir, r.release, err = newDir(); err != nil {
		return r, err
	}
	h, err := newHost(ctx, r.Dir, o)
	if err != nil {
		return r, err
	}
	defer h.ns.close()
	for name, file := range o.Host {
		if err := copyFile(filepath.Join(r.Dir, name), file); err != nil {
			return r, err
		}
	}
	if !o.Alone {
		if err := h.server.start(ctx); err != nil {
			return r, err
		}
	}

	output, err := os.Create(filepath.Join(r.Dir, "output"))
	if err != nil {
		return r, err
	}
	defer output.Close()
	env := map[string]string{"TARGET": Target, "PORTAL": Portal, "SECOND": Second, "LUN": "0", "INITIATOR": "iqn.2026-11.io.skylun:guest"}
	for k, v := range o.Env {
		env[k] = v
	}
	begin := time.Now()
	m := &machine{
		ns: h.ns, img: img, dir: r.Dir, memory: o.Memory, disks: o.Disks, shell: o.Shell, env: env,
		output: io.MultiWriter(output, o.Output),
		ask:    func(words []string) (string, error) { return h.ask(ctx, words) },
		ready:  func() { logf("%s; up after %.1f s", img.Summary(), time.Since(begin).Seconds()) },
	}
	if r.Status, err = m.run(ctx, script); err != nil || o.Alone {
		return r, err
	}
	return r, h.finish(ctx)
}

// finish ends the server and looks at what it leaves.
func (h *host) finish(ctx context.Context) error {
	if h.server.cmd != nil {
		if err := h.server.stop(syscall.SIGTERM); err != nil {
			return err
		}
	}
	if err := complaints(filepath.Join(h.server.dir, "log")); err != nil || h.binary == "" {
		return err
	}
	if out, err := h.skylun(ctx, "check"); err != nil {
		return fmt.Errorf("skylun check: %w\n%s", err, out)
	}
	return nil
}

// complaints returns what a server's log says that is never right.
func complaints(log string) error {
	text, err := os.ReadFile(log)
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(text)) {
		for _, bad := range []string{"panic", "fatal error:", "DATA RACE"} {
			if strings.Contains(line, bad) {
				return fmt.Errorf("the server's log has: %s", strings.TrimSpace(line))
			}
		}
	}
	return nil
}

// network is made by these commands of ip. The guest's cards are ports of a
// bridge each, whose other end is us. To cut a path its port is taken off: the
// guest's driver would not come back from a card that is down.
const network = `link set lo up
link add path0 address 02:00:00:00:00:01 type bridge
link add path1 address 02:00:00:00:00:02 type bridge
tuntap add dev port0 mode tap vnet_hdr
tuntap add dev port1 mode tap vnet_hdr
link set port0 master path0 up
link set port1 master path1 up
addr add 192.0.2.1/24 dev path0
addr add 198.51.100.1/24 dev path1
link set path0 up
link set path1 up
`

// host is our side of a guest.
type host struct {
	ns     *namespace
	server *server
	binary string
}

// newHost makes the network and everything that the server needs to start.
func newHost(ctx context.Context, dir string, o Options) (_ *host, err error) {
	h := &host{binary: o.Binary}
	if h.binary == "" && o.Serve == nil && !o.Alone {
		h.binary = filepath.Join(dir, "skylun")
		if err := Build(ctx, h.binary); err != nil {
			return nil, err
		}
	}
	h.server = &server{dir: filepath.Join(dir, "server"), port: 3260, command: o.Serve}
	if o.Serve == nil {
		h.server.command = []string{h.binary, "serve", "-c", "config.yaml"}
	}
	if err := os.Mkdir(h.server.dir, 0o755); err != nil {
		return nil, err
	}
	if err := os.WriteFile(filepath.Join(h.server.dir, "config.yaml"), []byte(o.Config), 0o644); err != nil {
		return nil, err
	}
	for name, content := range o.Files {
		if err := os.WriteFile(filepath.Join(h.server.dir, name), []byte(content), 0o600); err != nil {
			return nil, err
		}
	}
	for name, file := range o.Images {
		if file, err = filepath.Abs(file); err != nil {
			return nil, err
		}
		if out, err := h.skylun(ctx, "image", "import", file, name); err != nil {
			return nil, fmt.Errorf("import %s: %w\n%s", file, err, out)
		}
	}
	if h.ns, err = newNamespace(); err != nil {
		return nil, err
	}
	h.server.ns = h.ns
	if err := h.ns.ip(network); err != nil {
		h.ns.close()
		return nil, err
	}
	return h, nil
}

// Build builds the binary.
func Build(ctx context.Context, file string) error {
	cmd := exec.CommandContext(ctx, "go", "build", "-o", file, "skylun")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build the server: %w\n%s", err, out)
	}
	return nil
}

// ask does what a script asks for.
func (h *host) ask(ctx context.Context, words []string) (string, error) {
	verb, args := words[0], words[1:]
	switch {
	case verb == "serve" && len(args) == 0:
		return "", h.server.start(ctx)
	case verb == "stop" && len(args) == 1:
		signal := unix.SignalNum("SIG" + strings.TrimPrefix(args[0], "SIG"))
		if signal == 0 {
			return "", fmt.Errorf("no signal %s", args[0])
		}
		return "", h.server.stop(signal)
	case verb == "link" && len(args) == 2 && args[1] == "down":
		return "", h.ns.ip(fmt.Sprintf("link set port%s nomaster\n", args[0]))
	case verb == "link" && len(args) == 2 && args[1] == "up":
		return "", h.ns.ip(fmt.Sprintf("link set port%s master path%[1]s\n", args[0]))
	case verb == "skylun":
		return h.skylun(ctx, args...)
	}
	return "", fmt.Errorf("not known how to %s", strings.Join(words, " "))
}

// skylun runs a command of the binary.
func (h *host) skylun(ctx context.Context, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, h.binary, append(args, "-c", "config.yaml")...)
	cmd.Dir = h.server.dir
	out, err := cmd.CombinedOutput()
	return string(out), err
}
