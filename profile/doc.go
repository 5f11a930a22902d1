// Package profile remembers which parts of an image are read first, so that
// they can be fetched before anybody asks.
//
// A Profile is merged of runs: the ranges of the image that were read in the
// first minutes of a guest, in the order of their first reads. It says what
// the next guest will want, and in which order.
//
//	run, run, run ── Merge ──▶ Profile ── Ranges ──▶ what to fetch, in order
//	                             │  ▲
//	                       Encode▼  │Decode
//	                           a document of some tens of KiB
//
// The package is pure: it reads and writes nothing but memory.
//
// # Merging
//
// The grain is the block, block.Size bytes. For each block the profile keeps its
// share, in how many of the runs it was read, of which later ones count
// more, and its position, how many blocks were read before it, averaged over
// those runs. A share sinks with every run that does without the block, and
// the block is forgotten when it is low.
//
// In order means: first the blocks read in more than half of the runs, then
// the others, each by position. Stretches of window blocks of that order
// are then sorted by their place in the image, because what is wanted within
// milliseconds of each other is better fetched in few requests.
//
// # Format
//
//	"skylprof"      8 bytes
//	version         1 byte, 1
//	size            of the image, bytes      (numbers are varints of
//	identity        length, bytes             encoding/binary)
//	runs            that it was merged of
//	entries         number, then each:
//	  first         block, less the one behind the entry before; signed
//	  count         blocks, less one
//	  share         1 byte, of 255
//	  position      less that behind the entry before; signed
//	checksum        CRC32C of all before, 4 bytes little endian
//
// What Decode returns obeys every bound, whoever wrote the document. It is
// of use for the content whose identity it names and for no other.
package profile
