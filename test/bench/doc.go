// Command bench measures the server against a target from Debian (tgtd) and
// against a plain file below its own target, side by side on one machine.
//
//	go run ./test/bench -md /tmp/table.md            every row, on tmpfs and on disk
//	go run ./test/bench -rows 'random reads' -dir /dev/shm
//	go run ./test/bench -list
//
// It needs root for tgtd's control socket, and the Debian packages tgt,
// libiscsi-bin, qemu-utils and qemu-block-extra. It starts every server
// itself, each on a port of its own, and ends them by process number.
//
// # How a row is measured
//
// A row is one load (4 KiB random reads, 32 in flight, say) on two sides. The
// sides take turns, A B A B, with the order swapped every round, and the row
// is the ratio of their medians: this machine may be busy with other things,
// and a busy minute should hit both. The load comes from a process of its
// own, so the server's CPU time, user and system, as /proc tells it before and
// after, is the server's alone.
//
// Two kinds of client are used. "go" is the loop in client.go: one connection,
// one thread, blocking system calls, so cheap that on two cores it is the
// server that is measured. "libiscsi" is the clients of libiscsi-bin and
// qemu-utils, which nobody here wrote; they spend more CPU on an operation
// than a good target does, so their rates say little above 60,000 a second and
// the CPU time per operation is the number to look at.
//
// Rows with digests have CRC32C of header and data, which the go client makes
// and checks; tgtd has a target of its own for them, since it takes digests
// always or never. Libiscsi knows no data digests. Rows with two initiators run
// two clients at once and count what both did.
//
// The rows against a plain file tell what the overlay costs: overwrites, first
// writes, both mixed with reads, large transfers, and flushes after scattered
// writes.
//
// The rows of small files compare an overlay with a qcow2 file that qemu-nbd serves:
// a guest makes small files on ext4 and syncs each, what it does to its disk is
// recorded, and then done again on both, on a fresh overlay each time. They need
// root and what test/guest needs.
//
// A row may also be a contest: it starts what it compares itself and has nothing
// to do with the servers of the other rows. Rows are in files by what they are
// compared with; rows.go puts them together.
//
// The rows with members are contests: a file in an array of one directory
// against a plain file, by CPU time; four throttled members against one, in
// process, each a file behind a token bucket; and the server with four members
// against the server with one. The row with four blobs reads a striped image out
// of a store in this process, none of whose blobs gives more than a page blob.
//
// # Cold rows
//
//	go run ./test/bench -rows cold -repeats 3 -dir /dev/shm
//
// These measure what is read of an image that is not local yet, with the store
// of test/shaped in this process behind a latency and a bandwidth (cold.go), from which
// all sides read over HTTP: skylun through its client of Azure, nbdkit with the
// plugin curl and the filters cow and cache, and qemu-nbd over a qcow2 file with
// copy-on-read (packages nbdkit, qemu-utils and qemu-block-extra). The last two are
// read by the NBD client in nbd.go. Each turn begins with a server that has nothing.
//
// The boot is the trace of test/boottrace, which is made and not recorded; its
// package says what it is made after.
//
// # What is the same on both sides
//
// The files of all sides lie on the same file system, have the same size and
// the same content, and get into the page cache the same way: files for
// reading are dropped from it and then read in one sweep; files for
// overwriting are filled by 4 KiB writes in scattered order. The latter is not
// a detail: a 4 KiB write into a page that a large write has brought into the
// cache costs ten times as much on some kernels (large folios).
package main
