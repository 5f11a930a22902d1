package lun

import (
	"context"
	"encoding/binary"
)

// span checks that sectors from lba on are on the disc, and returns where they
// are in bytes. That there are none is no error, MMC-6 6.15.
func (s *disc) span(lba uint64, sectors uint32) (off, n int64, err error) {
	if end := uint64(s.sectors); lba >= end || uint64(sectors) > end-lba {
		return 0, 0, outOfRange(max(lba, end))
	}
	return int64(lba) * sectorSize, int64(sectors) * sectorSize, nil
}

// transfer is span for a READ(10) or READ(12). FUA and DPO ask for nothing that
// is not done anyway.
func (s *disc) transfer(c *Command) (off, n int64, err error) {
	lba, sectors := c.extent()
	if off, n, err = s.span(lba, sectors); err == nil && n > MaxTransfer {
		err = invalidField(c.lengthField(), -1)
	}
	return off, n, err
}

// onMedium returns how many of n bytes at off the medium has. Those behind it
// belong to its last sector and are zeros.
func (s *disc) onMedium(n int, off int64) int64 { return max(0, min(int64(n), s.size-off)) }

// readAt fills p.
func (s *disc) readAt(ctx context.Context, p []byte, off int64) error {
	n := s.onMedium(len(p), off)
	clear(p[n:])
	if n == 0 {
		return nil
	}
	if err := s.medium.ReadAt(ctx, p[:n], off); err != nil {
		return &accessError{lba: uint64(off / sectorSize), err: err}
	}
	return nil
}

// tryRead is read for when that takes no waiting.
func (d *CDROM) tryRead(c *Command) (bool, error) {
	s, err := d.holdDisc(c)
	if err != nil {
		return true, err
	}
	defer s.release()
	if s.quick == nil {
		return false, nil
	}
	off, n, err := s.transfer(c)
	if err != nil {
		return true, err
	}
	if in := min(int(n), c.InLimit); in > 0 {
		buf := c.Alloc.Get(in)
		there := s.onMedium(in, off)
		clear(buf[there:])
		done, err := s.quick.TryReadAt(buf[:there], off)
		if !done {
			c.spare = buf
			return false, nil
		}
		if err != nil {
			return true, &accessError{lba: uint64(off / sectorSize), err: err}
		}
		c.In = buf
	}
	c.Transfer = n
	return true, nil
}

// read executes READ(10) and READ(12), MMC-6 6.15 and 6.16.
func (d *CDROM) read(ctx context.Context, c *Command) error {
	s, err := d.holdDisc(c)
	if err != nil {
		return err
	}
	defer s.release()
	off, n, err := s.transfer(c)
	if err != nil {
		return err
	}
	if in := min(int(n), c.InLimit); in > 0 {
		buf := c.buffer(in)
		if err := s.readAt(ctx, buf, off); err != nil {
			return err
		}
		c.In = buf
	}
	c.Transfer = n
	return nil
}

// readCapacity executes READ CAPACITY, MMC-6 6.18.
func (d *CDROM) readCapacity(_ context.Context, c *Command) error {
	s, err := d.loaded(c)
	if err != nil {
		return err
	}
	if c.CDB[8]&0x01 == 0 && binary.BigEndian.Uint32(c.CDB[2:]) != 0 { // PMI, obsolete
		return invalidField(2, 7)
	}
	var p [8]byte
	binary.BigEndian.PutUint32(p[0:], s.sectors-1)
	binary.BigEndian.PutUint32(p[4:], sectorSize)
	c.reply(p[:], uint64(len(p)))
	return nil
}

// readFormatCapacities executes READ FORMAT CAPACITIES, MMC-6 6.23. It is for
// media that can be formatted; for others it tells the size.
func (d *CDROM) readFormatCapacities(_ context.Context, c *Command) error {
	const (
		formatted = 2
		noMedium  = 3
	)
	p := [12]byte{3: 8, 8: noMedium}
	if s := d.ready.Load(); s != nil {
		binary.BigEndian.PutUint32(p[4:], s.sectors)
		p[8] = formatted
	}
	p[10], p[11] = sectorSize>>8, sectorSize&0xff
	c.reply(p[:], uint64(binary.BigEndian.Uint16(c.CDB[7:])))
	return nil
}

// seek executes SEEK(10), MMC-6 6.33, for which there is nothing to do.
func (d *CDROM) seek(_ context.Context, c *Command) error {
	s, err := d.loaded(c)
	if err != nil {
		return err
	}
	_, _, err = s.span(uint64(binary.BigEndian.Uint32(c.CDB[2:])), 0)
	return err
}

// refuseWrite is never reached: the drive is write protected.
func (d *CDROM) refuseWrite(context.Context, *Command) error { return errWriteProtected }
