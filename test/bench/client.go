package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"net"
	"os"
	"strings"
	"syscall"
)

// A client is a minimal iSCSI initiator (RFC 7143) made to be cheap: one
// connection, blocking system calls, commands gathered in one buffer and sent
// in one write, everything a read brought in handled before the next read. It
// trusts its target and supports what the loads need, nothing else.
type client struct {
	conn *os.File // the socket, in blocking mode

	in         []byte // receive buffer
	start, end int    // in[start:end] is what has arrived and is not yet handled
	out        []byte // commands to be sent
	pdu        int    // where the last of them begins

	cmdSN, expStatSN, maxCmdSN uint32
	sendSegment                int  // the target's MaxRecvDataSegmentLength
	digests                    bool // CRC32C of header and data, from the end of the login on
	immediate                  int  // the most data that may come with a command

	lun  [8]byte
	data []byte // Data-Out of every write
}

// Opcodes, RFC 7143 11.1.1.
const (
	opNopOut   = 0x00
	opCommand  = 0x01
	opLogin    = 0x03
	opDataOut  = 0x05
	opNopIn    = 0x20
	opResponse = 0x21
	opLoginRsp = 0x23
	opDataIn   = 0x25
	opR2T      = 0x31
)

const (
	headerSize  = 48
	digestSize  = 4
	maxSegment  = 256 << 10 // the MaxRecvDataSegmentLength we declare
	firstBurst  = 64 << 10
	immediateOp = 0x40
	finalFlag   = 0x80
	reservedTag = 0xffffffff
)

// dial logs in to the target iqn at addr, with digests or without, and prepares
// for commands to lun.
func dial(addr, iqn string, lun int, digests bool) (*client, error) {
	tcp, err := net.Dial("tcp", addr)
	if err != nil {
		return nil, err
	}
	defer tcp.Close()
	f, err := tcp.(*net.TCPConn).File() // keeps TCP_NODELAY, which net sets
	if err != nil {
		return nil, err
	}
	if err := syscall.SetNonblock(int(f.Fd()), false); err != nil {
		return nil, err
	}
	c := &client{
		conn:        f,
		in:          make([]byte, 1<<20),
		cmdSN:       1,
		sendSegment: 8192, // the default, RFC 7143 13.12
	}
	c.lun[1] = byte(lun)
	if err := c.login(iqn, digests); err != nil {
		c.close()
		return nil, fmt.Errorf("login to %s at %s: %w", iqn, addr, err)
	}
	return c, nil
}

func (c *client) close() { c.conn.Close() }

// login goes through the security stage, without authentication, and the
// operational stage, RFC 7143 6.3.
func (c *client) login(iqn string, digests bool) error {
	digest := "None"
	if digests {
		digest = "CRC32C"
	}

	stages := []struct {
		flags byte
		keys  string
	}{
		{finalFlag | 0<<2 | 1, "InitiatorName=iqn.2026-11.io.skylun:bench\x00SessionType=Normal\x00TargetName=" + iqn + "\x00AuthMethod=None\x00"},
		{finalFlag | 1<<2 | 3, fmt.Sprintf("HeaderDigest=%[3]s\x00DataDigest=%[3]s\x00InitialR2T=Yes\x00ImmediateData=Yes\x00"+
			"MaxRecvDataSegmentLength=%[1]d\x00MaxBurstLength=16776192\x00FirstBurstLength=%[2]d\x00"+
			"MaxConnections=1\x00MaxOutstandingR2T=1\x00ErrorRecoveryLevel=0\x00"+
			"DataPDUInOrder=Yes\x00DataSequenceInOrder=Yes\x00DefaultTime2Wait=0\x00DefaultTime2Retain=0\x00", maxSegment, firstBurst, digest)},
	}
	immediate, burst := true, firstBurst
	for _, s := range stages {
		keys := s.keys
		for done := false; !done; keys = "" {
			h := c.header(opLogin|immediateOp, len(keys))
			h[1] = s.flags
			copy(h[8:14], []byte{0x80, 0, 0, byte(os.Getpid() >> 8), byte(os.Getpid()), 0}) // ISID, random
			binary.BigEndian.PutUint32(h[24:], c.cmdSN)
			binary.BigEndian.PutUint32(h[28:], c.expStatSN)
			c.seal([]byte(keys))
			if err := c.flush(); err != nil {
				return err
			}
			h, text, err := c.next()
			if err != nil {
				return err
			}
			if h[0]&0x3f != opLoginRsp || h[36] != 0 {
				return fmt.Errorf("answer %#x, status class %d detail %d", h[0]&0x3f, h[36], h[37])
			}
			for _, kv := range strings.Split(string(text), "\x00") {
				key, value, _ := strings.Cut(kv, "=")
				switch key {
				case "MaxRecvDataSegmentLength":
					fmt.Sscan(value, &c.sendSegment)
				case "FirstBurstLength":
					fmt.Sscan(value, &burst)
				case "ImmediateData":
					immediate = value == "Yes"
				case "HeaderDigest", "DataDigest":
					if value != digest {
						return fmt.Errorf("%s=%s, want %s", key, value, digest)
					}
				}
			}
			done = h[1]&finalFlag != 0
		}
	}
	c.digests = digests
	if immediate {
		c.immediate = min(burst, c.sendSegment)
	}
	return nil
}

