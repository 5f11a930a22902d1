// Package measure finds out what a local disk does: bytes, operations and
// latency, of a directory on it or of the device itself, within bounded time and
// space.
//
// In a directory it works on a file without a name, which is gone with the
// process however that ends. On a device, or a file that is to be one, it works on a
// stretch in the middle, which it has read and found to be zeros before the first
// write, and makes zeros again in the end: so nothing is lost. What is not empty is
// refused unless Options.Force, and then that stretch is lost.
//
//	fill     1 MiB writes, one after the other, 8 in flight, then a sync
//	read     1 MiB reads, likewise
//	iops     4 KiB reads, then writes, at random, 32 in flight; a sync ends the writes
//	latency  4 KiB reads at random, one in flight
//
// The page cache is kept out (O_DIRECT) where the file system allows it; else
// Result.Cached says that what was measured is memory, too.
package measure
