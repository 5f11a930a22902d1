package node

import (
	"time"

	"skylun/overlay"
)

// The types of this file are what the API and -o json show. Fields are only
// added, never renamed. All sizes are bytes.

// Status is a node at one moment.
type Status struct {
	Node    string         `json:"node"`
	Version string         `json:"version"`
	PID     int            `json:"pid"`
	Started time.Time      `json:"started"`
	DataDir string         `json:"data_dir"`
	Portals []string       `json:"portals"` // the addresses really listened on
	Store   StoreStatus    `json:"store"`
	Local   LocalStatus    `json:"local"`
	Targets []TargetStatus `json:"targets"`
	Volumes []VolumeStatus `json:"volumes"`
	Caches  []CacheStatus  `json:"caches"`
	Cache   PoolStatus     `json:"cache"`

	Snapshots []SnapshotStatus `json:"snapshots"`
	Layers    int              `json:"layers"` // of all volumes and snapshots
	Cleaning  CleaningStatus   `json:"cleaning"`

	SCSI CommandStatus `json:"iscsi"`
}

// StoreStatus is what was asked of the blob store since the node started.
type StoreStatus struct {
	URL      string `json:"url"`
	Gets     uint64 `json:"gets"` // requests that read
	Puts     uint64 `json:"puts"` // requests that wrote
	BytesIn  uint64 `json:"bytes_in"`
	BytesOut uint64 `json:"bytes_out"`
	Errors   uint64 `json:"errors"` // tries that failed, also those that were repeated
}

// TargetStatus is one target and who is logged in to it.
type TargetStatus struct {
	IQN      string          `json:"iqn"`
	LUNs     []LUNStatus     `json:"luns"`
	Sessions []SessionStatus `json:"sessions"`
}

// SessionStatus is one iSCSI session.
type SessionStatus struct {
	Initiator string    `json:"initiator"`
	User      string    `json:"user,omitempty"` // who authenticated by CHAP
	Address   string    `json:"address"`        // of the initiator
	Since     time.Time `json:"since"`
}

// LUNStatus is what a LUN number points to: a disk, or a CD-ROM drive.
type LUNStatus struct {
	IQN    string `json:"iqn"`
	LUN    int    `json:"lun"`
	Type   string `json:"type"`             // disk, cdrom
	Mapped bool   `json:"mapped,omitempty"` // by "lun map", not by the configuration
	Volume string `json:"volume,omitempty"` // of a disk
	Image  string `json:"image,omitempty"`  // what the volume is an overlay of, or the medium in the drive
	Size   int64  `json:"size"`             // of the disk or of the medium

	// Of a drive.
	Drive    string   `json:"drive,omitempty"`     // the same name: the same drive
	Label    string   `json:"label,omitempty"`     // of the volume on the medium
	Tray     string   `json:"tray,omitempty"`      // open, closed
	LockedBy []string `json:"locked_by,omitempty"` // initiators that keep it closed
	Problem  string   `json:"problem,omitempty"`   // why not all of the medium can be read
}

// VolumeStatus is one volume.
type VolumeStatus struct {
	Name    string     `json:"name"`
	ID      string     `json:"id"` // the base of its SCSI identities
	Size    int64      `json:"size"`
	Created time.Time  `json:"created"`
	Image   *ImageUse  `json:"image,omitempty"`
	Pinned  bool       `json:"pinned,omitempty"` // all of its image is to be local, and to stay
	LUN     *LUNStatus `json:"lun,omitempty"`

	// These four are its size in whole blocks.
	Written int64 `json:"written"` // in blocks the guest wrote, in all layers
	Zeroed  int64 `json:"zeroed"`  // in blocks the guest discarded or zeroed
	Cached  int64 `json:"cached"`  // of the image, and local or known to be empty
	Absent  int64 `json:"absent"`  // of the image, and only in the store; or never written

	// Of an overlay.
	Far            int64  `json:"far"`                       // of absent: only in the store
	Prefetch       string `json:"prefetch,omitempty"`        // its strategy
	PrefetchPaused bool   `json:"prefetch_paused,omitempty"` // by somebody

	// Since it was opened.
	Hits   int64 `json:"hits"`   // reads of the image answered locally
	Misses int64 `json:"misses"` // and those that waited for the store
	Shared int64 `json:"shared"` // bytes not fetched again because another disk of the image had them fetched

	// Of one volume that is asked for.
	Snapshots []string      `json:"snapshots,omitempty"`
	Layers    []LayerStatus `json:"layers,omitempty"` // the one it writes to first
}

// Local returns how much of the volume needs no store, between 0 and 1.
func (v VolumeStatus) Local() float64 {
	if v.Size == 0 {
		return 1
	}
	return float64(v.Size-min(v.Far, v.Size)) / float64(v.Size)
}

// LayerStatus is one layer of a volume.
type LayerStatus struct {
	ID       uint64    `json:"id"`
	Snapshot string    `json:"snapshot,omitempty"` // that it belongs to
	Created  time.Time `json:"created"`
	Size     int64     `json:"size"`
	Written  int64     `json:"written"`
	Zeroed   int64     `json:"zeroed"`
	Volumes  int       `json:"volumes"` // that read through it
}

