package lun

import (
	"context"
	"encoding/binary"

	"github.com/gostor/gotgt/pkg/api"
)

// modeOps returns MODE SENSE, and MODE SELECT if sel is not nil.
func (s *server) modeOps(sel func(context.Context, *Command) error) []operation {
	ops := []operation{
		{name: "MODE SENSE(6)", usage: cdb(api.MODE_SENSE, "08 ff ff ff 04"), flags: inline | accessRead, do: s.modeSense},
		{name: "MODE SENSE(10)", usage: cdb(api.MODE_SENSE_10, "18 ff ff 000000 ffff 04"), flags: inline | accessRead, do: s.modeSense},
	}
	if sel != nil {
		ops = append(ops,
			operation{name: "MODE SELECT(6)", usage: cdb(api.MODE_SELECT, "11 0000 ff 04"), flags: accessWrite, do: sel},
			operation{name: "MODE SELECT(10)", usage: cdb(api.MODE_SELECT_10, "11 0000000000 ffff 04"), flags: accessWrite, do: sel})
	}
	return ops
}

// allModePages and allSubpages ask for more than one page, SPC-4 6.13.1.
const (
	allModePages = 0x3f
	allSubpages  = 0xff
)

// modeSense executes MODE SENSE(6) and (10), SPC-4 6.13 and 6.14.
func (s *server) modeSense(_ context.Context, c *Command) error {
	const (
		dbd   = 0x08
		llbaa = 0x10
	)
	m := &s.modes
	wide := c.CDB[0] == byte(api.MODE_SENSE_10)
	long := wide && c.CDB[1]&llbaa != 0
	p := make([]byte, modeHeader(wide), 256)
	if c.CDB[1]&dbd == 0 && m.descriptor != nil {
		p = m.descriptor(p, long)
	}
	descriptors := len(p) - modeHeader(wide)
	p, err := m.append(p, c.CDB[2]>>6, c.CDB[2]&0x3f, c.CDB[3])
	if err != nil {
		return err
	}
	if wide {
		binary.BigEndian.PutUint16(p, uint16(len(p)-2))
		p[3] = m.specific()
		if long {
			p[4] = 0x01 // LONGLBA
		}
		binary.BigEndian.PutUint16(p[6:], uint16(descriptors))
		c.reply(p, uint64(binary.BigEndian.Uint16(c.CDB[7:])))
		return nil
	}
	if len(p) > 1+0xff {
		return invalidField(2, 5) // more than a header of four bytes can tell
	}
	p[0], p[2], p[3] = byte(len(p)-1), m.specific(), byte(descriptors)
	c.reply(p, uint64(c.CDB[4]))
	return nil
}

// append appends the pages that MODE SENSE asks for with its PC, PAGE CODE and
// SUBPAGE CODE fields.
func (m *modes) append(p []byte, pc, code, sub byte) ([]byte, error) {
	const (
		current    = 0
		changeable = 1
		defaults   = 2
		saved      = 3
		ps         = 0x80 // the page can be saved
	)
	if code == allModePages && sub != 0 && sub != allSubpages {
		return nil, invalidField(3, 7)
	}
	now, kept := m.values()
	known, found := false, false
	for i, page := range m.pages {
		c, s, header := modeCode(page.defaults)
		known = known || c == code
		if code != allModePages && code != c || sub != allSubpages && sub != s {
			continue
		}
		found = true
		at := len(p)
		switch pc {
		case current:
			p = append(p, now[i]...)
		case changeable:
			p = append(p, page.changeable...)
		case defaults:
			p = append(p, page.defaults...)
		case saved:
			if m.store == nil {
				return nil, errSavingParams
			}
			p = append(p, kept[i]...)
		}
		if m.store != nil && !allZero(page.changeable[header:]) {
			p[at] |= ps
		}
	}
	switch {
	case found:
		return p, nil
	case known:
		return nil, invalidField(3, 7)
	default:
		return nil, invalidField(2, 5)
	}
}

// modeHeader returns the length of the mode parameter header, SPC-4 7.5.5.
func modeHeader(wide bool) int {
	if wide {
		return 8
	}
	return 4
}
