package node

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"skylun/blobstore"
	"skylun/lun"
	"skylun/meta"
)

// drive is a CD-ROM drive of the configuration, which one or more logical unit
// numbers point to.
//
// What the configuration says of its medium holds when the drive is made: the
// first time that a node starts with it. From then on what is in the drive is
// what people and guests have left there, and that is in the database.
type drive struct {
	name   string     // for people
	unit   string     // of the database
	places []lunPlace // ascending as in the configuration
	media  string     // the image that is in it at first, "": none
	key    string     // where the configuration says so
	dev    *lun.CDROM // nil while nothing is exported

	record  driveRecord // guarded by Node.mu
	made    bool        // guarded by Node.mu: the record is in the database
	telling sync.Mutex  // held while a driveTold is written
	problem string      // guarded by Node.mu: why not all of the medium can be read
}

// driveRecord is what the database knows of a drive.
type driveRecord struct {
	ID    [16]byte        `json:"id"`              // given once, the base of its SCSI identities
	Image *blobstore.Info `json:"image,omitempty"` // the medium; nil: none
	Open  bool            `json:"open,omitempty"`  // the tray

	Generation uint64 `json:"generation"` // counts changes of the above
}

// driveTold is what the database knows of the initiators of a drive: those that
// need not hear of a medium they know.
type driveTold struct {
	Generation uint64   `json:"generation"` // of the drive; another one: nobody
	Hosts      []string `json:"hosts"`
}

// driveContents is the name of the record in what the unit keeps.
const driveContents = "drive"

// driveHosts is that of a driveTold.
const driveHosts = "told"

// driveUnit returns the name under which the database knows a drive.
func driveUnit(c CDROMConfig, iqn string, lun int) string {
	if c.Name != "" {
		return "drive/" + c.Name
	}
	return meta.PlaceUnit(iqn, lun)
}

// openDrives makes the drives of the configuration with what the database
// knows of them.
func (n *Node) openDrives() error {
	for i, t := range n.cfg.Targets {
		for j, l := range t.LUNs {
			if l.CDROM == nil {
				continue
			}
			d := n.findDrive(driveUnit(*l.CDROM, t.IQN, l.LUN))
			if d == nil {
				d = &drive{name: l.CDROM.Name, unit: driveUnit(*l.CDROM, t.IQN, l.LUN)}
				if d.name == "" {
					d.name = fmt.Sprintf("%s lun %d", t.IQN, l.LUN)
				}
				value, err := n.db.UnitState(d.unit, driveContents)
				if err != nil {
					return err
				}
				if d.made = value != nil; d.made {
					if err := json.Unmarshal(value, &d.record); err != nil {
						return fmt.Errorf("drive %s: what the database knows of it: %w", d.name, err)
					}
				}
				n.drives = append(n.drives, d)
			}
			d.places = append(d.places, lunPlace{iqn: t.IQN, lun: l.LUN})
			if l.CDROM.Media != "" && d.media == "" {
				d.media, d.key = l.CDROM.Media, fmt.Sprintf("targets[%d].luns[%d].cdrom.media", i, j)
			}
		}
	}
	return nil
}

// findDrive returns the drive that the database knows as unit, or nil.
func (n *Node) findDrive(unit string) *drive {
	i := slices.IndexFunc(n.drives, func(d *drive) bool { return d.unit == unit })
	if i < 0 {
		return nil
	}
	return n.drives[i]
}

// driveAt returns the drive that a number of a target points to.
func (n *Node) driveAt(iqn string, number int) (*drive, error) {
	var all []string
	for _, d := range n.drives {
		for _, p := range d.places {
			if p.iqn == iqn && p.lun == number {
				return d, nil
			}
			all = append(all, fmt.Sprintf("%s lun %d", p.iqn, p.lun))
		}
	}
	if len(all) == 0 {
		return nil, Failure(ErrNotFound, fmt.Sprintf("target %s has no CD-ROM drive at lun %d, and there is no other; add one to the configuration and restart the node, such as {lun: %d, cdrom: {}}", iqn, number, number))
	}
	return nil, Failure(ErrNotFound, fmt.Sprintf("target %s has no CD-ROM drive at lun %d; the drives are: %s", iqn, number, strings.Join(all, ", ")))
}

