package lun

// SetSize shows the disk with another size, in bytes, from now on, and tells
// all nexuses by the unit attention CAPACITY DATA HAS CHANGED (SBC-3 4.10).
// Who changes the size of the device calls it when initiators may use what is
// new, and before what goes is gone: the device is the larger one of the two
// for as long as they differ.
func (d *Disk) SetSize(size int64) {
	if d.shown.Swap(size) != size {
		d.raiseAll(ascCapacityChanged)
	}
}

// SpaceLow tells all nexuses that the space which the disk is allocated from
// gets low: THIN PROVISIONING SOFT THRESHOLD REACHED, SBC-3 4.7.3.8.
func (d *Disk) SpaceLow() { d.raiseAll(ascSoftThreshold) }
