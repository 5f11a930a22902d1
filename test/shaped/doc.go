// Package shaped is a blob store in this process behind a slow link, for tests
// and benchmarks.
//
// It answers as much of Azure's REST interface as it takes to serve images and
// keep documents, and plain HTTP with byte ranges, so that different programs
// can read the same bytes over the same link. It has no cost of its own worth
// mentioning: an emulator that is written in another language tops out where a
// benchmark begins.
//
// The link is modelled: the first byte of an answer comes after a latency, and all
// answers share a bandwidth, in the order in which they get to it; those of one blob
// may share less. It counts what goes over it.
package shaped
