package target

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"runtime"
	"testing"
	"time"

	"skylun/lun"
	"skylun/target/pdu"
	"skylun/test/initiator"
	"skylun/test/memdev"
)

// An initiator that sends and never reads gets no more memory than is
// configured, and holds up nobody else.
func TestNeverReads(t *testing.T) {
	const limit = 4 << 20
	for _, inline := range []bool{true, false} {
		for _, kind := range []string{"reads", "pings", "rejects", "text"} {
			t.Run(fmt.Sprintf("%s inline=%t", kind, inline), func(t *testing.T) {
				unit := giver(make([]byte, 64<<10), 64<<10, lun.StatusGood)
				if !inline {
					unit.execute = executeOf(unit.try)
					unit.try = nil
				}
				s := start(t, Config{ConnectionBuffers: limit, QueueDepth: 64, MaxTransfer: 64 << 10}, unit)
				other := s.login(t)
				bad := s.dial(t)
				bad.ISID[5]++
				mustLogin(t, bad)
				bad.Conn.(*net.TCPConn).SetReadBuffer(4096)
				bad.SetWriteDeadline(time.Now().Add(time.Minute))
				stuck := make(chan struct{})
				go func() {
					defer close(stuck)
					flood(bad, kind)
				}()
				eventually(t, "something is stuck", func() bool {
					for _, info := range s.Sessions() {
						if info.TSIH == bad.TSIH {
							return info.BytesRead > 0 || info.Rejects > 100 || info.Reads > 3
						}
					}
					return false
				})
				for range 100 {
					do(t, other, []byte{0x28}, 4096, nil)
				}
				var held int64
				for _, sess := range s.sessionList() {
					for _, c := range sess.connections() {
						c.mu.Lock()
						held += c.acct.held + int64(c.next.bytes) - c.next.held
						c.mu.Unlock()
					}
				}
				if held > limit+2*queueSize {
					t.Errorf("%d bytes are held", held)
				}
				bad.Close()
				<-stuck
				alive(t, other)
			})
		}
	}
}

func executeOf(try func(*lun.Command) bool) func(context.Context, *lun.Command) {
	return func(_ context.Context, c *lun.Command) { try(c) }
}

// flood sends requests as long as they can be sent, in breach of the command
// window if need be.
func flood(c *initiator.Conn, kind string) {
	for {
		var p *initiator.PDU
		switch kind {
		case "reads":
			p = c.NewCommand(0, []byte{0x28})
			p.SetFlags(pdu.FlagFinal | pdu.FlagRead)
			p.SetExpectedLen(64 << 10)
		case "pings":
			p = c.NewRequest(pdu.NOPOut)
			p.Data = make([]byte, 4096)
		case "rejects":
			p = c.NewRequest(pdu.SNACK)
		case "text":
			p = c.NewRequest(pdu.TextReq)
			p.Data = pdu.AppendPair(nil, "SendTargets", "")
		}
		if err := c.Send(p); err != nil {
			return
		}
	}
}

// Random bytes, and almost valid PDUs, on a connection that is logged in.
func TestRandomPDUs(t *testing.T) {
	seed := rand.Uint64()
	r := rand.New(rand.NewPCG(seed, 0))
	dev := memdev.New(1 << 20)
	s := start(t, Config{MaxTransfer: 1 << 20, ConnectionBuffers: 4 << 20}, disk(t, tryDevice{dev}))
	for range 60 {
		c := s.dial(t)
		mustLogin(t, c)
		go io.Copy(io.Discard, c.Conn)
		for range 50 {
			if err := c.Send(randomPDU(r, c)); err != nil {
				break
			}
		}
		c.Close()
		if t.Failed() {
			break
		}
	}
	alive(t, s.login(t))
	t.Logf("seed %d", seed)
}

// randomPDU returns a PDU of which some fields make sense.
func randomPDU(r *rand.Rand, c *initiator.Conn) *initiator.PDU {
	p := new(initiator.PDU)
	for i := range p.Header {
		p.Header[i] = byte(r.Uint32())
	}
	ops := []pdu.Opcode{pdu.NOPOut, pdu.SCSICommand, pdu.SCSICommand, pdu.SCSICommand, pdu.DataOut, pdu.DataOut, pdu.TaskRequest, pdu.TextReq, pdu.SNACK, 0x1c}
	if r.IntN(20) > 0 {
		p.SetOpcode(ops[r.IntN(len(ops))])
		if r.IntN(2) == 0 {
			p.SetImmediate()
		}
		p.SetITT(r.Uint32N(8))
		p.SetTTT([]uint32{pdu.NoTag, r.Uint32N(64)}[r.IntN(2)])
		p.SetLUN([8]byte{1: byte(r.IntN(2))})
	}
	if op := p.Opcode(); op == pdu.SCSICommand || op == pdu.TaskRequest || op == pdu.TextReq || op == pdu.NOPOut {
		p.SetCmdSN(c.CmdSN)
		if !p.Immediate() {
			c.CmdSN++
		}
	}
	if p.Opcode() == pdu.SCSICommand {
		if r.IntN(3) > 0 {
			p.SetExpectedLen(r.Uint32N(1 << 18))
		}
		cdb := [][]byte{{0x12}, {0x28}, {0x2a}, {0x88}, {0x8a}, {0xa0}, {0x9e, 0x10}, {0x1a, 0, 0x3f}, {0x42}, {0x93}}[r.IntN(10)]
		copy(p.CDB(), cdb)
	}
	if p.Opcode() == pdu.DataOut {
		p.SetDataSN(r.Uint32N(3))
		p.SetOffset(r.Uint32N(4) * 512)
	}
	p.Data = make([]byte, []int{0, 0, 1, 512, 513, 5000, 200_000}[r.IntN(7)])
	if r.IntN(10) == 0 {
		p.AHS = make([]byte, 4*r.IntN(255))
		r.IntN(2)
		copy(p.AHS, []byte{0, byte(r.IntN(60)), byte(r.IntN(3)), 0})
	}
	return p
}

// The buffers of a connection that ends in the middle of everything are given
// back, and so is what it borrowed.
func TestLostInTheMiddle(t *testing.T) {
	s := start(t, Config{MaxTransfer: 64 << 10, ConnectionBuffers: 1 << 30}, newHanging())
	for i := range 20 {
		c := s.dial(t)
		c.ISID[5] = byte(i)
		mustLogin(t, c)
		for range 50 {
			p := c.NewCommand(0, []byte{0x2a})
			p.SetFlags(pdu.FlagFinal | pdu.FlagWrite)
			p.SetExpectedLen(60_000)
			p.Data = make([]byte, 8192)
			send(t, c, p)
		}
		if i%2 == 0 {
			alive2(t, c)
		}
		c.Close()
	}
	eventually(t, "all have gone", func() bool { return len(s.Sessions()) == 0 })
	if n := s.Stats().Buffered; n != 0 {
		t.Errorf("%d bytes are still counted", n)
	}
	runtime.GC()
}

// alive2 is alive for a connection with other answers on their way.
func alive2(t *testing.T, c *initiator.Conn) {
	t.Helper()
	p := c.NewRequest(pdu.NOPOut)
	send(t, c, p)
	for {
		r, err := c.Receive()
		if err != nil {
			t.Fatal(err)
		}
		if r.Opcode() == pdu.NOPIn {
			return
		}
	}
}
