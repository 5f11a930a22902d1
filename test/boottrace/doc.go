// Package boottrace reads a disk as a Linux guest does that boots, for tests
// and benchmarks.
//
// Linux makes a trace, which is small and of any size. Debian is one that was
// recorded (command record), of a guest that booted from a target of skylun.
// What the made one does is what blktrace shows of a cloud image that boots
// with GRUB and systemd from ext4:
//
//	firmware   the partition table and the boot loader: some dozen small reads, one
//	           after the other
//	loader     a kernel and an initial RAM disk, in one piece each, read from start to end
//	           in pieces of 64 KiB, one after the other
//	mount      superblock, group descriptors, journal: 4 KiB here and there
//	services   chains of reads, several side by side: an inode (4 KiB of a table
//	           at the beginning of a block group), a directory block, then a file in windows of
//	           16, 64 and then 128 KiB, as the kernel's read-ahead asks for it
//
// Between two reads of a chain the guest works for a moment; how long is part
// of the trace, and whoever replays it may leave it out.
package boottrace
