// Package pdu reads and writes the wire format of iSCSI, RFC 7143 section 11:
// basic header segments, additional header segments, text, serial numbers.
// It keeps no state, does no I/O and allocates nothing.
//
// A PDU is
//
//	+-----------------------+
//	| basic header segment  |  HeaderSize bytes: Header
//	+-----------------------+
//	| additional header     |  AHSLen bytes, a multiple of 4
//	| segments              |
//	+-----------------------+
//	| header digest         |  only when negotiated
//	+-----------------------+
//	| data segment          |  DataLen bytes,
//	| padding               |  then 0 to 3 bytes to a multiple of 4
//	+-----------------------+
//	| data digest           |  only when negotiated
//	+-----------------------+
//
// A Header is the bytes themselves with a method for each field. Fields that
// several PDUs have at the same place share one method; what a field is
// called in which PDU is said there. Reading a field that the PDU at hand does
// not have gives whatever bytes are there: callers look at the opcode first.
//
//	byte    0              1              2              3
//	    0  |.|I| opcode   |F| flags, by opcode                         |
//	    4  | AHS length   | data segment length                        |
//	    8  | LUN, or by opcode                                         |
//	   12  |                                                           |
//	   16  | initiator task tag                                        |
//	   20  | expected length, target transfer tag, referenced task tag |
//	   24  | CmdSN                | StatSN                             |
//	   28  | ExpStatSN            | ExpCmdSN                           |
//	   32  | by opcode            | MaxCmdSN                           |
//	   36  | DataSN, R2TSN, by opcode                                  |
//	   40  | buffer offset, by opcode                                  |
//	   44  | residual count, desired length, by opcode                 |
//	             from the initiator     from the target
package pdu
