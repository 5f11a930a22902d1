package raid_test

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"skylun/block"
	"skylun/raid"
	"skylun/raid/raidtest"
	"skylun/test/devicetest"
)

// shape makes the members of an array, the same ones whenever it is called with the
// same directory.
type shape struct {
	name    string
	members func(t *testing.T, dir string) []raid.MemberConfig
}

// preset returns a file of that size as a member.
func preset(t *testing.T, dir, name string, size int64, allocate string) raid.MemberConfig {
	t.Helper()
	path := filepath.Join(dir, name)
	if _, err := os.Stat(path); err != nil {
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Truncate(path, size); err != nil {
			t.Fatal(err)
		}
	}
	return raid.MemberConfig{Path: path, Allocate: allocate}
}

func directory(dir, name string) raid.MemberConfig {
	return raid.MemberConfig{Path: filepath.Join(dir, name)}
}

// loop returns a block device as a member.
func loop(t *testing.T, dir, name string, size int64, allocate string) raid.MemberConfig {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("making block devices takes root")
	}
	note := filepath.Join(dir, name+".device")
	if b, err := os.ReadFile(note); err == nil {
		return raid.MemberConfig{Path: string(b), Allocate: allocate}
	}
	out, err := exec.Command("losetup", "--find", "--show", preset(t, dir, name, size, "").Path).CombinedOutput()
	if err != nil {
		t.Fatalf("no block device: %v: %s", err, out)
	}
	path := strings.TrimSpace(string(out))
	t.Cleanup(func() { exec.Command("losetup", "--detach", path).Run() })
	if err := os.WriteFile(note, []byte(path), 0o600); err != nil {
		t.Fatal(err)
	}
	return raid.MemberConfig{Path: path, Allocate: allocate}
}

// qcow2 returns a sparse image, exported by QEMU, as a member.
func qcow2(t *testing.T, dir, name string, size int64, allocate string) raid.MemberConfig {
	t.Helper()
	for _, tool := range []string{"qemu-nbd", "qemu-img"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Fatalf("%v; it is in the package qemu-utils", err)
		}
	}
	image, socket := filepath.Join(dir, name), filepath.Join(dir, name+".sock")
	if _, err := os.Stat(image); err != nil {
		if out, err := exec.Command("qemu-img", "create", "-q", "-f", "qcow2", image, fmt.Sprint(size)).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		server := exec.Command("qemu-nbd", "-f", "qcow2", "-k", socket, "--discard=unmap", "--detect-zeroes=unmap", "-t", image)
		if err := server.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { server.Process.Signal(syscall.SIGTERM); server.Wait() })
		for begin := time.Now(); ; time.Sleep(10 * time.Millisecond) {
			c, err := net.Dial("unix", socket)
			if err == nil {
				c.Close()
				break
			}
			if time.Since(begin) > 20*time.Second {
				t.Fatal(err)
			}
		}
	}
	return raid.MemberConfig{NBD: "unix:" + socket, Allocate: allocate}
}

