package lun

import (
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/gostor/gotgt/pkg/api"
	"github.com/gostor/gotgt/pkg/scsi"

	"skylun/block"
)

// Medium is a disc. The drive reads it from the time it is given it until
// Removed; a last sector that is cut short is filled up with zeros. If it is
// a block.TryReader, reads that need not wait are quick.
type Medium interface {
	block.Reader

	// Removed tells that the medium has been taken out and nothing reads it
	// any more. It is called once, by whoever happened to read last, and
	// does not wait for anything.
	Removed()
}

// MaxMedium is the size of the largest disc that a drive can take, in bytes:
// its last sector has a 32-bit number.
const MaxMedium = (1<<32 - 1) * sectorSize

// CDROMConfig says what a drive is and what it starts with.
type CDROMConfig struct {
	Name string   // for log lines
	ID   [16]byte // identity of the drive: serial number and NAA designator are derived from it

	Medium Medium // in the drive at first; nil: none
	Open   bool   // the tray is open at first, with or without a medium on it

	// What Told has returned, as long as nothing has moved since: initiators
	// that need not hear of what is in the drive.
	Generation uint64
	Told       []string

	// Save, if not nil, makes durable what the drive is about to hold, before
	// it does: a medium, nil for none, whether the tray is open, and of which
	// generation that is. When it fails, nothing moves. It may wait.
	Save func(m Medium, open bool, generation uint64) error

	// ToldMore, if not nil, is called when Told has more to return. It does
	// not wait, and does not call the drive.
	ToldMore func()

	// Attached, if not nil, is called when an initiator has logged in. It does
	// not wait, and does not call the drive.
	Attached func()

	Store Store // what else has to be remembered over restarts; nil: nothing is
}

// CDROM is a CD-ROM or DVD-ROM drive (MMC-6) with a tray that holds one disc,
// or none. By the size of its disc it is a CD-ROM or a DVD-ROM.
//
//	START STOP UNIT   opens and closes the tray, with what is on it
//	Eject             opens the tray and takes the disc away
//	Insert            lays a disc on the tray, in place of what is there, and
//	                  closes it; while it is prepared the drive is becoming ready
//
// The state of the tray is one for all nexuses. Prevention of its removal,
// media events and unit attentions are kept for each.
type CDROM struct {
	server
	save     func(Medium, bool, uint64) error
	toldMore func()

	// ready is the disc that commands can read, nil while there is none. It
	// follows from the fields below, and is there for readers without a lock.
	ready atomic.Pointer[disc]

	// moving is held while the tray or what is on it changes, over the call
	// of save. It is taken before mu.
	moving sync.Mutex

	generation uint64           // guarded by mu: counts moves
	disc       *disc            // guarded by mu: what lies in the drive
	open       bool             // guarded by mu: the tray
	hosts      map[*Nexus]*host // guarded by mu
	told       []string         // guarded by mu: initiator ports that know of this generation
	freed      chan struct{}    // guarded by mu: closed when the tray may have become free, and replaced
	speed      atomic.Uint32    // selected read speed in kB/s
}

var (
	_ Unit     = (*CDROM)(nil)
	_ Resetter = (*CDROM)(nil)
)

// NewCDROM returns a drive. It takes over the medium that cfg gives it.
func NewCDROM(cfg CDROMConfig, log *slog.Logger) *CDROM {
	d := &CDROM{save: cfg.Save, toldMore: cfg.ToldMore, generation: cfg.Generation, told: cfg.Told, open: cfg.Open, hosts: make(map[*Nexus]*host), freed: make(chan struct{})}
	d.unit = d
	d.log = log.With(slog.String("drive", cfg.Name))
	d.peripheral = scsi.PQ_DEVICE_CONNECTED | byte(api.TYPE_MMC)
	d.id = driveIdentity(cfg.ID)
	d.removable, d.readOnly = true, true
	d.protect(false)
	d.versions = append(slices.Clone(commonVersions), versionMMC6)
	d.pages = []vpdPage{d.supportedPages(), d.serialNumber(), d.deviceIdentification()}
	d.speed.Store(fullSpeed)
	d.modes = modes{pages: driveModePages(), store: cfg.Store, specific: func() byte { return 0 }, obey: d.obey, live: d.liveModes}
	d.loadModes()
	if cfg.Medium != nil {
		d.disc = newDisc(cfg.Medium)
		if !d.open {
			d.ready.Store(d.disc)
		}
	}
	d.heard, d.attached = d.hear, cfg.Attached
	d.serve(d.operations(), errInvalidOpcode)
	return d
}

// Operation codes of MMC-6 that gotgt has no name for.
const (
	opReadFormatCapacities api.SCSICommandType = 0x23
	opReadSubChannel       api.SCSICommandType = 0x42
	opGetEventStatus       api.SCSICommandType = 0x4a
	opReadDiscInformation  api.SCSICommandType = 0x51
	opReadTrackInformation api.SCSICommandType = 0x52
	opSetReadAhead         api.SCSICommandType = 0xa7
	opReadCDMSF            api.SCSICommandType = 0xb9
	opMechanismStatus      api.SCSICommandType = 0xbd
	opReadCD               api.SCSICommandType = 0xbe
)

