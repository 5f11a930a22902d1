// Package raid keeps the local bytes of layers and caches: files of a fixed
// size, striped over the members of an array.
//
// # Vocabulary
//
//	member   what allocates space: a directory, a block device, a file, an NBD export
//	piece    the part of a file that is on one member
//	segment  a part of a file that is striped over the same members; a file that has grown
//	         has several
//	stamp    what a member carries, to tell which one it is
//	record   what is durable of members and files, in a store that the user brings
//
// # Shape
//
//	File      size, locking                           file.go
//	  | runs: package stripe                          layout.go, spread.go
//	part      counts, which of them to sync           member.go
//	  |
//	Piece of a Member: who allocates
//	  dir       the host's file system, sparsely      dir.go
//	  extents   nobody: all space from the beginning  extents.go   \ on a Device
//	  chunks    this package, when it is written      chunks.go    / device.go, nbd.go
//
// Above this package nobody knows where the bytes are, and who allocates them.
// Identical offsets hold within a piece in any case.
//
// # Several files on one device
//
// An array has many files, so a device is shared. On one with identical
// allocation each piece has ranges of its own from its creation to its end; they
// are next to each other as they were asked for, and who needs more than
// is free gets ErrNoSpace when the file is made, never when it is written. On
// one of chunks all pieces take from the same chunks, and ErrNoSpace comes with the
// write that finds none.
//
// # Which member gets how much
//
// The layout of a file is decided when it is made, recorded, and valid to its end.
// Without weights a member's part of a file is its part of the array's size, in
// zones: full members of different size are full at the same time, and the
// beginning of a file lies on all of them. With weights stripes are dealt by weight
// throughout. Members that are added count for what is made, and grown, after
// that.
//
// Space that is handed out when it is written, in directories and chunks, may be promised
// more than once. Who does so with members of different size gives them
// weights in proportion to their sizes: then they fill up together, whichever
// part of the disks is written.
//
// # Taking members out
//
// One that is leaving gets no part of what is made, and grows, from then on, and
// Rebalance moves off it what it has (leave.go). Empty, it may be missing.
//
// # Identity
//
// Members are found by their stamps, whatever their order and paths. The records say
// which ones there must be. A member that is missing is an error when a file that may not be
// lost has a part on it; else those files go, and the array goes on without it.
//
// # Errors
//
// Errors of the operating system become those of package block here: a full
// disk, device or quota is block.ErrNoSpace, everything else block.ErrMedium, with
// the member's path.
package raid
