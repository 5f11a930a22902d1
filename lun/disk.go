package lun

import (
	"log/slog"
	"slices"
	"sync/atomic"
	"time"

	"github.com/gostor/gotgt/pkg/api"
	"github.com/gostor/gotgt/pkg/scsi"

	"skylun/block"
)

// DiskConfig says what a disk is, apart from the bytes it holds.
type DiskConfig struct {
	Name     string   // of the volume, for log lines
	ID       [16]byte // identity of the volume: serial number and NAA designator are derived from it
	ReadOnly bool     // refuse every command that changes the medium
	Store    Store    // what has to be remembered over restarts; nil: nothing is

	// Attached, if not nil, is called when an initiator has logged in. It does
	// not wait, and does not call the disk.
	Attached func()
}

// Disk is a direct access block device (SBC-3) over a block.Device, with
// logical blocks of 512 bytes in physical blocks of 4 KiB, thin provisioned
// and with a volatile write cache that SYNCHRONIZE CACHE and FUA flush.
type Disk struct {
	server
	dev     block.Device
	reader  block.TryReader // dev, when it is one
	writer  block.TryWriter // dev, when it is one
	updater block.Updater   // dev, when it is one

	copies    copies      // it was the copy manager of
	tokens    tokens      // that stand for some of its data
	mayExit   atomic.Bool // SANITIZE EXIT FAILURE MODE ends the state after a failed sanitize
	started   time.Time
	selfTests selfTests

	shown        atomic.Int64 // the size in bytes, as initiators see it
	writeThrough atomic.Bool  // WCE is off: every write is flushed before it ends
}

var (
	_ Unit     = (*Disk)(nil)
	_ Resetter = (*Disk)(nil)
)

// logicalBlock is the logical block length in bytes. Not all initiators accept
// another one.
const (
	logicalBlock         = 512
	logicalBlockExponent = 9
)

// NewDisk returns the unit that shows dev as a disk. The caller closes dev
// after the last command has ended. Bytes behind the last whole logical block
// are not shown.
func NewDisk(dev block.Device, cfg DiskConfig, log *slog.Logger) *Disk {
	d := &Disk{dev: dev}
	d.unit = d
	if dev != nil {
		d.shown.Store(dev.Size())
	}
	d.readOnly = cfg.ReadOnly
	d.attached = cfg.Attached
	d.notice = d.noticeChange
	d.reader, _ = dev.(block.TryReader)
	d.writer, _ = dev.(block.TryWriter)
	d.updater, _ = dev.(block.Updater)
	d.log = log.With(slog.String("volume", cfg.Name))
	d.peripheral = scsi.PQ_DEVICE_CONNECTED | byte(api.TYPE_DISK)
	d.id = diskIdentity(cfg.ID)
	d.versions = append(slices.Clone(commonVersions), versionSBC3)
	d.pages = []vpdPage{
		d.supportedPages(), d.serialNumber(), d.deviceIdentification(), d.extendedInquiry(),
		d.modePagePolicy(), d.scsiPorts(), d.thirdPartyCopy(), d.blockLimits(), blockCharacteristics, d.logicalBlockProvisioning(),
	}
	d.modes = modes{pages: diskModePages(), store: cfg.Store, specific: d.modeSpecific, descriptor: d.blockDescriptor, obey: d.obey}
	d.loadModes()
	d.logs = d.logPages()
	d.started = time.Now()
	d.serve(d.operations(), errInvalidOpcode)
	return d
}

// capacity returns the number of logical blocks.
func (d *Disk) capacity() uint64 { return uint64(d.shown.Load()) / logicalBlock }

