package lun

import (
	"context"
	"encoding/binary"
	"math"

	"skylun/block"
)

// physicalExponent is the LOGICAL BLOCKS PER PHYSICAL BLOCK EXPONENT: the
// physical block is what the layers below keep track of, block.Size.
const physicalExponent = 3

// A change of either constant without the other does not compile.
const _ = uint(block.Size-logicalBlock<<physicalExponent) + uint(logicalBlock<<physicalExponent-block.Size)

// testUnitReady executes TEST UNIT READY, SPC-4 6.47.
func (d *Disk) testUnitReady(context.Context, *Command) error {
	_, err := d.lastLBA()
	return err
}

// lastLBA returns the last logical block address, or an error as long as
// there is none.
func (d *Disk) lastLBA() (uint64, error) {
	if n := d.capacity(); n > 0 {
		return n - 1, nil
	}
	return 0, block.ErrNotReady
}

// readCapacity10 executes READ CAPACITY(10), SBC-3 5.15.
func (d *Disk) readCapacity10(_ context.Context, c *Command) error {
	if c.CDB[8]&0x01 == 0 && binary.BigEndian.Uint32(c.CDB[2:]) != 0 { // PMI, obsolete
		return invalidField(2, 7)
	}
	last, err := d.lastLBA()
	if err != nil {
		return err
	}
	var p [8]byte
	binary.BigEndian.PutUint32(p[0:], uint32(min(last, math.MaxUint32)))
	binary.BigEndian.PutUint32(p[4:], logicalBlock)
	c.reply(p[:], uint64(len(p)))
	return nil
}

// readCapacity16 executes READ CAPACITY(16), SBC-3 5.16.
func (d *Disk) readCapacity16(_ context.Context, c *Command) error {
	if c.CDB[14]&0x01 == 0 && binary.BigEndian.Uint64(c.CDB[2:]) != 0 { // PMI, obsolete
		return invalidField(2, 7)
	}
	last, err := d.lastLBA()
	if err != nil {
		return err
	}
	var p [32]byte
	binary.BigEndian.PutUint64(p[0:], last)
	binary.BigEndian.PutUint32(p[8:], logicalBlock)
	p[13] = physicalExponent
	p[14] = 0x80 | 0x40 // LBPME, LBPRZ, as in the Logical Block Provisioning page
	c.reply(p[:], uint64(binary.BigEndian.Uint32(c.CDB[10:])))
	return nil
}

// preventAllow executes PREVENT ALLOW MEDIUM REMOVAL, SBC-3 5.10. The medium
// is not removable, so preventing it takes nothing.
func (d *Disk) preventAllow(_ context.Context, c *Command) error {
	if c.CDB[4]&0x03 != 0 {
		if err := d.excluded(c.Nexus, accessWrite); err != nil {
			return err
		}
	}
	if c.CDB[4]&0x02 != 0 {
		return invalidField(4, 1)
	}
	return nil
}
