package main

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"skylun/raid"
	"skylun/raid/raidtest"
)

// memberRows tell what the array of local members costs and gives. The first
// compare a file in an array of one directory with a plain file: operations for
// each second of CPU time, as what is in memory takes nothing else, and other work
// on the machine does not disturb that. Those with slow members have four, each throttled by a token bucket to the
// same rate, against an array of one of them. The last run the server, with four
// member directories on one file system, against the server with one: there nothing
// becomes faster, and nothing should become slower.
var memberRows = []row{
	{name: "array of one member, 4 KiB random reads, by CPU time", want: 0.97, contest: oneMember(4*kib, false)},
	{name: "array of one member, 4 KiB random overwrites, by CPU time", want: 0.97, contest: oneMember(4*kib, true)},
	{name: "array of one member, 256 KiB sequential reads, by CPU time", want: 0.97, contest: oneMember(256*kib, false)},

	{name: "array of four members on one file system, 4 KiB random overwrites, by CPU time", want: 0.95, contest: fourDirectories(4*kib, true)},
	{name: "array of four members on one file system, 256 KiB sequential overwrites, by CPU time", want: 0.95, contest: fourDirectories(256*kib, true)},

	{name: "array of four members of 60 MB/s each, 1 MiB sequential reads, 8 in flight", want: 3.6, contest: slowMembers(1024*kib, 8, false, 60e6, 0)},
	{name: "array of four members of 60 MB/s each, 1 MiB sequential overwrites, 8 in flight", want: 3.6, contest: slowMembers(1024*kib, 8, true, 60e6, 0)},
	{name: "array of four members of 1000 IOPS each, 4 KiB random reads, 64 in flight", want: 3.6, contest: slowMembers(4*kib, 64, false, 1e12, 1000)},
	{name: "array of four members of 2000 IOPS each, 4 KiB random reads, 32 in flight", want: 3.6, contest: slowMembers(4*kib, 32, false, 1e12, 2000)},

	{name: "four members, 4 KiB random reads, 32 in flight", want: 0.95, wantCPU: 1.05, contest: fourMembers(load{Random: true, Size: 4 * kib, Depth: 32}, readUnit)},
	{name: "four members, 256 KiB sequential reads, 8 in flight", want: 0.95, wantCPU: 1.05, contest: fourMembers(load{Size: 256 * kib, Depth: 8}, readUnit)},
	{name: "four members, 4 KiB random overwrites, 32 in flight", want: 0.95, wantCPU: 1.05, contest: fourMembers(load{Write: true, Random: true, Size: 4 * kib, Depth: 32}, ownUnit)},
	{name: "four members, 256 KiB sequential overwrites, 8 in flight", want: 0.95, wantCPU: 1.05, contest: fourMembers(load{Write: true, Size: 256 * kib, Depth: 8}, ownUnit)},
}

type contestOf = func(ctx context.Context, o options, dir string) (*contest, error)

// openArray opens an array whose records are lost with it.
func openArray(members []raid.MemberConfig) (*raid.Array, error) {
	return raid.OpenArray(raid.Config{Members: members, Records: raidtest.NewRecords(nil), Boot: "bench"})
}

// scattered fills size bytes by 4 KiB writes in scattered order.
func scattered(size int64, write func(p []byte, off int64) error) error {
	buf, src := make([]byte, 4096), rand.NewChaCha8([32]byte{2})
	n, at := size/4096, int64(0)
	step := scatter(n)
	for range n {
		src.Read(buf)
		at = (at + step) % n
		if err := write(buf, at*4096); err != nil {
			return err
		}
	}
	return nil
}

// bytesAt is what is compared by CPU time.
type bytesAt interface {
	ReadAt(p []byte, off int64) error
	WriteAt(p []byte, off int64) error
}

// osFile is an os.File with the methods of bytesAt.
type osFile struct{ *os.File }

func (f osFile) ReadAt(p []byte, off int64) error  { _, err := f.File.ReadAt(p, off); return err }
func (f osFile) WriteAt(p []byte, off int64) error { _, err := f.File.WriteAt(p, off); return err }

