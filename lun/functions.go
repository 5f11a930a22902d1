package lun

import (
	"context"
	"encoding/binary"

	"github.com/gostor/gotgt/pkg/api"
)

const reportFunctionsAction api.SCSICommandType = 0x0d

// taskFunctions are the first two bytes of the answer to REPORT SUPPORTED TASK
// MANAGEMENT FUNCTIONS: what the iSCSI transport knows to do.
const taskFunctions = 0x8000 | // ABORT TASK
	0x4000 | // ABORT TASK SET
	0x1000 | // CLEAR TASK SET
	0x0800 | // LOGICAL UNIT RESET
	0x0200 // TARGET RESET

func (s *server) reportFunctionsOp() operation {
	return operation{
		name:   "REPORT SUPPORTED TASK MANAGEMENT FUNCTIONS",
		usage:  serviceAction(api.MAINT_PROTOCOL_IN, reportFunctionsAction, "80 000000 ffffffff 00 04"),
		action: true, flags: inline | accessRead, do: s.reportFunctions,
	}
}

// reportFunctions executes REPORT SUPPORTED TASK MANAGEMENT FUNCTIONS, SPC-4
// 6.36. With REPD come timeouts, of which none is recommended.
func (s *server) reportFunctions(_ context.Context, c *Command) error {
	const repd = 0x80
	p := make([]byte, 4, 16)
	if c.CDB[2]&repd != 0 {
		p = p[:16]
		p[3] = byte(len(p) - 4)
	}
	binary.BigEndian.PutUint16(p, taskFunctions)
	c.reply(p, uint64(binary.BigEndian.Uint32(c.CDB[6:])))
	return nil
}
