package lun

import (
	"context"
	"encoding/binary"

	"github.com/gostor/gotgt/pkg/api"
)

const reportOpcodesAction api.SCSICommandType = 0x0c

func (s *server) reportOpcodesOp() operation {
	return operation{
		name:   "REPORT SUPPORTED OPERATION CODES",
		usage:  serviceAction(api.MAINT_PROTOCOL_IN, reportOpcodesAction, "87 ff ffff ffffffff 00 04"),
		action: true, flags: inline | accessRead, do: s.reportOpcodes,
	}
}

// reportOpcodes executes REPORT SUPPORTED OPERATION CODES, SPC-4 6.35, from
// the table by which commands are dispatched.
func (s *server) reportOpcodes(_ context.Context, c *Command) error {
	const (
		all       = 0
		plain     = 1 // the operation code has no service actions
		action    = 2 // it has
		either    = 3
		rctd      = 0x80
		supported = 3
		missing   = 1
		ctdp      = 0x80
	)
	timeouts := c.CDB[2]&rctd != 0
	code, sa := c.CDB[3], binary.BigEndian.Uint16(c.CDB[4:])
	allocation := uint64(binary.BigEndian.Uint32(c.CDB[6:]))
	op, actions := s.ops.plain[code], s.ops.actions[code]
	switch c.CDB[2] & 0x07 { // REPORTING OPTIONS
	case all:
		c.reply(s.allOpcodes(timeouts), allocation)
		return nil
	case plain:
		if actions != nil {
			return invalidField(2, 2)
		}
	case action:
		if op != nil {
			return invalidField(2, 2)
		}
		op = pickWide(actions, sa)
	case either:
		if actions != nil {
			op = pickWide(actions, sa)
		} else if sa != 0 {
			op = nil
		}
	default:
		return invalidField(2, 2)
	}
	p := []byte{0, missing, 0, 0}
	if op != nil {
		p[1] = supported
		binary.BigEndian.PutUint16(p[2:], uint16(len(op.usage)))
		p = append(p, op.usage...)
		if timeouts {
			p[1] |= ctdp
			p = append(p, noTimeouts[:]...)
		}
	}
	c.reply(p, allocation)
	return nil
}

// pickWide is pick for a requested service action of 16 bits.
func pickWide(rows []*operation, action uint16) *operation {
	if action > actionMask {
		return nil
	}
	return pick(rows, byte(action))
}

// noTimeouts is a command timeouts descriptor that recommends none, SPC-4
// 6.35.4.
var noTimeouts = [12]byte{0, 10}

// allOpcodes returns the parameter data that name all commands, SPC-4 6.35.2.
func (s *server) allOpcodes(timeouts bool) []byte {
	const (
		servactv = 0x01
		ctdp     = 0x02
	)
	p := make([]byte, 4)
	for i := range s.ops.rows {
		op := &s.ops.rows[i]
		d := [8]byte{0: op.usage[0], 7: byte(len(op.usage))}
		if op.action {
			d[3] = op.usage[1] & actionMask
			d[5] |= servactv
		}
		if timeouts {
			d[5] |= ctdp
		}
		p = append(p, d[:]...)
		if timeouts {
			p = append(p, noTimeouts[:]...)
		}
	}
	binary.BigEndian.PutUint32(p, uint32(len(p)-4))
	return p
}
