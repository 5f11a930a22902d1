package pdu

import "encoding/binary"

// HeaderSize is the length of a basic header segment, RFC 7143 11.2.1.
const HeaderSize = 48

// DigestSize is the length of a header or data digest, RFC 7143 11.2.3.
const DigestSize = 4

// MaxAHS is the most bytes of additional header segments that a header can
// announce.
const MaxAHS = 255 * 4

// NoTag is the reserved value of initiator task tags and target transfer
// tags.
const NoTag = 0xffffffff

// Offsets of the fields within a header.
const (
	offOpcode    = 0
	offFlags     = 1
	offByte2     = 2
	offByte3     = 3
	offAHSLen    = 4
	offDataLen   = 5
	offLUN       = 8
	offISID      = 8
	offTSIH      = 14
	offITT       = 16
	offWord20    = 20
	offCID       = 20
	offCmdSN     = 24
	offStatSN    = 24
	offExpStatSN = 28
	offExpCmdSN  = 28
	offMaxCmdSN  = 32
	offCDB       = 32
	offRefCmdSN  = 32
	offStatus    = 36
	offDataSN    = 36
	offOffset    = 40
	offLength    = 44
)

// Header is a basic header segment.
type Header [HeaderSize]byte

// FromBytes returns the header at the start of p, which has at least
// HeaderSize bytes. The header is p, not a copy of it.
func FromBytes(p []byte) *Header { return (*Header)(p) }

func (h *Header) u32(off int) uint32       { return binary.BigEndian.Uint32(h[off:]) }
func (h *Header) setU32(off int, v uint32) { binary.BigEndian.PutUint32(h[off:], v) }

// Opcode returns the opcode without the immediate bit.
func (h *Header) Opcode() Opcode { return Opcode(h[offOpcode] & 0x3f) }

// Immediate tells whether the I bit is set.
func (h *Header) Immediate() bool { return h[offOpcode]&immediateBit != 0 }

// SetOpcode sets the opcode and clears the immediate bit.
func (h *Header) SetOpcode(op Opcode) { h[offOpcode] = byte(op) }

// SetImmediate sets the I bit.
func (h *Header) SetImmediate() { h[offOpcode] |= immediateBit }

// Flags returns byte 1: the F bit and what the opcode puts below it.
func (h *Header) Flags() byte { return h[offFlags] }

// SetFlags sets byte 1.
func (h *Header) SetFlags(f byte) { h[offFlags] = f }

// Final tells whether the F bit (T in login PDUs) is set.
func (h *Header) Final() bool { return h[offFlags]&FlagFinal != 0 }

// AHSLen returns the length of all additional header segments in bytes.
func (h *Header) AHSLen() int { return int(h[offAHSLen]) * 4 }

// SetAHSLen sets the length of all additional header segments; n is a
// multiple of 4.
func (h *Header) SetAHSLen(n int) { h[offAHSLen] = byte(n / 4) }

// DataLen returns the length of the data segment in bytes, without padding.
func (h *Header) DataLen() int {
	return int(h[offDataLen])<<16 | int(h[offDataLen+1])<<8 | int(h[offDataLen+2])
}

// SetDataLen sets the length of the data segment, at most 1<<24 - 1.
func (h *Header) SetDataLen(n int) {
	h[offDataLen], h[offDataLen+1], h[offDataLen+2] = byte(n>>16), byte(n>>8), byte(n)
}

// Len returns the length in bytes of the whole PDU without digests.
func (h *Header) Len() int { return HeaderSize + h.AHSLen() + Padded(h.DataLen()) }

// Padded returns n rounded up to the next multiple of 4, RFC 7143 11.1.
func Padded(n int) int { return (n + 3) &^ 3 }

// LUN returns the eight bytes of the LUN field.
func (h *Header) LUN() [8]byte { return [8]byte(h[offLUN:]) }

// SetLUN sets the eight bytes of the LUN field.
func (h *Header) SetLUN(lun [8]byte) { copy(h[offLUN:], lun[:]) }

// ITT returns the initiator task tag.
func (h *Header) ITT() uint32 { return h.u32(offITT) }

// SetITT sets the initiator task tag.
func (h *Header) SetITT(v uint32) { h.setU32(offITT, v) }

// TTT returns the target transfer tag of Data-Out, Data-In, R2T, text and NOP
// PDUs.
func (h *Header) TTT() uint32 { return h.u32(offWord20) }

// SetTTT sets the target transfer tag.
func (h *Header) SetTTT(v uint32) { h.setU32(offWord20, v) }

// ExpectedLen returns the expected data transfer length of a SCSI command.
func (h *Header) ExpectedLen() uint32 { return h.u32(offWord20) }

// SetExpectedLen sets the expected data transfer length of a SCSI command.
func (h *Header) SetExpectedLen(v uint32) { h.setU32(offWord20, v) }

// RefTag returns the referenced task tag of a task management request.
func (h *Header) RefTag() uint32 { return h.u32(offWord20) }

// SetRefTag sets the referenced task tag of a task management request.
func (h *Header) SetRefTag(v uint32) { h.setU32(offWord20, v) }

// CmdSN returns the command sequence number of a request.
func (h *Header) CmdSN() uint32 { return h.u32(offCmdSN) }

// SetCmdSN sets the command sequence number of a request.
func (h *Header) SetCmdSN(v uint32) { h.setU32(offCmdSN, v) }

// ExpStatSN returns the next status sequence number the initiator expects.
func (h *Header) ExpStatSN() uint32 { return h.u32(offExpStatSN) }

// SetExpStatSN sets the next status sequence number the initiator expects.
func (h *Header) SetExpStatSN(v uint32) { h.setU32(offExpStatSN, v) }

// StatSN returns the status sequence number of a response.
func (h *Header) StatSN() uint32 { return h.u32(offStatSN) }

// SetStatSN sets the status sequence number of a response.
func (h *Header) SetStatSN(v uint32) { h.setU32(offStatSN, v) }

// ExpCmdSN returns the next command sequence number the target expects.
func (h *Header) ExpCmdSN() uint32 { return h.u32(offExpCmdSN) }

// SetExpCmdSN sets the next command sequence number the target expects.
func (h *Header) SetExpCmdSN(v uint32) { h.setU32(offExpCmdSN, v) }

// MaxCmdSN returns the last command sequence number the target takes.
func (h *Header) MaxCmdSN() uint32 { return h.u32(offMaxCmdSN) }

// SetMaxCmdSN sets the last command sequence number the target takes.
func (h *Header) SetMaxCmdSN(v uint32) { h.setU32(offMaxCmdSN, v) }

// DataSN returns the number of a Data-In or Data-Out PDU within its sequence,
// the R2TSN of an R2T, the ExpDataSN of a SCSI response.
func (h *Header) DataSN() uint32 { return h.u32(offDataSN) }

// SetDataSN sets what DataSN returns.
func (h *Header) SetDataSN(v uint32) { h.setU32(offDataSN, v) }

// Offset returns the buffer offset of a Data-In, Data-Out or R2T.
func (h *Header) Offset() uint32 { return h.u32(offOffset) }

// SetOffset sets the buffer offset.
func (h *Header) SetOffset(v uint32) { h.setU32(offOffset, v) }

// DesiredLen returns the desired data transfer length of an R2T.
func (h *Header) DesiredLen() uint32 { return h.u32(offLength) }

// SetDesiredLen sets the desired data transfer length of an R2T.
func (h *Header) SetDesiredLen(v uint32) { h.setU32(offLength, v) }
