package initiator

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
	"net"
	"time"

	"skylun/target/pdu"
)

// PDU is a PDU as it is sent or was received.
type PDU struct {
	pdu.Header
	AHS  []byte
	Data []byte

	// Digests to be spoiled when the PDU is sent, if there are digests.
	BadHeaderDigest, BadDataDigest bool
}

// String returns what the PDU is, for messages.
func (p *PDU) String() string {
	return fmt.Sprintf("%v flags 0x%02x ITT 0x%08x data %d bytes", p.Opcode(), p.Flags(), p.ITT(), len(p.Data))
}

// Conn is a connection to a target, logged in or not.
type Conn struct {
	net.Conn
	Timeout time.Duration // of Receive; 0: forever

	ISID      [6]byte
	TSIH      uint16
	CID       uint16
	CmdSN     uint32 // of the next command
	ExpStatSN uint32 // what is acknowledged with the next request
	ITT       uint32 // of the last request

	// What was agreed at login.

	MaxSend       int // MaxRecvDataSegmentLength of the target
	MaxBurst      int
	FirstBurst    int
	InitialR2T    bool
	ImmediateData bool
	HeaderDigest  bool // CRC32C
	DataDigest    bool // CRC32C

	// Async are the asynchronous messages that Gather has met.
	Async []*PDU

	// MaxCmdSN and ExpCmdSN as last seen.
	MaxCmdSN, ExpCmdSN uint32

	r *bufio.Reader
}

// Dial connects to a portal.
func Dial(addr string) (*Conn, error) {
	nc, err := net.Dial("tcp", addr)
	if err != nil {
		return nil, err
	}
	return New(nc), nil
}

// New returns a Conn that uses nc.
func New(nc net.Conn) *Conn {
	return &Conn{
		Conn: nc, r: bufio.NewReaderSize(nc, 64<<10), Timeout: 10 * time.Second,
		CmdSN: 1, ExpStatSN: 1, ISID: [6]byte{0x80, 0, 0, 1, 2, 3},
		MaxSend: 8192, MaxBurst: 262144, FirstBurst: 65536, InitialR2T: true, ImmediateData: true,
	}
}

// Bytes returns p on the wire without digests: the header with the lengths of
// AHS and Data, these, and padding.
func (p *PDU) Bytes() []byte {
	p.SetAHSLen(len(p.AHS))
	p.SetDataLen(len(p.Data))
	b := make([]byte, 0, p.Len())
	b = append(b, p.Header[:]...)
	b = append(b, p.AHS...)
	b = append(b, p.Data...)
	return append(b, make([]byte, p.Len()-len(b))...)
}

