package target

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"syscall"
	"testing"
	"time"

	"skylun/target/pdu"
	"skylun/test/initiator"
	"skylun/test/memdev"
)

// How FuzzConnection begins, and what it does to its input.
const (
	afterLogin     = 1 << iota // the input follows the login of a normal session
	afterDiscovery             // or of a discovery session
	numbered                   // it is taken as PDUs, whose lengths, sequence numbers and digests are set right
	digests                    // of the login: both
	second                     // the connection is the second one of a session
)

// otherTarget has nothing to do with the one that is fuzzed, whose disk may be
// reserved and whose sessions may be reset.
const otherTarget = "iqn.2026-11.io.skylun:other"

// fuzzed is a server for one fuzz target, with a session that lives as long as
// it does.
type fuzzed struct {
	*server
	other *initiator.Conn
}

func startFuzzed(f *testing.F) *fuzzed {
	cfg := Config{PingInterval: -1, MaxTransfer: 1 << 20, MaxLogins: 1000, MaxSessions: 10000}
	s := &fuzzed{server: start(f, cfg, disk(f, tryDevice{memdev.New(1 << 20)}))}
	addTarget(f, s.Server, Target{Name: otherTarget}, disk(f, tryDevice{memdev.New(1 << 20)}))
	s.other = s.loginOther(f)
	return s
}

func (s *fuzzed) loginOther(t testing.TB) *initiator.Conn {
	t.Helper()
	c := s.dialOther(t)
	if _, err := c.Login(initiator.Options{Initiator: testInitiator, Target: otherTarget}); err != nil {
		t.Fatalf("login: %v", err)
	}
	return c
}

// dialOther connects as an initiator port of its own: one run does not
// reinstate the session of another.
func (s *fuzzed) dialOther(t testing.TB) *initiator.Conn {
	c := s.dial(t)
	c.ISID = [6]byte(fmt.Appendf(nil, "%06x", rand.IntN(1<<24)))
	return c
}

// serves checks that nothing has become of the server: the old session lives,
// and a new one can begin, use the disk and end.
func (s *fuzzed) serves(t testing.TB) {
	t.Helper()
	alive(t, s.other)
	c := s.loginOther(t)
	for range 4 {
		if r, err := c.Do(0, make([]byte, 6), 0, nil); err != nil || r.Status == 0 {
			break
		}
	}
	do(t, c, []byte{0: 0x28, 8: 8, 9: 0}, 4096, nil)
	if err := c.Logout(); err != nil {
		t.Errorf("logout: %v", err)
	}
}

// drain receives until the target closes, and requires that it does, and that
// all it sends are whole PDUs with the sequence numbers that are due.
func drain(t testing.TB, c *initiator.Conn) {
	t.Helper()
	for {
		p, err := c.Receive()
		switch {
		case err == nil && p.Opcode() < pdu.NOPIn:
			t.Fatalf("the target sends a request: %v", p)
		case err == nil:
		case errors.Is(err, os.ErrDeadlineExceeded):
			t.Fatal("the connection is not closed")
		case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET), errors.Is(err, net.ErrClosed):
			return
		default:
			t.Fatal(err)
		}
	}
}

