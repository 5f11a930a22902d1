package target

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"testing"

	"skylun/target/pdu"
	"skylun/test/initiator"
)

// digestKeys are login keys with these digests, and others after them.
func digestKeys(header, data bool, more ...string) []string {
	value := map[bool]string{true: "CRC32C", false: "None"}
	return append([]string{"HeaderDigest", value[header], "DataDigest", value[data]}, more...)
}

// RFC 7143 11.2.3, 13.1: everything passes in every combination of digests,
// and each is where it belongs: the initiator checks all that it receives.
func TestDigests(t *testing.T) {
	for _, header := range []bool{true, false} {
		for _, data := range []bool{true, false} {
			for _, inline := range []bool{true, false} {
				t.Run(fmt.Sprintf("header=%t data=%t inline=%t", header, data, inline), func(t *testing.T) {
					testDigests(t, header, data, inline)
				})
			}
		}
	}
}

func testDigests(t *testing.T, header, data, inline bool) {
	writes := newTaker(inline)
	reads := giver(content(100_001), 100_001, 0)
	fails := giver(nil, 0, 2)
	s := start(t, Config{}, writes, reads, fails)
	conn := s.login(t, digestKeys(header, data, "InitialR2T", "No", "FirstBurstLength", "5000", "MaxBurstLength", "16000",
		"MaxRecvDataSegmentLength", "8192", "MaxOutstandingR2T", "3")...)
	if conn.HeaderDigest != header || conn.DataDigest != data {
		t.Fatalf("agreed on %t, %t", conn.HeaderDigest, conn.DataDigest)
	}
	for _, segment := range []int{511, 3000, 1 << 18} {
		conn.MaxSend = segment
		for _, n := range []int{1, 511, 512, 5000, 5001, 21_001, 300_003} {
			out := content(n)
			if do(t, conn, []byte{0x2a}, 0, out); !bytes.Equal(writes.last(), out) {
				t.Fatalf("%d bytes in PDUs of %d: the unit got something else", n, segment)
			}
		}
	}
	for _, n := range []int{0, 1, 4095, 8192, 100_001} {
		r, err := conn.Do(1, []byte{0x28}, n, nil)
		if err != nil || !bytes.Equal(r.Data, content(100_001)[:n]) {
			t.Fatalf("read of %d bytes: %v", n, err)
		}
	}
	if r, err := conn.Do(2, append(make([]byte, 32), 1), 0, nil); err != nil || r.Key() != 0x052400 { // with a long CDB
		t.Errorf("%v", err)
	}
	alive(t, conn)
	if keys, err := conn.Discover(""); err != nil || len(keys) == 0 {
		t.Errorf("SendTargets: %v, %v", keys, err)
	}
	send(t, conn, conn.NewRequest(pdu.SNACK))
	receive(t, conn, pdu.Reject)
	if err := conn.Logout(); err != nil {
		t.Error(err)
	}
}

// RFC 7143 7.8: nobody knows where the PDU after a bad header digest begins.
func TestBadHeaderDigest(t *testing.T) {
	s := start(t, Config{}, giver(nil, 0, 0))
	for _, ahs := range []bool{false, true} {
		conn := s.login(t, digestKeys(true, true)...)
		p := conn.NewCommand(0, make([]byte, 6))
		if ahs {
			p = conn.NewCommand(0, make([]byte, 32))
		}
		p.BadHeaderDigest = true
		send(t, conn, p)
		closed(t, conn)
	}
	if n := s.Stats().Commands; n != 0 {
		t.Errorf("%d commands were taken", n)
	}
	alive(t, s.login(t))
}

// RFC 7143 7.8, 11.4.7.2: a command whose immediate data has a bad digest is
// rejected and ends with a CRC error; nothing is written, and the next command
// has its turn.
func TestBadDigestOfImmediateData(t *testing.T) {
	for _, size := range []int{512, 4096, 200_000} {
		unit := newTaker(true)
		s := start(t, Config{}, unit)
		conn := s.login(t, digestKeys(false, true, "FirstBurstLength", "262144")...)
		p := newWrite(conn, size, content(size))
		p.BadDataDigest = true
		send(t, conn, p)
		rejected(t, conn, p)
		if r, err := conn.Gather(p.ITT(), nil); err != nil || r.Status != 2 || r.Key() != 0x0b4705 {
			t.Errorf("status %d, sense %06x, %v", r.Status, r.Key(), err)
		}
		if unit.last() != nil {
			t.Error("spoiled data was written")
		}
		do(t, conn, []byte{0x2a}, 0, content(size))
		if a := onlyConn(t, s.Server).account(); a.held != 0 {
			t.Errorf("%d bytes are held", a.held)
		}
	}
}