// place returns how people find the drive: the first of its numbers.
func (d *drive) place() string { return fmt.Sprintf("%s %d", d.places[0].iqn, d.places[0].lun) }

// contents returns the record as it is now.
func (n *Node) contents(d *drive) driveRecord {
	n.mu.Lock()
	defer n.mu.Unlock()
	return d.record
}

// keep makes r durable, and then the record of d.
func (n *Node) keep(d *drive, r driveRecord) error {
	if r.ID == [16]byte{} {
		rand.Read(r.ID[:])
	}
	value, err := json.Marshal(r)
	if err == nil {
		err = n.db.SetUnitState(d.unit, driveContents, value)
	}
	if err != nil {
		return localError("drive "+d.name, err)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if a, b := r.Image, d.record.Image; a == nil || b == nil || a.Name != b.Name || a.Identity != b.Identity {
		d.problem = ""
	}
	d.record, d.made = r, true
	return nil
}

// planDrives decides what is in each drive at the start, or returns everything
// that is in the way. Nothing is changed but what the drives know.
func (n *Node) planDrives(ctx context.Context) error {
	images := map[string]bool{}
	for _, d := range n.drives {
		if d.made && d.record.Image != nil {
			remembered, seen := images[d.record.Image.Name]
			images[d.record.Image.Name] = remembered || !seen
		} else if !d.made && d.media != "" {
			images[d.media] = false
		}
	}
	found := n.lookUp(ctx, images)
	var problems Problems
	var errs []error
	for _, d := range n.drives {
		switch {
		case !d.made && d.media != "":
			f := found[d.media]
			err := f.err
			if err != nil {
				err = n.imageError(d.media, err)
			} else {
				err = checkMedium(f.info, false)
			}
			if errors.Is(err, ErrInvalid) {
				problems.add(d.key, "%v", err)
			} else if err != nil {
				errs = append(errs, fmt.Errorf("drive %s: %w", d.name, err))
			}
			d.record.Image = &f.info
		case d.made && d.record.Image != nil:
			d.problem = n.checkDriveImage(d, found[d.record.Image.Name])
		}
		if d.made && d.media != "" && (d.record.Image == nil || d.record.Image.Name != d.media) {
			n.log.Info("the configuration names a medium, which was for the first start only; what is in the drive is what was left there",
				"drive", d.name, "named", d.media, "in it", d.record.mediaName())
		}
	}
	if len(problems) > 0 {
		return problems
	}
	return errors.Join(errs...)
}

func (r driveRecord) mediaName() string {
	if r.Image == nil {
		return "nothing"
	}
	return r.Image.Name
}

// checkMedium tells whether an image can be put into a drive. With any it
// need not be one of a disc.
func checkMedium(info blobstore.Info, any bool) error {
	switch {
	case info.Format != blobstore.ISO && !any:
		return Failure(ErrInvalid, fmt.Sprintf("image %s is no ISO but %s: there is neither an ISO 9660 nor a UDF file system on it; name another image, or insert this one nevertheless with: skylun cdrom insert --any", info.Name, info.Format))
	case info.Size > lun.MaxMedium:
		return Failure(ErrInvalid, fmt.Sprintf("image %s has %v, and a CD-ROM drive cannot read more than %v", info.Name, Size(info.Size), Size(lun.MaxMedium)))
	}
	return nil
}

// checkDriveImage compares what is in a drive with what the store has now. The
// disc stays in: what is local of it can be read, and the rest never becomes
// bytes of something else.
func (n *Node) checkDriveImage(d *drive, now found) (problem string) {
	info := *d.record.Image
	attrs := []any{"drive", d.name, "image", info.Name}
	switch {
	case now.err == nil && now.info.Identity == info.Identity:
		return ""
	case now.err == nil:
		problem = "the image was changed after it was put into the drive"
	case errors.Is(now.err, blobstore.ErrNotFound), errors.Is(now.err, blobstore.ErrFormat):
		problem = "the image is not in the store any more"
	default:
		n.log.Warn("the store does not answer: reads of what is not local fail until it does", append(attrs, "err", now.err)...)
		return ""
	}
	if s, known, err := n.cacheStatus(info); err == nil && known && s.Absent == 0 {
		n.log.Warn(problem+", but everything of it is local", attrs...)
		return ""
	}
	n.log.Error(problem+": parts that are not local cannot be read; insert it again, or eject it", attrs...)
	return problem
}
