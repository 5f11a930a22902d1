package lun

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/gostor/gotgt/pkg/scsi"

	"skylun/block"
)

// Additional sense codes that gotgt has no name for, SPC-4 annex F.
const (
	ascInvalidFieldInIU scsi.SCSISubError = 0x0e03 // INVALID FIELD IN COMMAND INFORMATION UNIT
	ascSpaceAllocFailed scsi.SCSISubError = 0x2707 // SPACE ALLOCATION FAILED WRITE PROTECT
	ascSoftwareProtect  scsi.SCSISubError = 0x2702 // LOGICAL UNIT SOFTWARE WRITE PROTECTED

	ascCannotReadMedium   scsi.SCSISubError = 0x3002 // CANNOT READ MEDIUM - INCOMPATIBLE FORMAT
	ascNoMediumTrayClosed scsi.SCSISubError = 0x3a01 // MEDIUM NOT PRESENT - TRAY CLOSED
	ascNoMediumTrayOpen   scsi.SCSISubError = 0x3a02 // MEDIUM NOT PRESENT - TRAY OPEN
	ascRemovalPrevented   scsi.SCSISubError = 0x5302 // MEDIUM REMOVAL PREVENTED
	ascIllegalTrackMode   scsi.SCSISubError = 0x6400 // ILLEGAL MODE FOR THIS TRACK
)

// condition is an error that says which sense data a command ends with. The
// shared ones below are never changed.
type condition struct {
	key      byte
	code     scsi.SCSISubError // ADDITIONAL SENSE CODE and its QUALIFIER
	info     uint64            // INFORMATION field, when hasInfo
	hasInfo  bool
	specific [3]byte // sense-key specific field, when its first bit is set

	command    uint32 // COMMAND-SPECIFIC INFORMATION field, when hasCommand
	hasCommand bool
}

// Conditions without further details.
var (
	errInvalidOpcode     = &condition{key: scsi.ILLEGAL_REQUEST, code: scsi.ASC_INVALID_OP_CODE}
	errNoSuchUnit        = &condition{key: scsi.ILLEGAL_REQUEST, code: scsi.ASC_LUN_NOT_SUPPORTED}
	errListLength        = &condition{key: scsi.ILLEGAL_REQUEST, code: scsi.ASC_PARAMETER_LIST_LENGTH_ERR}
	errSavingParams      = &condition{key: scsi.ILLEGAL_REQUEST, code: scsi.ASC_SAVING_PARMS_UNSUP}
	errDataOutSize       = &condition{key: scsi.ILLEGAL_REQUEST, code: ascInvalidFieldInIU}
	errWriteProtected    = &condition{key: scsi.DATA_PROTECT, code: scsi.ASC_WRITE_PROTECT}
	errSoftwareProtected = &condition{key: scsi.DATA_PROTECT, code: ascSoftwareProtect}
	errCannotReadMedium  = &condition{key: scsi.ILLEGAL_REQUEST, code: ascCannotReadMedium}
	errIllegalTrackMode  = &condition{key: scsi.ILLEGAL_REQUEST, code: ascIllegalTrackMode}
	errRemovalPrevented  = &condition{key: scsi.ILLEGAL_REQUEST, code: ascRemovalPrevented}
	errStateLost         = &condition{key: scsi.NOT_READY, code: 0x0403} // MANUAL INTERVENTION REQUIRED
	errInternalFailure   = &condition{key: scsi.HARDWARE_ERROR, code: scsi.ASC_INTERNAL_TGT_FAILURE}
)

// errReserved ends a command with RESERVATION CONFLICT.
var errReserved = errors.New("reserved by another nexus")

// Error implements error.
func (e *condition) Error() string {
	return fmt.Sprintf("sense %X/%02X/%02X", e.key, byte(e.code>>8), byte(e.code))
}

// invalidField is INVALID FIELD IN CDB with a field pointer, SPC-4 4.5.2.4.2.
// Bit is the most significant one of the field, or negative for all of it.
func invalidField(index, bit int) error {
	return &condition{key: scsi.ILLEGAL_REQUEST, code: scsi.ASC_INVALID_FIELD_IN_CDB, specific: fieldPointer(0xc0, index, bit)}
}

// invalidParameter is INVALID FIELD IN PARAMETER LIST with a field pointer.
func invalidParameter(index, bit int) error {
	return &condition{key: scsi.ILLEGAL_REQUEST, code: scsi.ASC_INVALID_FIELD_IN_PARMS, specific: fieldPointer(0x80, index, bit)}
}

func fieldPointer(flags byte, index, bit int) [3]byte {
	if bit >= 0 {
		flags |= 0x08 | byte(bit)
	}
	return [3]byte{flags, byte(index >> 8), byte(index)}
}

