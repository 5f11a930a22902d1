package guest

import (
	"bufio"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"skylun/test/guest/image"
)

var (
	//go:embed init.sh
	initScript string
	//go:embed lib.sh
	libScript string
)

// machine is a guest: a kernel, and the lines between it and us.
type machine struct {
	ns     *namespace
	img    image.Image
	dir    string // of the run; the guest has it on /host
	memory int    // MiB
	disks  []*os.File
	shell  bool // instead of a script, on our terminal
	env    map[string]string
	output io.Writer
	ask    func(words []string) (answer string, err error) // what the script asks of the host
	ready  func()                                          // called when the script begins
}

// run boots the guest, runs the script and returns its exit status. When ctx
// ends, so does the guest.
func (m *machine) run(ctx context.Context, script string) (status int, err error) {
	if err := m.prepare(script); err != nil {
		return 0, err
	}
	console, err := os.Create(filepath.Join(m.dir, "console"))
	if err != nil {
		return 0, err
	}
	defer console.Close()

	// The guest's ends of the lines; it makes them non-blocking, so they are
	// pipes of their own.
	var files, ours []*os.File
	defer func() {
		for _, f := range append(files, ours...) {
			f.Close()
		}
	}()
	line := func() (*os.File, *os.File) {
		r, w, perr := os.Pipe()
		err = errors.Join(err, perr)
		return r, w
	}
	said, saidW := line()
	asked, askedW := line()
	answerR, answer := line()
	if err != nil {
		return 0, err
	}
	nothing, err := os.Open(os.DevNull)
	if err != nil {
		return 0, err
	}
	files = []*os.File{nothing, saidW, answerR, askedW} // descriptors 3 to 6
	ours = []*os.File{said, asked, answer}

	cmd := exec.Command(m.img.Kernel, m.arguments()...)
	cmd.Stdout, cmd.Stderr = console, console
	cmd.Dir = m.dir
	cmd.Env = append(os.Environ(), "TMPDIR="+memoryDir(m.dir))
	cmd.ExtraFiles = files
	if m.shell {
		cmd.Stdin, cmd.Stdout = os.Stdin, os.Stdout
		// the guest's kernel sets our terminal to its liking
		if mode, err := unix.IoctlGetTermios(0, unix.TCGETS); err == nil {
			defer unix.IoctlSetTermios(0, unix.TCSETS, mode)
		}
	}
	if err := m.ns.start(cmd); err != nil {
		return 0, fmt.Errorf("start the guest's kernel: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { cmd.Process.Kill() })
	defer stop()
	for _, f := range files {
		f.Close()
	}

	var lines sync.WaitGroup
	lines.Go(func() { io.Copy(m.output, said) })
	status = -1
	lines.Go(func() {
		for s := bufio.NewScanner(asked); s.Scan(); {
			words := strings.Fields(s.Text())
			switch {
			case len(words) == 0:
			case words[0] == "@ready":
				m.ready()
			case words[0] == "@exit" && len(words) == 2:
				status, _ = strconv.Atoi(words[1])
			default:
				fmt.Fprintln(answer, m.answer(words))
			}
		}
	})
	werr := cmd.Wait()
	// What it said is in the pipes, which a helper process of the kernel may
	// still hold open.
	said.SetReadDeadline(time.Now().Add(time.Second))
	asked.SetReadDeadline(time.Now().Add(time.Second))
	lines.Wait()
	switch {
	case ctx.Err() != nil:
		return 0, context.Cause(ctx)
	case status < 0:
		return 0, fmt.Errorf("the guest ended before its script did (%v)", werr)
	}
	return status, nil
}

// answer does what the script asks for and returns the status for it. What
// there is to say is in the file answer then.
func (m *machine) answer(words []string) (status int) {
	text, err := m.ask(words)
	if err != nil {
		text += fmt.Sprintf("host: %v\n", err)
		status = 1
	}
	// written beside and renamed: the guest must not have the file's old pages
	name := filepath.Join(m.dir, "answer")
	if err := errors.Join(os.WriteFile(name+".new", []byte(text), 0o644), os.Rename(name+".new", name)); err != nil {
		return 1
	}
	return status
}

// prepare writes what the guest reads from its folder.
func (m *machine) prepare(script string) error {
	var env strings.Builder
	for _, k := range slices.Sorted(maps.Keys(m.env)) {
		fmt.Fprintf(&env, "export %s='%s'\n", k, strings.ReplaceAll(m.env[k], "'", `'\''`))
	}
	files := map[string]string{"init": initScript, "lib.sh": libScript, "env": env.String(), "script": script, "answer": ""}
	if m.shell {
		files["shell"] = ""
	}
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(m.dir, name), []byte(content), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// arguments returns the command line of the kernel.
func (m *machine) arguments() []string {
	args := []string{
		fmt.Sprintf("mem=%dM", m.memory), "initrd=" + m.img.Initramfs, "root=/dev/ram0", "rdinit=/init", "quiet",
		"host=" + m.dir, "uml_dir=" + m.dir,
		// without gro the driver drops what is larger than a frame
		"vec0:transport=tap,ifname=port0,depth=128,gro=1", "vec1:transport=tap,ifname=port1,depth=128,gro=1",
		"con=null", "con0=null,fd:2", "ssl=null", "ssl0=fd:3,fd:4", "ssl1=fd:5,fd:6",
	}
	for i, d := range m.disks {
		args = append(args, fmt.Sprintf("ubd%d=%s", i, diskPath(d)))
	}
	if m.shell {
		args = append(args, "con1=fd:0,fd:1")
	}
	return args
}

// memoryDir returns where the guest's memory goes: not to a disk, if there is
// room.
func memoryDir(otherwise string) string {
	const memory = "/dev/shm"
	var fs unix.Statfs_t
	if unix.Statfs(memory, &fs) == nil && fs.Bavail*uint64(fs.Bsize) > 2<<30 {
		return memory
	}
	return otherwise
}
