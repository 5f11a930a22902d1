package node

import (
	"context"
	"errors"
	"fmt"
)

// ResizeSpec asks for another size of a volume.
type ResizeSpec struct {
	Size  int64 `json:"size"`            // bytes
	Force bool  `json:"force,omitempty"` // also smaller, and lose what is beyond
}

// ResizeVolume changes the size of a volume while initiators use it. It fails
// with ErrInvalid when the volume cannot have that size, or would become
// smaller and Force is not set.
//
// Growing, in this order: the device; the database; then initiators see it.
// They never write to what a crash would take away. Shrinking: initiators; the
// device, which forgets for good; the database. A crash in between leaves the
// old size, and zeros where something was cut off.
func (n *Node) ResizeVolume(ctx context.Context, name string, spec ResizeSpec) (_ VolumeStatus, err error) {
	n.changes.Lock()
	defer n.changes.Unlock()
	v, err := n.use(ctx, name, nil) // of the image nothing is read
	if err != nil {
		return VolumeStatus{}, err
	}
	defer func() { err = errors.Join(err, n.unuse(v)) }()
	if err := n.resize(ctx, v, spec); err != nil {
		return VolumeStatus{}, err
	}
	return n.Volume(ctx, name)
}

// resize is ResizeVolume for one that is open. The caller holds changes.
func (n *Node) resize(ctx context.Context, v *volume, spec ResizeSpec) error {
	name, old, size := v.meta.Name, v.meta.Size, spec.Size
	refuse := func(format string, args ...any) error {
		return Failure(ErrInvalid, fmt.Sprintf("volume %s: ", name)+fmt.Sprintf(format, args...))
	}
	switch err := validVolumeSize(Size(size)); {
	case err != nil:
		return refuse("%v", err)
	case v.image != nil && size < v.image.info.Size:
		return refuse("%v is less than image %s, which has %v", Size(size), v.meta.Image, Size(v.image.info.Size))
	case size < old && !spec.Force:
		return refuse("it has %v, and what lies beyond %v would be lost; make the file system on it smaller first, and then force it with --force", Size(old), Size(size))
	case size == old:
		return nil
	}
	show := func(size int64) {
		if v.unit != nil {
			v.unit.SetSize(size)
		}
	}
	if size < old {
		show(size)
	}
	err := v.dev.Resize(ctx, size)
	if err == nil {
		if err = n.db.ResizeVolume(name, size); err != nil {
			err = errors.Join(err, v.dev.Resize(context.WithoutCancel(ctx), old))
		}
	}
	if err != nil {
		show(old)
		return localError(fmt.Sprintf("resize volume %s to %v", name, Size(size)), err)
	}
	v.meta.Size = size
	show(size)
	n.log.Info("volume resized", "volume", name, "from", Size(old).Human(), "to", Size(size).Human())
	return nil
}
