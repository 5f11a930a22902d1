package lun

import (
	"bytes"
	"context"
	"encoding/binary"

	"github.com/gostor/gotgt/pkg/api"
	"github.com/gostor/gotgt/pkg/scsi"
)

// modeSelect executes MODE SELECT(6) and (10), SPC-4 6.11 and 6.12. The whole
// list is checked before anything of it takes effect.
func (s *server) modeSelect(ctx context.Context, c *Command) error {
	const (
		pf = 0x10
		sp = 0x01
	)
	m := &s.modes
	wide := c.CDB[0] == byte(api.MODE_SELECT_10)
	length := int(c.CDB[4])
	if wide {
		length = int(binary.BigEndian.Uint16(c.CDB[7:]))
	}
	save := c.CDB[1]&sp != 0
	if save && m.store == nil {
		return invalidField(1, 0)
	}
	if length == 0 {
		return nil
	}
	if c.CDB[1]&pf == 0 {
		return invalidField(1, 4)
	}
	c.Transfer = int64(length)
	pages, err := m.checkModeList(c.Out[:min(length, len(c.Out))], wide)
	if err != nil {
		return err
	}
	changed, err := m.change(ctx, pages, save)
	if changed {
		s.raiseOthers(c.Nexus, scsi.ASC_MODE_PARAMETERS_CHANGED)
	}
	return err
}

// checkModeList returns the pages of a mode parameter list (SPC-4 7.5.4) that
// may be made current as they are.
func (m *modes) checkModeList(list []byte, wide bool) (pages [][]byte, err error) {
	at := modeHeader(wide)
	if len(list) < at {
		return nil, errListLength
	}
	descriptors, long := int(list[3]), false
	if wide {
		descriptors, long = int(binary.BigEndian.Uint16(list[6:])), list[4]&0x01 != 0
	}
	if descriptors > 0 {
		var want []byte
		if m.descriptor != nil {
			want = m.descriptor(nil, long)
		}
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
	current, _ := m.values()
	for at < len(list) {
		page := list[at:]
		if len(page) < 2 {
			return nil, errListLength
		}
		i := m.index(page)
		if i < 0 {
			return nil, invalidParameter(at, 5)
		}
		p := m.pages[i]
		_, _, header := modeCode(p.defaults)
		if n := min(len(page), header); !bytes.Equal(page[1:n], p.defaults[1:n]) {
			return nil, invalidParameter(at+1, 7)
		}
		if len(page) < len(p.defaults) {
			return nil, errListLength
		}
		page = bytes.Clone(page[:len(p.defaults)])
		page[0] = p.defaults[0] // PS is reserved here
		for j := header; j < len(page); j++ {
			if (page[j]^current[i][j])&^p.changeable[j] != 0 {
				return nil, invalidParameter(at+j, -1)
			}
		}
		if p.check != nil {
			if bad := p.check(page); bad >= 0 {
				return nil, invalidParameter(at+bad, -1)
			}
		}
		pages = append(pages, page)
		at += len(page)
	}
	return pages, nil
}
