package lun

import (
	"context"
	"encoding/binary"
)

// Command is one SCSI command on its way through a unit: the CDB and the
// Data-Out it came with, and after Try or Execute its status, sense data and
// Data-In.
//
// A Command is reused by the transport. A unit keeps no reference to it or to
// its buffers once it has ended.
type Command struct {
	// Set by the transport, not changed by the unit.

	CDB     []byte     // SPC-4 4.2; any length is fit to be refused
	Nexus   *Nexus     // the I_T nexus it came through
	Out     []byte     // the Data-Out buffer, no longer than what the initiator announced
	InLimit int        // the most Data-In the initiator takes (its expected transfer length)
	Alloc   BufferPool // where Data-In buffers come from

	// Set by the unit. What was there before does not matter.

	Status Status
	In     []byte // Data-In, at most InLimit bytes, from Alloc or nil

	// Transfer is the number of bytes the command itself moves, before
	// InLimit or len(Out) cut it: the residual count (RFC 7143 11.4.5) is
	// its difference to the expected transfer length. With any other status
	// than StatusGood there is no Data-In, and Transfer counts Data-Out
	// that was taken.
	Transfer int64

	// Sense is the sense data when Status is StatusCheckCondition, else
	// nil. It is backed by the command itself.
	Sense []byte

	sense [MaxSense]byte
	spare []byte // Data-In buffer of a Try that gave up, for Execute
}

// MaxSense is the most sense data a unit returns, in bytes.
const MaxSense = 64

// BufferPool hands out Data-In buffers for one command. They are the
// transport's again when the command's answer has been sent; those that did
// not become Command.In, when the command has ended.
type BufferPool interface {
	// Get returns n bytes of unspecified content, n > 0.
	Get(n int) []byte
}

// Unit is a logical unit (SAM-5 4.6): what a LUN points to.
//
// All methods are safe for parallel calls. A panic in a handler ends its
// command with HARDWARE ERROR, INTERNAL TARGET FAILURE and a log line with the
// stack.
type Unit interface {
	// Try ends c if that takes no waiting, and tells whether it did. After
	// false the fields that the transport set are as they were, the others
	// mean nothing, and Execute is to be called.
	Try(c *Command) bool

	// Execute ends c. When ctx ends first, c ends soon after with
	// StatusTaskAborted and writes nothing later.
	Execute(ctx context.Context, c *Command)

	// Attach tells the unit that a nexus came, before its first command:
	// that command finds a unit attention, SAM-5 5.14. Detach tells that it
	// went: what the unit kept for it is gone. Both may be repeated.
	Attach(n *Nexus)
	Detach(n *Nexus)
}

// Resetter is a Unit with state that a logical unit reset ends. Map.Reset
// finds it.
type Resetter interface {
	// Reset ends reservations and changes of mode parameters, and makes a
	// unit attention pending for every nexus, SAM-5 6.3.3. The commands of
	// the unit have been aborted before.
	Reset()
}

// AbortReporter is a Unit that says how commands end that are aborted by what
// another nexus has done.
type AbortReporter interface {
	// ReportsAborts tells whether they end with StatusTaskAborted, rather
	// than without an answer: the TAS bit of the control mode page, SPC-4
	// 7.5.8.
	ReportsAborts() bool
}

// Nexus is an I_T nexus (SAM-5 4.8): one iSCSI session. Units tell nexuses
// apart by pointer. The exported fields do not change once it is attached.
type Nexus struct {
	InitiatorName string  // iqn., eui. or naa. name
	ISID          [6]byte // initiator session ID, RFC 7143 11.12.5
	TargetName    string  // iqn. name of the target
	PortalGroup   uint16  // target portal group tag, also the relative target port identifier

	// Transport is what has made the nexus, nil if it can do nothing for a
	// unit.
	Transport Transport

	luns *Map // the inventory it sees, set by AttachNexus
}

// Transport is what units and maps ask of the transport of a nexus. Its
// methods may be called while a unit executes a command.
type Transport interface {
	// AbortTasks aborts the commands of the nexus for u, but for one that
	// asks for it, and returns when they can have no further effect, or
	// with the error of ctx.
	AbortTasks(ctx context.Context, u Unit, but *Command) error

	// InventoryChanged tells the initiator, if there is a way to, that it
	// should look at the inventory again. It does not wait.
	InventoryChanged()
}

// Store keeps what a unit has to remember over restarts of the server, by
// name. All its methods are safe for parallel calls.
type Store interface {
	Load(name string) ([]byte, error)     // nil when there is nothing of that name
	Save(name string, value []byte) error // durable when it has returned; nil removes
}

// begin puts c into the state in which handlers find it.
func (c *Command) begin() {
	c.Status, c.In, c.Transfer, c.Sense = StatusGood, nil, 0, nil
}

// buffer returns n bytes for Data-In.
func (c *Command) buffer(n int) []byte {
	if b := c.spare; len(b) == n {
		c.spare = nil
		return b
	}
	return c.Alloc.Get(n)
}

// reply makes data the Data-In of a command whose CDB has an ALLOCATION LENGTH
// field, SPC-4 4.2.5.6.
func (c *Command) reply(data []byte, allocation uint64) {
	data = data[:min(uint64(len(data)), allocation)]
	c.Transfer = int64(len(data))
	if n := min(len(data), c.InLimit); n > 0 {
		c.In = c.buffer(n)
		copy(c.In, data)
	}
}

// extent returns the LOGICAL BLOCK ADDRESS field and the length in blocks
// that follows it. Every command of a CDB length that has them has them in
// the same place, SBC-3 clause 5. A zero length of a 6-byte CDB means 256.
func (c *Command) extent() (lba uint64, blocks uint32) {
	cdb := c.CDB
	switch cdb[0] >> 5 { // SPC-4 4.2.5.1, group code
	case 0:
		lba = uint64(binary.BigEndian.Uint32(cdb) & 0x1fffff)
		if blocks = uint32(cdb[4]); blocks == 0 {
			blocks = 256
		}
	case 4:
		_ = cdb[15]
		lba, blocks = binary.BigEndian.Uint64(cdb[2:]), binary.BigEndian.Uint32(cdb[10:])
	case 5:
		_ = cdb[11]
		lba, blocks = uint64(binary.BigEndian.Uint32(cdb[2:])), binary.BigEndian.Uint32(cdb[6:])
	default:
		_ = cdb[9]
		lba, blocks = uint64(binary.BigEndian.Uint32(cdb[2:])), uint32(binary.BigEndian.Uint16(cdb[7:]))
	}
	return lba, blocks
}

// lengthField returns where the CDB has the length that extent returns, for
// the CDBs in which it can be too large.
func (c *Command) lengthField() int {
	switch c.CDB[0] >> 5 {
	case 4:
		return 10
	case 5:
		return 6
	default:
		return 7
	}
}
