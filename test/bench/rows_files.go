package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"skylun/raid/nbd"
	"skylun/test/guest"
	"skylun/test/guest/dmlog"
)

// filesRows compare an overlay with QEMU's: a qcow2 file over a raw one, served by
// qemu-nbd. What is done to the disks was recorded when a Linux guest made many
// small files on ext4; the guest itself takes no part in the comparison, as its
// speed says more about the machine than about the disks.
var filesRows = []row{
	{name: "small files on ext4, a sync after 100", contest: smallFiles{count: 4000, folders: 100, synced: 100}.contest, want: 2.5},
	{name: "small files on ext4, each synced", contest: smallFiles{count: 1500, folders: 100, synced: 1}.contest, want: 2.5},
}

const filesDiskSize = 1 << 30

// contest records the load and returns what has it done on both sides, on a fresh
// overlay each time. It needs root, as all guests do.
func (l smallFiles) contest(ctx context.Context, o options, dir string) (*contest, error) {
	f := &filesMatch{o: o, load: l}
	var err error
	if f.dir, err = os.MkdirTemp(dir, "files"); err != nil {
		return nil, err
	}
	if err := f.record(ctx); err != nil {
		return nil, err
	}
	if err := f.startOurs(ctx); err != nil {
		f.close()
		return nil, err
	}
	fmt.Fprintf(os.Stderr, "%d files: %s\n", l.count, f.trace.count())
	return &contest{client: "replay", theirs: "qcow2, qemu-nbd", run: f.run, close: f.close}, nil
}

// filesMatch is the contest.
type filesMatch struct {
	o     options
	load  smallFiles
	dir   string
	base  string // a raw image: the empty file system
	trace trace
	ours  *side
}

// record makes the image, and records what a guest does that makes files on it.
func (f *filesMatch) record(ctx context.Context) error {
	program := filepath.Join(f.dir, "bench")
	build := exec.CommandContext(ctx, "go", "build", "-o", program, "skylun/test/bench")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("go build: %w\n%s", err, out)
	}
	disk, err := guest.NewDisk(filesDiskSize)
	if err != nil {
		return err
	}
	defer disk.Close()
	if f.trace.record, err = guest.NewDisk(2 << 30); err != nil {
		return err
	}
	f.base = filepath.Join(f.dir, "base.raw")
	if _, err := output(ctx, "mke2fs", "-q", "-t", "ext4", "-E", "lazy_itable_init=0,lazy_journal_init=0", f.base, fmt.Sprint(filesDiskSize>>10)); err != nil {
		return err
	}
	if err := copyData(disk, f.base); err != nil {
		return err
	}
	var said strings.Builder
	r, err := guest.Do(ctx, filesScript, guest.Options{
		Alone: true, Host: map[string]string{"bench": program}, Disks: []*os.File{disk, f.trace.record}, Output: &said,
		Env: map[string]string{"ARGS": strings.Join(f.load.args("/mnt/disk"), " ")},
	})
	if err == nil && r.Status != 0 {
		err = fmt.Errorf("status %d", r.Status)
	}
	if err = errors.Join(err, r.Remove()); err != nil {
		return fmt.Errorf("record in a guest: %w\n%s", err, said.String())
	}
	f.trace.entries, err = dmlog.Read(f.trace.record)
	return err
}

const filesScript = `
modprobe dm-log-writes
dmsetup create disk --table "0 $(cat /sys/block/ubda/size) log-writes /dev/ubda /dev/ubdb"
mkdir /mnt/disk
mount -t ext4 -o noatime /dev/mapper/disk /mnt/disk
/host/bench $ARGS
umount /mnt/disk
dmsetup remove disk
`

// startOurs starts the server with an overlay for each turn.
func (f *filesMatch) startOurs(ctx context.Context) error {
	addr, err := freeAddr()
	if err != nil {
		return err
	}
	program, err := f.o.program(f.dir)
	if err != nil {
		return err
	}
	var config strings.Builder
	fmt.Fprintf(&config, "data_dir: %[1]s/data\nblobstore: {url: \"file:%[1]s/blobs\"}\nportals: [%[2]q]\ntargets:\n  - iqn: %[3]s\n    luns:\n", f.dir, addr, iqn)
	for i := range f.o.repeats {
		fmt.Fprintf(&config, "      - {lun: %d, disk: {volume: v%d, image: base}}\n", i, i)
	}
	file := filepath.Join(f.dir, "config.yaml")
	if err := os.WriteFile(file, []byte(config.String()), 0o600); err != nil {
		return err
	}
	if _, err := output(ctx, program, "image", "import", f.base, "base", "-c", file); err != nil {
		return err
	}
	f.ours = &side{name: "skylun", addr: addr}
	return f.ours.start(f.dir, exec.Command(program, "serve", "-c", file))
}

func (f *filesMatch) close() {
	if f.ours != nil {
		f.ours.stop()
	}
	f.trace.record.Close()
	os.RemoveAll(f.dir)
}

func (f *filesMatch) run(ctx context.Context, ours bool, round int) (result, error) {
	if ours {
		c, err := dial(f.ours.addr, iqn, round, false)
		if err != nil {
			return result{}, err
		}
		defer c.close()
		if _, err := c.prepare(); err != nil {
			return result{}, err
		}
		return f.measure(f.ours, &iscsiTracer{c: c})
	}
	s, err := f.startTheirs(ctx, round)
	if err != nil {
		return result{}, err
	}
	defer s.stop()
	c, err := nbd.Dial(nbd.Config{Socket: s.addr})
	if err != nil {
		return result{}, err
	}
	defer c.Close()
	return f.measure(s, newNBDTracer(c))
}

// startTheirs serves a new overlay by qemu-nbd, in its usual cache mode. On a TCP
// socket it would hold back answers until the client's system has acknowledged those
// before, which takes 40 ms.
func (f *filesMatch) startTheirs(ctx context.Context, round int) (*side, error) {
	file := filepath.Join(f.dir, fmt.Sprintf("overlay%d.qcow2", round))
	if _, err := output(ctx, "qemu-img", "create", "-q", "-f", "qcow2", "-b", f.base, "-F", "raw", file); err != nil {
		return nil, err
	}
	s := &side{name: fmt.Sprint("qemu-nbd-", round), network: "unix", addr: filepath.Join(f.dir, fmt.Sprint("nbd", round))}
	return s, s.start(f.dir, exec.Command("qemu-nbd", "-t", "-e", "8", "-f", "qcow2", "--discard=unmap", "-k", s.addr, file))
}

// measure has the trace done on a side.
func (f *filesMatch) measure(s *side, to tracer) (result, error) {
	syncAll()
	before, err := s.cpu()
	if err != nil {
		return result{}, err
	}
	begin := time.Now()
	if err := f.trace.run(to); err != nil {
		return result{}, err
	}
	r := result{Ops: int64(f.load.count), Time: time.Since(begin)}
	after, err := s.cpu()
	r.CPU = after - before
	return r, err
}