// header appends the header of a PDU to the output and returns it to be filled
// in, before seal.
func (c *client) header(op byte, dataLen int) []byte {
	c.pdu = len(c.out)
	c.out = append(c.out, make([]byte, headerSize)...)
	h := c.out[c.pdu:]
	h[0], h[1] = op, finalFlag
	h[5], h[6], h[7] = byte(dataLen>>16), byte(dataLen>>8), byte(dataLen)
	return h
}

// seal appends what follows the header: data, padding, and the digests.
func (c *client) seal(data []byte) {
	if c.digests {
		c.out = appendDigest(c.out, c.out[c.pdu:])
	}
	if len(data) == 0 {
		return
	}
	begin := len(c.out)
	c.out = append(c.out, data...)
	c.out = append(c.out, make([]byte, -len(data)&3)...)
	if c.digests {
		c.out = appendDigest(c.out, c.out[begin:])
	}
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// appendDigest appends the digest of p, RFC 7143 11.2.3.
func appendDigest(b, p []byte) []byte {
	return binary.LittleEndian.AppendUint32(b, crc32.Checksum(p, castagnoli))
}

// command queues one SCSI command. For a write, Data-Out is the beginning of
// c.data. The tag must not be in use.
func (c *client) command(tag uint32, cdb []byte, n int, write bool) {
	flags, sent := byte(finalFlag|0x01), 0 // simple task
	switch {
	case n > 0 && write:
		flags |= 0x20
		sent = min(n, c.immediate)
	case n > 0:
		flags |= 0x40
	}
	h := c.header(opCommand, sent)
	h[1] = flags
	copy(h[8:16], c.lun[:])
	binary.BigEndian.PutUint32(h[16:], tag)
	binary.BigEndian.PutUint32(h[20:], uint32(n))
	binary.BigEndian.PutUint32(h[24:], c.cmdSN)
	binary.BigEndian.PutUint32(h[28:], c.expStatSN)
	copy(h[32:48], cdb)
	c.seal(c.data[:sent])
	c.cmdSN++
}

// window tells whether the target takes one more command, RFC 7143 4.2.2.1.
func (c *client) window() bool { return int32(c.maxCmdSN-c.cmdSN) >= 0 }

// flush sends what is queued.
func (c *client) flush() error {
	_, err := c.conn.Write(c.out)
	c.out = c.out[:0]
	return err
}

// complete waits for PDUs and returns the tag of the next command that ended,
// and its status. It queues what the target asks for on the way, and sends the
// queue before it waits for the network.
func (c *client) complete() (tag uint32, status byte, err error) {
	for {
		h, data, err := c.next()
		if err != nil {
			return 0, 0, err
		}
		tag := binary.BigEndian.Uint32(h[16:])
		switch h[0] & 0x3f {
		case opResponse:
			if h[2] != 0 {
				return tag, 0, fmt.Errorf("iSCSI response %#x", h[2])
			}
			if h[3] == 2 && len(data) > 15 { // fixed format sense data behind a length field
				return tag, h[3], fmt.Errorf("CHECK CONDITION, sense %x/%02x/%02x", data[4]&15, data[14], data[15])
			}
			return tag, h[3], nil
		case opDataIn:
			if h[1]&1 != 0 {
				return tag, h[3], nil
			}
		case opR2T:
			c.transfer(h)
		case opNopIn:
			if binary.BigEndian.Uint32(h[20:]) != reservedTag {
				out := c.header(opNopOut|immediateOp, 0)
				binary.BigEndian.PutUint32(out[16:], reservedTag)
				copy(out[20:24], h[20:24])
				binary.BigEndian.PutUint32(out[24:], c.cmdSN)
				binary.BigEndian.PutUint32(out[28:], c.expStatSN)
				c.seal(nil)
			}
		default:
			return 0, 0, fmt.Errorf("unexpected PDU %#x", h[0])
		}
	}
}

// transfer queues the Data-Out PDUs that an R2T asks for.
func (c *client) transfer(r2t []byte) {
	off, n := int(binary.BigEndian.Uint32(r2t[40:])), int(binary.BigEndian.Uint32(r2t[44:]))
	for sn := uint32(0); n > 0; sn++ {
		part := min(n, c.sendSegment)
		h := c.header(opDataOut, part)
		if part < n {
			h[1] = 0
		}
		copy(h[8:24], r2t[8:24]) // LUN, task tag, transfer tag
		binary.BigEndian.PutUint32(h[28:], c.expStatSN)
		binary.BigEndian.PutUint32(h[36:], sn)
		binary.BigEndian.PutUint32(h[40:], uint32(off))
		c.seal(c.data[off : off+part])
		off, n = off+part, n-part
	}
}

// next returns the next PDU, valid until the next call.
func (c *client) next() (header, data []byte, err error) {
	if err := c.fill(headerSize); err != nil {
		return nil, nil, err
	}
	h := c.in[c.start:]
	n := int(h[5])<<16 | int(h[6])<<8 | int(h[7])
	head := headerSize + int(h[4])*4
	size, padded := head, (n+3)&^3
	if c.digests {
		size += digestSize
		if n > 0 {
			size += digestSize
		}
	}
	size += padded
	if size > len(c.in) {
		return nil, nil, errors.New("PDU larger than negotiated")
	}
	if err := c.fill(size); err != nil {
		return nil, nil, err
	}
	h = c.in[c.start : c.start+size]
	c.start += size
	data = h[head:]
	if c.digests {
		if !digestOK(h[:head], h[head:]) || n > 0 && !digestOK(data[digestSize:digestSize+padded], data[digestSize+padded:]) {
			return nil, nil, errors.New("bad digest")
		}
		data = data[digestSize:]
	}
	if op := h[0] & 0x3f; op == opResponse || op == opLoginRsp || op == opDataIn && h[1]&1 != 0 { // else StatSN does not count
		c.expStatSN = binary.BigEndian.Uint32(h[24:]) + 1
	}
	c.maxCmdSN = binary.BigEndian.Uint32(h[32:])
	return h[:headerSize], data[:n], nil
}

// digestOK tells whether digest begins with that of p.
func digestOK(p, digest []byte) bool {
	return binary.LittleEndian.Uint32(digest) == crc32.Checksum(p, castagnoli)
}

// fill makes sure that n bytes are buffered.
func (c *client) fill(n int) error {
	for c.end-c.start < n {
		if len(c.out) > 0 {
			if err := c.flush(); err != nil {
				return err
			}
		}
		if c.start == c.end {
			c.start, c.end = 0, 0
		} else if len(c.in)-c.start < n {
			c.end = copy(c.in, c.in[c.start:c.end])
			c.start = 0
		}
		got, err := c.conn.Read(c.in[c.end:])
		if got == 0 && err == nil {
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			return err
		}
		c.end += got
	}
	return nil
}
