//go:build !linux

package target

import "sync/atomic"

// fastSocket returns nc.
func fastSocket(nc *netSocket, _ *atomic.Int32) socket { return nc }
