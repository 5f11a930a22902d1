package target

import (
	"errors"
	"io"
	"net"
	"os"
	"runtime"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// How a reader waits for the next request, on Linux.
//
// The runtime's way is to park the goroutine until the network poller finds the
// socket readable. The thread that finds it takes the goroutine and wakes
// another thread to poll in its place, and as the poller is told of whatever
// arrives on any of its sockets, that one wakes for every request too. With one
// request at a time this is most of the work.
//
// So the socket of a busy connection is not in the poller. Its reader waits in a
// system call of its own, poll(2), and the kernel wakes that one thread. When
// nothing has come for pollTime the reader puts a copy of the descriptor into
// the poller and parks there, so that an idle connection costs no thread.
//
//	          nothing for pollTime, or not idle
//	poll(2) --------------------------------------> parked in the poller
//	  ^                                                     |
//	  +------- something came, idle, a slot is free --------+
//
// A thread in poll keeps its P, the runtime's right to run Go code, for up to
// ten milliseconds. So there are slots: no more readers wait like that than
// there are Ps but one. The others read by way of the poller all the time, and
// so does one whose connection has commands in workers, which need the P.

const (
	pollTime = 2 // milliseconds

	// yieldAfter is after how long the reader goes through the scheduler. A
	// goroutine that does not for ten milliseconds is taken for one that hogs
	// its P, and is bothered in every system call from then on.
	yieldAfter = 4 * time.Millisecond

	maxIovecs = 1024 // of one writev, IOV_MAX
)

var errInterrupted = errors.New("interrupted")

// tcpSocket is a TCP socket that is not in the runtime's poller, but for the
// time in which its reader is parked.
type tcpSocket struct {
	fd      int
	stopped atomic.Bool

	slots *atomic.Int32 // in use, of the whole server
	limit int32

	// Of the reader.

	slot    bool // one is ours
	yielded time.Time
	fds     [1]unix.PollFd
	parked  *os.File // the copy in the poller
	raw     syscall.RawConn
	once    func(uintptr) bool // readOnce, made once
	vec     [2]unix.Iovec      // what to read into
	n       int
	err     error
	drained bool // there was less than the last read asked for

	// Of the writer.

	iovecs []unix.Iovec
}

// fastSocket takes the socket of nc over, if it is a TCP socket; nc must not be
// used any more then.
func fastSocket(nc *netSocket, slots *atomic.Int32) socket {
	tc, ok := nc.Conn.(*net.TCPConn)
	if !ok {
		return nc
	}
	raw, err := tc.SyscallConn()
	if err != nil {
		return nc
	}
	fd := -1
	if raw.Control(func(old uintptr) { fd, err = dup(int(old)) }) != nil || err != nil {
		return nc
	}
	tc.Close() // takes it out of the poller; the connection lives on in fd
	s := &tcpSocket{fd: fd, slots: slots, limit: int32(runtime.GOMAXPROCS(0) - 1)}
	s.once = s.readOnce
	return s
}

func dup(fd int) (int, error) { return unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0) }

func (s *tcpSocket) read(p, more []byte, idle bool) (int, error) {
	s.vec = [2]unix.Iovec{iovec(p), iovec(more)}
	s.n, s.err = 0, nil
	defer func() { s.vec = [2]unix.Iovec{} }()
	if !s.drained && s.readOnce(uintptr(s.fd)) {
		return s.result()
	}
	if s.takeSlot(idle) {
		s.unpark()
		if s.poll(unix.POLLIN) && s.readOnce(uintptr(s.fd)) {
			return s.result()
		}
	}
	s.leaveSlot()
	if err := s.park(); err != nil {
		return 0, err
	}
	if err := s.raw.Read(s.once); err != nil {
		return 0, err
	}
	return s.result()
}

// readOnce reads, and tells whether there was something to read, or an error.
func (s *tcpSocket) readOnce(fd uintptr) bool {
	for {
		n, _, errno := unix.Syscall(unix.SYS_READV, fd, uintptr(unsafe.Pointer(&s.vec[0])), uintptr(len(s.vec)))
		switch errno {
		case 0:
			s.n = int(n)
			return true
		case unix.EINTR:
		case unix.EAGAIN:
			return false
		default:
			s.err = errno
			return true
		}
	}
}

