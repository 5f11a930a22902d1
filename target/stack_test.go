package target

import (
	"bytes"
	"testing"

	"skylun/test/devicetest"
	"skylun/test/initiator"
	"skylun/test/memdev"
)

// The contract of a device holds across the wire: initiator, transport, disk,
// and a device that answers at once or has workers wait for it; with and without
// digests, and over two connections of a session, one of them with digests.
func TestDeviceContract(t *testing.T) {
	oneConn := func(keys ...string) func(*testing.T, *server) (*initiator.Disk, error) {
		return func(t *testing.T, s *server) (*initiator.Disk, error) { return s.login(t, keys...).Disk(0) }
	}
	for _, c := range []struct {
		name   string
		inline bool
		open   func(*testing.T, *server) (*initiator.Disk, error)
	}{
		{"inline", true, oneConn()},
		{"workers", false, oneConn()},
		{"inline with digests", true, oneConn(bothDigests...)},
		{"workers with digests", false, oneConn(bothDigests...)},
		{"small bursts with digests", true, oneConn(append(digestKeys(true, true), "MaxRecvDataSegmentLength", "1024", "MaxBurstLength", "4096",
			"FirstBurstLength", "512", "InitialR2T", "No", "MaxOutstandingR2T", "4")...)},
		{"two connections inline", true, twoPaths},
		{"two connections with workers", false, twoPaths},
	} {
		t.Run(c.name, func(t *testing.T) {
			devicetest.Run(t, func(t *testing.T) devicetest.Subject {
				data := content(1 << 20)
				unit := disk(t, memdev.Of(bytes.Clone(data)))
				if c.inline {
					unit = disk(t, tryDevice{memdev.Of(bytes.Clone(data))})
				}
				d, err := c.open(t, start(t, Config{}, unit))
				if err != nil {
					t.Fatal(err)
				}
				return devicetest.Subject{Device: d, Content: data}
			})
		})
	}
}

func twoPaths(t *testing.T, s *server) (*initiator.Disk, error) {
	a, b := s.twoConns(t)
	return a.Disk(0, b)
}
