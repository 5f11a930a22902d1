// Package azurite runs Azurite, Microsoft's emulator of the blob service, for
// tests, and puts a proxy before it that counts requests and breaks them on
// demand.
//
// Azurite is an npm package; package-lock.json in this folder pins it with
// everything it needs, and test/run installs it. Here it is only started: the
// environment variable AZURITE_DIR names the folder it was
// installed in.
//
// Two of its options are always needed: the Go SDK speaks a newer version of
// the protocol than Azurite knows (--skipApiVersionCheck), and tests stay on
// this machine (--disableTelemetry).
package azurite
