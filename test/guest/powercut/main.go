package main

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"skylun/test/guest/dmlog"
)

// Exit status: 0 when all is as it has to be, failed when something is lost, 1
// when it could not be found out.
const failed = 3

func main() {
	r := run{server: &server{data: filepath.Join(mountPoint, "data")}}
	flag.StringVar(&r.server.binary, "server", "", "the server's `binary`")
	flag.StringVar(&r.server.work, "work", "/run/powercut", "`directory` for what no cut reaches")
	flag.StringVar(&r.system, "fs", "ext4", "`file system`: ext4 or xfs")
	flag.IntVar(&r.ops, "ops", 150, "`operations` of each initiator with each of two servers")
	flag.IntVar(&r.points, "points", 20, "at how many `points` the power is cut")
	flag.Uint64Var(&r.seed, "seed", rand.Uint64(), "of the random `numbers`")
	flag.Parse()
	fmt.Println("seed", r.seed)
	err := r.all()
	var lost lostError
	switch {
	case errors.As(err, &lost):
		fmt.Println("lost:", err)
		os.Exit(failed)
	case err != nil:
		fmt.Println("error:", err)
		os.Exit(1)
	}
}

// lostError says what does not hold after a cut.
type lostError struct{ what string }

func (e lostError) Error() string { return e.what }

// run is one load and its cuts.
type run struct {
	server      *server
	system      string
	ops, points int
	seed        uint64

	sectors  int64 // of the device with the server's data
	volumes  []*history
	promises promises
}

const (
	volumeSize = 8 << 20
	mountPoint = "/run/disk"
	bootID     = "/proc/sys/kernel/random/boot_id"

	data   = "/dev/ubda" // with the file system that the load is on
	record = "/dev/ubdb" // what reached it
	again  = "/dev/ubdc" // the same up to a point
	above  = "/dev/ubdd" // what the server writes after the cut
)

func (r *run) all() error {
	for _, dir := range []string{r.server.work, mountPoint} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	for _, module := range []string{"dm-log-writes", "dm-snapshot"} {
		if err := command("modprobe", module); err != nil {
			return err
		}
	}
	if err := r.server.configure(volumeSize); err != nil {
		return err
	}
	begin := time.Now()
	if err := r.record(); err != nil {
		return fmt.Errorf("under load: %w", err)
	}
	fmt.Printf("%.1f s: %d promises are in the record\n", time.Since(begin).Seconds(), len(r.promises.made))
	return r.cuts(begin)
}

// record makes the file system and a copy of it, and puts the load on it.
func (r *run) record() error {
	if err := r.mkfs(); err != nil {
		return err
	}
	if err := clone(data, again); err != nil {
		return err
	}
	size, err := os.ReadFile("/sys/block/" + filepath.Base(data) + "/size")
	if err != nil {
		return err
	}
	if r.sectors, err = strconv.ParseInt(string(bytes.TrimSpace(size)), 10, 64); err != nil {
		return err
	}
	device := mapper("record")
	if err := device.create(r.sectors, "log-writes", data, record); err != nil {
		return err
	}
	if err := r.mount(device); err != nil {
		return err
	}
	r.promises.mark = func(name string) error { return device.message("mark " + name) }
	for lun := range luns {
		r.volumes = append(r.volumes, newHistory(lun, volumeSize/sectorSize, lun == overlay))
	}
	l := newLoad(r.server, r.volumes, &r.promises, r.ops, r.seed)
	for range 2 { // the second server finds what one left that was killed
		if err := r.server.start(); err != nil {
			return err
		}
		if err := l.run(); err != nil {
			return r.server.with(err)
		}
		if err := r.server.kill(); err != nil {
			return err
		}
	}
	return errors.Join(unmount(), device.remove())
}

// mkfs makes the file system.
func (r *run) mkfs() error {
	if r.system == "xfs" {
		return command("mkfs.xfs", "-q", "-K", data)
	}
	return command("mkfs.ext4", "-q", "-E", "lazy_itable_init=0,lazy_journal_init=0,nodiscard", "-J", "size=4", data)
}

