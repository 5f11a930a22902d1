// Package block is the contract between the layers of a disk.
//
// An image is a Reader, a disk that can be written is a Device. Everything
// between the SCSI commands and the files is one of the two, so layers can be
// stacked, wrapped and tested alike. The package imports the standard library
// only.
//
//	Reader   ReadAt, Size
//	Device   Reader + WriteAt, Discard, Flush
//
// Abilities that only some layers have (answering without waiting, telling
// which ranges hold data) are one-method interfaces found by type assertion.
//
// Offsets and lengths are bytes, int64. Ranges are half-open, [Off, End).
// A block is Size bytes; a logical block is what a SCSI unit calls a block
// and does not appear here.
package block
