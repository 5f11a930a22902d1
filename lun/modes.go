package lun

import (
	"context"
	"encoding/binary"
	"math"
)

// Bits of the mode pages that mean something here.
const (
	wce        = 0x04 // caching page, byte 2
	dSense     = 0x04 // control page, byte 2
	gltsd      = 0x02 // control page, byte 2: no log parameters are saved
	reordering = 0x10 // control page, byte 3: QUEUE ALGORITHM MODIFIER, unrestricted
	swp        = 0x08 // control page, byte 4
	tas        = 0x40 // control page, byte 5
	dexcpt     = 0x08 // informational exceptions page, byte 2: none are reported
)

// Codes of the pages that a unit obeys.
const (
	cachingPage = 0x08
	controlPage = 0x0a
)

// newControlPage returns the Control page, SPC-4 7.5.8, of a unit that obeys
// it with obeyControl, and in which software can set SWP if it has a medium
// that can be written.
func newControlPage(writable bool) modePage {
	// TAS is set because nothing else tells an initiator at once that its command
	// will never end.
	p := newModePage(controlPage, 10, map[int]byte{2: gltsd, 3: reordering, 5: tas})
	p.changeable[2] = dSense
	p.changeable[3] = qerrMask
	p.changeable[5] = tas
	p.check = func(page []byte) int {
		if page[3]&qerrMask>>qerrShift == 2 { // reserved
			return 3
		}
		return -1
	}
	if writable {
		p.changeable[4] = swp
	}
	return p
}

// obeyControl takes over what the Control page says.
func (s *server) obeyControl(page []byte) {
	s.descriptorSense.Store(page[2]&dSense != 0)
	s.reportAborts.Store(page[5]&tas != 0)
	s.setQERR(uint32(page[3] & qerrMask >> qerrShift))
	s.protect(page[4]&swp != 0)
}

// newControlExtension returns the Control Extension page, SPC-4 7.5.9: there
// is no clock to set, no priority, and no limit for sense data but MaxSense.
func newControlExtension() modePage { return newModeSubpage(controlPage, 0x01, 28, nil) }

// newPageZero returns the vendor specific page, empty: old versions of Windows
// ask for it, and take a refusal for a unit that is not there.
func newPageZero() modePage { return newModePage(0x00, 0, nil) }

// diskModePages returns a disk's mode pages. Page zero is the last one, SPC-4
// 7.5.6.
func diskModePages() []modePage {
	caching := newModePage(cachingPage, 18, map[int]byte{2: wce}) // SBC-3 6.4.5
	caching.changeable[2] = wce
	return []modePage{
		caching,
		newControlPage(true),
		newControlExtension(),
		newModePage(0x1a, 38, nil), // power condition, SPC-4 7.5.13: all timers off
		newModePage(0x1c, 10, map[int]byte{2: dexcpt}), // informational exceptions control, SBC-3 6.4.6
		newPageZero(),
	}
}

// obey makes the disk behave as a mode page says.
func (d *Disk) obey(page []byte) {
	switch code, sub, _ := modeCode(page); {
	case sub != 0:
	case code == cachingPage:
		d.writeThrough.Store(page[2]&wce == 0)
	case code == controlPage:
		d.obeyControl(page)
	}
}

// modeSpecific returns the DEVICE-SPECIFIC PARAMETER field, SBC-3 6.4.1.
func (d *Disk) modeSpecific() byte {
	const (
		wp     = 0x80
		dpofua = 0x10
	)
	if d.protected.Load() {
		return wp | dpofua
	}
	return dpofua
}

// blockDescriptor appends the mode parameter block descriptor, SBC-3 6.4.2.
func (d *Disk) blockDescriptor(p []byte, long bool) []byte {
	n := d.capacity()
	if long {
		p = binary.BigEndian.AppendUint64(p, n)
		p = binary.BigEndian.AppendUint32(p, 0)
	} else {
		p = binary.BigEndian.AppendUint32(p, uint32(min(n, math.MaxUint32)))
	}
	return binary.BigEndian.AppendUint32(p, logicalBlock)
}

// selectModes executes MODE SELECT. When the write cache is off with it, what
// it still holds is durable before the command ends.
func (d *Disk) selectModes(ctx context.Context, c *Command) error {
	through := d.writeThrough.Load()
	if err := d.modeSelect(ctx, c); err != nil {
		return err
	}
	if !through && d.writeThrough.Load() {
		return d.flush(ctx, 0)
	}
	return nil
}