// operations returns the disk's table.
func (d *Disk) operations() []operation {
	ops := []operation{
		d.testUnitReadyOp(d.testUnitReady),
		d.requestSenseOp(func(c *Command) *condition { return d.pending(c.Nexus) }),
		d.inquiryOp(),
		d.reportLUNsOp(),
		d.reportOpcodesOp(),
		d.reportFunctionsOp(),
		d.reportGroupsOp(),

		{name: "READ(6)", usage: cdb(api.READ_6, "1fffffff 04"), flags: accessRead, do: d.read, try: d.tryRead},
		{name: "READ(10)", usage: cdb(api.READ_10, "f8 ffffffff 00 ffff 04"), flags: accessRead, do: d.read, try: d.tryRead},
		{name: "READ(12)", usage: cdb(api.READ_12, "f8 ffffffff ffffffff 00 04"), flags: accessRead, do: d.read, try: d.tryRead},
		{name: "READ(16)", usage: cdb(api.READ_16, "f8 ffffffffffffffff ffffffff 00 04"), flags: accessRead, do: d.read, try: d.tryRead},
		{name: "WRITE(6)", usage: cdb(api.WRITE_6, "1fffffff 04"), flags: writes | accessWrite, do: d.write, try: d.tryWrite},
		{name: "WRITE(10)", usage: cdb(api.WRITE_10, "f8 ffffffff 00 ffff 04"), flags: writes | accessWrite, do: d.write, try: d.tryWrite},
		{name: "WRITE(12)", usage: cdb(api.WRITE_12, "f8 ffffffff ffffffff 00 04"), flags: writes | accessWrite, do: d.write, try: d.tryWrite},
		{name: "WRITE(16)", usage: cdb(api.WRITE_16, "f8 ffffffffffffffff ffffffff 00 04"), flags: writes | accessWrite, do: d.write, try: d.tryWrite},

		{name: "WRITE AND VERIFY(10)", usage: cdb(api.WRITE_VERIFY, "f6 ffffffff 00 ffff 04"), flags: writes | accessWrite, do: d.writeAndVerify},
		{name: "WRITE AND VERIFY(12)", usage: cdb(api.WRITE_VERIFY_12, "f6 ffffffff ffffffff 00 04"), flags: writes | accessWrite, do: d.writeAndVerify},
		{name: "WRITE AND VERIFY(16)", usage: cdb(api.WRITE_VERIFY_16, "f6 ffffffffffffffff ffffffff 00 04"), flags: writes | accessWrite, do: d.writeAndVerify},
		{name: "VERIFY(10)", usage: cdb(api.VERIFY_10, "f6 ffffffff 00 ffff 04"), flags: accessRead, do: d.verify},
		{name: "VERIFY(12)", usage: cdb(api.VERIFY_12, "f6 ffffffff ffffffff 00 04"), flags: accessRead, do: d.verify},
		{name: "VERIFY(16)", usage: cdb(api.VERIFY_16, "f6 ffffffffffffffff ffffffff 00 04"), flags: accessRead, do: d.verify},
		{name: "SYNCHRONIZE CACHE(10)", usage: cdb(api.SYNCHRONIZE_CACHE, "00 ffffffff 00 ffff 04"), flags: accessWrite, do: d.synchronize},
		{name: "SYNCHRONIZE CACHE(16)", usage: cdb(api.SYNCHRONIZE_CACHE_16, "00 ffffffffffffffff ffffffff 00 04"), flags: accessWrite, do: d.synchronize},

		{name: "UNMAP", usage: cdb(api.UNMAP, "01 00000000 00 ffff 04"), flags: writes | accessWrite, do: d.unmap},
		{name: "WRITE SAME(10)", usage: cdb(api.WRITE_SAME, "fe ffffffff 00 ffff 04"), flags: writes | accessWrite, do: d.writeSame},
		{name: "WRITE SAME(16)", usage: cdb(api.WRITE_SAME_16, "ff ffffffffffffffff ffffffff 00 04"), flags: writes | accessWrite, do: d.writeSame},

		{name: "READ CAPACITY(10)", usage: cdb(api.READ_CAPACITY, "00 ffffffff 0000 01 04"), flags: inline | shared | accessAll, do: d.readCapacity10},
		{name: "READ CAPACITY(16)", usage: serviceAction(api.SERVICE_ACTION_IN, api.SAI_READ_CAPACITY_16, "ffffffffffffffff ffffffff 01 04"),
			action: true, flags: inline | shared | accessAll, do: d.readCapacity16},
		{name: "PREVENT ALLOW MEDIUM REMOVAL", usage: cdb(api.ALLOW_MEDIUM_REMOVAL, "000000 03 04"), flags: inline | shared | accessSelf, do: d.preventAllow},
	}
	if _, ok := d.dev.(block.DataRanger); ok {
		ops = append(ops, operation{
			name: "GET LBA STATUS", usage: serviceAction(api.SERVICE_ACTION_IN, api.SAI_GET_LBA_STATUS, "ffffffffffffffff ffffffff 00 04"),
			action: true, flags: accessRead, do: d.getLBAStatus,
		})
	}
	for _, more := range [][]operation{
		d.modeOps(d.selectModes), d.diagnosticOps(), {d.startStopOp(), d.logSenseOp()}, d.atomicOps(), d.prefetchOps(), d.defectOps(), d.formatOps(),
		d.copyOps(), d.tokenOps(), d.receiveCopyOps(),
		d.reservationOps(d),
	} {
		ops = append(ops, more...)
	}
	return ops
}