// clone copies a device to another one that is all zeros.
func clone(from, to string) error {
	src, err := os.Open(from)
	if err != nil {
		return err
	}
	defer src.Close()
	dst, err := os.OpenFile(to, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer dst.Close()
	p, zeros := make([]byte, 64<<10), make([]byte, 64<<10)
	for off := int64(0); ; off += int64(len(p)) {
		n, err := src.ReadAt(p, off)
		if !bytes.Equal(p[:n], zeros[:n]) {
			if _, err := dst.WriteAt(p[:n], off); err != nil {
				return err
			}
		}
		if err == io.EOF {
			return dst.Sync()
		}
		if err != nil {
			return err
		}
	}
}

func (r *run) mount(device mapper) error {
	return os.NewSyscallError("mount", unix.Mount(device.path(), mountPoint, r.system, unix.MS_NOATIME, ""))
}

func unmount() error { return os.NewSyscallError("umount", unix.Unmount(mountPoint, 0)) }

// cuts cuts the power at the points and looks at what is left.
func (r *run) cuts(begin time.Time) error {
	f, err := os.Open(record)
	if err != nil {
		return err
	}
	defer f.Close()
	entries, err := dmlog.Read(f)
	if err != nil {
		return err
	}
	marked := 0
	for _, e := range entries {
		if strings.HasPrefix(e.Mark, promiseMark) {
			marked++
		}
	}
	if marked != len(r.promises.made) {
		return fmt.Errorf("%d promises are in the record, not %d", marked, len(r.promises.made))
	}
	disk, err := os.OpenFile(again, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer disk.Close()
	random := rand.New(rand.NewPCG(r.seed, 1<<32))
	replay := &replay{record: f, entries: entries, disk: disk}
	var all expected
	for _, h := range r.volumes {
		all.volumes = append(all.volumes, newLeast(h))
	}
	made, marks := 0, 0
	chosen := points(entries, r.points, random)
	for i, point := range chosen {
		for ; marks <= point; marks++ { // what was promised before it
			var n int
			if _, err := fmt.Sscanf(entries[marks].Mark, promiseMark+"%d", &n); err == nil {
				all.add(r.promises.made[n-1])
				made = n
			}
		}
		if err := r.cut(replay, point, &all, random, i%4 == 0); err != nil {
			return fmt.Errorf("cut at entry %d of %d, %d promises made: %w", point, len(entries), made, err)
		}
	}
	if made == 0 {
		return errors.New("no point comes after a promise")
	}
	fmt.Printf("%.1f s: %d cuts in a record of %d entries\n", time.Since(begin).Seconds(), len(chosen), len(entries))
	return nil
}

// cut looks at what a cut at one point leaves.
func (r *run) cut(replay *replay, point int, all *expected, random *rand.Rand, twice bool) error {
	device := mapper("cut")
	err := replay.to(point, random, func() (*os.File, error) {
		if err := device.create(r.sectors, "snapshot", again, above, "N", "8"); err != nil {
			return nil, err
		}
		return os.OpenFile(device.path(), os.O_RDWR, 0)
	})
	if err != nil {
		return err
	}
	if err := r.mount(device); err != nil {
		return lostError{err.Error()}
	}
	id := fmt.Sprintf("00000000-0000-4000-8000-%012d\n", point)
	name := filepath.Join(r.server.work, "boot_id")
	if err := os.WriteFile(name, []byte(id), 0o444); err != nil {
		return err
	}
	if err := unix.Mount(name, bootID, "", unix.MS_BIND, ""); err != nil {
		return os.NewSyscallError("bind", err)
	}
	err = r.serve(all, twice)
	return errors.Join(err, os.NewSyscallError("umount", unix.Unmount(bootID, 0)), unmount(), device.remove())
}

// expected is what has to be there after a cut.
type expected struct {
	volumes   []*least
	snapshots snapshots
}

// add adds what a promise says.
func (e *expected) add(p promise) {
	if p.snapshot != nil {
		e.snapshots.add(p)
	} else {
		e.volumes[p.h.lun].add(p)
	}
}

// serve serves what is mounted and compares it with what it has to be; with
// twice set, so are the snapshots, and a second server has to say the same, after
// a check.
func (r *run) serve(all *expected, twice bool) error {
	if err := r.server.start(); err != nil {
		return lostError{err.Error()}
	}
	first, err := r.compare(all.volumes)
	if err == nil && twice {
		err = all.snapshots.check(r.server)
	}
	if err != nil {
		return r.server.with(errors.Join(err, r.server.kill()))
	}
	if err := r.server.kill(); err != nil || !twice {
		return err
	}
	if _, err := r.server.run("check"); err != nil {
		return lostError{err.Error()}
	}
	if err := r.server.start(); err != nil {
		return lostError{err.Error()}
	}
	second, err := r.compare(all.volumes)
	if err != nil {
		return r.server.with(errors.Join(err, r.server.kill()))
	}
	if err := r.server.stop(); err != nil {
		return lostError{err.Error()}
	}
	for lun := range first {
		if !bytes.Equal(first[lun], second[lun]) {
			return lostError{fmt.Sprintf("LUN %d reads differently after another start", lun)}
		}
	}
	return nil
}

// compare reads all volumes, and compares each sector with what it has to be.
func (r *run) compare(all []*least) (content [][]byte, err error) {
	c, err := login(0)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	for _, l := range all {
		w := &worker{h: l.h, c: c}
		p := make([]byte, 0, volumeSize)
		const step = 256 << 10 / sectorSize
		for off := int64(0); off < volumeSize/sectorSize; off += step {
			got, err := w.do(w.cdb(0x88, span{off, step}), step*sectorSize, nil) // READ(16)
			if err != nil {
				return nil, lostError{err.Error()}
			}
			p = append(p, got...)
		}
		if err := l.checkAll(p); err != nil {
			return nil, lostError{fmt.Sprintf("LUN %d: %v", l.h.lun, err)}
		}
		content = append(content, p)
	}
	return content, nil
}
