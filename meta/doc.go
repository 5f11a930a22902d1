// Package meta keeps what a node must remember about its volumes and caches
// in one bbolt file and a journal beside it: which volumes exist, what they lie
// on, and which blocks of every local file hold data. It is the only user of
// bbolt.
//
// # Vocabulary
//
//	volume   a disk that can be written, found by its name
//	layer    what a volume wrote between two snapshots: a local file, over
//	         another layer, over an image or over zeros
//	snapshot the layers that volumes had on top at one moment
//	cache    the local copies of one image's blocks
//	map      which blocks of one local file hold data; a layer has one, a
//	         cache has one, both are found by a number that is never used again
//	extent   a run of blocks of a map that are in the same state; the states
//	         are the overlay's, meta only knows that zero means "no extent"
//	unit     what a logical unit number points to; what it has to remember is
//	         kept for it by name, and only it knows what that means
//	records  what the array of local members remembers: which members there
//	         are, and where on them its files lie; only it knows what that means
//	record   extents of one flush round, in the journal until they are folded
//	         into the extents
//
// # Schema, version 4
//
//	bucket    key                          value
//	node      "version"                    uint32
//	          "journal"                    16 bytes, uint64, byte             (since version 3)
//	          sequence                     last map number given out
//	volumes   name                         JSON Volume
//	layers    number, also of its map      JSON Layer                       (since version 4)
//	snapshots name                         JSON Snapshot                    (since version 4)
//	caches    map number                   JSON Cache
//	extents   map number, first block      state, uvarint blocks, CRC-32C
//	journal   map number, sequence number  { state, uvarint first block, uvarint blocks } ..., CRC-32C
//	                                       (empty since version 3)
//	units     unit, 0, name                what the unit keeps, CRC-32C      (since version 2)
//	records   key                          value, CRC-32C                   (since version 4)
//
// Numbers in keys are big-endian uint64, so that a cursor meets them in
// order. bbolt has no checksum over its data pages: extents, records, the
// journal and what units keep carry a CRC-32C over key and value. The journal is drawn in
// journal.go; what the database knows of it is which file belongs to it, up to
// which record that is folded, and whether the file may have others.
//
// A file of an earlier version is brought up to the current one when it is
// opened for writing, in the transaction that looks at its version. One of a
// later version is refused.
//
// # Layers
//
// A layer knows the one that it lies on, so layers are trees. A volume names
// the layer it writes to, its top, which nothing lies on and no snapshot
// names; a snapshot names sealed layers:
//
//	image
//	  |
//	  1  <- snapshot monday
//	 / \
//	2   3  <- top of volume clone
//	|
//	4  <- top of volume v
//
// What nobody names and nothing lies on, and what nobody names and only one
// layer lies on, is no longer needed as a layer of its own (2 above). That is
// no damage: whoever removes snapshots and volumes may be stopped at any point,
// and what is left to do is seen in the tree (Tree.Unneeded). A file of a layer
// goes before its record, so no crash leaves a file that nobody knows of.
//
// # Why a journal
//
// A bbolt commit costs two fdatasync and writes every page it touched; one
// key for each written block would make a flush of scattered writes many times
// slower than its data. So a flush round appends one record to a plain file,
// with one fdatasync for all rounds that do so at the same time, and a
// goroutine folds records into extents off that path, a bounded number of
// extents in a transaction. Loading a map reads its extents, then its
// records in order: the later one wins. What removes a map, or a part of it,
// folds first.
package meta
