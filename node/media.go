package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"skylun/blobstore"
	"skylun/lun"
	"skylun/overlay"
)

// MediaSpec asks for a medium in a drive.
type MediaSpec struct {
	Image string `json:"image"`
	Any   bool   `json:"any,omitempty"`   // also one that is no ISO
	Force bool   `json:"force,omitempty"` // also when a guest has locked the tray
}

// medium is an image in a drive.
type medium struct {
	*image
	node   *Node
	reader *overlay.CacheReader
}

// newMedium returns the medium that an image is. What is read of it in a row is
// fetched ahead; all of it is not, as most discs are read once, in parts.
func (n *Node) newMedium(m *image) *medium {
	s, _ := overlay.ParseStrategy(n.cfg.Cache.Prefetch) // which was validated
	return &medium{m, n, m.cache.Reader(min(s, overlay.ReadAhead))}
}

var _ lun.Medium = (*medium)(nil)

// ReadAt implements block.Reader.
func (m *medium) ReadAt(ctx context.Context, p []byte, off int64) error {
	return m.reader.ReadAt(ctx, p, off)
}

// TryReadAt implements block.TryReader.
func (m *medium) TryReadAt(p []byte, off int64) (bool, error) { return m.reader.TryReadAt(p, off) }

// Size implements block.Reader.
func (m *medium) Size() int64 { return m.info.Size }

// Removed implements lun.Medium. The one that read last may be a connection,
// which must not wait until the cache is closed.
func (m *medium) Removed() {
	n := m.node
	n.mu.Lock()
	n.removed = append(n.removed, m.image)
	n.mu.Unlock()
	n.removals.Go(func() {
		n.changes.Lock()
		defer n.changes.Unlock()
		n.sweep()
	})
}

// sweep releases the images of media that have been removed. The caller holds
// changes.
func (n *Node) sweep() {
	n.mu.Lock()
	removed := n.removed
	n.removed = nil
	n.mu.Unlock()
	for _, m := range removed {
		if err := n.releaseImage(m); err != nil {
			n.log.Error("close the cache of a medium", "image", m.info.Name, "err", err)
		}
	}
}

// buildDrives makes the units of all drives. The caller holds changes.
func (n *Node) buildDrives(ctx context.Context, units map[string]*lun.Map) error {
	for _, d := range n.drives {
		r := n.contents(d)
		if !d.made {
			if err := n.keep(d, r); err != nil {
				return err
			}
			r = n.contents(d)
		}
		cfg := lun.CDROMConfig{
			Name: d.name, ID: r.ID, Open: r.Open, Store: n.state(d.unit),
			Generation: r.Generation, Told: n.loadTold(d, r.Generation),
			Attached: func() { n.driveAttached(d) },
			Save:     n.saver(d), ToldMore: func() { n.removals.Go(func() { n.keepTold(d) }) },
		}
		if r.Image != nil {
			image, err := n.openImage(*r.Image)
			if err == nil {
				err = image.wait(ctx)
			}
			if err != nil {
				return err
			}
			cfg.Medium = n.newMedium(image)
		}
		d.dev = lun.NewCDROM(cfg, n.log)
		for _, p := range d.places {
			if err := units[p.iqn].Add(uint16(p.lun), d.dev); err != nil {
				return fmt.Errorf("target %s: lun %d: %w", p.iqn, p.lun, err)
			}
			n.log.Info("drive", "target", p.iqn, "lun", p.lun, "drive", d.name, "medium", r.mediaName(), "tray", tray(r.Open))
		}
	}
	return nil
}

// saver returns what makes durable what is in d. It has the image of every
// medium, for it has made them all.
func (n *Node) saver(d *drive) func(lun.Medium, bool, uint64) error {
	return func(m lun.Medium, open bool, generation uint64) error {
		r := n.contents(d)
		r.Image, r.Open, r.Generation = nil, open, generation
		if m, ok := m.(*medium); ok {
			r.Image = &m.info
		}
		return n.keep(d, r)
	}
}

// loadTold returns the initiators that need not hear of what is in d.
func (n *Node) loadTold(d *drive, generation uint64) []string {
	var told driveTold
	value, err := n.db.UnitState(d.unit, driveHosts)
	if err == nil && value != nil {
		err = json.Unmarshal(value, &told)
	}
	if err != nil {
		n.log.Warn("who knows the medium is not known: all initiators are told of it", "drive", d.name, "err", err)
		return nil
	}
	if told.Generation != generation {
		return nil
	}
	return told.Hosts
}

// keepTold remembers which initiators need not hear of what is in d. What is
// not remembered costs them a unit attention after a restart.
func (n *Node) keepTold(d *drive) {
	d.telling.Lock()
	defer d.telling.Unlock()
	var told driveTold
	told.Generation, told.Hosts = d.dev.Told()
	value, err := json.Marshal(told)
	if err == nil {
		err = n.db.SetUnitState(d.unit, driveHosts, value)
	}
	if err != nil {
		n.log.Warn("cannot remember who knows the medium", "drive", d.name, "err", err)
	}
}

func tray(open bool) string {
	if open {
		return "open"
	}
	return "closed"
}