// rejected receives the Reject of p for its data digest, 11.17.
func rejected(t *testing.T, conn *initiator.Conn, p *initiator.PDU) {
	t.Helper()
	r := receive(t, conn, pdu.Reject)
	if r.RejectReason() != pdu.RejectDataDigest || !bytes.Equal(r.Data, p.Header[:]) {
		t.Errorf("reason %02x for %x", r.RejectReason(), r.Data)
	}
}

// RFC 7143 7.8: a command of whose Data-Out a part has a bad digest ends when
// all data that is on its way has arrived, and no more of it is asked for.
func TestBadDigestOfDataOut(t *testing.T) {
	const size, burst = 40_000, 8192
	data := content(size)
	for bad := range 4 { // which of the Data-Out PDUs
		unit := newTaker(true)
		s := start(t, Config{}, unit)
		conn := s.login(t, digestKeys(true, true, "InitialR2T", "No", "FirstBurstLength", "8192", "MaxBurstLength", fmt.Sprint(burst), "MaxOutstandingR2T", "2")...)
		p := newWrite(conn, size, data[:4096])
		p.SetFlags(pdu.FlagWrite)
		send(t, conn, p)
		spoil := func(i int, q *initiator.PDU) {
			q.BadDataDigest = i == bad
			send(t, conn, q)
			if i == bad {
				rejected(t, conn, q)
			}
		}
		spoil(0, conn.NewDataOut(p.ITT(), pdu.NoTag, 0, 4096, data[4096:6000], false))
		if bad == 0 {
			alive(t, conn) // the last of the unsolicited data is not there
		}
		spoil(1, conn.NewDataOut(p.ITT(), pdu.NoTag, 1, 6000, data[6000:8192], true))
		if bad > 1 {
			first, second := receive(t, conn, pdu.R2T), receive(t, conn, pdu.R2T)
			off := first.Offset()
			spoil(2, conn.NewDataOut(p.ITT(), first.TTT(), 0, off, data[off:off+4096], false))
			spoil(3, conn.NewDataOut(p.ITT(), first.TTT(), 1, off+4096, data[off+4096:off+burst], true))
			alive(t, conn) // no new R2T, and no answer while one is outstanding
			off = second.Offset()
			send(t, conn, conn.NewDataOut(p.ITT(), second.TTT(), 0, off, data[off:off+burst], true))
		}
		if r, err := conn.Gather(p.ITT(), nil); err != nil || r.Status != 2 || r.Key() != 0x0b4705 {
			t.Errorf("PDU %d: status %d, sense %06x, %v", bad, r.Status, r.Key(), err)
		}
		if unit.last() != nil {
			t.Errorf("PDU %d: spoiled data was written", bad)
		}
		alive(t, conn)
		do(t, conn, []byte{0x2a}, 0, data)
		if a := onlyConn(t, s.Server).account(); a.held != 0 || a.parked != 0 {
			t.Errorf("PDU %d: held %d, parked %d", bad, a.held, a.parked)
		}
	}
}

// RFC 7143 7.8: other PDUs with bad data are rejected and do nothing.
func TestBadDigestOfOtherPDUs(t *testing.T) {
	s := start(t, Config{}, newHanging())
	conn := s.login(t, digestKeys(true, true)...)
	ping, text := conn.NewRequest(pdu.NOPOut), conn.NewRequest(pdu.TextReq)
	ping.Data, text.Data = make([]byte, 1001), pdu.AppendPair(nil, "SendTargets", "")
	stray := conn.NewDataOut(99, pdu.NoTag, 0, 0, make([]byte, 99), true) // of no task
	for _, p := range []*initiator.PDU{ping, text, stray} {
		p.BadDataDigest = true
		send(t, conn, p)
		rejected(t, conn, p)
		alive(t, conn)
	}
}

// A command with a bad digest that is aborted meanwhile gets no answer.
func TestAbortSpoiledCommand(t *testing.T) {
	conn := start(t, Config{}, newTaker(true)).login(t, digestKeys(false, true, "InitialR2T", "No")...)
	p := newWrite(conn, 10_000, content(4096))
	p.SetFlags(pdu.FlagWrite)
	p.BadDataDigest = true
	send(t, conn, p)
	rejected(t, conn, p)
	if code := manage(t, conn, pdu.AbortTask, 0, p); code != pdu.TaskComplete {
		t.Errorf("response %d", code)
	}
	send(t, conn, conn.NewDataOut(p.ITT(), pdu.NoTag, 0, 4096, content(5904), true))
	alive(t, conn)
}

// A connection that ends in the middle of a digest is lost like any other.
func TestLostInDigest(t *testing.T) {
	s := start(t, Config{}, newTaker(true))
	conn := s.login(t, digestKeys(true, true)...)
	b := conn.Wire(newWrite(conn, 512, content(512)))
	if _, err := conn.Write(b[:len(b)-1]); err != nil {
		t.Fatal(err)
	}
	conn.Close()
	eventually(t, "session is gone", func() bool { return len(s.Sessions()) == 0 })
	if _, err := conn.Receive(); err == nil || errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("received something: %v", err)
	}
}
