package raid

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
)

// missing finds out which members nobody is, and what was on them.
func (a *Array) missing(rec *arrayRecord, all []*candidate) error {
	gone := &MissingError{}
	lost := map[int]bool{}
	for i := range rec.Members {
		m := &rec.Members[i]
		if m.Lost || slices.ContainsFunc(all, func(c *candidate) bool { return c.id == m.ID }) {
			continue
		}
		same := slices.IndexFunc(all, func(c *candidate) bool {
			alone := len(all) == 1 && len(rec.Members) == 1 // also a copy that was put somewhere else
			return (c.where == m.Where || alone) && c.stamp == nil && c.id == "" && c.absent == nil
		})
		if same >= 0 && all[same].dir != nil && (all[same].dir.has("layers") || all[same].dir.has("caches")) && m.Kind == kindDirectory {
			a.log.Warn("a member has no stamp, and files of an array: taken for the one that was there", "member", m.Where)
			all[same].id, m.Stamped = m.ID, false
			continue
		}
		lost[m.Number] = true
		gone.Where = append(gone.Where, m.Where)
	}
	if len(lost) == 0 {
		return nil
	}
	forget := map[string][]byte{}
	err := a.eachRecord(func(name string, r *fileRecord) error {
		for number := range lost {
			if !r.on(number) {
				continue
			}
			if a.cfg.Expendable == nil || !a.cfg.Expendable(name) {
				if !slices.Contains(gone.Files, name) {
					gone.Files = append(gone.Files, name)
				}
			} else {
				r.Making = true // is swept when the others are there
				forget[filePrefix+name] = r.encode()
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	if len(gone.Files) > 0 {
		return gone
	}
	for number := range lost {
		for _, prefix := range []string{"extent/%d/", "piece/%d/", "chunk/%d/"} {
			err = errors.Join(err, a.cfg.Records.Load(fmt.Sprintf(prefix, number), func(key string, _ []byte) error {
				forget[key] = nil
				return nil
			}))
		}
	}
	var left []string // as they were to
	gone.Where = slices.DeleteFunc(gone.Where, func(where string) bool {
		leaving := slices.ContainsFunc(rec.Members, func(m memberRecord) bool { return lost[m.Number] && m.Where == where && m.Leaving })
		if leaving {
			left = append(left, where)
		}
		return leaving
	})
	if len(left) > 0 {
		a.log.Info("members that were leaving are not there any more", "members", strings.Join(left, ", "))
	}
	if len(gone.Where) > 0 {
		a.log.Warn("members are missing, and nothing was on them that cannot be fetched again: going on without them", "members", strings.Join(gone.Where, ", "))
	}
	rec.Members = slices.DeleteFunc(rec.Members, func(m memberRecord) bool {
		configured := slices.ContainsFunc(all, func(c *candidate) bool { return c.where == m.Where && c.absent != nil })
		return lost[m.Number] && !configured
	})
	for i := range rec.Members {
		if lost[rec.Members[i].Number] {
			rec.Members[i].Lost = true
		}
	}
	if err != nil {
		return err
	}
	return a.put(rec, forget)
}

// adopt makes records of the files in directories that have no stamp yet: those
// of an array that was one directory, as it was made before there were stamps.
// It comes before the array has a record, so that it is done again after a crash.
func (a *Array) adopt(all []*candidate) error {
	changes := map[string][]byte{}
	for i, c := range all {
		if c.dir == nil {
			continue
		}
		for _, sub := range []string{"layers", "caches"} {
			entries, err := os.ReadDir(c.dir.file(sub))
			if err != nil && !errors.Is(err, os.ErrNotExist) {
				return memberError(err)
			}
			for _, e := range entries {
				if !e.Type().IsRegular() {
					continue
				}
				name := sub + "/" + e.Name()
				r, err := c.dir.adopt(name, i+1)
				if err != nil {
					return err
				}
				if changes[filePrefix+name] != nil {
					return fmt.Errorf("%w: %s is on more than one of them; take one away", ErrMember, name)
				}
				changes[filePrefix+name] = r.encode()
			}
		}
	}
	if len(changes) == 0 {
		return nil
	}
	if err := a.cfg.Records.Store(changes); err != nil {
		return fmt.Errorf("array: %w", err)
	}
	return nil
}

// admit makes members of those who are none yet, and stamps all.
func (a *Array) admit(rec *arrayRecord, all []*candidate) error {
	for _, c := range all {
		if c.id != "" || c.absent != nil || c.stamped == nil || c.back {
			continue
		}
		if blank, err := c.stamped.blank(); err != nil {
			return fmt.Errorf("member %s: %w", c.where, err)
		} else if !blank {
			return fmt.Errorf("%w: %s holds something that is not skylun's; if that may be lost, clear it (overwrite its first MiB and its last with zeros)", ErrMember, c.where)
		}
	}
	changed := false
	for _, c := range all {
		m := rec.member(c.id)
		if m == nil && c.absent == nil {
			rec.Last++
			c.id, changed = newID(), true
			r := memberRecord{ID: c.id, Number: rec.Last, Where: c.where, Kind: c.kind}
			if c.kind == Chunks {
				r.Chunk = cmp.Or(a.cfg.Chunk, ChunkSize)
			}
			rec.Members = append(rec.Members, r)
			if len(rec.Members) > 1 {
				a.log.Info("a member is new: what is made from now on is laid out over it, too", "member", c.where, "kind", c.kind)
			}
		} else if m != nil && (m.Where != c.where || !m.Stamped) {
			m.Where, changed = c.where, true
		}
	}
	if changed {
		if err := a.put(rec, nil); err != nil {
			return err
		}
		changed = false
	}
	for _, c := range all {
		m := rec.member(c.id)
		if m == nil {
			continue
		}
		if m.Lost || c.back {
			if err := c.clear(); err != nil {
				return fmt.Errorf("member %s: %w", c.where, err)
			}
			a.log.Info("a member is back, empty: what was on it is out of date", "member", c.where)
		}
		position := slices.IndexFunc(rec.Members, func(r memberRecord) bool { return r.ID == c.id })
		want := stamp{Format: stampFormat, Array: rec.ID, Member: m.ID, Position: position, Count: len(rec.Members), Kind: m.Kind}
		if c.stamped != nil && (c.stamp == nil || *c.stamp != want) {
			if err := c.stamped.writeStamp(want); err != nil {
				return fmt.Errorf("member %s: its stamp: %w", c.where, err)
			}
		}
		changed = changed || !m.Stamped || m.Lost
		m.Stamped, m.Lost = true, false
	}
	if !changed {
		return nil
	}
	return a.put(rec, nil)
}

// seat gives every member its place.
func (a *Array) seat(rec *arrayRecord, all []*candidate) error {
	var order []*candidate
	for _, m := range rec.Members {
		i := slices.IndexFunc(all, func(c *candidate) bool { return c.id == m.ID })
		if i < 0 {
			continue
		}
		c := all[i]
		order = append(order, c)
		member := c.member
		var err error
		switch c.kind {
		case kindDirectory:
			member = c.dir
		case Identical:
			member, err = openExtents(c.device, a.cfg.Records, m.Number, c.where)
		case Chunks:
			member, err = openChunks(c.device, a.cfg.Records, m.Number, c.where, m.Chunk, a.cfg.Boot)
		}
		if err != nil {
			return fmt.Errorf("member %s: %w", c.where, err)
		}
		s := &slot{Member: member, id: m.ID, number: m.Number, where: c.where, kind: c.kind, weight: c.cfg.Weight}
		s.leaving.Store(m.Leaving)
		a.slots = append(a.slots, s)
	}
	if len(order) == 0 {
		return fmt.Errorf("%w: none of them is there", ErrMember)
	}
	named := slices.DeleteFunc(slices.Clone(all), func(c *candidate) bool { return c.id == "" })
	if !slices.Equal(order, named) {
		var list []string
		for _, c := range order {
			list = append(list, c.where)
		}
		a.log.Info("the members are named in another order than they were set up in, which changes nothing", "order", strings.Join(list, ", "))
	}
	return nil
}
