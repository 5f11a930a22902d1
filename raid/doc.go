// Package raid keeps the local bytes of layers and caches: files of a fixed
// size in an array of members.
//
// A member is a directory. A file lies in it sparse and at identical offsets:
// the host's file system allocates, what was never written reads as zeros, and
// a hole punched gives the space back. Above this package nobody knows where
// the bytes are.
//
// An array has one member today; the address maths for several goes between
// File's methods and the member's files.
//
// Errors of the operating system become those of package block here: a full
// disk or quota is block.ErrNoSpace, everything else block.ErrMedium, with
// the member's path.
package raid
