package lun

import (
	"context"

	"github.com/gostor/gotgt/pkg/api"
)

func (s *server) testUnitReadyOp(do func(context.Context, *Command) error) operation {
	return operation{
		name: "TEST UNIT READY", usage: cdb(api.TEST_UNIT_READY, "00000000 04"),
		flags: inline | accessAll, do: do,
	}
}

// requestSenseOp makes REQUEST SENSE, SPC-4 6.39, report what state tells;
// nil is NO SENSE.
func (s *server) requestSenseOp(state func(*Command) *condition) operation {
	return operation{
		name: "REQUEST SENSE", usage: cdb(api.REQUEST_SENSE, "01 0000 ff 04"),
		flags: early | shared | inline | accessAll,
		do: func(_ context.Context, c *Command) error {
			cond := state(c)
			if cond == nil {
				cond = &condition{} // NO SENSE, NO ADDITIONAL SENSE INFORMATION
			}
			c.reply(cond.encode(nil, c.CDB[1]&0x01 != 0), uint64(c.CDB[4]))
			return nil
		},
	}
}
