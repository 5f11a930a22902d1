package lun

import (
	"context"
	"encoding/binary"

	"github.com/gostor/gotgt/pkg/api"
)

const readDefectData12 api.SCSICommandType = 0xb7

// defectOps returns the rows of READ DEFECT DATA.
func (d *Disk) defectOps() []operation {
	return []operation{
		{name: "READ DEFECT DATA(10)", usage: cdb(api.READ_DEFECT_DATA, "00 1f 00000000 ffff 04"), flags: inline | accessRead, do: d.readDefects},
		{name: "READ DEFECT DATA(12)", usage: cdb(readDefectData12, "1f 00000000 ffffffff 00 04"), flags: inline | accessRead, do: d.readDefects},
	}
}

// readDefects executes READ DEFECT DATA(10) and (12), SBC-3 5.17 and 5.18.
// Both lists are empty, in whichever format they are asked for.
func (d *Disk) readDefects(_ context.Context, c *Command) error {
	const (
		lists  = 0x18 // REQ_PLIST and REQ_GLIST, PLISTV and GLISTV
		format = 0x07
		known  = 1<<0 | 1<<3 | 1<<4 | 1<<5 | 1<<6 // of the formats, SBC-3 table 41
	)
	at, header, allocation := 2, 4, uint64(binary.BigEndian.Uint16(c.CDB[7:]))
	if c.CDB[0] == byte(readDefectData12) {
		at, header, allocation = 1, 8, uint64(binary.BigEndian.Uint32(c.CDB[6:]))
	}
	asked := c.CDB[at]
	if known>>(asked&format)&1 == 0 {
		return invalidField(at, 2)
	}
	p := make([]byte, header)
	p[1] = asked & (lists | format)
	c.reply(p, allocation)
	return nil
}
