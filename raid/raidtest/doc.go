// Package raidtest has what arrays of raid are tested on: disks and records in
// memory that know what a power cut would leave of them, and can be made to
// fail.
//
//	Disk     a raid.Device: of each sector what it held at the last sync, or
//	         anything that was written to it since
//	Dir      a raid.Member that allocates like a directory, each piece on a Disk
//	Records  raid.Records, of which a change is there or not
//
// All of them call Hook at the points where something becomes durable, and
// Failing, which may return an error, before they do anything.
package raidtest