// shapes are the ways to allocate, and mixtures.
var shapes = []shape{
	{"a directory", func(_ *testing.T, dir string) []raid.MemberConfig { return []raid.MemberConfig{directory(dir, "a")} }},
	{"two directories", func(_ *testing.T, dir string) []raid.MemberConfig {
		return []raid.MemberConfig{directory(dir, "a"), directory(dir, "b")}
	}},
	{"five directories of different weight", func(_ *testing.T, dir string) (all []raid.MemberConfig) {
		for i, w := range []int{1, 3, 2, 0, 5} {
			m := directory(dir, fmt.Sprint(i))
			m.Weight = w
			all = append(all, m)
		}
		return all
	}},
	{"identical", func(t *testing.T, dir string) []raid.MemberConfig {
		return []raid.MemberConfig{preset(t, dir, "a", 24<<20, raid.Identical)}
	}},
	{"three identical of different size", func(t *testing.T, dir string) []raid.MemberConfig {
		return []raid.MemberConfig{preset(t, dir, "a", 30<<20, ""), preset(t, dir, "b", 5<<20, ""), preset(t, dir, "c", 11<<20+4321, "")}
	}},
	{"chunks", func(t *testing.T, dir string) []raid.MemberConfig {
		return []raid.MemberConfig{preset(t, dir, "a", 24<<20, raid.Chunks)}
	}},
	{"five of chunks of different size", func(t *testing.T, dir string) (all []raid.MemberConfig) {
		for i, size := range []int64{20 << 20, 9 << 20, 15 << 20, 12<<20 + 77, 8 << 20} {
			all = append(all, preset(t, dir, fmt.Sprint(i), size, raid.Chunks))
		}
		return all
	}},
	{"one of each", func(t *testing.T, dir string) []raid.MemberConfig {
		d := directory(dir, "d")
		d.Weight = 2
		return []raid.MemberConfig{d, preset(t, dir, "a", 20<<20, raid.Identical), preset(t, dir, "b", 17<<20, raid.Chunks)}
	}},
	{"two block devices", func(t *testing.T, dir string) []raid.MemberConfig {
		return []raid.MemberConfig{loop(t, dir, "i", 20<<20, raid.Identical), loop(t, dir, "c", 16<<20, raid.Chunks)}
	}},
	{"a qcow2 image", func(t *testing.T, dir string) []raid.MemberConfig {
		return []raid.MemberConfig{qcow2(t, dir, "q", 24<<20, raid.Identical)}
	}},
	{"two qcow2 images and a directory", func(t *testing.T, dir string) []raid.MemberConfig {
		return []raid.MemberConfig{qcow2(t, dir, "q", 24<<20, raid.Identical), directory(dir, "d"), qcow2(t, dir, "r", 20<<20, raid.Chunks)}
	}},
}

