package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"skylun/lun"
	"skylun/meta"
)

// A volume that is no unit of the configuration can be mapped to a number of a
// target while the node runs, and taken away again. Where it is mapped is kept with what
// its unit keeps, so it is there again after a restart, and goes when the volume
// does. What the configuration declares it alone can change.

// placeName is the name of the record in what the unit of a volume keeps.
const placeName = "place"

// placeRecord is where a volume was mapped.
type placeRecord struct {
	IQN string `json:"iqn"`
	LUN int    `json:"lun"`
}

// String tells how people name a place.
func (p *lunPlace) String() string { return fmt.Sprintf("lun %d of target %s", p.lun, p.iqn) }

// openMappings adds to n.luns what was mapped earlier and can still be so. The
// others are returned with what is in the way, in words.
func (n *Node) openMappings() (conflicts []error, err error) {
	volumes, err := n.db.Volumes()
	if err != nil {
		return nil, err
	}
	for _, v := range volumes {
		value, err := n.db.UnitState(meta.VolumeUnit(v.ID), placeName)
		if err != nil {
			return nil, err
		}
		if value == nil {
			continue
		}
		var r placeRecord
		if err := json.Unmarshal(value, &r); err != nil {
			return nil, fmt.Errorf("volume %s: where it is mapped: %w", v.Name, err)
		}
		p := lunPlace{iqn: r.IQN, lun: r.LUN, disk: DiskConfig{Volume: v.Name, Image: v.Image}, mapped: true}
		declared := n.place(v.Name)
		taken := n.whoIs(r.IQN, r.LUN)
		switch {
		case declared != nil && declared.iqn == p.iqn && declared.lun == p.lun:
			// The configuration says the same.
		case declared != nil:
			conflicts = append(conflicts, fmt.Errorf("volume %s is declared as %v and was mapped as %v; take it out of the configuration, or: skylun lun unmap %s %d", v.Name, declared, &p, p.iqn, p.lun))
		case n.checkTarget(p.iqn) != nil:
			n.log.Warn("a volume was mapped to a target that the configuration does not have; it is not shown", "volume", v.Name, "target", p.iqn, "lun", p.lun)
		case taken != "":
			conflicts = append(conflicts, fmt.Errorf("volume %s was mapped as %v, which the configuration declares as %s; choose another number there, or: skylun lun unmap %s %d", v.Name, &p, taken, p.iqn, p.lun))
		default:
			n.luns = append(n.luns, p)
		}
	}
	return conflicts, nil
}

// whoIs says in words what a number of a target points to, "" when nothing.
func (n *Node) whoIs(iqn string, number int) string {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, p := range n.luns {
		if p.iqn == iqn && p.lun == number {
			return "volume " + p.disk.Volume
		}
	}
	for _, t := range n.cfg.Targets {
		for _, l := range t.LUNs {
			if t.IQN == iqn && l.LUN == number && l.CDROM != nil {
				return "a CD-ROM drive"
			}
		}
	}
	return ""
}

// checkTarget tells whether the configuration has the target.
func (n *Node) checkTarget(iqn string) error {
	names := make([]string, len(n.cfg.Targets))
	for i, t := range n.cfg.Targets {
		if names[i] = t.IQN; t.IQN == iqn {
			return nil
		}
	}
	if len(names) == 0 {
		return Failure(ErrNotFound, fmt.Sprintf("target %s: the configuration has no targets; add it there and restart the node", iqn))
	}
	return Failure(ErrNotFound, fmt.Sprintf("target %s is not in the configuration; the targets are: %s", iqn, strings.Join(names, ", ")))
}

// MapLUN makes a volume the unit of a number of a target, now and after
// restarts. Initiators that are logged in are told.
func (n *Node) MapLUN(ctx context.Context, iqn string, number int, volume string) (_ LUNStatus, err error) {
	if _, _, err := n.planMapping(iqn, number, volume); err != nil {
		return LUNStatus{}, err
	}
	if n.units != nil { // nobody waits for the store with changes held
		open, e := n.acquire(ctx, volume)
		if e != nil {
			return LUNStatus{}, e
		}
		defer func() { err = errors.Join(err, n.release(open)) }()
	}
	n.changes.Lock()
	defer n.changes.Unlock()
	place, v, err := n.planMapping(iqn, number, volume) // by now
	if err != nil {
		return LUNStatus{}, err
	}
	value, err := json.Marshal(placeRecord{iqn, number})
	if err != nil {
		return LUNStatus{}, err
	}
	unit := meta.VolumeUnit(v.ID)
	if err := n.db.SetUnitState(unit, placeName, value); err != nil {
		return LUNStatus{}, localError("volume "+volume, err)
	}
	if n.units != nil {
		if err := n.export(ctx, place); err != nil {
			return LUNStatus{}, errors.Join(err, n.db.SetUnitState(unit, placeName, nil))
		}
	}
	n.mu.Lock()
	n.luns = append(slices.Clone(n.luns), place)
	n.mu.Unlock()
	n.log.Info("mapped", "target", iqn, "lun", number, "volume", volume)
	s, err := n.statusOf(v)
	if err != nil || s.LUN == nil {
		return LUNStatus{}, err
	}
	return *s.LUN, nil
}

