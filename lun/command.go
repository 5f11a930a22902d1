package lun

import "context"

// Command is one SCSI command on its way through a unit: the CDB and the
// Data-Out it came with, and after Try or Execute its status, sense data and
// Data-In.
//
// A Command is reused by the transport. A unit keeps no reference to it or to
// its buffers once it has ended.
type Command struct {
	// Set by the transport.

	CDB     []byte     // SPC-4 4.2, 6 to 260 bytes
	Nexus   *Nexus     // the I_T nexus it came through
	Out     []byte     // the Data-Out buffer, no longer than what the initiator announced
	InLimit int        // the most Data-In the initiator takes (its expected transfer length)
	Alloc   BufferPool // where Data-In buffers come from

	// Set by the unit.

	Status   Status
	In       []byte // Data-In, at most InLimit bytes, from Alloc or nil
	Transfer int64  // bytes the command itself asks to move, before InLimit or len(Out) cut it: residuals are counted from it
	Sense    []byte // sense data when Status is StatusCheckCondition, backed by the command itself

	sense [MaxSense]byte
}

// MaxSense is the most sense data a unit returns, in bytes.
const MaxSense = 64

// BufferPool hands out Data-In buffers. The transport takes the buffer back
// after it has sent Command.In.
type BufferPool interface {
	// Get returns n bytes of unspecified content.
	Get(n int) []byte
}

// Unit is a logical unit (SAM-5 4.6): what a LUN points to.
//
// All methods are safe for parallel calls. A panic in a handler ends its
// command with HARDWARE ERROR, INTERNAL TARGET FAILURE and a log line with the
// stack.
type Unit interface {
	// Try ends c if that takes no waiting, and tells whether it did. After
	// false c is as it was, but for its In buffer being unset, and Execute
	// is to be called.
	Try(c *Command) bool

	// Execute ends c. When ctx ends first, c ends soon after with
	// StatusTaskAborted and writes nothing later.
	Execute(ctx context.Context, c *Command)

	// Attach and Detach tell the unit that a nexus came and went.
	Attach(n *Nexus)
	Detach(n *Nexus)
}

// Nexus is an I_T nexus (SAM-5 4.8): one iSCSI session.
type Nexus struct {
	InitiatorName string  // iqn., eui. or naa. name
	ISID          [6]byte // initiator session ID, RFC 7143 11.12.5
	TargetName    string  // iqn. name of the target
	PortalGroup   uint16  // target portal group tag, also the relative target port identifier
}