// FuzzConnection feeds arbitrary bytes to a connection, instead of a login or
// after one. Whatever they are, the target closes the connection when no more
// come, sends nothing but PDUs until then, and goes on serving others.
func FuzzConnection(f *testing.F) {
	for _, data := range legalExchanges() {
		f.Add(byte(afterLogin), data)
		f.Add(byte(afterLogin|numbered), data)
		f.Add(byte(afterLogin|numbered|digests), data)
		f.Add(byte(afterLogin|numbered|second), data)
	}
	c := initiator.New(nil)
	whole := c.NewLogin(pdu.Operational, pdu.FullFeature, true, testNames).Bytes()
	for _, data := range legalExchanges() {
		whole = append(whole, data...)
	}
	f.Add(byte(0), whole)
	f.Add(byte(0), []byte("GET / HTTP/1.0\r\n\r\n"))
	text := c.NewRequest(pdu.TextReq)
	text.Data = pdu.AppendPair(nil, "SendTargets", "All")
	f.Add(byte(afterDiscovery), append(text.Bytes(), c.NewRequest(pdu.LogoutReq).Bytes()...))

	s := startFuzzed(f)
	f.Fuzz(func(t *testing.T, mode byte, data []byte) {
		c := s.dialOther(t)
		switch {
		case mode&afterLogin != 0 && mode&second != 0:
			mustLogin(t, c, severalKeys...)
			c = s.addConn(t, c, 1, digestKeys(mode&digests != 0, mode&digests != 0)...)
		case mode&afterLogin != 0:
			mustLogin(t, c, digestKeys(mode&digests != 0, mode&digests != 0)...)
		case mode&afterDiscovery != 0:
			if _, err := c.Login(initiator.Options{Initiator: testInitiator}); err != nil {
				t.Fatal(err)
			}
		}
		if mode&numbered != 0 {
			for _, p := range asPDUs(c, data) {
				if c.Send(p) != nil {
					break
				}
			}
		} else {
			c.Write(data)
		}
		c.Conn.(*net.TCPConn).CloseWrite()
		c.Timeout = 10 * time.Second
		if mode&(afterLogin|afterDiscovery) != 0 {
			done := make(chan struct{})
			go s.closeAtGap(c, done)
			drain(t, c)
			close(done)
		} else {
			drainLogin(t, c)
		}
		c.Close()
		s.serves(t)
	})
}

// closeAtGap closes c when its session waits for a request that is missing,
// until done is closed: nobody is going to send it, and the session would live
// for gapTimeout.
func (s *fuzzed) closeAtGap(c *initiator.Conn, done <-chan struct{}) {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for waited := 0; waited < 5; {
		select {
		case <-done:
			return
		case <-tick.C:
		}
		for _, sess := range s.sessionList() {
			if sess.tsih == c.TSIH && sess.win.kept.Load() > 0 {
				waited++
			}
		}
	}
	c.Close()
}

// drainLogin is drain for a connection that chooses its sequence numbers
// itself.
func drainLogin(t testing.TB, c *initiator.Conn) {
	t.Helper()
	c.SetReadDeadline(time.Now().Add(c.Timeout))
	if _, err := io.Copy(io.Discard, c.Conn); errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatal("the connection is not closed")
	}
}

// asPDUs takes data as PDUs of c: it shortens them to what there is and numbers
// them, and leaves everything else as it is.
func asPDUs(c *initiator.Conn, data []byte) []*initiator.PDU {
	var ps []*initiator.PDU
	take := func(n int) []byte {
		n = min(n, len(data))
		p := data[:n]
		data = data[n:]
		return p
	}
	for len(data) > 0 {
		p := new(initiator.PDU)
		copy(p.Header[:], take(pdu.HeaderSize))
		p.AHS = take(p.AHSLen() &^ 3)
		p.AHS = p.AHS[:len(p.AHS)&^3]
		p.Data = take(p.DataLen())
		take(pdu.Padded(len(p.Data)) - len(p.Data))
		p.SetExpStatSN(c.ExpStatSN)
		switch p.Opcode() {
		case pdu.DataOut, pdu.SNACK:
		default:
			p.SetCmdSN(c.CmdSN)
			if !p.Immediate() {
				c.CmdSN++
			}
		}
		ps = append(ps, p)
	}
	return ps
}