// InsertMedia puts an image into the drive that a number of a target points
// to, in place of what is in it. It fails with ErrInUse while a guest has
// locked the tray, and asks the guest to open it, unless it is to be forced.
func (n *Node) InsertMedia(ctx context.Context, iqn string, number int, spec MediaSpec) (LUNStatus, error) {
	d, err := n.driveAt(iqn, number)
	if err != nil {
		return LUNStatus{}, err
	}
	info, err := n.store.Stat(ctx, spec.Image)
	if err != nil {
		return LUNStatus{}, n.imageError(spec.Image, err)
	}
	if err := checkMedium(info, spec.Any); err != nil {
		return LUNStatus{}, err
	}
	err = n.move(ctx, d, spec.Force, func() error { return n.insert(ctx, d, info, spec.Force) })
	if err != nil {
		return LUNStatus{}, n.moveError(d, "insert", err)
	}
	n.log.Info("medium inserted", "drive", d.name, "image", info.Name, "label", info.Label, "size", Size(info.Size).Human())
	return n.driveStatus(d, lunPlace{iqn: iqn, lun: number}), nil
}

// EjectMedia takes out what is in the drive that a number of a target points
// to; that it is empty is no error. It fails as InsertMedia does.
func (n *Node) EjectMedia(ctx context.Context, iqn string, number int, force bool) (LUNStatus, error) {
	d, err := n.driveAt(iqn, number)
	if err != nil {
		return LUNStatus{}, err
	}
	was := n.contents(d)
	if err := n.move(ctx, d, force, func() error { return n.eject(d, force) }); err != nil {
		return LUNStatus{}, n.moveError(d, "eject", err)
	}
	n.log.Info("medium ejected", "drive", d.name, "image", was.mediaName())
	return n.driveStatus(d, lunPlace{iqn: iqn, lun: number}), nil
}

// askTime is how long guests that are asked to eject a medium have for it. Those
// that poll for events do so at least every other second.
const askTime = 5 * time.Second

// move calls f, which changes what is in d, and once more if guests let go of
// the tray within askTime.
func (n *Node) move(ctx context.Context, d *drive, force bool, f func() error) error {
	err := f()
	if force || !errors.Is(err, lun.ErrTrayLocked) {
		return err
	}
	ask, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	if d.dev.Free(ask) {
		return f()
	}
	return errors.Join(err, ctx.Err())
}

// insert puts an image into d. The store may take its time to tell what is empty
// in it: the drive is becoming ready meanwhile, and changes go on.
func (n *Node) insert(ctx context.Context, d *drive, info blobstore.Info, force bool) error {
	image, err := n.beginInsert(d, info)
	if image == nil {
		return err
	}
	if err := d.dev.Insert(n.newMedium(image), force, func() { image.wait(ctx) }); err != nil {
		n.changes.Lock()
		defer n.changes.Unlock()
		return errors.Join(err, n.releaseImage(image))
	}
	image.boots.attached()
	return nil
}

// beginInsert opens an image that is to be put into d. Where nothing is exported
// it is only recorded that it is there.
func (n *Node) beginInsert(d *drive, info blobstore.Info) (*image, error) {
	n.changes.Lock()
	defer n.changes.Unlock()
	if n.stopping() {
		return nil, errStopping
	}
	if err := n.checkRemoving(info.Name); err != nil {
		return nil, err
	}
	if d.dev != nil {
		return n.openImage(info)
	}
	r := n.contents(d)
	r.Image, r.Open = &info, false
	r.Generation++
	return nil, n.keep(d, r)
}

// eject takes out what is in d.
func (n *Node) eject(d *drive, force bool) error {
	if n.stopping() {
		return errStopping
	}
	if d.dev != nil { // which may be becoming ready: no changes wait for that
		return d.dev.Eject(force)
	}
	n.changes.Lock()
	defer n.changes.Unlock()
	r := n.contents(d)
	r.Image, r.Open = nil, true
	r.Generation++
	return n.keep(d, r)
}

// moveError says what to do when what is in a drive cannot be changed.
func (n *Node) moveError(d *drive, verb string, err error) error {
	var locked *lun.LockedError
	if !errors.As(err, &locked) {
		return fmt.Errorf("drive %s: %w", d.name, err)
	}
	return Failure(ErrInUse, fmt.Sprintf("drive %s: %v, which was asked to eject the medium and has not within %v; let it go there, or %s without asking with --force", d.name, locked, askTime, verb))
}

var errStopping = errors.New("the node is stopping")

// stopping tells whether Close has begun to close what is open.
func (n *Node) stopping() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.volumes == nil
}

// driveStatus returns how a drive looks at one of its numbers.
func (n *Node) driveStatus(d *drive, p lunPlace) LUNStatus {
	n.mu.Lock()
	r, problem := d.record, d.problem
	n.mu.Unlock()
	s := LUNStatus{IQN: p.iqn, LUN: p.lun, Type: "cdrom", Drive: d.name, Tray: tray(r.Open), Problem: problem}
	if r.Image != nil {
		s.Image, s.Label, s.Size = r.Image.Name, r.Image.Label, r.Image.Size
	}
	if d.dev != nil {
		s.LockedBy = d.dev.State().LockedBy
	}
	return s
}

// driveUsing returns a drive with such an image in it, or nil.
func (n *Node) driveUsing(such func(blobstore.Info) bool) *drive {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, d := range n.drives {
		if d.record.Image != nil && such(*d.record.Image) {
			return d
		}
	}
	return nil
}
