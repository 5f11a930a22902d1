package target

import (
	"bytes"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"skylun/lun"
	"skylun/target/pdu"
	"skylun/test/initiator"
)

// onlyConn returns the server's end of the only session.
func onlyConn(t *testing.T, s *Server) *conn {
	t.Helper()
	list := s.sessionList()
	if len(list) != 1 {
		t.Fatalf("%d sessions", len(list))
	}
	conns := list[0].connections()
	if len(conns) != 1 {
		t.Fatalf("%d connections", len(conns))
	}
	return conns[0]
}

// account returns what a connection has buffered.
func (c *conn) account() account {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.acct
}

func newWrite(c *initiator.Conn, n int, immediate []byte) *initiator.PDU {
	p := c.NewCommand(0, []byte{0x2a})
	p.SetFlags(pdu.FlagFinal | pdu.FlagWrite)
	p.SetExpectedLen(uint32(n))
	p.Data = immediate
	return p
}

// Writes that wait for memory keep their unsolicited data, and go on in order.
// A limit below what one command needs lets them go on one by one.
func TestWritesWaitForMemory(t *testing.T) {
	const commands, size, first = 6, 100_000, 3000
	for _, limit := range []int64{1, 300_000, 1 << 30} {
		t.Run(fmt.Sprint(limit), func(t *testing.T) {
			unit := newTaker(true)
			s := start(t, Config{MaxTransfer: size, ConnectionBuffers: limit}, unit)
			conn := s.login(t, "InitialR2T", "No", "FirstBurstLength", "4096", "MaxBurstLength", "16777215")
			var want [][]byte
			var tags []uint32
			for i := range commands {
				want = append(want, bytes.Repeat([]byte{byte(i + 1)}, size))
				p := newWrite(conn, size, want[i][:first])
				tags = append(tags, p.ITT())
				send(t, conn, p)
			}
			for i := 0; i < commands; {
				p, err := conn.Receive()
				if err != nil {
					t.Fatal(err)
				}
				switch p.Opcode() {
				case pdu.R2T:
					data := want[p.ITT()-tags[0]][p.Offset():]
					send(t, conn, conn.NewDataOut(p.ITT(), p.TTT(), 0, p.Offset(), data, true))
				case pdu.SCSIResponse:
					if p.ITT() != tags[i] {
						t.Errorf("answer %d is for command %d", i, p.ITT()-tags[0])
					}
					i++
				default:
					t.Fatalf("received %v", p)
				}
			}
			for i, got := range unit.all() {
				if !bytes.Equal(got, want[i]) {
					t.Errorf("command %d wrote something else", i)
				}
			}
			if a := onlyConn(t, s.Server).account(); a.held != 0 || a.parked != 0 || a.borrowed != 0 {
				t.Errorf("held %d, parked %d, borrowed %d", a.held, a.parked, a.borrowed)
			}
		})
	}
}

// A command that waits for memory can be aborted, and Data-Out that nobody has
// asked for ends it.
func TestParkedCommandEnds(t *testing.T) {
	const size = 64 << 10
	unit := newTaker(true)
	s := start(t, Config{MaxTransfer: size, ConnectionBuffers: 1}, unit)
	conn := s.login(t, "InitialR2T", "Yes")
	first := newWrite(conn, size, nil)
	aborted, spoiled, last := newWrite(conn, size, make([]byte, 512)), newWrite(conn, size, nil), newWrite(conn, size, make([]byte, 512))
	send(t, conn, first, aborted, spoiled, last)
	r2t := receive(t, conn, pdu.R2T)
	if code := manage(t, conn, pdu.AbortTask, 0, aborted); code != pdu.TaskComplete {
		t.Errorf("response %d", code)
	}
	send(t, conn, conn.NewDataOut(spoiled.ITT(), r2t.TTT()+1, 0, 0, make([]byte, 512), true))
	if r, err := conn.Gather(spoiled.ITT(), nil); err != nil || r.Key() != 0x0b0c0c {
		t.Errorf("sense %06x, %v", r.Key(), err)
	}
	data := content(size)
	send(t, conn, conn.NewDataOut(first.ITT(), r2t.TTT(), 0, 0, data, true))
	receive(t, conn, pdu.SCSIResponse)
	r2t = receive(t, conn, pdu.R2T)
	if r2t.ITT() != last.ITT() || r2t.Offset() != 512 {
		t.Fatalf("R2T for command %d at %d, want %d at 512", r2t.ITT(), r2t.Offset(), last.ITT())
	}
	send(t, conn, conn.NewDataOut(last.ITT(), r2t.TTT(), 0, 512, data[512:], true))
	receive(t, conn, pdu.SCSIResponse)
	if n := len(unit.all()); n != 2 {
		t.Errorf("%d commands were executed, want 2", n)
	}
	if a := onlyConn(t, s.Server).account(); a.held != 0 || a.parked != 0 {
		t.Errorf("held %d, parked %d", a.held, a.parked)
	}
}

