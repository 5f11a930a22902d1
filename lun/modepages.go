package lun

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"log/slog"
	"sync"
)

// Mode parameters, SPC-4 7.5. A unit lists its pages in a table of modePage.
// For each there are four sets of values:
//
//	default     in the table, never changed
//	changeable  in the table: a mask of what MODE SELECT may change
//	current     what the unit obeys
//	saved       what current becomes at start and with a reset
//
// MODE SELECT changes the current values, and with SP the saved ones too. The
// saved values are in the unit's Store; a unit without one saves nothing, and
// its saved values are the default ones. All nexuses share one set of values,
// as the Mode Page Policy page tells.

// modePage is a mode page or subpage.
type modePage struct {
	defaults   []byte // as MODE SENSE returns it, with header, without PS
	changeable []byte // as long

	// check returns the offset of a value that cannot be, negative if
	// there is none, in a page that differs only where it may. A nil check
	// finds none.
	check func(page []byte) int
}

// newModePage returns a page whose parameters are zero but for set, by their
// offset in the page.
func newModePage(code byte, length int, set map[int]byte) modePage {
	return newModePageOf([]byte{code, byte(length)}, length, set)
}

// newModeSubpage is newModePage for the sub_page format, SPC-4 7.5.7.
func newModeSubpage(code, sub byte, length int, set map[int]byte) modePage {
	return newModePageOf([]byte{subpageFormat | code, sub, byte(length >> 8), byte(length)}, length, set)
}

func newModePageOf(header []byte, length int, set map[int]byte) modePage {
	p := modePage{defaults: append(header, make([]byte, length)...)}
	p.changeable = bytes.Clone(p.defaults)
	for i, b := range set {
		p.defaults[i] = b
	}
	return p
}

// subpageFormat is the SPF bit in the first byte of a page.
const subpageFormat = 0x40

// modeCode returns the PAGE CODE and SUBPAGE CODE of a page of values and the
// length of its header. A subpage code of zero means that there is none.
func modeCode(page []byte) (code, sub byte, header int) {
	if page[0]&subpageFormat != 0 {
		return page[0] & 0x3f, page[1], 4
	}
	return page[0] & 0x3f, 0, 2
}

// modes are the mode parameters of a unit. It is filled in before the unit's
// first command; what is not guarded does not change after that.
type modes struct {
	pages []modePage // in the order in which MODE SENSE returns them
	store Store      // nil: nothing is saved

	// specific returns the DEVICE-SPECIFIC PARAMETER field.
	specific func() byte

	// descriptor appends the block descriptor, in its long form if asked.
	// A unit without one has nil here.
	descriptor func(p []byte, long bool) []byte

	// obey makes the unit behave as a page of current values says. It is
	// called for all pages at start, and for those that change.
	obey func(page []byte)

	// live returns a page of current values with those that the unit changes
	// by itself. It is nil for a unit that changes none.
	live func(page []byte) []byte

	selecting chan struct{} // has room for one MODE SELECT: it may wait for the store

	mu             sync.Mutex
	current, saved [][]byte // guarded by mu: by index of pages; values are replaced, not changed
}

// savedModes is the name of the saved pages in a Store. The value is the
// pages one after the other, as MODE SENSE returns them. Pages that a unit does
// not have, or not with that length, are passed over.
const savedModes = "modes"

// load takes the saved values from the store and makes them current.
func (m *modes) load() error {
	m.selecting = make(chan struct{}, 1)
	m.saved = make([][]byte, len(m.pages))
	for i, p := range m.pages {
		m.saved[i] = p.defaults
	}
	var err error
	if m.store != nil {
		var kept []byte
		if kept, err = m.store.Load(savedModes); err != nil {
			err = fmt.Errorf("load saved mode pages: %w", err)
		}
		m.merge(kept)
	}
	m.current = append([][]byte(nil), m.saved...)
	for _, page := range m.current {
		m.obey(page)
	}
	return err
}

// loadModes fills in the mode parameters before the unit's first command. When
// what was saved cannot be read, the unit refuses its commands: a disk that is to
// be protected, or to write through, must not come back without.
func (s *server) loadModes() {
	if err := s.modes.load(); err != nil {
		s.log.Error("commands are refused until a start of the server can read what the unit has to remember", slog.Any("err", err))
		s.leave(errStateLost)
	}
}

// merge makes the changeable bits in kept, as they were saved, saved values.
func (m *modes) merge(kept []byte) {
	for len(kept) >= 4 {
		n := 2 + int(kept[1])
		if kept[0]&subpageFormat != 0 {
			n = 4 + int(binary.BigEndian.Uint16(kept[2:]))
		}
		if n > len(kept) {
			return
		}
		page := kept[:n]
		kept = kept[n:]
		i := m.index(page)
		if i < 0 || len(m.pages[i].defaults) != n {
			continue
		}
		p, merged := m.pages[i], bytes.Clone(m.pages[i].defaults)
		_, _, header := modeCode(page)
		for j := header; j < n; j++ {
			merged[j] = merged[j]&^p.changeable[j] | page[j]&p.changeable[j]
		}
		if p.check == nil || p.check(merged) < 0 {
			m.saved[i] = merged
		}
	}
}

// index returns which of the pages has the code of page, negative if none.
func (m *modes) index(page []byte) int {
	code, sub, _ := modeCode(page)
	for i, p := range m.pages {
		if c, s, _ := modeCode(p.defaults); c == code && s == sub {
			return i
		}
	}
	return -1
}

// values returns the current and the saved values, not to be changed.
func (m *modes) values() (current, saved [][]byte) {
	m.mu.Lock()
	current, saved = append([][]byte(nil), m.current...), append([][]byte(nil), m.saved...)
	m.mu.Unlock()
	if m.live != nil { // it may take the unit's lock, which comes before ours
		for i, page := range current {
			current[i] = m.live(page)
		}
	}
	return current, saved
}

// change makes pages, which have been checked, current, and first saved if
// save is set. It tells whether that makes a difference to what holds.
func (m *modes) change(ctx context.Context, pages [][]byte, save bool) (changed bool, err error) {
	select {
	case m.selecting <- struct{}{}:
	case <-ctx.Done():
		return false, ctx.Err()
	}
	defer func() { <-m.selecting }()
	if save {
		// Saved before it is current: what an initiator sees of this
		// command it sees after a restart, too.
		_, saved := m.values()
		for _, p := range pages {
			saved[m.index(p)] = p
		}
		if err := m.store.Save(savedModes, bytes.Join(saved, nil)); err != nil {
			return false, fmt.Errorf("save mode pages: %w", err)
		}
		m.mu.Lock()
		m.saved = saved
		m.mu.Unlock()
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, p := range pages {
		if i := m.index(p); !bytes.Equal(m.current[i], p) {
			m.current[i], changed = p, true
			m.obey(p)
		}
	}
	return changed, nil
}

// reset makes the saved values current, as a reset does (SPC-4 5.10).
func (m *modes) reset() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for i, p := range m.saved {
		if !bytes.Equal(m.current[i], p) {
			m.current[i] = p
			m.obey(p)
		}
	}
}
