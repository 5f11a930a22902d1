package initiator

import (
	"bytes"
	"fmt"

	"skylun/target/pdu"
)

// Result is how a command ended.
type Result struct {
	Status   byte
	Sense    []byte
	Data     []byte // Data-In
	Flags    byte   // of the PDU with the status: O and U
	Residual uint32
	PDUs     []*PDU // all that came for it
}

// Key returns sense key, ASC and ASCQ of fixed or descriptor format sense
// data, as 0xKKAAQQ.
func (r *Result) Key() int {
	s := r.Sense
	if len(s) > 13 && s[0]&0x7f <= 0x71 {
		return int(s[2]&0xf)<<16 | int(s[12])<<8 | int(s[13])
	}
	if len(s) > 3 {
		return int(s[1]&0xf)<<16 | int(s[2])<<8 | int(s[3])
	}
	return 0
}

// Do executes a command that reads up to in bytes or writes out, and nothing
// else meanwhile. Data-Out goes as what was negotiated allows: immediate,
// unsolicited, and what R2Ts ask for.
func (c *Conn) Do(lun uint8, cdb []byte, in int, out []byte) (*Result, error) {
	p := c.NewCommand(lun, cdb)
	send := []*PDU{p}
	switch {
	case out != nil:
		p.SetFlags(pdu.FlagFinal | pdu.FlagWrite)
		p.SetExpectedLen(uint32(len(out)))
		unsolicited := 0
		if c.ImmediateData {
			unsolicited = min(len(out), c.FirstBurst, c.MaxSend)
			p.Data = out[:unsolicited]
		}
		if first := min(len(out), c.FirstBurst); !c.InitialR2T && first > unsolicited {
			p.SetFlags(pdu.FlagWrite)
			send = append(send, c.dataOut(p.ITT(), pdu.NoTag, unsolicited, out[:first])...)
		}
	case in > 0:
		p.SetFlags(pdu.FlagFinal | pdu.FlagRead)
		p.SetExpectedLen(uint32(in))
	}
	if err := c.Send(send...); err != nil {
		return nil, err
	}
	return c.Gather(p.ITT(), out)
}

// dataOut returns the Data-Out PDUs of one sequence: out from off on.
func (c *Conn) dataOut(itt, ttt uint32, off int, out []byte) []*PDU {
	var ps []*PDU
	for sn := uint32(0); off < len(out); sn++ {
		n := min(c.MaxSend, len(out)-off)
		ps = append(ps, c.NewDataOut(itt, ttt, sn, uint32(off), out[off:off+n], off+n == len(out)))
		off += n
	}
	return ps
}

// Gather receives what comes for the command of that tag until its status, and
// answers its R2Ts out of out. NOP-In pings are answered, asynchronous messages
// kept; any other PDU is an error.
func (c *Conn) Gather(itt uint32, out []byte) (*Result, error) {
	r := new(Result)
	var data bytes.Buffer
	for {
		p, err := c.Receive()
		if err != nil {
			return r, err
		}
		if p.Opcode() == pdu.NOPIn && p.ITT() == pdu.NoTag {
			if err := c.Pong(p); err != nil {
				return r, err
			}
			continue
		}
		if p.Opcode() == pdu.AsyncMessage {
			c.Async = append(c.Async, p)
			continue
		}
		if p.ITT() != itt {
			return r, fmt.Errorf("%v while waiting for ITT 0x%08x", p, itt)
		}
		r.PDUs = append(r.PDUs, p)
		switch p.Opcode() {
		case pdu.R2T:
			if p.Offset() > uint32(len(out)) || p.DesiredLen() > uint32(len(out))-p.Offset() {
				return r, fmt.Errorf("R2T for %d+%d of %d bytes", p.Offset(), p.DesiredLen(), len(out))
			}
			ps := c.dataOut(itt, p.TTT(), int(p.Offset()), out[:p.Offset()+p.DesiredLen()])
			if err := c.Send(ps...); err != nil {
				return r, err
			}
		case pdu.DataIn:
			if int(p.Offset()) != data.Len() {
				return r, fmt.Errorf("Data-In at offset %d after %d bytes", p.Offset(), data.Len())
			}
			data.Write(p.Data)
			if p.Flags()&pdu.FlagStatus != 0 {
				r.Data, r.Status, r.Flags, r.Residual = data.Bytes(), p.SCSIStatus(), p.Flags(), p.Residual()
				return r, nil
			}
		case pdu.SCSIResponse:
			r.Data, r.Status, r.Flags, r.Residual = data.Bytes(), p.SCSIStatus(), p.Flags(), p.Residual()
			if len(p.Data) >= 2 {
				r.Sense = p.Data[2:]
			}
			return r, nil
		default:
			return r, fmt.Errorf("%v while waiting for the end of a command", p)
		}
	}
}

// Pong answers a NOP-In.
func (c *Conn) Pong(p *PDU) error {
	o := c.NewRequest(pdu.NOPOut)
	o.SetITT(pdu.NoTag)
	o.SetTTT(p.TTT())
	o.SetLUN(p.LUN())
	return c.Send(o)
}
