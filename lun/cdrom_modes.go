package lun

import (
	"bytes"
	"encoding/binary"
)

// Codes of the pages of a drive.
const (
	recoveryPage     = 0x01
	deviceParameters = 0x0d
	audioPage        = 0x0e
	capabilitiesPage = 0x2a
)

// driveModePages returns a drive's mode pages. Initiators may set how errors
// are recovered, when an idle disc stops and how loud music is; there are no
// errors to recover by reading again, nothing turns, and nothing plays.
func driveModePages() []modePage {
	recovery := newModePage(recoveryPage, 10, map[int]byte{3: 8 /* READ RETRY COUNT */}) // MMC-6 7.3
	recovery.changeable[2], recovery.changeable[3] = 0x37, 0xff

	parameters := newModePage(deviceParameters, 6, map[int]byte{5: 60, 7: framesPerS}) // MMC-3: seconds in a minute, frames in a second
	parameters.changeable[3] = 0x0f                                                    // INACTIVITY TIMER MULTIPLIER

	audio := newModePage(audioPage, 14, map[int]byte{2: 0x04 /* IMMED */, 8: 0x01, 9: 0xff, 10: 0x02, 11: 0xff}) // MMC-3: ports 0 and 1
	audio.changeable[2] = 0x02                                                                                   // SOTC
	for i := 8; i < 16; i += 2 {
		audio.changeable[i], audio.changeable[i+1] = 0x0f, 0xff
	}

	return []modePage{
		recovery,
		newControlPage(false),
		parameters,
		audio,
		newModePage(0x1a, 10, nil), // power condition, MMC-6 7.8: all timers off
		capabilities(),
	}
}

// Offsets and bits of the capabilities page.
const (
	capMechanism = 6
	capLockState = 0x02
	capSpeed     = 14 // CURRENT READ SPEED
)

// capabilities returns the CD Capabilities and Mechanical Status page, MMC-3
// 6.3.11, without write speeds. Later standards have features instead, but
// Windows and others ask for it.
func capabilities() modePage {
	const (
		readsCDR    = 0x01
		readsCDRW   = 0x02
		readsDVDROM = 0x08
		readsDVDR   = 0x10
		locks       = 0x01
		ejects      = 0x08
		tray        = 0x20
	)
	p := newModePage(capabilitiesPage, 30, map[int]byte{
		2:            readsCDR | readsCDRW | readsDVDROM | readsDVDR,
		4:            0x40, // multi-session
		capMechanism: locks | ejects | tray,
	})
	binary.BigEndian.PutUint16(p.defaults[8:], fullSpeed) // MAXIMUM READ SPEED
	binary.BigEndian.PutUint16(p.defaults[12:], driveBuf>>10)
	binary.BigEndian.PutUint16(p.defaults[capSpeed:], fullSpeed)
	return p
}

// obey makes the drive behave as a mode page says.
func (d *CDROM) obey(page []byte) {
	if page[0] == controlPage {
		d.obeyControl(page)
	}
}

// liveModes fills in what the drive knows best: whether the tray is locked, and
// the speed.
func (d *CDROM) liveModes(page []byte) []byte {
	if page[0] != capabilitiesPage {
		return page
	}
	page = bytes.Clone(page)
	d.mu.Lock()
	locked := len(d.lockedBy()) > 0
	d.mu.Unlock()
	if page[capMechanism] &^= capLockState; locked {
		page[capMechanism] |= capLockState
	}
	binary.BigEndian.PutUint16(page[capSpeed:], uint16(d.speed.Load()))
	return page
}
