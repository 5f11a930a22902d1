package pdu

import "encoding/binary"

// CDB returns the first 16 bytes of the CDB of a SCSI command, 11.3.
func (h *Header) CDB() []byte { return h[offCDB:HeaderSize] }

// ExtendedCDB returns what follows the 16 bytes of the header in a CDB longer
// than these: the first additional header segment of type 1, 11.2.2.3. It
// tells false when the segments cannot be parsed, hold a type other than 1, or
// hold more than one. Most commands have none, and then more is nil.
func ExtendedCDB(ahs []byte) (more []byte, ok bool) {
	for len(ahs) > 0 {
		// AHSLength 2, AHSType 1, then AHSLength bytes of which the first is
		// reserved, then padding to a multiple of 4.
		if len(ahs) < 4 || more != nil {
			return nil, false
		}
		n := int(binary.BigEndian.Uint16(ahs))
		if ahs[2]&0x3f != ahsExtendedCDB || n < 2 || Padded(3+n) > len(ahs) {
			return nil, false
		}
		more, ahs = ahs[4:3+n], ahs[Padded(3+n):]
	}
	return more, true
}

const ahsExtendedCDB = 1

// MaxCDB is the length of the longest CDB, SPC-4 4.2.3.
const MaxCDB = 260

// ResponseCode returns byte 2 of a SCSI, task management or logout response.
func (h *Header) ResponseCode() byte { return h[offByte2] }

// SetResponseCode sets byte 2 of a SCSI, task management or logout response.
func (h *Header) SetResponseCode(v byte) { h[offByte2] = v }

// SCSIStatus returns the status code of a SCSI response or Data-In.
func (h *Header) SCSIStatus() byte { return h[offByte3] }

// SetSCSIStatus sets the status code of a SCSI response or Data-In.
func (h *Header) SetSCSIStatus(v byte) { h[offByte3] = v }

// Residual returns the residual count of a SCSI response or Data-In.
func (h *Header) Residual() uint32 { return h.u32(offLength) }

// SetResidual sets the residual count of a SCSI response or Data-In.
func (h *Header) SetResidual(v uint32) { h.setU32(offLength, v) }

// TaskFunction is what a task management request asks for, 11.5.1.
type TaskFunction byte

// Task management functions.
const (
	AbortTask        TaskFunction = 1
	AbortTaskSet     TaskFunction = 2
	ClearACA         TaskFunction = 3
	ClearTaskSet     TaskFunction = 4
	LogicalUnitReset TaskFunction = 5
	TargetWarmReset  TaskFunction = 6
	TargetColdReset  TaskFunction = 7
	TaskReassign     TaskFunction = 8
)

// TaskFunction returns the function of a task management request.
func (h *Header) TaskFunction() TaskFunction { return TaskFunction(h[offFlags] & 0x7f) }

// RefCmdSN returns the CmdSN of the task that a task management request refers
// to.
func (h *Header) RefCmdSN() uint32 { return h.u32(offRefCmdSN) }

// SetRefCmdSN sets the CmdSN of the task that a task management request refers
// to.
func (h *Header) SetRefCmdSN(v uint32) { h.setU32(offRefCmdSN, v) }

// Response codes of task management responses, 11.6.1.
const (
	TaskComplete     = 0
	TaskNotFound     = 1
	TaskNoLUN        = 2
	TaskAllegiant    = 3
	TaskNoReassign   = 4
	TaskNotSupported = 5
	TaskRejected     = 255
)
