// Package dmlog reads what the device mapper's log-writes target records: every
// write to a device, in which order it reached the device, and what was flushed.
//
// The target records writes when the flush that makes them durable has ended,
// before it, and those with FUA when they have ended. Marks are from whoever has
// sent the device a message.
package dmlog
