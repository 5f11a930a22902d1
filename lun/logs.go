package lun

import (
	"context"
	"encoding/binary"
	"math"

	"skylun/block"
)

// logPages returns a disk's log pages. There is no Temperature page, because
// nothing has one, and no Start-Stop Cycle Counter, because nothing wears.
func (d *Disk) logPages() []logPage {
	pages := []logPage{
		{0x10, func(context.Context) ([]logParameter, error) { return d.selfTestLog(), nil }},
		{0x2f, func(context.Context) ([]logParameter, error) { return exceptionLog, nil }},
	}
	if dev, ok := d.dev.(block.SpaceReporter); ok {
		pages = append([]logPage{{0x0c, func(ctx context.Context) ([]logParameter, error) { return provisioningLog(ctx, dev) }}}, pages...)
	}
	return pages
}

// provisioningLog is the Logical Block Provisioning page, SBC-3 6.3.4: how
// much can still be written, here and by others, and how much has been.
func provisioningLog(ctx context.Context, dev block.SpaceReporter) ([]logParameter, error) {
	const (
		available = 0x0001
		used      = 0x0002
		dedicated = 1 // SCOPE: for this unit
		shared    = 2 // for others too
		set       = logicalBlock << thresholdExponent
	)
	space, err := dev.Space(ctx)
	if err != nil {
		return nil, err
	}
	count := func(sets int64, scope byte) []byte {
		p := binary.BigEndian.AppendUint32(nil, uint32(min(max(sets, 0), math.MaxUint32)))
		return append(p, scope, 0, 0, 0)
	}
	return []logParameter{
		{available, count(space.Free/set, shared)},
		{used, count((space.Used+set-1)/set, dedicated)},
	}, nil
}

// selfTestLog is the Self-Test Results page, SPC-4 7.3.17.
func (d *Disk) selfTestLog() []logParameter {
	var p []logParameter
	for i, r := range d.selfTests.latest() {
		p = append(p, logParameter{uint16(i + 1), r[:]})
	}
	return p
}

// exceptionLog is the Informational Exceptions page, SPC-4 7.3.9: none, and no
// temperature.
var exceptionLog = []logParameter{{0x0000, []byte{0, 0, 0xff, 0}}}