// byCPU compares what open returns, both filled the same way, by the CPU time
// that pieces of n bytes take.
func byCPU(n int, write bool, theirs string, open func(work string, size int64) (sides [2]bytesAt, closers []io.Closer, err error)) contestOf {
	return func(_ context.Context, o options, dir string) (*contest, error) {
		work, err := os.MkdirTemp(dir, "cpu-")
		if err != nil {
			return nil, err
		}
		sides, closers, err := open(work, o.size)
		if err != nil {
			return nil, err
		}
		ops := [2]func(p []byte, off int64) error{}
		for i, f := range sides {
			if err := scattered(o.size, f.WriteAt); err != nil {
				return nil, err
			}
			if ops[i] = f.ReadAt; write {
				ops[i] = f.WriteAt
			}
		}
		// Both sides take turns of a hundredth of a second, so that what else
		// goes on hits both; who asks first for a round has it measured.
		rounds := map[int][2]result{}
		run := func(_ context.Context, mine bool, round int) (result, error) {
			r, ok := rounds[round]
			for begun := time.Now(); !ok && time.Since(begun) < 2*o.time; {
				for i, op := range ops {
					before := cpuTime()
					part, err := inProcess(10*time.Millisecond, 1, n, o.size, n == 4*kib, op)
					if err != nil {
						return part, err
					}
					r[i].Ops += part.Ops
					r[i].Time += cpuTime() - before
				}
			}
			rounds[round] = r
			if mine {
				return r[0], nil
			}
			return r[1], nil
		}
		return &contest{client: "in process", theirs: theirs, run: run, close: func() {
			for _, c := range closers {
				c.Close()
			}
			os.RemoveAll(work)
		}}, nil
	}
}

// arrayFile makes a file of an array of directories.
func arrayFile(dir string, members int, size int64) (f *raid.File, closers []io.Closer, err error) {
	var all []raid.MemberConfig
	for i := range members {
		all = append(all, raid.MemberConfig{Path: filepath.Join(dir, fmt.Sprint(i))})
	}
	a, err := openArray(all)
	if err != nil {
		return nil, nil, err
	}
	if f, err = a.Create("layers/1", size); err != nil {
		a.Close()
		return nil, nil, err
	}
	return f, []io.Closer{f, a}, nil
}

// oneMember compares a file of an array of one directory with a plain file beside
// it.
func oneMember(n int, write bool) contestOf {
	return byCPU(n, write, "the file itself", func(work string, size int64) (sides [2]bytesAt, closers []io.Closer, err error) {
		f, closers, err := arrayFile(filepath.Join(work, "array"), 1, size)
		if err != nil {
			return sides, nil, err
		}
		plain, err := os.Create(filepath.Join(work, "plain"))
		if err != nil {
			return sides, nil, err
		}
		return [2]bytesAt{f, osFile{plain}}, append(closers, plain), nil
	})
}

// fourDirectories compares a file of an array of four directories of one file
// system with a file of an array of one.
func fourDirectories(n int, write bool) contestOf {
	return byCPU(n, write, "one member", func(work string, size int64) (sides [2]bytesAt, closers []io.Closer, err error) {
		for i, members := range []int{4, 1} {
			f, c, err := arrayFile(filepath.Join(work, fmt.Sprint(members)), members, size)
			if err != nil {
				return sides, nil, err
			}
			sides[i], closers = f, append(closers, c...)
		}
		return sides, closers, nil
	})
}

