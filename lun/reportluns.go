package lun

import (
	"context"
	"encoding/binary"

	"github.com/gostor/gotgt/pkg/api"
)

func (s *server) reportLUNsOp() operation {
	return operation{
		name: "REPORT LUNS", usage: cdb(api.REPORT_LUNS, "00 ff 000000 ffffffff 00 04"),
		flags: early | shared | inline | accessAll, do: s.reportLUNs,
	}
}

// reportLUNs executes REPORT LUNS, SPC-4 6.33. A nexus that no map knows sees
// the unit it talks to as LUN 0.
func (s *server) reportLUNs(_ context.Context, c *Command) error {
	allocation := binary.BigEndian.Uint32(c.CDB[6:])
	if allocation < 16 {
		return invalidField(6, 7)
	}
	luns := []uint16{0}
	if m := c.Nexus.inventory(); m != nil {
		// Taken back first: a change after this line raises it again.
		m.told(c.Nexus)
		luns = m.current.Load().luns
	}
	wellKnown := false
	switch c.CDB[2] { // SELECT REPORT
	case 0x00: // with the peripheral, flat space and logical unit addressing methods
	case 0x01: // well known logical units
		luns, wellKnown = nil, true
	case 0x02: // all
		wellKnown = true
	case 0x10: // administrative logical units: there are none
		luns = nil
	case 0x11: // those and all that are no subsidiaries
	case 0x12: // subsidiaries of this one
		luns = nil
	default:
		return invalidField(2, 7)
	}
	d := make([]byte, 8, 8*(len(luns)+2))
	if wellKnown {
		d = append(d, reportLUNsWellKnown[:]...)
	}
	for _, lun := range luns {
		field := encodeLUN(lun)
		d = append(d, field[:]...)
	}
	binary.BigEndian.PutUint32(d, uint32(len(d)-8))
	c.reply(d, uint64(allocation))
	return nil
}
