// Command powercut runs in a guest and shows that the server keeps its promises
// when the power fails. The server's data is on a file system on a device that
// records what reaches it, in which order, and what has been flushed
// (dm-log-writes). Later the record is replayed up to many points; at each, what
// a disk would hold is mounted and served again, and every sector of every volume
// is compared with what it may be.
//
//	load --iSCSI--> skylun --> ext4 or xfs --> dm-log-writes --> ubda
//	  |                                             |
//	  +--- marks: "what was flushed by now" ------> ubdb, the record
//
//	record up to a point --> ubdc --> snapshot, writes to ubdd --> mount, skylun, compare
//
// # What a disk would hold
//
// The kernel records writes when the flush that makes them durable has ended,
// those with FUA when they have ended themselves, and marks in between. Of the
// writes between the last flush and the point any may be on the disk and any may
// not, so at some points each is there or is not by chance, larger ones also in
// part, in pieces of 4 KiB.
//
// # What a sector may be
//
// Each sector that is written says which one it is and which write it was of
// (stamp). The marks tell, for each point in the record, the last write of each
// sector that had been flushed, or written with FUA, before: the sector holds that
// write or a later one, never an older one or a mixture. After another start it
// holds the same.
//
// Snapshots of both volumes are taken and removed meanwhile. Each holds, for every
// sector, what was answered before it was asked for or something later, and nothing
// that was sent after it was there.
//
// The system that serves after a cut must not take itself for the one that wrote
// before: it gets another boot id.
package main
