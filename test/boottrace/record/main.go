// Command record boots a disk in QEMU from a target of ours, and writes down
// what the guest reads, as a file for package boottrace.
//
//	sudo test/boottrace/record/disk.sh /var/tmp/disk.img
//	go run ./test/boottrace/record /var/tmp/disk.img "what it is" >test/boottrace/NAME.trace
//
// Each read is answered after a pause, as by a store that is not far: so it
// shows which reads the guest does not wait for. The file is written to.
package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"sync"
	"time"

	"skylun/block"
	"skylun/lun"
	"skylun/target"
	"skylun/test/boottrace"
)

const (
	iqn     = "iqn.2026-11.io.skylun:record"
	latency = 10 * time.Millisecond
	longest = 15 * time.Minute // a boot
)

func main() {
	if len(os.Args) != 3 {
		log.Fatal("usage: record DISK ABOUT >FILE.trace")
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Args[1], os.Args[2], os.Stdout); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context, name, about string, out io.Writer) error {
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	d := &disk{f: f, size: info.Size(), begin: time.Now()}
	portal, stop, err := serve(d)
	if err != nil {
		return err
	}
	defer stop()
	if err := boot(ctx, fmt.Sprintf("iscsi://%s/%s/0", portal, iqn)); err != nil {
		return err
	}
	t := traceOf(d.reads())
	_, distinct := t.Distinct()
	about += fmt.Sprintf("\nRecorded with QEMU (-accel tcg, 2 processors), each read answered after %v.\n%d reads, %d bytes of the disk.", latency, t.Reads(), distinct)
	return boottrace.Encode(out, t, d.size, about)
}

// serve serves d.
func serve(d *disk) (portal string, stop func(), err error) {
	quiet := slog.New(slog.DiscardHandler)
	units := lun.NewMap()
	if err := units.Add(0, lun.NewDisk(d, lun.DiskConfig{Name: "disk", ID: [16]byte{1}}, quiet)); err != nil {
		return "", nil, err
	}
	s, err := target.New(target.Config{Portals: target.At("127.0.0.1:0")}, quiet)
	if err != nil {
		return "", nil, err
	}
	if err := s.AddTarget(target.Target{Name: iqn, Units: units}); err != nil {
		return "", nil, err
	}
	if err := s.Listen(); err != nil {
		return "", nil, err
	}
	served := make(chan error, 1)
	go func() { served <- s.Serve(context.Background()) }()
	return s.Portals()[0].String(), func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		if err := errors.Join(s.Shutdown(ctx), <-served); err != nil {
			log.Print(err)
		}
	}, nil
}

// boot switches a machine on, and off when its system says that it is up.
func boot(ctx context.Context, url string) error {
	ctx, cancel := context.WithTimeoutCause(ctx, longest, fmt.Errorf("the system is not up after %v", longest))
	defer cancel()
	qemu := exec.CommandContext(ctx, "qemu-system-x86_64", "-nodefaults", "-display", "none", "-no-reboot", "-machine", "q35",
		"-accel", "tcg", "-smp", "2", "-m", "1024", "-serial", "stdio", "-device", "virtio-scsi-pci",
		"-drive", "if=none,id=disk,format=raw,cache=none,file="+url, "-device", "scsi-hd,drive=disk",
		"-device", "virtio-net-pci,netdev=net", "-netdev", "user,id=net,restrict=on")
	console, err := qemu.StdoutPipe()
	if err != nil {
		return err
	}
	qemu.Stderr = os.Stderr
	if err := qemu.Start(); err != nil {
		return err
	}
	up := false
	for s := bufio.NewScanner(console); s.Scan(); {
		fmt.Fprintln(os.Stderr, s.Text())
		if strings.Contains(s.Text(), "@@ up") {
			up = true
			cancel()
		}
	}
	err = qemu.Wait()
	switch {
	case up:
		return nil
	case ctx.Err() != nil:
		return context.Cause(ctx)
	}
	return fmt.Errorf("the machine is off before its system is up (%v)", err)
}

// disk is a file that remembers its reads.
type disk struct {
	f     *os.File
	size  int64
	begin time.Time

	mu  sync.Mutex
	all []done
}

var (
	_ block.Device     = (*disk)(nil)
	_ block.DataRanger = (*disk)(nil)
)

// reads returns the reads so far.
func (d *disk) reads() []done {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.all
}

// Size implements block.Reader.
func (d *disk) Size() int64 { return d.size }

// ReadAt implements block.Reader.
func (d *disk) ReadAt(ctx context.Context, p []byte, off int64) error {
	if err := block.CheckRange(off, int64(len(p)), d.size); err != nil {
		return err
	}
	begin := time.Since(d.begin)
	select {
	case <-time.After(latency):
	case <-ctx.Done():
		return ctx.Err()
	}
	if _, err := d.f.ReadAt(p, off); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.all = append(d.all, done{off, len(p), begin, time.Since(d.begin)})
	return nil
}

// WriteAt implements block.Device.
func (d *disk) WriteAt(_ context.Context, p []byte, off int64) error {
	if err := block.CheckRange(off, int64(len(p)), d.size); err != nil {
		return err
	}
	_, err := d.f.WriteAt(p, off)
	return err
}

// Discard implements block.Device.
func (d *disk) Discard(ctx context.Context, off, n int64) error {
	zeros := make([]byte, min(n, 1<<20))
	for ; n > 0; n, off = n-int64(len(zeros)), off+int64(len(zeros)) {
		zeros = zeros[:min(n, int64(len(zeros)))]
		if err := d.WriteAt(ctx, zeros, off); err != nil {
			return err
		}
	}
	return nil
}

// DataRanges implements block.DataRanger: all of it is data.
func (d *disk) DataRanges(_ context.Context, r block.Range, f func(block.Range) error) error {
	return f(r)
}

// Flush implements block.Device.
func (d *disk) Flush(context.Context) error { return nil }