// operations returns the drive's table. A3h, where disks have REPORT SUPPORTED
// OPERATION CODES, is SEND KEY of drives.
func (d *CDROM) operations() []operation {
	return append(d.modeOps(d.modeSelect), []operation{
		d.testUnitReadyOp(d.testUnitReady),
		d.requestSenseOp(d.senseNow),
		d.inquiryOp(),
		d.reportLUNsOp(),
		{name: "SEND DIAGNOSTIC", usage: cdb(api.SEND_DIAGNOSTIC, "e4 00 ffff 04"), flags: inline | accessWrite, do: d.sendDiagnostic},
		{name: "RESERVE(6)", usage: cdb(api.RESERVE, "11 0000 00 04"), flags: accessSelf, do: d.reserve6},
		{name: "RELEASE(6)", usage: cdb(api.RELEASE, "11 0000 00 04"), flags: inline | shared | accessSelf, do: d.release6},

		{name: "START STOP UNIT", usage: cdb(api.START_STOP, "01 00 04 f3 04"), flags: accessSelf, do: d.startStop},
		{name: "PREVENT ALLOW MEDIUM REMOVAL", usage: cdb(api.ALLOW_MEDIUM_REMOVAL, "000000 03 04"), flags: inline | accessSelf, do: d.preventAllow},
		{name: "GET CONFIGURATION", usage: cdb(api.GET_CONFIGURATION, "03 ffff 000000 ffff 04"), flags: early | inline | shared | accessAll, do: d.getConfiguration},
		{name: "GET EVENT STATUS NOTIFICATION", usage: cdb(opGetEventStatus, "01 0000 ff 0000 ffff 04"), flags: early | inline | shared | accessAll, do: d.getEventStatus},
		{name: "MECHANISM STATUS", usage: cdb(opMechanismStatus, "00 000000000000 ffff 00 04"), flags: inline | accessAll, do: d.mechanismStatus},

		{name: "READ(10)", usage: cdb(api.READ_10, "18 ffffffff 00 ffff 04"), flags: accessRead, do: d.read, try: d.tryRead},
		{name: "READ(12)", usage: cdb(api.READ_12, "18 ffffffff ffffffff 00 04"), flags: accessRead, do: d.read, try: d.tryRead},
		{name: "READ CD", usage: cdb(opReadCD, "1e ffffffff ffffff fe 07 04"), flags: accessRead, do: d.readCD},
		{name: "READ CD MSF", usage: cdb(opReadCDMSF, "1e 00 ffffff ffffff fe 07 04"), flags: accessRead, do: d.readCD},
		{name: "READ CAPACITY", usage: cdb(api.READ_CAPACITY, "00 ffffffff 0000 01 04"), flags: inline | accessAll, do: d.readCapacity},
		{name: "READ FORMAT CAPACITIES", usage: cdb(opReadFormatCapacities, "00 0000000000 ffff 04"), flags: inline | accessAll, do: d.readFormatCapacities},
		{name: "SEEK(10)", usage: cdb(api.SEEK_10, "00 ffffffff 000000 04"), flags: inline | accessRead, do: d.seek},

		{name: "READ SUB-CHANNEL", usage: cdb(opReadSubChannel, "02 40 ff 0000 ff ffff 04"), flags: inline | accessRead, do: d.readSubChannel},
		{name: "READ TOC/PMA/ATIP", usage: cdb(api.READ_TOC, "02 0f 000000 ff ffff c4"), flags: inline | accessRead, do: d.readTOC},
		{name: "READ DISC INFORMATION", usage: cdb(opReadDiscInformation, "07 0000000000 ffff 04"), flags: inline | accessRead, do: d.readDiscInformation},
		{name: "READ TRACK INFORMATION", usage: cdb(opReadTrackInformation, "07 ffffffff 00 ffff 04"), flags: inline | accessRead, do: d.readTrackInformation},
		{name: "READ DVD STRUCTURE", usage: cdb(api.READ_DVD_STRUCTURE, "0f ffffffff ff ff ffff c0 04"), flags: inline | accessRead, do: d.readDVDStructure},

		{name: "GET PERFORMANCE", usage: cdb(api.GET_PERFORMANCE, "1f ffffffff 0000 ffff ff 04"), flags: inline | accessRead, do: d.getPerformance},
		{name: "SET CD SPEED", usage: cdb(api.SET_CD_SPEED, "03 ffff ffff 0000000000 04"), flags: inline | accessWrite, do: d.setSpeed},
		{name: "SET STREAMING", usage: cdb(api.SET_STREAMING, "00 000000000000 ff ffff 04"), flags: inline | accessWrite, do: d.setStreaming},
		{name: "SET READ AHEAD", usage: cdb(opSetReadAhead, "00 ffffffff ffffffff 00 04"), flags: inline | accessWrite, do: d.setReadAhead},
		{name: "READ BUFFER CAPACITY", usage: cdb(api.READ_BUFFER_CAP, "01 0000000000 ffff 04"), flags: inline | accessRead, do: d.readBufferCapacity},

		{name: "WRITE(10)", usage: cdb(api.WRITE_10, "00 ffffffff 00 ffff 04"), flags: writes | accessWrite, do: d.refuseWrite},
		{name: "WRITE(12)", usage: cdb(api.WRITE_12, "00 ffffffff ffffffff 00 04"), flags: writes | accessWrite, do: d.refuseWrite},
		{name: "WRITE AND VERIFY(10)", usage: cdb(api.WRITE_VERIFY, "00 ffffffff 00 ffff 04"), flags: writes | accessWrite, do: d.refuseWrite},
	}...)
}