// SnapshotStatus is what volumes were at one moment.
type SnapshotStatus struct {
	Name        string           `json:"name"`
	ID          string           `json:"id"`
	Created     time.Time        `json:"created"`
	HeldSeconds float64          `json:"held_seconds"` // how long writes were held for it
	Own         int64            `json:"own"`          // written since the snapshot before, as far as it is still kept for this one
	Volumes     []SnapshotVolume `json:"volumes"`
}

// SnapshotVolume is one volume of a snapshot.
type SnapshotVolume struct {
	Volume  string `json:"volume"`
	Removed bool   `json:"removed,omitempty"` // there is no such volume any more
	Size    int64  `json:"size"`
	Image   string `json:"image,omitempty"`
	Layer   uint64 `json:"layer"`
	Own     int64  `json:"own"` // as of the snapshot
}

// CleaningStatus is what is left to do after snapshots and volumes were
// removed. It is done in the background.
type CleaningStatus struct {
	Layers  int          `json:"layers"` // that are not needed any more and still there
	Bytes   int64        `json:"bytes"`  // that those hold
	Job     *CleaningJob `json:"job,omitempty"`
	Merged  uint64       `json:"merged"`            // layers, since the node started
	Problem string       `json:"problem,omitempty"` // why it failed last; it is tried again
}

// CleaningJob is what is being done.
type CleaningJob struct {
	Lower  uint64    `json:"lower"`
	Upper  uint64    `json:"upper"`
	Hidden bool      `json:"hidden,omitempty"` // only what upper hides is given back: a volume writes to it
	Since  time.Time `json:"since"`
}

// ImageUse is the image a volume is an overlay of, as it was when the volume
// was made.
type ImageUse struct {
	Name     string `json:"name"`
	Identity string `json:"identity"`
	Size     int64  `json:"size"`

	// Of the image, in the cache that it shares with other volumes.
	Cached int64 `json:"cached"` // copied from the store
	Zero   int64 `json:"zero"`   // known to be zeros, nothing to copy
	Absent int64 `json:"absent"` // to be fetched when read
}

// Local returns how much of the image needs no store, between 0 and 1.
func (u ImageUse) Local() float64 {
	return CacheStatus{Size: u.Cached + u.Zero + u.Absent, Absent: u.Absent}.Local()
}

// PoolStatus is what all caches of the node hold together.
type PoolStatus struct {
	Limit   int64  `json:"limit"`    // 0: none
	Held    int64  `json:"held"`     // now
	Pinned  int64  `json:"pinned"`   // of it: does not leave
	Evicted uint64 `json:"evicted"`  // bytes that have left since the node started
	GaveWay uint64 `json:"gave_way"` // of these: because the disk was full or got low
}

// CacheStatus is how much of an image is local.
type CacheStatus struct {
	Image    string   `json:"image"`
	Identity string   `json:"identity"`
	Size     int64    `json:"size"`
	Cached   int64    `json:"cached"`  // copied from the store
	Zero     int64    `json:"zero"`    // known to be zeros, nothing to copy
	Absent   int64    `json:"absent"`  // to be fetched when read
	Volumes  []string `json:"volumes"` // that use it
	Drives   []string `json:"drives"`  // that it is in

	// Snapshots that are made of it, of volumes that are gone or not: NAME/VOLUME.
	Snapshots []string `json:"snapshots,omitempty"`

	Pinned bool `json:"pinned,omitempty"`
	// Since the image was opened.
	Hits         uint64 `json:"hits"`
	Misses       uint64 `json:"misses"`
	Fetches      uint64 `json:"fetches"`
	FetchedBytes uint64 `json:"fetched_bytes"`
	Dropped      uint64 `json:"dropped"`    // fetches that were answered and not kept
	Damaged      uint64 `json:"damaged"`    // blocks that were not what had been stored, and were fetched again
	Unreadable   uint64 `json:"unreadable"` // blocks that the local disk could not read, and were fetched again

	Prefetch *PrefetchStatus `json:"prefetch,omitempty"` // of an image that is open
}

// PrefetchStatus is what is brought of an image before it is read.
type PrefetchStatus = overlay.PrefetchStats

// Local returns how much of the image needs no store, between 0 and 1.
func (c CacheStatus) Local() float64 {
	if c.Size == 0 {
		return 1
	}
	return float64(c.Size-c.Absent) / float64(c.Size)
}

// CommandStatus is what the targets did since the node started.
type CommandStatus struct {
	Sessions     int    `json:"sessions"`
	Failures     uint64 `json:"login_failures"` // connections that ended without a session
	Refused      uint64 `json:"refused"`        // connections closed because there were too many
	Commands     uint64 `json:"commands"`
	BytesRead    uint64 `json:"bytes_read"`
	BytesWritten uint64 `json:"bytes_written"`
}

// ImageStatus is one image in the store.
type ImageStatus struct {
	Name     string    `json:"name"`
	Size     int64     `json:"size"` // of the disk it is
	Format   string    `json:"format"`
	Label    string    `json:"label,omitempty"` // of the volume on a disc
	Identity string    `json:"identity"`        // changes when its content does
	Modified time.Time `json:"modified"`

	Stripes    int   `json:"stripes,omitempty"`     // objects it is laid over; 0: it is one
	StripeSize int64 `json:"stripe_size,omitempty"` // bytes in one of them before the next
}