// planMapping tells whether a volume can be mapped to a number of a target.
func (n *Node) planMapping(iqn string, number int, volume string) (place lunPlace, v meta.Volume, err error) {
	if err := n.checkTarget(iqn); err != nil {
		return place, v, err
	}
	if number < 0 || number > MaxLUN {
		return place, v, Failure(ErrInvalid, fmt.Sprintf("lun %d is not between 0 and %d", number, MaxLUN))
	}
	if v, err = n.db.Volume(volume); err != nil {
		return place, v, volumeError(volume, err)
	}
	place = lunPlace{iqn: iqn, lun: number, disk: DiskConfig{Volume: volume, Image: v.Image}, mapped: true}
	if taken := n.whoIs(iqn, number); taken != "" {
		return place, v, Failure(ErrExists, fmt.Sprintf("%v is %s already", &place, taken))
	}
	if p := n.place(volume); p != nil {
		return place, v, Failure(ErrInUse, fmt.Sprintf("volume %s is %v already; one volume cannot be two units", volume, p))
	}
	return place, v, nil
}

// export opens the volume of a place and shows it there. The caller holds
// changes.
func (n *Node) export(ctx context.Context, p lunPlace) error {
	v, err := n.use(ctx, p.disk.Volume, nil)
	if err != nil {
		return err
	}
	if err := n.units[p.iqn].Add(uint16(p.lun), n.newDisk(v, p)); err != nil {
		v.unit = nil
		return errors.Join(fmt.Errorf("%v: %w", &p, err), n.unuse(v))
	}
	return nil
}

// UnmapLUN takes away what MapLUN has mapped. While initiators are logged in to
// the target it fails with ErrInUse, unless it is to be done by force: then what
// they have written is there, and their next command fails.
//
// The volume is closed when the commands have ended that are under way, which the
// call waits for.
func (n *Node) UnmapLUN(ctx context.Context, iqn string, number int, force bool) error {
	closed, err := n.unmap(iqn, number, force)
	if closed == nil || err != nil {
		return err
	}
	select {
	case err := <-closed:
		return err
	case <-ctx.Done(): // it is unmapped nevertheless
		return ctx.Err()
	}
}

// unmap is UnmapLUN up to the moment at which nobody finds the unit any more. closed
// tells that the volume was let go of; nil: that nobody used it.
func (n *Node) unmap(iqn string, number int, force bool) (closed <-chan error, err error) {
	n.changes.Lock()
	defer n.changes.Unlock()
	place, v, err := n.mapping(iqn, number)
	if err != nil {
		return nil, err
	}
	if users := n.initiatorsOf(iqn); len(users) > 0 && !force && n.place(place.disk.Volume) != nil {
		return nil, Failure(ErrInUse, fmt.Sprintf("%v: logged in to the target are %s; log out there first, or use --force", place, strings.Join(users, ", ")))
	}
	if err := n.db.SetUnitState(meta.VolumeUnit(v.ID), placeName, nil); err != nil {
		return nil, localError("volume "+v.Name, err)
	}
	n.mu.Lock()
	here := slices.ContainsFunc(n.luns, func(p lunPlace) bool { return p == *place })
	n.luns = slices.DeleteFunc(slices.Clone(n.luns), func(p lunPlace) bool { return p == *place })
	open := n.volumes[v.Name]
	n.mu.Unlock()
	n.log.Info("unmapped", "target", iqn, "lun", number, "volume", v.Name)
	if n.units == nil || !here || open == nil {
		return nil, nil
	}
	n.units[iqn].Remove(uint16(number)) // first: nobody finds the unit any more
	open.unit = nil
	n.applyPrefetch(open)
	return n.whenSettled(open.dev, func() error { return n.unuse(open) }), nil
}

// mapping returns what was mapped to a number of a target, also when it is not
// shown because something is in the way.
func (n *Node) mapping(iqn string, number int) (*lunPlace, meta.Volume, error) {
	volumes, err := n.db.Volumes()
	if err != nil {
		return nil, meta.Volume{}, err
	}
	for _, v := range volumes {
		value, err := n.db.UnitState(meta.VolumeUnit(v.ID), placeName)
		if err != nil {
			return nil, v, err
		}
		var r placeRecord
		if value != nil && json.Unmarshal(value, &r) == nil && r == (placeRecord{iqn, number}) {
			return &lunPlace{iqn: iqn, lun: number, disk: DiskConfig{Volume: v.Name, Image: v.Image}, mapped: true}, v, nil
		}
	}
	if taken := n.whoIs(iqn, number); taken != "" {
		return nil, meta.Volume{}, Failure(ErrInvalid, fmt.Sprintf("lun %d of target %s is %s by the configuration; take it out there and restart the node", number, iqn, taken))
	}
	return nil, meta.Volume{}, Failure(ErrNotFound, fmt.Sprintf("lun %d of target %s: nothing is mapped there", number, iqn))
}

// initiatorsOf returns who is logged in to a target.
func (n *Node) initiatorsOf(iqn string) (names []string) {
	if n.server == nil {
		return nil
	}
	for _, s := range n.server.Sessions() {
		if s.Target == iqn && !slices.Contains(names, s.Initiator) {
			names = append(names, s.Initiator)
		}
	}
	return names
}

// newDisk makes the unit that shows a volume at a place. The caller holds
// changes.
func (n *Node) newDisk(v *volume, p lunPlace) *lun.Disk {
	v.unit = lun.NewDisk(v.dev, lun.DiskConfig{Name: v.meta.Name, ID: v.meta.ID, ReadOnly: p.disk.ReadOnly, Store: n.state(meta.VolumeUnit(v.meta.ID)), Attached: v.attached}, n.log)
	n.applyPrefetch(v)
	return v.unit
}