// eachShape runs a test over all shapes.
func eachShape(t *testing.T, f func(t *testing.T, open func() *raid.Array)) {
	for _, s := range shapes {
		t.Run(s.name, func(t *testing.T) {
			dir, records := t.TempDir(), raidtest.NewRecords(nil)
			var last *raid.Array
			open := func() *raid.Array {
				t.Helper()
				if last != nil {
					if err := last.Close(); err != nil {
						t.Fatal(err)
					}
				}
				a, err := raid.OpenArray(raid.Config{Members: s.members(t, dir), Stripe: 8 << 10, Chunk: 64 << 10, Records: records, Boot: "a boot"})
				if err != nil {
					t.Fatal(err)
				}
				last = a
				return a
			}
			f(t, open)
			if err := last.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}

// model is what a file is to hold.
type model struct {
	name string
	f    *raid.File
	want []byte
}

func (m *model) check(off, n int64) error {
	got := bytes.Repeat([]byte{0xee}, int(n))
	if err := m.f.ReadAt(got, off); err != nil {
		return fmt.Errorf("read %d+%d: %w", off, n, err)
	}
	if !bytes.Equal(got, m.want[off:off+n]) {
		for i := range got {
			if got[i] != m.want[off+int64(i)] {
				return fmt.Errorf("read %d+%d of %d: byte %d is %#x, want %#x", off, n, len(m.want), off+int64(i), got[i], m.want[off+int64(i)])
			}
		}
	}
	tried := make([]byte, n)
	if done, err := m.f.TryReadAt(tried, off); err != nil || done && !bytes.Equal(tried, got) {
		return fmt.Errorf("try read %d+%d: done %v, error %v", off, n, done, err)
	}
	return nil
}

// checkRanges checks that what DataRanges leaves out is zeros.
func (m *model) checkRanges() error {
	last, size := int64(0), m.f.Size()
	zero := func(to int64) error {
		if n := to - last - int64(bytes.Count(m.want[last:to], []byte{0})); n > 0 {
			return fmt.Errorf("DataRanges left out [%d,%d), where there are %d bytes of data", last, to, n)
		}
		return nil
	}
	err := m.f.DataRanges(func(r block.Range) error {
		if r.Empty() || r.Off < last || r.End > size {
			return fmt.Errorf("DataRanges: %v behind %d of %d", r, last, size)
		}
		err := zero(r.Off)
		last = r.End
		return err
	})
	return errors.Join(err, zero(size))
}

// TestFiles does random operations on three files and compares them with plain
// memory.
func TestFiles(t *testing.T) {
	seed := devicetest.Seed(t)
	eachShape(t, func(t *testing.T, open func() *raid.Array) {
		rnd := rand.New(rand.NewPCG(seed, 5))
		a := open()
		files := make([]*model, 3)
		for i := range files {
			m := &model{name: fmt.Sprintf("layers/%d", i), want: make([]byte, rnd.IntN(1<<20)+1)}
			var err error
			if m.f, err = a.Create(m.name, int64(len(m.want))); err != nil {
				t.Fatal(err)
			}
			files[i] = m
		}
		for op := range 400 {
			if a2, err := step(t, rnd, a, files, open); err != nil {
				t.Fatalf("operation %d: %v", op, err)
			} else {
				a = a2
			}
		}
		for _, m := range files {
			if free, err := m.f.Free(); err != nil || free <= 0 {
				t.Errorf("%s: free %d %v", m.name, free, err)
			}
			if err := errors.Join(m.check(0, int64(len(m.want))), m.checkRanges(), m.f.Close(), a.Remove(m.name)); err != nil {
				t.Error(err)
			}
			if _, err := a.Open(m.name, 1); !errors.Is(err, raid.ErrNotExist) {
				t.Errorf("open of a removed file: %v", err)
			}
		}
	})
}

func step(t *testing.T, rnd *rand.Rand, a *raid.Array, files []*model, open func() *raid.Array) (*raid.Array, error) {
	i := rnd.IntN(len(files))
	m := files[i]
	size := int64(len(m.want))
	off := rnd.Int64N(size)
	n := rnd.Int64N(min(size-off, 100<<10) + 1)
	if rnd.IntN(3) == 0 { // as most of what there is
		off = block.Floor(off, block.Size)
		n = min(size-off, block.Ceil(n, block.Size))
	}
	switch op := rnd.IntN(20); {
	case op < 8:
		p := make([]byte, n)
		for i := range p {
			p[i] = byte(rnd.Uint32() | 1)
		}
		copy(m.want[off:], p)
		return a, m.f.WriteAt(p, off)
	case op < 12:
		return a, m.check(off, n)
	case op < 14:
		if rnd.IntN(3) == 0 {
			n = size - off
		}
		off, end := block.Ceil(off, block.Size), block.Floor(off+n, block.Size)
		if off >= end {
			return a, nil
		}
		clear(m.want[off:end])
		return a, errors.Join(m.f.Punch(off, end-off), m.check(off, end-off))
	case op < 15:
		return a, m.f.Sync()
	case op < 16:
		if rnd.IntN(6) > 0 {
			return a, m.checkRanges()
		}
		clear(m.want)
		return a, errors.Join(m.f.Clear(), m.checkRanges())
	case op < 17:
		to := 1 + rnd.Int64N(1<<20+1<<18)
		if to > size {
			m.want = append(m.want, make([]byte, to-size)...)
		}
		m.want = m.want[:to:to]
		return a, errors.Join(m.f.Resize(to), m.check(0, to))
	case op < 18:
		o := files[rnd.IntN(len(files))]
		if o == m {
			return a, nil
		}
		from := rnd.Int64N(int64(len(o.want)))
		n = min(n, int64(len(o.want))-from)
		done, err := m.f.CopyFrom(off, o.f, from, n)
		if !done { // any part of it may be copied
			err = errors.Join(err, m.f.WriteAt(o.want[from:from+n], off))
		}
		copy(m.want[off:], o.want[from:from+n])
		return a, errors.Join(err, m.check(off, n))
	case op < 19:
		for _, m := range files {
			if err := errors.Join(m.f.Sync(), m.f.Close()); err != nil {
				return a, err
			}
		}
		a = open()
		for _, m := range files {
			var err error
			if m.f, err = a.Open(m.name, int64(len(m.want))); err != nil {
				return a, err
			}
			if err := m.check(0, int64(len(m.want))); err != nil {
				return a, err
			}
		}
		return a, nil
	default:
		if rnd.IntN(4) > 0 {
			return a, nil
		}
		m.want = make([]byte, 1+rnd.IntN(1<<20))
		err := m.f.Close()
		if err == nil {
			m.f, err = a.Create(m.name, int64(len(m.want)))
		}
		if err != nil {
			return a, err
		}
		return a, m.check(0, int64(len(m.want)))
	}
}
