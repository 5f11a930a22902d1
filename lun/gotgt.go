package lun

import (
	"context"
	"math"

	"github.com/gostor/gotgt/pkg/api"
)

// gotgt's frame around units. Its SCSI layer calls a logical unit through
// api.SCSILu.PerformCommand, a field; here it leads to a Unit. Nothing of
// gotgt's own command processing runs behind it.

// SCSILu returns u as a logical unit of gotgt. All commands that come through
// it count as one nexus, which is never attached: it finds no unit attentions,
// and sees u as LUN 0.
func SCSILu(u Unit) *api.SCSILu {
	lu := &api.SCSILu{
		PerformCommand: func(_ int, cmd *api.SCSICommand) api.SAMStat { return perform(u, cmd) },
		FinishCommand:  func(*api.SCSITarget, *api.SCSICommand) {},
	}
	if d, ok := u.(interface{ describe(*api.SCSILu) }); ok {
		d.describe(lu)
	}
	return lu
}

// describe fills in what gotgt's own code may want to know of a disk.
func (d *Disk) describe(lu *api.SCSILu) {
	lu.Size = uint64(d.shown.Load())
	lu.BlockShift = api.DefaultBlockShift
	lu.SCSIVendorID, lu.SCSIProductID, lu.SCSIID = d.id.vendor, d.id.product, d.id.serial
	lu.Attrs = api.SCSILuPhyAttribute{
		SCSIID: d.id.serial, SCSISN: d.id.serial,
		VendorID: d.id.vendor, ProductID: d.id.product, ProductRev: d.id.revision,
		DeviceType: api.TYPE_DISK, Readonly: d.readOnly, ThinProvisioning: true, Online: true,
		Lbppbe: physicalExponent,
	}
}

// perform executes one command of gotgt.
func perform(u Unit, cmd *api.SCSICommand) api.SAMStat {
	in := sdb(cmd.InSDBBuffer)
	c := Command{CDB: cmd.SCB, Out: sdb(cmd.OutSDBBuffer), InLimit: len(in), Alloc: fixedBuffer(in)}
	if n := cmd.SCBLength; n > 0 && n < len(c.CDB) {
		c.CDB = c.CDB[:n]
	}
	if !u.Try(&c) {
		u.Execute(context.Background(), &c)
	}

	cmd.State = api.SCSICommandProcessed
	cmd.Result = byte(c.Status)
	cmd.SenseBuffer = nil
	if len(c.Sense) > 0 {
		cmd.SenseBuffer = &api.SenseBuffer{Buffer: c.Sense, Length: uint32(len(c.Sense))}
	}
	// gotgt's name for what a command moved is Resid; it compares it with
	// what the initiator expected.
	moved := uint32(min(c.Transfer, math.MaxUint32))
	if b := cmd.InSDBBuffer; b != nil {
		copy(b.Buffer, c.In) // no copy when it is the same memory
		b.TransferLength, b.Resid = uint32(len(c.In)), moved
	}
	if b := cmd.OutSDBBuffer; b != nil {
		b.TransferLength, b.Resid = min(moved, uint32(len(c.Out))), moved
	}
	return samStat(c.Status)
}

// sdb returns the bytes of a gotgt buffer: no more than it says, and no more
// than it has.
func sdb(b *api.SCSIDataBuffer) []byte {
	if b == nil {
		return nil
	}
	return b.Buffer[:min(uint64(b.Length), uint64(len(b.Buffer)))]
}

// samStat returns gotgt's value for a status. Its callers compare it as a
// whole, so the error in it matters.
func samStat(s Status) api.SAMStat {
	for _, known := range []api.SAMStat{
		api.SAMStatGood, api.SAMStatCheckCondition, api.SAMStatConditionMet, api.SAMStatBusy,
		api.SAMStatReservationConflict, api.SAMStatTaskSetFull, api.SAMStatTaskAborted,
	} {
		if known.Stat == byte(s) {
			return known
		}
	}
	return api.SAMStat{Stat: byte(s)}
}

// fixedBuffer is a BufferPool of one buffer, for one command.
type fixedBuffer []byte

// Get implements BufferPool.
func (b fixedBuffer) Get(n int) []byte {
	if n > len(b) {
		return make([]byte, n)
	}
	return b[:n]
}