// While a worker waits for a peer that does not read, the reader does not
// collect answers without end.
func TestReaderWaitsForWriter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, c := pipe(t, Config{PingInterval: -1})
		s.targets[testTarget].Units.Remove(0)
		slow := giver(make([]byte, 4096), 4096, lun.StatusGood)
		slow.execute, slow.try = executeOf(slow.try), nil
		if err := s.targets[testTarget].Units.Add(0, slow); err != nil {
			t.Fatal(err)
		}
		mustLogin(t, c)
		p := c.NewCommand(0, []byte{0x28})
		p.SetFlags(pdu.FlagFinal | pdu.FlagRead)
		p.SetExpectedLen(4096)
		send(t, c, p)
		synctest.Wait() // the worker is writing now, and nobody reads
		go flood(c, "pings")
		synctest.Wait()
		end := onlyConn(t, s)
		end.mu.Lock()
		queued := end.next.bytes
		end.mu.Unlock()
		if queued < queueSize || queued > queueSize+8192 {
			t.Errorf("%d bytes are queued", queued)
		}
		c.Close()
		time.Sleep(time.Second)
	})
}

// The budget of the server is shared by those who need more than their own
// share; one that is spent leaves each its share.
func TestServerBudget(t *testing.T) {
	server := &budget{limit: 100}
	a := account{limit: 1000, share: 50, server: server}
	b := account{limit: 1000, share: 50, server: server}
	if !a.admits(500) {
		t.Error("the first command is admitted whatever it takes")
	}
	a.add(150)
	if server.used.Load() != 100 || a.admits(1) {
		t.Errorf("used %d, one more is admitted: %t", server.used.Load(), a.admits(1))
	}
	b.add(40)
	if !b.admits(10) || b.admits(11) {
		t.Error("the other has its share and no more")
	}
	a.add(-30)
	if server.used.Load() != 70 || !b.admits(40) || b.admits(41) {
		t.Errorf("used %d after some was given back", server.used.Load())
	}
	a.parked = a.held
	if !a.admits(1 << 20) {
		t.Error("nothing but parked data is held, and the next is not admitted")
	}
	a.add(-120)
	b.add(-40)
	if server.used.Load() != 0 {
		t.Errorf("used %d at the end", server.used.Load())
	}
}

func TestBufferClasses(t *testing.T) {
	var pool bufferPool
	for _, c := range []struct{ n, size int }{{0, 4096}, {1, 4096}, {4096, 4096}, {4097, 8192}, {1 << 23, 1 << 23}, {1 << 24, 1 << 24}, {1<<24 + 1, 1<<24 + 1}} {
		b := pool.get(c.n)
		if len(b.data) != c.size || bufferSize(c.n) != int64(c.size) {
			t.Errorf("get(%d) returns %d bytes, bufferSize %d, want %d", c.n, len(b.data), bufferSize(c.n), c.size)
		}
		pool.put(b)
	}
}
