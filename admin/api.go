package admin

import (
	"context"

	"skylun/node"
)

// API is what can be asked of a node: of the running one through a Client, or
// of one that this process has opened.
type API interface {
	Status(ctx context.Context) (node.Status, error)
	LUNs(ctx context.Context) ([]node.LUNStatus, error)
	MapLUN(ctx context.Context, iqn string, lun int, volume string) (node.LUNStatus, error)
	UnmapLUN(ctx context.Context, iqn string, lun int, force bool) error

	Volumes(ctx context.Context) ([]node.VolumeStatus, error)
	Volume(ctx context.Context, name string) (node.VolumeStatus, error)
	CreateVolume(ctx context.Context, spec node.VolumeSpec) (node.VolumeStatus, error)
	DeleteVolume(ctx context.Context, name string) error
	ResizeVolume(ctx context.Context, name string, spec node.ResizeSpec) (node.VolumeStatus, error)

	Prefetch(ctx context.Context, volume string) (node.VolumePrefetch, error)
	SetPrefetch(ctx context.Context, volume string, spec node.PrefetchSpec) (node.VolumePrefetch, error)
	PinVolume(ctx context.Context, name string, pin bool) (node.VolumeStatus, error)

	// ReadVolume calls f with the content of a volume, in ascending order;
	// what no call covers reads as zeros. p is valid during the call.
	ReadVolume(ctx context.Context, name string, f func(p []byte, off int64) error) error

	Snapshots(ctx context.Context) ([]node.SnapshotStatus, error)
	Snapshot(ctx context.Context, name string) (node.SnapshotStatus, error)
	CreateSnapshot(ctx context.Context, spec node.SnapshotSpec) (node.SnapshotStatus, error)
	DeleteSnapshot(ctx context.Context, name string) error
	RollbackSnapshot(ctx context.Context, name string, spec node.RollbackSpec) ([]node.VolumeStatus, error)

	// ReadSnapshot is ReadVolume for what a snapshot holds: NAME or, of one of
	// several volumes, NAME/VOLUME.
	ReadSnapshot(ctx context.Context, ref string, f func(p []byte, off int64) error) error

	Images(ctx context.Context) ([]node.ImageStatus, error)
	Image(ctx context.Context, name string) (node.ImageStatus, error)
	DeleteImage(ctx context.Context, name string) error

	InsertMedia(ctx context.Context, iqn string, lun int, spec node.MediaSpec) (node.LUNStatus, error)
	EjectMedia(ctx context.Context, iqn string, lun int, force bool) (node.LUNStatus, error)

	Local(ctx context.Context) (node.LocalStatus, error)
	Rebalance(ctx context.Context) (node.LocalStatus, error)
	StopRebalance(ctx context.Context) (node.LocalStatus, error)
	LeaveMember(ctx context.Context, spec node.LeaveSpec) (node.LocalStatus, error)

	// Check returns a line for each thing that is wrong with what the node
	// keeps locally.
	Check(ctx context.Context) ([]string, error)
}

var (
	_ API = (*Client)(nil)
	_ API = (*node.Node)(nil)
)