// Wire returns p as it is sent on c, with the digests that were agreed.
func (c *Conn) Wire(p *PDU) []byte {
	b := p.Bytes()
	head := pdu.HeaderSize + p.AHSLen()
	data := b[head:]
	if b = b[:head:head]; c.HeaderDigest {
		b = appendDigest(b, b, p.BadHeaderDigest)
	}
	b = append(b, data...)
	if c.DataDigest && len(data) > 0 {
		b = appendDigest(b, data, p.BadDataDigest)
	}
	return b
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// appendDigest appends the digest of p, RFC 7143 11.2.3, or one that is wrong.
func appendDigest(b, p []byte, bad bool) []byte {
	sum := crc32.Checksum(p, castagnoli)
	if bad {
		sum ^= 1
	}
	return binary.LittleEndian.AppendUint32(b, sum)
}

// checkDigest reads a digest and compares it with that of the parts before it.
func (c *Conn) checkDigest(what string, parts ...[]byte) error {
	var b [pdu.DigestSize]byte
	if _, err := io.ReadFull(c.r, b[:]); err != nil {
		return err
	}
	var sum uint32
	for _, p := range parts {
		sum = crc32.Update(sum, castagnoli, p)
	}
	if got := binary.LittleEndian.Uint32(b[:]); got != sum {
		return fmt.Errorf("%s digest is %08x, want %08x", what, got, sum)
	}
	return nil
}

// Send sends PDUs, in one write.
func (c *Conn) Send(ps ...*PDU) error {
	var b []byte
	for _, p := range ps {
		b = append(b, c.Wire(p)...)
	}
	_, err := c.Write(b)
	return err
}

// Receive returns the next PDU from the target, and takes note of its sequence
// numbers.
func (c *Conn) Receive() (*PDU, error) {
	if c.Timeout > 0 {
		c.SetReadDeadline(time.Now().Add(c.Timeout))
	}
	p := new(PDU)
	if _, err := io.ReadFull(c.r, p.Header[:]); err != nil {
		return nil, err
	}
	p.AHS = make([]byte, p.AHSLen())
	if _, err := io.ReadFull(c.r, p.AHS); err != nil {
		return nil, err
	}
	if c.HeaderDigest {
		if err := c.checkDigest("header", p.Header[:], p.AHS); err != nil {
			return nil, err
		}
	}
	p.Data = make([]byte, pdu.Padded(p.DataLen()))
	if _, err := io.ReadFull(c.r, p.Data); err != nil {
		return nil, err
	}
	if c.DataDigest && len(p.Data) > 0 {
		if err := c.checkDigest("data", p.Data); err != nil {
			return nil, fmt.Errorf("%v: %w", p, err)
		}
	}
	for _, b := range p.Data[p.DataLen():] {
		if b != 0 {
			return nil, fmt.Errorf("%v: padding is not zero", p)
		}
	}
	p.Data = p.Data[:p.DataLen()]
	return p, c.note(p)
}

// note checks and keeps the sequence numbers of p, RFC 7143 4.2.2.
func (c *Conn) note(p *PDU) error {
	c.ExpCmdSN = p.ExpCmdSN()
	if pdu.After(p.MaxCmdSN(), c.MaxCmdSN) || c.MaxCmdSN == 0 {
		c.MaxCmdSN = p.MaxCmdSN()
	} else if pdu.Before(p.MaxCmdSN(), c.MaxCmdSN) {
		return fmt.Errorf("%v: MaxCmdSN went back from %d to %d", p, c.MaxCmdSN, p.MaxCmdSN())
	}
	advances := false
	switch p.Opcode() {
	case pdu.DataIn:
		if advances = p.Flags()&pdu.FlagStatus != 0; !advances {
			return nil
		}
	case pdu.R2T:
	case pdu.NOPIn:
		advances = p.ITT() != pdu.NoTag
	default:
		advances = true
	}
	if p.StatSN() != c.ExpStatSN && p.Opcode() != pdu.LoginResp {
		return fmt.Errorf("%v: StatSN is %d, expected %d", p, p.StatSN(), c.ExpStatSN)
	}
	if advances {
		c.ExpStatSN = p.StatSN() + 1
	}
	return nil
}

// NextITT returns a new initiator task tag.
func (c *Conn) NextITT() uint32 {
	if c.ITT++; c.ITT == pdu.NoTag {
		c.ITT = 1
	}
	return c.ITT
}

// NewRequest returns a request with a new tag, with the I bit, and with the
// sequence numbers of now.
func (c *Conn) NewRequest(op pdu.Opcode) *PDU {
	p := new(PDU)
	p.SetOpcode(op)
	p.SetImmediate()
	p.SetFlags(pdu.FlagFinal)
	p.SetITT(c.NextITT())
	p.SetTTT(pdu.NoTag)
	p.SetCmdSN(c.CmdSN)
	p.SetExpStatSN(c.ExpStatSN)
	return p
}

// NewCommand returns a SCSI command without I bit, that takes the next CmdSN.
// Flags and lengths say that it moves no data.
func (c *Conn) NewCommand(lun uint8, cdb []byte) *PDU {
	p := c.NewRequest(pdu.SCSICommand)
	p.SetOpcode(pdu.SCSICommand)
	p.SetLUN([8]byte{1: lun})
	p.SetExpectedLen(0)
	copy(p.CDB(), cdb)
	if len(cdb) > 16 {
		more := cdb[16:]
		p.AHS = append([]byte{0, byte(len(more) + 1), 1, 0}, more...)
		p.AHS = append(p.AHS, make([]byte, pdu.Padded(len(p.AHS))-len(p.AHS))...)
	}
	c.CmdSN++
	return p
}

// NewDataOut returns a Data-Out PDU for the command of that tag.
func (c *Conn) NewDataOut(itt, ttt, dataSN, offset uint32, data []byte, final bool) *PDU {
	p := new(PDU)
	p.SetOpcode(pdu.DataOut)
	if final {
		p.SetFlags(pdu.FlagFinal)
	}
	p.SetITT(itt)
	p.SetTTT(ttt)
	p.SetExpStatSN(c.ExpStatSN)
	p.SetDataSN(dataSN)
	p.SetOffset(offset)
	p.Data = data
	return p
}
