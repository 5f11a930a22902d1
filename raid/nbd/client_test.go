package nbd

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// server is the plainest NBD server there is, and does as a test says.
type server struct {
	t        *testing.T
	socket   string
	flags    uint16
	minBlock uint32

	mu       sync.Mutex
	data     []byte         // guarded by mu
	commands map[uint16]int // guarded by mu
	fua      int            // guarded by mu
	hook     func(cmd uint16) (action string)
	l        net.Listener
	conns    []net.Conn // guarded by mu
	running  sync.WaitGroup
}

func newServer(t *testing.T, size int, flags uint16) *server {
	s := &server{t: t, socket: filepath.Join(t.TempDir(), "s"), flags: flags, data: make([]byte, size), commands: map[uint16]int{}}
	s.start()
	t.Cleanup(s.stop)
	return s
}

func (s *server) start() {
	l, err := net.Listen("unix", s.socket)
	if err != nil {
		s.t.Fatal(err)
	}
	s.l = l
	s.running.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			s.mu.Lock()
			s.conns = append(s.conns, c)
			s.mu.Unlock()
			s.running.Go(func() { defer c.Close(); s.serve(c) })
		}
	})
}

func (s *server) stop() {
	s.l.Close()
	s.mu.Lock()
	for _, c := range s.conns {
		c.Close()
	}
	s.conns = nil
	s.mu.Unlock()
	s.running.Wait()
}

func (s *server) serve(c net.Conn) {
	be := binary.BigEndian
	head := be.AppendUint64(be.AppendUint64(nil, magicInit), magicOption)
	c.Write(be.AppendUint16(head, flagFixedNewstyle|flagNoZeroes))
	var opt [4 + 8 + 4 + 4]byte
	if _, err := io.ReadFull(c, opt[:]); err != nil {
		return
	}
	name := make([]byte, be.Uint32(opt[16:]))
	io.ReadFull(c, name)
	reply := func(kind uint32, data []byte) {
		b := be.AppendUint64(nil, magicOptRep)
		b = be.AppendUint32(be.AppendUint32(be.AppendUint32(b, optGo), kind), uint32(len(data)))
		c.Write(append(b, data...))
	}
	if strings.Contains(string(name), "missing") {
		reply(repErr|6, []byte("no such export"))
		return
	}
	if s.minBlock > 0 {
		b := be.AppendUint32(be.AppendUint16(nil, infoBlockSize), s.minBlock)
		reply(repInfo, be.AppendUint32(be.AppendUint32(b, s.minBlock), 64<<10))
	}
	s.mu.Lock()
	b := be.AppendUint64(be.AppendUint16(nil, infoExport), uint64(len(s.data)))
	s.mu.Unlock()
	reply(repInfo, be.AppendUint16(b, s.flags))
	reply(repAck, nil)
	for {
		var req [requestSize]byte
		if _, err := io.ReadFull(c, req[:]); err != nil {
			return
		}
		flags, cmd, off, n := be.Uint16(req[4:]), be.Uint16(req[6:]), int(be.Uint64(req[16:])), int(be.Uint32(req[24:]))
		var payload []byte
		if cmd == cmdWrite {
			payload = make([]byte, n)
			io.ReadFull(c, payload)
		}
		if cmd == cmdDisconnect {
			return
		}
		s.mu.Lock()
		s.commands[cmd]++
		if flags&cmdFUA != 0 {
			s.fua++
		}
		action := ""
		if s.hook != nil {
			action = s.hook(cmd)
		}
		code := uint32(0)
		switch {
		case s.minBlock > 0 && (off%int(s.minBlock) != 0 || n%int(s.minBlock) != 0 || cmd <= cmdWrite && n > 64<<10), off+n > len(s.data):
			code = uint32(syscall.EINVAL)
		case action == "full":
			code = uint32(syscall.ENOSPC)
		case cmd == cmdWrite:
			copy(s.data[off:], payload)
		case cmd == cmdWriteZeroes:
			clear(s.data[off : off+n])
		}
		out := be.AppendUint64(be.AppendUint32(be.AppendUint32(nil, magicReply), code), be.Uint64(req[8:]))
		if cmd == cmdRead && code == 0 {
			out = append(out, s.data[off:off+n]...)
		}
		s.mu.Unlock()
		switch action {
		case "hang":
			continue
		case "close":
			return
		case "half":
			c.Write(out[:len(out)/2])
			return
		case "garbage":
			out[0] ^= 1
		}
		c.Write(out)
	}
}

