//go:build e2e

package e2e

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// capture stands between initiators and a portal and notes what passes, as a
// file that Wireshark reads: the bytes are the real ones, the TCP segments
// around them are made up. So it needs no rights on a network interface.
type capture struct {
	addr string // where initiators connect to
	file string // what has passed; complete after close

	t    *testing.T
	ln   net.Listener
	wg   sync.WaitGroup
	mu   sync.Mutex
	pcap bytes.Buffer
	n    int // connections
}

// newCapture captures what is said to the portal from now on.
func newCapture(t *testing.T, portal string) *capture {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := &capture{addr: ln.Addr().String(), file: filepath.Join(t.TempDir(), "capture.pcap"), t: t, ln: ln}
	t.Cleanup(func() { ln.Close() })
	// pcap 2.4, packets begin with an IP header (LINKTYPE_RAW)
	for _, v := range []any{uint32(0xa1b2c3d4), uint16(2), uint16(4), uint32(0), uint32(0), uint32(1 << 18), uint32(101)} {
		binary.Write(&c.pcap, binary.BigEndian, v)
	}
	c.wg.Go(func() {
		for {
			client, err := ln.Accept()
			if err != nil {
				return
			}
			c.wg.Go(func() { c.pass(client, portal) })
		}
	})
	return c
}

// close waits until all connections have ended, and writes the file.
func (c *capture) close() {
	c.t.Helper()
	c.ln.Close()
	c.wg.Wait()
	if err := os.WriteFile(c.file, c.pcap.Bytes(), 0o600); err != nil {
		c.t.Fatal(err)
	}
}

// url names a logical unit behind the capture.
func (c *capture) url(suffix string) string { return "iscsi://" + c.addr + "/" + suffix }

// pass hands the bytes of one connection on, both ways.
func (c *capture) pass(client net.Conn, portal string) {
	defer client.Close()
	server, err := net.Dial("tcp", portal)
	if err != nil {
		c.t.Errorf("capture: %v", err)
		return
	}
	defer server.Close()
	c.mu.Lock()
	c.n++
	s := &stream{c: c, port: uint16(40000 + c.n)}
	c.mu.Unlock()
	s.segment(0, flagSYN, nil)
	s.segment(1, flagSYN|flagACK, nil)
	s.segment(0, flagACK, nil)
	ends := [2]net.Conn{client, server}
	var wg sync.WaitGroup
	for from := range ends {
		wg.Go(func() {
			src, dst := ends[from], ends[1-from]
			buf := make([]byte, 32<<10)
			for {
				n, err := src.Read(buf)
				s.segment(from, flagACK, buf[:n])
				if _, werr := dst.Write(buf[:n]); err != nil || werr != nil {
					// the other end shall see the same
					if errors.Is(err, net.ErrClosed) || werr != nil {
						src.Close()
					}
					dst.(*net.TCPConn).CloseWrite()
					s.segment(from, flagFIN|flagACK, nil)
					return
				}
			}
		})
	}
	wg.Wait()
}

// Flags of a TCP segment.
const (
	flagFIN = 0x01
	flagSYN = 0x02
	flagACK = 0x10
)

// stream is a made-up TCP connection; side 0 is the initiator.
type stream struct {
	c    *capture
	port uint16    // of the initiator
	seq  [2]uint32 // next of each side
}

// segment appends a packet with one TCP segment.
func (s *stream) segment(from int, flags byte, payload []byte) {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	if len(payload) == 0 && flags == flagACK && s.seq[0] > 1 {
		return
	}
	be := binary.BigEndian
	var p [40]byte
	length := len(p) + len(payload)
	p[0], p[8], p[9] = 0x45, 64, 6 // IPv4 without options, TTL, TCP
	be.PutUint16(p[2:], uint16(length))
	copy(p[12:], []byte{192, 0, 2, byte(1 + from)})
	copy(p[16:], []byte{192, 0, 2, byte(2 - from)})
	ports := [2]uint16{s.port, 3260}
	be.PutUint16(p[20:], ports[from])
	be.PutUint16(p[22:], ports[1-from])
	be.PutUint32(p[24:], s.seq[from])
	if flags&flagACK != 0 {
		be.PutUint32(p[28:], s.seq[1-from])
	}
	p[32], p[33] = 5<<4, flags
	be.PutUint16(p[34:], 0xffff)
	s.seq[from] += uint32(len(payload))
	if flags&(flagSYN|flagFIN) != 0 {
		s.seq[from]++
	}
	now := time.Now()
	for _, v := range []uint32{uint32(now.Unix()), uint32(now.Nanosecond() / 1000), uint32(length), uint32(length)} {
		binary.Write(&s.c.pcap, be, v)
	}
	s.c.pcap.Write(p[:])
	s.c.pcap.Write(payload)
}

// packet is what tshark has to say about a packet.
type packet struct {
	number    string
	target    bool     // it comes from the target
	opcodes   []string // of its PDUs, in hexadecimal
	foreign   bool     // it holds bytes that belong to no PDU
	malformed bool
	severity  []string // of what the experts say, as numbers
	messages  string
}

// dissect returns what tshark makes of the capture, packet by packet.
func (c *capture) dissect() []packet {
	c.t.Helper()
	out := tool(c.t, "tshark", "-2", "-r", c.file, "-T", "fields", "-E", "separator=|", "-E", "occurrence=a", "-E", "aggregator=,",
		"-e", "frame.number", "-e", "iscsi.opcode", "-e", "tcp.len", "-e", "tcp.reassembled_in", "-e", "tcp.srcport",
		"-e", "_ws.malformed", "-e", "_ws.expert.severity", "-e", "_ws.expert.message")
	var ps []packet
	for line := range strings.Lines(out) {
		f := strings.SplitN(strings.TrimSuffix(line, "\n"), "|", 8)
		if len(f) != 8 {
			c.t.Fatalf("tshark says %q", line)
		}
		p := packet{number: f[0], foreign: f[1] == "" && f[2] != "0" && f[3] == "", target: f[4] == "3260", malformed: f[5] != "", messages: f[7]}
		for _, list := range []struct {
			to   *[]string
			from string
		}{{&p.opcodes, f[1]}, {&p.severity, f[6]}} {
			if list.from != "" {
				*list.to = strings.Split(list.from, ",")
			}
		}
		ps = append(ps, p)
	}
	return ps
}
