// Package nbd is a client of NBD exports over Unix sockets: the fixed newstyle
// handshake and simple replies, as the protocol's document has them
// (github.com/NetworkBlockDevice/nbd, doc/proto.md).
//
// Many requests are in flight on one connection. What the server can do is used
// where it matters: FLUSH, or else FUA with every write, and WRITE_ZEROES. A
// server without FLUSH and FUA is refused: nothing would ever be known to be on
// its disk.
//
// # When the server goes away
//
// A request that gets no answer in time ends the connection, and all requests in
// flight fail with it. The next one connects again, if the last attempt is long enough ago,
// and looks whether it is still the same export. But writes that nobody has
// flushed may be lost with the server that had them in memory. When
// there were any, the client fails all writes and flushes from then on: a later flush
// that succeeds would not make them good. Reads go on.
//
// The libraries that were looked at either hand the socket to the kernel's driver,
// which takes root and a module, or need cgo.
package nbd
