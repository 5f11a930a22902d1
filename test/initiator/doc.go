// Package initiator is a small iSCSI initiator for tests. It does what a test
// says, legal or not, and shows everything that comes back.
//
// At the lowest level a test makes PDUs and sends them; nothing is checked:
//
//	c, err := initiator.Dial(addr)
//	p := c.NewCommand(lun, cdb)   // an ordinary SCSI command PDU,
//	p.SetITT(pdu.NoTag)           // spoiled
//	c.Send(p)
//	answer, err := c.Receive()    // header, additional header segments, data
//
// Above that there are a login that can be told what to say in which stage
// (Login), a command that delivers its Data-Out as the target asks for it
// and gathers its Data-In (Do), and a disk (Disk), which is a block.Device at
// the far end of the wire.
//
// Digests are sent and checked when the login has agreed on them; a PDU can be
// told to have wrong ones.
//
// A Conn keeps the sequence numbers an initiator keeps, in exported fields that
// a test may change. It is used by one goroutine at a time; Disk is safe for
// parallel calls.
package initiator
