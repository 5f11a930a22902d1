// Package e2e tests the built binary as a user would use it: with a
// configuration file, the command line, and initiators that others wrote
// (libiscsi's tools and QEMU's). It is behind the build tag e2e, because it
// needs those tools and Azurite; "./test/run e2e" installs them and runs it.
//
// Most tests run twice, over each kind of store. A store of the test's side
// counts what is asked of it, goes away and comes back, and changes blobs
// behind the server's back:
//
//	file       a directory; it counts by what the server says about itself
//	azurite    a container behind a proxy that counts
//
// Waits are for events, and bounded. Only TestKill, where chance is the point,
// lets a random time pass.
package e2e
