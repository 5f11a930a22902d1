package lun

import (
	"math"

	"github.com/gostor/gotgt/pkg/scsi"

	"skylun/block"
)

// Replace shows the disk with another content, of size bytes, which replace
// gives to the device. While it does, commands that begin end with NOT READY;
// those under way see the old content or the new one. Then all nexuses are told
// that the medium may have changed (SPC-4 annex F, 28h/00h) and, if it has,
// the capacity. Tokens give nothing any more: what they stood for is not there.
// It fails with what replace returns, or when the disk is being formatted; it is
// then as it was.
func (d *Disk) Replace(size int64, replace func() error) error {
	if err := d.enter(errBecomingReady); err != nil {
		return err
	}
	defer d.leave(nil)
	old := d.shown.Load()
	if size < old { // the device is the larger one for as long as they differ
		d.SetSize(size)
	}
	all := block.Range{Off: 0, End: math.MaxInt64}
	d.changing(all)
	if err := replace(); err != nil {
		d.SetSize(old)
		return err
	}
	d.changing(all) // made by commands that were under way
	d.SetSize(size)
	d.raiseAll(scsi.ASC_NOT_READY_TO_TRANSITION)
	return nil
}
