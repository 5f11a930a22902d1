package pdu

import "fmt"

// Opcode is what a PDU is, RFC 7143 11.2.1.2.
type Opcode byte

// Opcodes of requests, which initiators send.
const (
	NOPOut      Opcode = 0x00
	SCSICommand Opcode = 0x01
	TaskRequest Opcode = 0x02
	LoginReq    Opcode = 0x03
	TextReq     Opcode = 0x04
	DataOut     Opcode = 0x05
	LogoutReq   Opcode = 0x06
	SNACK       Opcode = 0x10
)

// Opcodes of responses, which targets send.
const (
	NOPIn        Opcode = 0x20
	SCSIResponse Opcode = 0x21
	TaskResponse Opcode = 0x22
	LoginResp    Opcode = 0x23
	TextResp     Opcode = 0x24
	DataIn       Opcode = 0x25
	LogoutResp   Opcode = 0x26
	R2T          Opcode = 0x31
	AsyncMessage Opcode = 0x32
	Reject       Opcode = 0x3f
)

var opcodeNames = map[Opcode]string{
	NOPOut: "NOP-Out", SCSICommand: "SCSI command", TaskRequest: "task management request",
	LoginReq: "login request", TextReq: "text request", DataOut: "Data-Out",
	LogoutReq: "logout request", SNACK: "SNACK request",
	NOPIn: "NOP-In", SCSIResponse: "SCSI response", TaskResponse: "task management response",
	LoginResp: "login response", TextResp: "text response", DataIn: "Data-In",
	LogoutResp: "logout response", R2T: "R2T", AsyncMessage: "asynchronous message", Reject: "reject",
}

// String returns the opcode's name in RFC 7143.
func (op Opcode) String() string {
	if s, ok := opcodeNames[op]; ok {
		return s
	}
	return fmt.Sprintf("opcode 0x%02x", byte(op))
}

const immediateBit = 0x40

// Bits of byte 1 that several PDUs share.
const (
	FlagFinal    = 0x80 // F, and T of login PDUs
	FlagContinue = 0x40 // C of login and text PDUs
)

// Bits of byte 1 of a SCSI command, 11.3.1.
const (
	FlagRead  = 0x40
	FlagWrite = 0x20
)

// Bits of byte 1 of a SCSI response (11.4.1) and a Data-In (11.7.1).
const (
	FlagAck       = 0x40 // Data-In only: A
	FlagOverflow  = 0x04
	FlagUnderflow = 0x02
	FlagStatus    = 0x01 // Data-In only: S
)