// cpuTime returns what this process has used so far.
func cpuTime() time.Duration {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		panic(err) // it has no other arguments
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// slowMembers compares an array of four slow members with an array of one.
func slowMembers(n, workers int, write bool, bandwidth, iops int64) contestOf {
	return func(_ context.Context, o options, dir string) (*contest, error) {
		const size = 64 << 20
		work, err := os.MkdirTemp(dir, "slow-")
		if err != nil {
			return nil, err
		}
		var closers []io.Closer
		arrayOf := func(count int) (*raid.File, error) {
			var members []raid.MemberConfig
			for i := range count {
				f, err := os.Create(filepath.Join(work, fmt.Sprintf("%d-%d", count, i)))
				if err != nil {
					return nil, err
				}
				if err := f.Truncate(2 * size); err != nil {
					return nil, err
				}
				d := &slowDevice{f: f, size: 2 * size, bandwidth: 1e15}
				members = append(members, raid.MemberConfig{Device: d})
				defer func() { d.bandwidth, d.iops = bandwidth, iops }() // fast until it is filled
			}
			a, err := openArray(members)
			if err != nil {
				return nil, err
			}
			f, err := a.Create("layers/1", size)
			if err != nil {
				return nil, err
			}
			closers = append(closers, f, a)
			return f, scattered(size, f.WriteAt)
		}
		four, err := arrayOf(4)
		if err != nil {
			return nil, err
		}
		one, err := arrayOf(1)
		if err != nil {
			return nil, err
		}
		run := func(_ context.Context, ours bool, _ int) (result, error) {
			f := one
			if ours {
				f = four
			}
			op := f.ReadAt
			if write {
				op = f.WriteAt
			}
			return inProcess(o.time, workers, n, size, n == 4*kib, op)
		}
		return &contest{client: "in process", theirs: "one such member", run: run, close: func() {
			for _, c := range closers {
				c.Close()
			}
			os.RemoveAll(work)
		}}, nil
	}
}

// slowDevice is a file behind a token bucket that holds one request: each has to
// wait until those before it have been paid for.
type slowDevice struct {
	f               *os.File
	size            int64
	bandwidth, iops int64 // bytes/s, operations/s; 0 IOPS: any

	mu   sync.Mutex
	free time.Time // guarded by mu
}

var _ raid.Device = (*slowDevice)(nil)

func (d *slowDevice) pay(n int) {
	d.mu.Lock()
	if now := time.Now(); d.free.Before(now) {
		d.free = now
	}
	d.free = d.free.Add(time.Duration(float64(n) / float64(d.bandwidth) * float64(time.Second)))
	if d.iops > 0 {
		d.free = d.free.Add(time.Second / time.Duration(d.iops))
	}
	until := d.free
	d.mu.Unlock()
	time.Sleep(time.Until(until))
}

func (d *slowDevice) Size() int64 { return d.size }

func (d *slowDevice) ReadAt(p []byte, off int64) error {
	d.pay(len(p))
	_, err := d.f.ReadAt(p, off)
	return err
}

func (d *slowDevice) TryReadAt([]byte, int64) (bool, error) { return false, nil }

func (d *slowDevice) WriteAt(p []byte, off int64) error {
	d.pay(len(p))
	_, err := d.f.WriteAt(p, off)
	return err
}

func (d *slowDevice) Zero(off, n int64) error {
	_, err := d.f.WriteAt(make([]byte, n), off)
	return err
}

func (d *slowDevice) Sync() error  { return d.f.Sync() }
func (d *slowDevice) Close() error { return d.f.Close() }

// fourMembers runs a load on the server with four members and on the server with
// one.
func fourMembers(l load, u unit) contestOf {
	return func(_ context.Context, o options, dir string) (*contest, error) {
		l := row{load: l}.timed(o.time).load
		start := func(name string, members int) (*side, error) {
			work := filepath.Join(dir, name)
			if err := os.Mkdir(work, 0o755); err != nil {
				return nil, err
			}
			o := o
			o.rows = nil // no units for first writes
			local := "local:\n  members:\n"
			for i := range members {
				local += fmt.Sprintf("    - %s/member%d\n", work, i)
			}
			return startServer(work, o, local)
		}
		var sides []*side
		stop := func() {
			for i, s := range sides {
				s.stop()
				os.RemoveAll(filepath.Join(dir, []string{"four", "one"}[i]))
			}
		}
		for i, name := range []string{"four", "one"} {
			s, err := start(name, []int{4, 1}[i])
			if s != nil {
				sides = append(sides, s)
			}
			if err != nil {
				stop()
				return nil, err
			}
		}
		run := func(ctx context.Context, ours bool, round int) (result, error) {
			s := sides[1]
			if ours {
				s = sides[0]
			}
			l := l
			l.Seed = uint64(round) + 1
			return l.measure(ctx, s, u, "go", o.size)
		}
		return &contest{client: "go", theirs: "one member", run: run, close: stop}, nil
	}
}
