package target

import (
	"bytes"
	"testing"

	"skylun/test/devicetest"
	"skylun/test/memdev"
)

// The contract of a device holds across the wire: initiator, transport, disk,
// and a device that answers at once or has workers wait for it.
func TestDeviceContract(t *testing.T) {
	for _, inline := range []bool{true, false} {
		name := map[bool]string{true: "inline", false: "workers"}[inline]
		t.Run(name, func(t *testing.T) {
			devicetest.Run(t, func(t *testing.T) devicetest.Subject {
				data := content(1 << 20)
				unit := disk(t, memdev.Of(bytes.Clone(data)))
				if inline {
					unit = disk(t, tryDevice{memdev.Of(bytes.Clone(data))})
				}
				d, err := start(t, Config{}, unit).login(t).Disk(0)
				if err != nil {
					t.Fatal(err)
				}
				return devicetest.Subject{Device: d, Content: data}
			})
		})
	}
}