func dial(t *testing.T, s *server) *Client {
	t.Helper()
	c, err := Dial(Config{Socket: s.socket, Timeout: 5 * time.Second, Retry: time.Nanosecond})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

const all = 1 | canFlush | canFUA | canWriteZeroes

// exercise does random requests, several at a time, each in a part of its own.
func exercise(t *testing.T, c *Client) {
	const workers = 6
	part := c.Size() / workers
	var wg sync.WaitGroup
	for w := range int64(workers) {
		wg.Go(func() {
			rnd := rand.New(rand.NewPCG(uint64(w), 9))
			want := make([]byte, part)
			base := w * part
			for range 150 {
				off := rnd.Int64N(part)
				n := rnd.Int64N(min(part-off, 150<<10)) + 1
				var err error
				switch rnd.IntN(5) {
				case 0, 1:
					p := make([]byte, n)
					for i := range p {
						p[i] = byte(rnd.Uint32())
					}
					copy(want[off:], p)
					err = c.WriteAt(p, base+off)
				case 2:
					clear(want[off : off+n])
					err = c.Zero(base+off, n)
				case 3:
					err = c.Flush()
				default:
					p := make([]byte, n)
					if err = c.ReadAt(p, base+off); err == nil && !bytes.Equal(p, want[off:off+n]) {
						err = errors.New("not what was written")
					}
				}
				if err != nil {
					t.Error(err)
					return
				}
			}
			p := make([]byte, part)
			if err := c.ReadAt(p, base); err != nil || !bytes.Equal(p, want) {
				t.Errorf("part %d at the end: error %v, right %v", w, err, bytes.Equal(p, want))
			}
		})
	}
	wg.Wait()
}

func TestRequests(t *testing.T) {
	for _, c := range []struct {
		name     string
		flags    uint16
		minBlock uint32
	}{{"all", all, 0}, {"blocks of 4 KiB", all, 4096}, {"blocks of 512 bytes", all, 512}, {"without zeroes", 1 | canFlush, 1}, {"without flush", 1 | canFUA, 0}} {
		t.Run(c.name, func(t *testing.T) {
			s := newServer(t, 6<<20, c.flags)
			s.minBlock = c.minBlock
			exercise(t, dial(t, s))
			s.mu.Lock()
			defer s.mu.Unlock()
			if (s.commands[cmdWriteZeroes] > 0) != (c.flags&canWriteZeroes != 0) || (s.commands[cmdFlush] > 0) != (c.flags&canFlush != 0) {
				t.Errorf("commands %v for flags %#x", s.commands, c.flags)
			}
			if c.flags&canFlush == 0 && s.fua != s.commands[cmdWrite] {
				t.Errorf("%d of %d writes went through", s.fua, s.commands[cmdWrite])
			}
		})
	}
}

func TestRefused(t *testing.T) {
	s := newServer(t, 1<<20, all)
	if _, err := Dial(Config{Socket: s.socket, Export: "missing"}); err == nil || !strings.Contains(err.Error(), "no such export") {
		t.Errorf("missing export: %v", err)
	}
	for _, flags := range []uint16{1 | canReadOnly | canFlush, 1} {
		if _, err := Dial(Config{Socket: newServer(t, 1<<20, flags).socket}); err == nil {
			t.Errorf("an export with flags %#x was accepted", flags)
		}
	}
	if _, err := Dial(Config{Socket: filepath.Join(t.TempDir(), "none")}); !errors.Is(err, syscall.ENOENT) {
		t.Errorf("no socket: %v", err)
	}
}

// TestServerFails: an error, not a hang, for all in flight; and what follows.
func TestServerFails(t *testing.T) {
	for _, action := range []string{"hang", "close", "half", "garbage"} {
		for _, flushed := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s, flushed %v", action, flushed), func(t *testing.T) {
				s := newServer(t, 1<<20, all)
				c, err := Dial(Config{Socket: s.socket, Timeout: 100 * time.Millisecond, Retry: time.Nanosecond})
				if err != nil {
					t.Fatal(err)
				}
				defer c.Close()
				if err := c.WriteAt([]byte("before"), 0); err != nil {
					t.Fatal(err)
				}
				if flushed {
					if err := c.Flush(); err != nil {
						t.Fatal(err)
					}
				}
				s.mu.Lock()
				s.hook = func(cmd uint16) string {
					if cmd == cmdRead {
						return action
					}
					return ""
				}
				s.mu.Unlock()
				var wg sync.WaitGroup
				for range 4 {
					wg.Go(func() {
						if err := c.ReadAt(make([]byte, 4096), 8192); err == nil {
							t.Error("a read that was not answered succeeded")
						}
					})
				}
				wg.Wait()
				s.mu.Lock()
				s.hook = nil
				s.mu.Unlock()
				got := make([]byte, 6)
				if err := c.ReadAt(got, 0); err != nil || string(got) != "before" {
					t.Errorf("read over a new connection: %q %v", got, err)
				}
				for what, err := range map[string]error{"write": c.WriteAt(got, 0), "zero": c.Zero(0, 10), "flush": c.Flush()} {
					if flushed && err != nil || !flushed && !errors.Is(err, ErrLost) {
						t.Errorf("%s after that: %v", what, err)
					}
				}
			})
		}
	}
}

