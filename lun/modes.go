package lun

import (
	"bytes"
	"context"
	"encoding/binary"
	"math"

	"github.com/gostor/gotgt/pkg/api"
	"github.com/gostor/gotgt/pkg/scsi"
)

// modePage is a mode page of subpage zero, SPC-4 7.5. Nothing is saved: after
// a restart the defaults hold again.
type modePage struct {
	defaults   []byte // with the two bytes of header
	changeable []byte // a bit is set when MODE SELECT may change it
}

func newModePage(code byte, length int, set map[int]byte) modePage {
	p := modePage{make([]byte, 2+length), make([]byte, 2+length)}
	p.defaults[0], p.defaults[1] = code, byte(length)
	p.changeable[0], p.changeable[1] = code, byte(length)
	for i, b := range set {
		p.defaults[i] = b
	}
	return p
}

// Bits of the mode pages that mean something here.
const (
	wce        = 0x04 // caching page, byte 2
	dSense     = 0x04 // control page, byte 2
	gltsd      = 0x02 // control page, byte 2: no log parameters are saved
	reordering = 0x10 // control page, byte 3: QUEUE ALGORITHM MODIFIER, unrestricted
	swp        = 0x08 // control page, byte 4
	dexcpt     = 0x08 // informational exceptions page, byte 2: none are reported
)

// modePages are a disk's mode pages, ascending by code.
var modePages = func() []modePage {
	caching := newModePage(0x08, 18, map[int]byte{2: wce}) // SBC-3 6.4.5
	caching.changeable[2] = wce
	control := newModePage(0x0a, 10, map[int]byte{2: gltsd, 3: reordering}) // SPC-4 7.5.8
	control.changeable[2] = dSense
	control.changeable[4] = swp
	return []modePage{
		caching,
		control,
		newModePage(0x1a, 38, nil), // power condition, SPC-4 7.5.13: all timers off
		newModePage(0x1c, 10, map[int]byte{2: dexcpt}), // informational exceptions control, SBC-3 6.4.6
	}
}()

// current returns the current values of p.
func (d *Disk) current(p modePage) []byte {
	b := bytes.Clone(p.defaults)
	set := func(i int, bit byte, on bool) {
		if b[i] &^= bit; on {
			b[i] |= bit
		}
	}
	switch b[0] {
	case 0x08:
		set(2, wce, !d.writeThrough.Load())
	case 0x0a:
		set(2, dSense, d.descriptorSense.Load())
		set(4, swp, d.swp.Load())
	}
	return b
}

// modeSense executes MODE SENSE(6) and (10), SPC-4 6.13 and 6.14.
func (d *Disk) modeSense(_ context.Context, c *Command) error {
	const (
		dbd   = 0x08
		llbaa = 0x10
	)
	wide := c.CDB[0] == byte(api.MODE_SENSE_10)
	long := wide && c.CDB[1]&llbaa != 0
	code, sub := c.CDB[2]&0x3f, c.CDB[3]
	if sub != 0 && sub != 0xff {
		return invalidField(3, 7)
	}
	p := make([]byte, modeHeader(wide), 256)
	if c.CDB[1]&dbd == 0 {
		p = d.blockDescriptor(p, long)
	}
	descriptors := len(p) - modeHeader(wide)
	found := false
	for _, page := range modePages {
		if code != 0x3f && code != page.defaults[0] {
			continue
		}
		found = true
		switch c.CDB[2] >> 6 { // PC
		case 0:
			p = append(p, d.current(page)...)
		case 1:
			p = append(p, page.changeable...)
		case 2:
			p = append(p, page.defaults...)
		case 3:
			return errSavingParams
		}
	}
	if !found {
		return invalidField(2, 5)
	}
	const (
		wp     = 0x80
		dpofua = 0x10
	)
	specific := byte(dpofua)
	if d.protected.Load() {
		specific |= wp
	}
	if wide {
		binary.BigEndian.PutUint16(p, uint16(len(p)-2))
		p[3] = specific
		if long {
			p[4] = 0x01 // LONGLBA
		}
		binary.BigEndian.PutUint16(p[6:], uint16(descriptors))
		c.reply(p, uint64(binary.BigEndian.Uint16(c.CDB[7:])))
		return nil
	}
	p[0], p[2], p[3] = byte(len(p)-1), specific, byte(descriptors)
	c.reply(p, uint64(c.CDB[4]))
	return nil
}

