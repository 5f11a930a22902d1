// Package test holds what looks at the program as a whole.
//
//	test/run           installs what the tests need and runs all of them
//	imports_test.go    which package may import what, and why
//	e2e                the built binary, used by clients that others wrote (build tag e2e)
//	guest              a Linux kernel as initiator, in a guest machine (build tag guest)
//	boot               emulated PCs that boot and install from a drive (build tag boot)
//	bench              the server against tgtd and against a plain file, side by side
//	azurite            an emulated blob store, and a proxy that counts and breaks its requests
//
// The folders beside these are suites and fakes that the packages' own tests
// share.
package test