// outOfRange is LOGICAL BLOCK ADDRESS OUT OF RANGE; lba is the first one that
// is.
func outOfRange(lba uint64) error {
	return &condition{key: scsi.ILLEGAL_REQUEST, code: scsi.ASC_LBA_OUT_OF_RANGE, info: lba, hasInfo: true}
}

// accessError says where a device failed, for the INFORMATION field, and at
// what, for the choice between READ ERROR and WRITE ERROR.
type accessError struct {
	lba   uint64
	write bool
	err   error
}

// Error implements error.
func (e *accessError) Error() string {
	verb := "read"
	if e.write {
		verb = "write"
	}
	return fmt.Sprintf("%s at lba %d: %v", verb, e.lba, e.err)
}

// Unwrap returns the device's error.
func (e *accessError) Unwrap() error { return e.err }

// diagnose decides how a command ends that failed with err. It is the only
// place that does.
func diagnose(err error) (Status, condition) {
	var known *condition
	if errors.As(err, &known) {
		return StatusCheckCondition, *known
	}
	var c condition
	var at *accessError
	write := false
	if errors.As(err, &at) {
		c.info, c.hasInfo, write = at.lba, true, at.write
	}
	switch {
	case errors.Is(err, errReserved):
		return StatusReservationConflict, condition{}
	case errors.Is(err, block.ErrOutOfRange):
		c.key, c.code = scsi.ILLEGAL_REQUEST, scsi.ASC_LBA_OUT_OF_RANGE
	case errors.Is(err, block.ErrReadOnly):
		return StatusCheckCondition, *errWriteProtected
	case errors.Is(err, block.ErrNoSpace):
		c.key, c.code = scsi.DATA_PROTECT, ascSpaceAllocFailed
	case errors.Is(err, block.ErrMedium) && write:
		c.key, c.code = scsi.MEDIUM_ERROR, scsi.ASC_WRITE_ERROR
	case errors.Is(err, block.ErrMedium):
		c.key, c.code = scsi.MEDIUM_ERROR, scsi.ASC_READ_ERROR
	case errors.Is(err, block.ErrNotReady):
		return StatusCheckCondition, condition{key: scsi.NOT_READY, code: scsi.ASC_BECOMING_READY}
	case errors.Is(err, block.ErrClosed):
		return StatusCheckCondition, condition{key: scsi.NOT_READY, code: scsi.ASC_CAUSE_NOT_REPORTABLE}
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return StatusTaskAborted, condition{}
	default:
		return StatusCheckCondition, *errInternalFailure
	}
	return StatusCheckCondition, c
}

// fail ends c as err demands, and returns the condition that its sense data
// tell, zero when there are none.
func (c *Command) fail(err error, descriptorFormat bool) condition {
	status, cond := diagnose(err)
	c.Status, c.In, c.Sense = status, nil, nil
	if status == StatusCheckCondition {
		c.Sense = cond.encode(c.sense[:0], descriptorFormat)
	}
	return cond
}

// encode appends the sense data of e, which are those of the current command,
// to b: at most MaxSense bytes.
func (e *condition) encode(b []byte, descriptorFormat bool) []byte {
	if descriptorFormat {
		return e.descriptors(b)
	}
	// SPC-4 4.5.3. Its INFORMATION field has four bytes; a larger value
	// makes it invalid.
	var s [18]byte
	s[0] = 0x70
	s[2] = e.key
	s[7] = byte(len(s) - 8)
	s[12], s[13] = byte(e.code>>8), byte(e.code)
	copy(s[15:], e.specific[:])
	binary.BigEndian.PutUint32(s[8:], e.command)
	if e.hasInfo && e.info>>32 == 0 {
		s[0] |= 0x80
		binary.BigEndian.PutUint32(s[3:], uint32(e.info))
	}
	return append(b, s[:]...)
}

// descriptors is encode in descriptor format, SPC-4 4.5.2.
func (e *condition) descriptors(b []byte) []byte {
	start := len(b)
	b = append(b, 0x72, e.key, byte(e.code>>8), byte(e.code), 0, 0, 0, 0)
	if e.hasInfo {
		b = append(b, 0x00, 10, 0x80, 0)
		b = binary.BigEndian.AppendUint64(b, e.info)
	}
	if e.hasCommand {
		b = append(b, 0x01, 10, 0, 0)
		b = binary.BigEndian.AppendUint64(b, uint64(e.command))
	}
	if e.specific[0]&0x80 != 0 {
		b = append(b, 0x02, 6, 0, 0, e.specific[0], e.specific[1], e.specific[2], 0)
	}
	b[start+7] = byte(len(b) - start - 8)
	return b
}
