// Package prefetch decides what of an image is fetched before anybody reads
// it, and when. It is pure: events and times go in, decisions come out; it
// does no I/O, starts nothing and looks at no clock. So it is simulated, hours
// of a busy node in milliseconds.
//
//	Streams    which reads follow each other, and how far to read ahead of them
//	Order      what of an image that is not local is the most useful next
//	Governor   how much may be under way now, so that readers do not suffer
//	Backoff    when to try again after an error
//	Schedule   the hours of the day at which the whole image may be fetched
//
// # The governor
//
// A fetch for nobody (a fill) competes with the fetches that somebody waits for, on
// the way to the store, and with everybody on local disks and processors. One
// Governor sees all of a node. It allows a window of bytes under way:
//
//	           no gain from twice the window
//	Startup ---------------------------------> Cruise <----> Probe up, down
//	   ^                                          |
//	   | the way is free for a while              | somebody waits for the store
//	   +------------------- Yield <---------------+
//
// It looks for the smallest window that brings (nearly) as much as any: more
// under way than that only makes queues, in which others wait too. It compares what
// comes in per second in one epoch and the next, and not the latency of single
// fetches, which varies by a lot without meaning anything.
//
// Whoever waits for the store ends that at once: nothing is sent any more but a trickle,
// so small a share that nobody notices, until nobody has waited for some
// round trips. Pauses are random by a quarter, so that nodes which were
// stopped together do not start together.
//
// What the store says (slow down) and what local readers show (busy, slower
// than they are alone) narrows the window as well.
package prefetch