// modeHeader returns the length of the mode parameter header, SPC-4 7.5.5.
func modeHeader(wide bool) int {
	if wide {
		return 8
	}
	return 4
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

// modeSelect executes MODE SELECT(6) and (10), SPC-4 6.11 and 6.12. The whole
// list is checked before anything of it takes effect.
func (d *Disk) modeSelect(ctx context.Context, c *Command) error {
	const (
		pf = 0x10
		sp = 0x01
	)
	wide := c.CDB[0] == byte(api.MODE_SELECT_10)
	length := int(c.CDB[4])
	if wide {
		length = int(binary.BigEndian.Uint16(c.CDB[7:]))
	}
	if length == 0 {
		return nil
	}
	if c.CDB[1]&pf == 0 {
		return invalidField(1, 4)
	}
	if c.CDB[1]&sp != 0 {
		return invalidField(1, 0)
	}
	c.Transfer = int64(length)
	pages, err := d.checkModeList(c.Out[:min(length, len(c.Out))], wide)
	if err != nil {
		return err
	}
	through, changed := d.writeThrough.Load(), false
	for _, p := range pages {
		changed = d.apply(p) || changed
	}
	if changed {
		d.raiseOthers(c.Nexus, scsi.ASC_MODE_PARAMETERS_CHANGED)
	}
	if !through && d.writeThrough.Load() {
		return d.flush(ctx, 0) // what the write cache still holds
	}
	return nil
}

// checkModeList returns the pages of a mode parameter list (SPC-4 7.5.4) that
// may be applied as they are.
func (d *Disk) checkModeList(list []byte, wide bool) (pages [][]byte, err error) {
	at := modeHeader(wide)
	if len(list) < at {
		return nil, errListLength
	}
	descriptors, long := int(list[3]), false
	if wide {
		descriptors, long = int(binary.BigEndian.Uint16(list[6:])), list[4]&0x01 != 0
	}
	if descriptors > 0 {
		want := d.blockDescriptor(nil, long)
		if descriptors != len(want) {
			return nil, invalidParameter(at-1, 7)
		}
		if len(list) < at+len(want) {
			return nil, errListLength
		}
		// Neither the number of logical blocks nor their length can be
		// changed; a number of zero means to leave it.
		got := bytes.Clone(list[at : at+len(want)])
		if allZero(got[:len(want)-4]) {
			copy(got, want[:len(want)-4])
		}
		if !bytes.Equal(got, want) {
			return nil, invalidParameter(at, 7)
		}
		at += len(want)
	}
	for at < len(list) {
		page := list[at:]
		i := indexPage(page[0] & 0x3f)
		if i < 0 || page[0]&0x40 != 0 { // SPF
			return nil, invalidParameter(at, 5)
		}
		p := modePages[i]
		if len(page) < 2 {
			return nil, errListLength
		}
		if page[1] != p.defaults[1] {
			return nil, invalidParameter(at+1, 7)
		}
		if len(page) < len(p.defaults) {
			return nil, errListLength
		}
		page = page[:len(p.defaults)]
		for i, now := range d.current(p) {
			if i >= 2 && (page[i]^now)&^p.changeable[i] != 0 {
				return nil, invalidParameter(at+i, -1)
			}
		}
		pages = append(pages, page)
		at += len(page)
	}
	return pages, nil
}

func indexPage(code byte) int {
	for i, p := range modePages {
		if p.defaults[0] == code {
			return i
		}
	}
	return -1
}

// apply makes a checked page current, and tells whether it was not.
func (d *Disk) apply(page []byte) bool {
	switch page[0] & 0x3f {
	case 0x08:
		through := page[2]&wce == 0
		return d.writeThrough.Swap(through) != through
	case 0x0a:
		descriptor, protect := page[2]&dSense != 0, page[4]&swp != 0
		changed := d.swp.Load() != protect
		d.protect(protect)
		return d.descriptorSense.Swap(descriptor) != descriptor || changed
	}
	return false
}

// Reset implements Resetter.
func (d *Disk) Reset() {
	d.writeThrough.Store(false)
	d.descriptorSense.Store(false)
	d.protect(false)
	d.server.Reset()
}
