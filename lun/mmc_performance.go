package lun

import (
	"context"
	"encoding/binary"
)

// Speeds are in kB/s of 1000 bytes. There is nothing that turns, so what
// initiators select is remembered for them to see, and that is all.
const (
	cdSpeed   = 176          // 1x
	fullSpeed = 48 * cdSpeed // what the drive tells of itself
	driveBuf  = 1 << 20      // and of its buffer
)

// getPerformance executes GET PERFORMANCE, MMC-6 6.8: the nominal performance,
// which is the same all over the disc, and that there are no exceptions.
func (d *CDROM) getPerformance(_ context.Context, c *Command) error {
	const (
		tolerance    = 0x10 // DATA TYPE: 10 % nominal, 20 % exceptions, the only value
		write        = 0x04
		exceptions   = 0x03
		performance  = 0
		exceptHeader = 0x01 // in byte 4 of the answer
	)
	s, err := d.loaded(c)
	if err != nil {
		return err
	}
	if c.CDB[10] != performance {
		return invalidField(10, 7)
	}
	data := c.CDB[1]
	if data&0x18 != tolerance || data&write != 0 {
		return invalidField(1, 4)
	}
	from := binary.BigEndian.Uint32(c.CDB[2:])
	p := make([]byte, 8)
	if data&exceptions != 0 {
		p[4] = exceptHeader
	} else {
		if from >= s.sectors {
			return outOfRange(uint64(from))
		}
		if binary.BigEndian.Uint16(c.CDB[8:]) > 0 { // MAXIMUM NUMBER OF DESCRIPTORS
			speed := d.speed.Load()
			for _, v := range []uint32{from, speed, s.sectors - 1, speed} {
				p = binary.BigEndian.AppendUint32(p, v)
			}
		}
	}
	binary.BigEndian.PutUint32(p, uint32(len(p)-4))
	c.reply(p, uint64(len(p)))
	return nil
}

// setSpeed executes SET CD SPEED, MMC-6 6.37. FFFFh is as fast as can be.
func (d *CDROM) setSpeed(_ context.Context, c *Command) error {
	if c.CDB[1]&0x03 != 0 { // ROTATIONAL CONTROL: constant linear velocity
		return invalidField(1, 1)
	}
	speed := uint32(binary.BigEndian.Uint16(c.CDB[2:]))
	d.speed.Store(max(cdSpeed, min(speed, fullSpeed)))
	return nil
}

// setStreaming executes SET STREAMING, MMC-6 6.39, for a performance
// descriptor.
func (d *CDROM) setStreaming(_ context.Context, c *Command) error {
	const (
		performance = 0
		length      = 28
		rdd         = 0x04 // restore the defaults
		exact       = 0x02
	)
	n := int(binary.BigEndian.Uint16(c.CDB[9:]))
	if c.CDB[8] != performance {
		return invalidField(8, 7)
	}
	if n == 0 {
		return nil
	}
	s, err := d.loaded(c)
	if err != nil {
		return err
	}
	c.Transfer = int64(n)
	if n != length || len(c.Out) < length {
		return errListLength
	}
	p := c.Out[:length]
	from, to := binary.BigEndian.Uint32(p[4:]), binary.BigEndian.Uint32(p[8:])
	size, time := binary.BigEndian.Uint32(p[12:]), binary.BigEndian.Uint32(p[16:])
	switch {
	case p[0]&rdd != 0:
		d.speed.Store(fullSpeed)
		return nil
	case from > to:
		return invalidParameter(4, -1)
	case to >= s.sectors:
		return invalidParameter(8, -1)
	case time == 0: // READ SIZE per READ TIME is kB per milliseconds
		return invalidParameter(16, -1)
	}
	speed := uint64(size) * 1000 / uint64(time)
	if p[0]&exact != 0 && speed > fullSpeed {
		return invalidParameter(12, -1)
	}
	d.speed.Store(uint32(max(cdSpeed, min(speed, fullSpeed))))
	return nil
}

// setReadAhead executes SET READ AHEAD, MMC-6 6.38: after reading one address
// another one is wanted. The cache of the image decides by itself.
func (d *CDROM) setReadAhead(_ context.Context, c *Command) error {
	s, err := d.loaded(c)
	if err != nil {
		return err
	}
	for _, at := range []int{2, 6} { // TRIGGER, READ AHEAD LOGICAL BLOCK ADDRESS
		if lba := binary.BigEndian.Uint32(c.CDB[at:]); lba >= s.sectors {
			return outOfRange(uint64(lba))
		}
	}
	return nil
}

// readBufferCapacity executes READ BUFFER CAPACITY, MMC-6 6.17: all of the
// buffer is free.
func (d *CDROM) readBufferCapacity(_ context.Context, c *Command) error {
	const inBlocks = 0x01
	p := make([]byte, 4, 12)
	p[1] = 10
	n := uint32(driveBuf)
	if c.CDB[1]&inBlocks != 0 {
		n, p[3] = driveBuf/sectorSize, inBlocks
	}
	p = binary.BigEndian.AppendUint32(p, n)
	p = binary.BigEndian.AppendUint32(p, n)
	c.reply(p, uint64(binary.BigEndian.Uint16(c.CDB[7:])))
	return nil
}
