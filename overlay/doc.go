// Package overlay makes a disk that can be written of an image that cannot.
//
// A Volume is layers over the Cache of an image, or over nothing: a blank disk.
// A Layer holds the blocks that were written between two snapshots; the topmost
// one is written to, the others are sealed. A Cache holds the blocks of one image
// that were copied to local disk when somebody read them; all volumes of the
// image on this node share it.
//
//	ReadAt WriteAt Discard Flush
//	           |
//	         Volume ------------- top layer: sparse file + map
//	           |  not there
//	           +----------------- sealed layers: sparse files, one index over all
//	           |  in none of them
//	         Cache -------------- copies: sparse file + map
//	           |  not cached
//	         image (block.Reader)
//
// # Who writes what
//
// The guest's writes go to the top layer, copies of the image to the cache. No
// file has two kinds of writers, so a late copy cannot overwrite a newer
// write, and the cache may be dropped at any time.
//
// # Snapshots
//
// A snapshot of volumes is the layers that they have when each gets a new one on
// top (Switch). A volume over sealed layers of a snapshot is a clone, and one
// that goes over to them was rolled back (Rebase). Sealed layers are shared:
//
//	top of v    top of a clone
//	   |          |
//	   3          |      the snapshot of today, of which v goes on from 3
//	    \        /
//	       2             the snapshot of yesterday
//	       |
//	       1             one that was removed: 1 gives up what 2 hides, or
//	       |             both become one (Shadow, Merge)
//	     image
//
// What a volume is made of is a view that never changes; another one takes its
// place (view.go). A look-up asks the map of the top layer and then one index over all
// sealed layers (chain.go), however many there are. The order of the steps that
// change layers is argued in switch.go and merge.go.
//
// A sealed layer changes only where that shows to nobody, and what it is known
// to hold is always durable, apart from what was not when it was sealed: a
// volume's Flush sees to that of the layers below its top, too.
//
// # Sizes
//
// A volume can be resized over sealed layers, which keep their sizes. What they
// hold beyond an end that the volume once had must not come back when it grows:
// the top layer hides it (resize.go). So what a layer holds beyond the end of
// the one above it is never seen.
//
// # Blocks and their states
//
// The grain is the block, block.Size bytes. In the map of a file a block is
// absent (ask what lies below), present (the bytes are in the file at the same
// offset) or zero (reads as zeros whatever lies below). They are three states
// because a discarded block must not let the image show through, and because
// what the store says is empty need never be fetched.
//
//	absent --write--> present --discard--> zero --write--> present
//	absent --discard--> zero
//	present, zero --copy of what the image has, or cut off the end--> absent
//
// In a top layer a block becomes absent again only where no sealed layer has it:
// what lies below must be the image then, also when layers were thinned meanwhile.
//
// A block that is absent again keeps its bytes in the file until that is
// durable: a crash before leaves it as it was. Who has seen it present looks
// again before believing what the file then has (quiet.go, fillUp).
//
// A write that covers whole blocks never reads what lies below. One that
// covers part of a block that is not present fills the block up first.
//
// A read takes no lock. What it may not see half of is announced, and reads
// that meet it read again with a lock (quiet.go).
//
// The map of a file is in memory (index.go); reading takes no transaction. Its
// durable copy is what LayerConfig.Map and CacheConfig.Map append to. Of a sealed layer it
// is kept in a smaller form (frozen.go).
//
// # Durability
//
// It is decided in commit.go, at Flush, in rounds that serve all who asked
// before the round began:
//
//  1. take the state changes since the last round
//  2. sync the file
//  3. append the changes to the durable map, as one record
//  4. answer
//
// A round of little that was written appends bytes and changes to the redo log
// of the layer instead of 2 and 3 (redo.go, small.go), with one sync of a file
// that has all its blocks already: a sync of the layer's file, which has got new
// ones, costs the file system below a commit of its own. What is written
// between rounds is captured for that (capture.go). The log is read at open only.
//
// After a crash a block therefore reads as its last flushed value or a later
// one, and as the same on every later read. Overwriting blocks that are present
// changes no state and appends nothing.
//
// A process that is killed loses less: what was answered is there when the
// volume is opened again on the running system, flushed or not (notes.go).
//
// The changes of a cache are appended now and then; losing them costs
// fetching again.
//
// # The cache
//
// All caches of a node share a Pool, which bounds what they hold together: the
// region that was used the longest time ago leaves first (cachepool.go). Copies
// give way to what guests write when the disk is full (cacheroom.go). Each copy
// has a checksum that is compared whenever it is read (cachesums.go): what has
// rotted, cannot be read or was lost by a failed sync is fetched again, and a
// read fails rather than show it when the store cannot be reached.
//
// # Before anybody reads
//
// A fetch is for a reader who waits, for a stream of which more will be read
// (ahead.go), or for nobody, to have all of the image (prefetcher.go). They share
// the list of fetches, so nothing is fetched twice; the latter two have limits of
// their own and are sent at once or not at all, so readers find fetches free.
// What is fetched and when is decided in package prefetch, which knows nothing but
// what it is told: who waits, what came in and how long it took.
//
//	follower  one for each volume and disc: streams, what was read first
//	guesses  one for each cache: what was fetched and nobody has asked for (guess.go)
//	prefetched  one for each cache: the order in which it is filled
//	Prefetcher  one for a node: the governor, turns, errors
//
// Readers take the Prefetcher's lock when they begin and end to wait for the
// store, and no lock otherwise.
//
// # What is read first
//
// A Trace notes which blocks of an image are read, in the order of first reads,
// by all of its volumes together; Cache.SetProfile says what to bring before
// anything else. What is made of the one and where the other comes from is for the
// caller to know.
//
// # After errors
//
// A full disk fails the write that met it and nothing else. After a sync that
// failed nobody knows which writes are on disk, and a later sync that succeeds
// would not tell: the volume then fails all writes and flushes until it is
// opened again. That holds for a layer that was sealed a moment ago, too. One
// that fails later, while layers are merged, was durable: it is read on, and not
// merged any more.
package overlay