func TestAnotherExport(t *testing.T) {
	s := newServer(t, 1<<20, all)
	other := errors.New("another")
	c, err := Dial(Config{Socket: s.socket, Retry: time.Nanosecond, Check: func(read func([]byte, int64) error) error {
		p := make([]byte, 4)
		if err := read(p, 0); err != nil || string(p) != "mine" {
			return other
		}
		return nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := errors.Join(c.WriteAt([]byte("mine"), 0), c.Flush()); err != nil {
		t.Fatal(err)
	}
	lose := func(change func()) {
		s.stop()
		change()
		s.start()
		c.ReadAt(make([]byte, 1), 0) // finds out
	}
	lose(func() {})
	if err := c.ReadAt(make([]byte, 1), 0); err != nil {
		t.Errorf("the same export: %v", err)
	}
	lose(func() { copy(s.data, "none") })
	if err := c.ReadAt(make([]byte, 1), 0); !errors.Is(err, other) {
		t.Errorf("another export: %v", err)
	}
	lose(func() { s.data = make([]byte, 2<<20); copy(s.data, "mine") })
	if err := c.ReadAt(make([]byte, 1), 0); err == nil || !strings.Contains(err.Error(), "had") {
		t.Errorf("an export of another size: %v", err)
	}
}

func TestNoSpace(t *testing.T) {
	s := newServer(t, 1<<20, all)
	c := dial(t, s)
	s.mu.Lock()
	s.hook = func(cmd uint16) string { return map[uint16]string{cmdWrite: "full"}[cmd] }
	s.mu.Unlock()
	if err := c.WriteAt([]byte("x"), 0); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("write to a full disk: %v", err)
	}
	if err := c.ReadAt(make([]byte, 1), 0); err != nil {
		t.Errorf("read after that: %v", err)
	}
}

// TestQemu speaks to the server that most exports come from.
func TestQemu(t *testing.T) {
	for _, tool := range []string{"qemu-nbd", "qemu-img"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Fatalf("%v; it is in the package qemu-utils", err)
		}
	}
	dir := t.TempDir()
	image, socket := filepath.Join(dir, "i.qcow2"), filepath.Join(dir, "s")
	if out, err := exec.Command("qemu-img", "create", "-q", "-f", "qcow2", image, "12M").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	server := exec.Command("qemu-nbd", "-f", "qcow2", "-k", socket, "-x", "disk", "--discard=unmap", "-t", image)
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { server.Process.Signal(syscall.SIGTERM); server.Wait() }()
	var c *Client
	for begin := time.Now(); ; time.Sleep(10 * time.Millisecond) {
		var err error
		if c, err = Dial(Config{Socket: socket, Export: "disk"}); err == nil {
			break
		} else if time.Since(begin) > 20*time.Second {
			t.Fatal(err)
		}
	}
	exercise(t, c)
	want := []byte("still there")
	if err := errors.Join(c.WriteAt(want, 4<<20+123), c.Flush(), c.Close()); err != nil {
		t.Fatal(err)
	}
	again, err := Dial(Config{Socket: socket, Export: "disk"})
	if err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len(want))
	if err := again.ReadAt(got, 4<<20+123); err != nil || !bytes.Equal(got, want) {
		t.Errorf("over another connection: %q %v", got, err)
	}
	if err := again.Close(); err != nil {
		t.Error(err)
	}
}
