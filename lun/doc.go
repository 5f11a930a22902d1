// Package lun holds the device servers: what answers SCSI commands.
//
// A Unit is what a logical unit number points to. Disk is the unit for a
// block.Device, CDROM the drive for a Medium. A Map says which unit has which
// number in one target; the transport finds the unit of a command with
// Map.Unit, gives it the command, and sends what the unit left in it.
//
//	           Command{CDB, Out, InLimit, ...}
//	transport ---------------------------------> Map.Unit(LUN) -> Unit
//	    ^                                          Try, else Execute
//	    |                                              |
//	    +--- Command{Status, In, Transfer, Sense} -----+
//
// # Words
//
// A nexus is an I_T nexus of SAM-5, one session. Data-In goes to the initiator,
// Data-Out comes from it. A CDB is the command descriptor block. A logical
// block is 512 bytes on a disk and 2048 on a disc, an LBA is the number of one.
// A unit attention is a condition that a unit tells each nexus once, by ending
// a command with it. A vacancy answers for a number that has no unit.
//
// # How a command runs
//
// Each unit has one table of operations (operation): name, CDB usage, flags
// and handler. The server part of a unit finds the row, checks unit attention,
// access state of the port, whether the unit is stopped, reservation, CDB
// length and write protection, and runs the handler, a func(context.Context,
// *Command) error. The error becomes a status and sense data in one place,
// diagnose in sense.go. REPORT SUPPORTED OPERATION CODES shows the same table,
// and so does docs/scsi.md.
//
// What keeps commands from running is rare. All of it counts in one gate: as long
// as that is zero, a command takes no lock and looks at nothing else.
//
// Try runs what takes no waiting: commands that touch no device, and reads and
// writes of a device that is a block.TryReader and block.TryWriter. It
// allocates nothing for a read or write that succeeds. A caller that must not
// wait calls Try, and hands the command to a worker when it returns false.
//
// # Reservations
//
// Registrations and persistent reservations belong to nexuses by their names
// (nexusName), so they outlive sessions, and to the unit, so all targets that
// show it share them. registrations.go says what each service action does, as
// functions from state to state; prout.go lets one at a time take effect, after
// what has to persist was saved. Every operation has an access class, and each
// attached nexus knows which classes are denied to it: a command that meets no
// reservation and no unit attention looks at one counter, and another one looks
// at one mask.
//
// # Copies
//
// A disk that is told to copy is the copy manager (SPC-4 5.17), for disks that
// the nexus could use itself: peers.go says which those are. The disk remembers
// what became of each copy. Tokens stand for the data of a moment and keep none
// of it; they are one more reason to look at the gate, and what changes their
// data revokes them (token.go).
//
// # Mode parameters and port groups
//
// Mode pages are data that a unit brings (modePage); what can be changed is
// obeyed through one function, saved in the unit's Store, and current again
// after a reset or a restart. Map.SetPortGroups says how the portal groups of a
// target stand; units tell initiators, and keep commands from those that are
// not active.
//
// # gotgt
//
// The package takes operation codes, sense codes and page constants from
// github.com/gostor/gotgt, and gives it units back as api.SCSILu values. Its
// command processing is not used.
package lun
