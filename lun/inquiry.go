package lun

import (
	"context"
	"encoding/binary"
	"strings"

	"github.com/gostor/gotgt/pkg/api"
	"github.com/gostor/gotgt/pkg/scsi"
)

// inquiryLength is the length of standard INQUIRY data: up to and with the
// version descriptors and the reserved bytes behind them, SPC-4 6.6.2.
const inquiryLength = 96

// Version descriptors, SPC-4 6.6.2: "no version claimed" of each standard.
const (
	versionSAM5  = 0x00a0
	versionISCSI = 0x0960
	versionSPC4  = 0x0460
	versionSBC3  = 0x04c0
	versionMMC6  = 0x04e0
)

// commonVersions are the standards that all units follow.
var commonVersions = []uint16{versionSAM5, versionISCSI, versionSPC4}

func (s *server) inquiryOp() operation {
	return operation{
		name: "INQUIRY", usage: cdb(api.INQUIRY, "01 ff ffff 04"),
		flags: early | shared | inline | accessAll, do: s.inquiry,
	}
}

// inquiry executes INQUIRY, SPC-4 6.6.
func (s *server) inquiry(_ context.Context, c *Command) error {
	page := c.CDB[2]
	allocation := uint64(binary.BigEndian.Uint16(c.CDB[3:]))
	switch {
	case c.CDB[1]&0x02 != 0: // CMDDT, obsolete
		return invalidField(1, 1)
	case c.CDB[1]&0x01 != 0: // EVPD
		data, err := s.vpd(c.Nexus, page)
		if err != nil {
			return err
		}
		c.reply(data, allocation)
		return nil
	case page != 0:
		return invalidField(2, 7)
	}
	c.reply(s.standardInquiry(), allocation)
	return nil
}

// standardInquiry returns standard INQUIRY data, SPC-4 6.6.2.
func (s *server) standardInquiry() []byte {
	d := make([]byte, inquiryLength)
	d[0] = s.peripheral
	if s.removable {
		d[1] = 0x80 // RMB
	}
	d[2] = 6 // VERSION: SPC-4
	d[3] = scsi.INQUIRY_HISUP | scsi.INQUIRY_STANDARD_FORMAT
	d[4] = byte(len(d) - 5)
	if s.tellsGroups() {
		d[5] |= 0x10 // TPGS: implicit
	}
	if s.ops.has(0x83) {
		d[5] |= 0x08 // 3PC: third-party copy
	}
	d[6] = scsi.INQUIRY_MULTIP
	d[7] = scsi.INQUIRY_CMDQUE
	ascii(d[8:16], s.id.vendor)
	ascii(d[16:32], s.id.product)
	ascii(d[32:36], s.id.revision)
	for i, v := range s.versions {
		binary.BigEndian.PutUint16(d[58+2*i:], v)
	}
	return d
}

// ascii fills dst with s, left-aligned and padded with spaces, SPC-4 4.3.1.
func ascii(dst []byte, s string) {
	n := copy(dst, s)
	copy(dst[n:], strings.Repeat(" ", len(dst)-n))
}
