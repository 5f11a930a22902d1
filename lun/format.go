package lun

import (
	"context"
	"encoding/binary"
	"errors"

	"github.com/gostor/gotgt/pkg/api"
	"github.com/gostor/gotgt/pkg/scsi"
)

// FORMAT UNIT and SANITIZE make the whole disk read as zeros, durably, and
// give its space back. Both are one discard and one flush: changes of the map
// of the layers below, which take the same short time on a disk of any size.
// So IMMED only ends them later than it could. What the initiator does not see
// any more is not in the local store any more either; an image below the disk
// is not the disk's to erase, and stays.
//
// While one runs, other commands end with NOT READY. Neither stops when its
// command is aborted or its nexus goes, SBC-3 4.11.2.

const sanitizeCode api.SCSICommandType = 0x48

// Service actions of SANITIZE, SBC-3 5.24. OVERWRITE is for magnetic media
// and would fill the local store with what a thin disk need not hold;
// CRYPTOGRAPHIC ERASE needs encryption.
const (
	blockErase      = 0x02
	exitFailureMode = 0x1f
)

// Conditions of a disk that is being formatted or sanitized.
var (
	errFormatting     = &condition{key: scsi.NOT_READY, code: 0x0404, specific: [3]byte{0x80, 0, 0}} // FORMAT IN PROGRESS
	errSanitizing     = &condition{key: scsi.NOT_READY, code: 0x041b, specific: [3]byte{0x80, 0, 0}} // SANITIZE IN PROGRESS
	errSanitizeFailed = &condition{key: scsi.MEDIUM_ERROR, code: 0x3103}                             // SANITIZE COMMAND FAILED
)

// formatOps returns the rows of FORMAT UNIT and SANITIZE.
func (d *Disk) formatOps() []operation {
	return []operation{
		{name: "FORMAT UNIT", usage: cdb(api.FORMAT_UNIT, "ff 00 0000 04"), flags: writes | accessWrite, do: d.format},
		{name: "SANITIZE BLOCK ERASE", usage: serviceAction(sanitizeCode, 0xa0|blockErase, "0000000000 ffff 04"), action: true, flags: writes | accessWrite, do: d.blockErase},
		{name: "SANITIZE EXIT FAILURE MODE", usage: serviceAction(sanitizeCode, 0x80|exitFailureMode, "0000000000 ffff 04"), action: true, flags: writes | accessWrite, do: d.exitFailure},
	}
}

// format executes FORMAT UNIT, SBC-3 5.3. There is no protection information
// to format with and no defect to list; of the options that FOV makes valid,
// those that ask for nothing else than what is done anyway are taken.
func (d *Disk) format(ctx context.Context, c *Command) error {
	const (
		fmtpinfo = 0xc0
		longlist = 0x20
		fmtdata  = 0x10
	)
	if c.CDB[1]&fmtpinfo != 0 {
		return invalidField(1, 7)
	}
	if c.CDB[1]&fmtdata != 0 {
		if err := checkFormatList(c, c.CDB[1]&longlist != 0); err != nil {
			return err
		}
	}
	if err := d.enter(errFormatting); err != nil {
		return err
	}
	defer d.leave(nil)
	return d.wipe(ctx)
}

// checkFormatList checks the parameter list of FORMAT UNIT, SBC-3 5.3.2.
func checkFormatList(c *Command, long bool) error {
	const (
		usage  = 0x07 // PROTECTION FIELD USAGE
		fov    = 0x80
		dpry   = 0x40
		dcrt   = 0x20
		stpf   = 0x10
		ip     = 0x08
		header = 4
	)
	n := header
	if long {
		n = 2 * header
	}
	c.Transfer = int64(n)
	p := c.Out
	if len(p) < n {
		return errListLength
	}
	p = p[:n]
	if p[0]&usage != 0 {
		return invalidParameter(0, 2)
	}
	if p[1]&fov == 0 && p[1]&(dpry|dcrt|stpf|ip) != 0 {
		return invalidParameter(1, 7)
	}
	if p[1]&ip != 0 { // the pattern is zeros
		return invalidParameter(1, 3)
	}
	if !long {
		if binary.BigEndian.Uint16(p[2:]) != 0 { // DEFECT LIST LENGTH
			return invalidParameter(2, 7)
		}
		return nil
	}
	if p[3] != 0 { // P_I_INFORMATION, PROTECTION INTERVAL EXPONENT
		return invalidParameter(3, 7)
	}
	if binary.BigEndian.Uint32(p[4:]) != 0 {
		return invalidParameter(4, 7)
	}
	return nil
}

// blockErase executes SANITIZE BLOCK ERASE, SBC-3 5.24.2.3.
func (d *Disk) blockErase(ctx context.Context, c *Command) error {
	const ause = 0x20
	if err := checkSanitize(c); err != nil {
		return err
	}
	if err := d.enter(errSanitizing); err != nil {
		return err
	}
	if err := d.wipe(ctx); err != nil {
		d.mayExit.Store(c.CDB[1]&ause != 0)
		d.leave(errSanitizeFailed)
		return errors.Join(errSanitizeFailed, err)
	}
	d.leave(nil)
	return nil
}

// exitFailure executes SANITIZE EXIT FAILURE MODE, SBC-3 5.24.2.5: whoever
// asked for a sanitize without AUSE wants no other way out than a success.
func (d *Disk) exitFailure(_ context.Context, c *Command) error {
	if err := checkSanitize(c); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.blocked != errSanitizeFailed {
		return nil
	}
	if !d.mayExit.Load() {
		return invalidField(1, 4)
	}
	d.setBlocked(nil)
	return nil
}

// checkSanitize refuses what the two service actions have no use for: whoever
// means something else by such a CDB must not lose the content of a disk.
func checkSanitize(c *Command) error {
	if c.CDB[1]&0x40 != 0 {
		return invalidField(1, 6)
	}
	for i, b := range c.CDB[2:7] {
		if b != 0 {
			return invalidField(2+i, -1)
		}
	}
	if binary.BigEndian.Uint16(c.CDB[7:]) != 0 { // PARAMETER LIST LENGTH
		return invalidField(7, 7)
	}
	return nil
}

// wipe makes the whole disk read as zeros, whatever happens to the command.
func (d *Disk) wipe(ctx context.Context) error {
	ctx = context.WithoutCancel(ctx)
	if err := d.dev.Discard(ctx, 0, d.dev.Size()); err != nil {
		return writeError(0, err)
	}
	return d.flush(ctx, 0)
}