func iovec(p []byte) unix.Iovec {
	v := unix.Iovec{Base: unsafe.SliceData(p)}
	v.SetLen(len(p))
	return v
}

func (s *tcpSocket) result() (int, error) {
	s.drained = uint64(s.n) < s.vec[0].Len+s.vec[1].Len
	switch {
	case s.stopped.Load():
		return 0, errInterrupted
	case s.err != nil:
		return 0, os.NewSyscallError("readv", s.err)
	case s.n == 0:
		return 0, io.EOF
	}
	return s.n, nil
}

// takeSlot tells whether the reader may wait in poll.
func (s *tcpSocket) takeSlot(idle bool) bool {
	if idle && !s.slot {
		if s.slots.Add(1) <= s.limit {
			s.slot = true
		} else {
			s.slots.Add(-1)
		}
	}
	return idle && s.slot
}

func (s *tcpSocket) leaveSlot() {
	if s.slot {
		s.slot = false
		s.slots.Add(-1)
	}
}

// poll waits for pollTime at most, and tells whether something is there.
func (s *tcpSocket) poll(events int16) bool {
	s.fds[0] = unix.PollFd{Fd: int32(s.fd), Events: events}
	n, err := unix.Poll(s.fds[:], pollTime)
	for err == unix.EINTR {
		n, err = unix.Poll(s.fds[:], pollTime)
	}
	if now := time.Now(); now.Sub(s.yielded) > yieldAfter {
		s.yielded = now
		runtime.Gosched()
	}
	return n > 0
}

// park puts a copy of the socket into the poller, if there is none.
func (s *tcpSocket) park() (err error) {
	if s.parked == nil {
		s.parked, s.raw, err = s.pollable()
	}
	return err
}

func (s *tcpSocket) unpark() {
	if s.parked != nil {
		s.parked.Close()
		s.parked = nil
	}
}

// pollable returns a copy of the socket that is in the poller.
func (s *tcpSocket) pollable() (*os.File, syscall.RawConn, error) {
	fd, err := dup(s.fd)
	if err != nil {
		return nil, nil, os.NewSyscallError("dup", err)
	}
	f := os.NewFile(uintptr(fd), "tcp")
	raw, err := f.SyscallConn()
	if err != nil {
		f.Close()
		return nil, nil, err
	}
	return f, raw, nil
}

func (s *tcpSocket) write(vec [][]byte) error {
	for len(vec) > 0 {
		s.iovecs = s.iovecs[:0]
		for _, p := range vec[:min(len(vec), maxIovecs)] {
			s.iovecs = append(s.iovecs, iovec(p))
		}
		n, _, errno := unix.Syscall(unix.SYS_WRITEV, uintptr(s.fd), uintptr(unsafe.Pointer(&s.iovecs[0])), uintptr(len(s.iovecs)))
		clear(s.iovecs)
		switch errno {
		case 0:
		case unix.EINTR:
			continue
		case unix.EAGAIN:
			if err := s.waitWritable(); err != nil {
				return err
			}
			continue
		default:
			return os.NewSyscallError("writev", errno)
		}
		left := int(n)
		for len(vec) > 0 && left >= len(vec[0]) {
			left -= len(vec[0])
			vec = vec[1:]
		}
		if left > 0 {
			vec[0] = vec[0][left:]
		}
	}
	return nil
}

// waitWritable parks until the socket takes more.
func (s *tcpSocket) waitWritable() error {
	f, raw, err := s.pollable()
	if err != nil {
		return err
	}
	defer f.Close()
	return raw.Write(func(fd uintptr) bool {
		fds := [1]unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}
		n, err := unix.Poll(fds[:], 0)
		return n > 0 || err != nil && err != unix.EINTR
	})
}

func (s *tcpSocket) interrupt() {
	s.stopped.Store(true)
	unix.Shutdown(s.fd, unix.SHUT_RD)
}

func (s *tcpSocket) shut() { unix.Shutdown(s.fd, unix.SHUT_RDWR) }

func (s *tcpSocket) close() {
	s.leaveSlot()
	s.unpark()
	unix.Close(s.fd)
}