// legalExchanges are what initiators do in the full feature phase, from the
// first CmdSN on.
func legalExchanges() [][]byte {
	exchange := func(f func(c *initiator.Conn) []*initiator.PDU) []byte {
		var b bytes.Buffer
		for _, p := range f(initiator.New(nil)) {
			b.Write(p.Bytes())
		}
		return b.Bytes()
	}
	type pdus = []*initiator.PDU
	command := func(c *initiator.Conn, flags byte, length uint32, cdb ...byte) *initiator.PDU {
		p := c.NewCommand(0, cdb)
		p.SetFlags(pdu.FlagFinal | flags)
		p.SetExpectedLen(length)
		return p
	}
	ready := func(c *initiator.Conn) *initiator.PDU { return command(c, 0, 0, 0, 0, 0, 0, 0, 0) }
	const write10 = 0x2a
	return [][]byte{
		exchange(func(c *initiator.Conn) pdus { // the unit attention, then reads
			return pdus{ready(c), command(c, pdu.FlagRead, 36, 0x12, 0, 0, 0, 36, 0), command(c, pdu.FlagRead, 4096, 0x28, 0, 0, 0, 0, 0, 0, 0, 8, 0)}
		}),
		exchange(func(c *initiator.Conn) pdus { // a write with immediate data and an R2T
			w := command(c, pdu.FlagWrite, 4096, write10, 0, 0, 0, 0, 0, 0, 0, 8, 0)
			w.Data = make([]byte, 1000)
			return pdus{ready(c), w, c.NewDataOut(w.ITT(), 1, 0, 1000, make([]byte, 1000), false),
				c.NewDataOut(w.ITT(), 1, 1, 2000, make([]byte, 2096), true)}
		}),
		exchange(func(c *initiator.Conn) pdus { // a write with unsolicited data
			w := command(c, pdu.FlagWrite, 2048, write10, 0, 0, 0, 0, 0, 0, 0, 4, 0)
			w.SetFlags(pdu.FlagWrite)
			w.Data = make([]byte, 512)
			return pdus{ready(c), w, c.NewDataOut(w.ITT(), pdu.NoTag, 0, 512, make([]byte, 1536), true)}
		}),
		exchange(func(c *initiator.Conn) pdus { // two writes, of which one is aborted and the other completed
			w1 := command(c, pdu.FlagWrite, 1024, write10, 0, 0, 0, 0, 0, 0, 0, 2, 0)
			w2 := command(c, pdu.FlagWrite, 1024, write10, 0, 0, 0, 0, 8, 0, 0, 2, 0)
			abort := c.NewRequest(pdu.TaskRequest)
			abort.SetFlags(pdu.FlagFinal | byte(pdu.AbortTask))
			abort.SetRefTag(w1.ITT())
			abort.SetRefCmdSN(w1.CmdSN())
			return pdus{ready(c), w1, w2, abort, c.NewDataOut(w2.ITT(), 2, 0, 0, make([]byte, 1024), true)}
		}),
		exchange(func(c *initiator.Conn) pdus { // all task management functions
			var ps pdus
			for function := range byte(9) {
				p := c.NewRequest(pdu.TaskRequest)
				p.SetFlags(pdu.FlagFinal | function)
				p.SetRefTag(pdu.NoTag)
				ps = append(ps, p)
			}
			return ps
		}),
		exchange(func(c *initiator.Conn) pdus { // text in two PDUs, pings, a SNACK
			t1, ping := c.NewRequest(pdu.TextReq), c.NewRequest(pdu.NOPOut)
			t1.SetFlags(pdu.FlagContinue)
			t1.Data = []byte("SendTar")
			t2 := c.NewRequest(pdu.TextReq)
			t2.SetITT(t1.ITT())
			t2.SetTTT(1)
			t2.Data = []byte("gets=\x00")
			ping.Data = []byte("ping")
			return pdus{t1, t2, ping, c.NewRequest(pdu.SNACK)}
		}),
		exchange(func(c *initiator.Conn) pdus { // a CDB of 32 bytes, then logout
			long := command(c, 0, 0, 0x7f, 0, 0, 0, 0, 0, 0, 24, 0, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)
			out := c.NewRequest(pdu.LogoutReq)
			out.SetFlags(pdu.FlagFinal | pdu.LogoutSession)
			return pdus{ready(c), long, out}
		}),
	}
}
