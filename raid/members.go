package raid

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// The kinds of members: who allocates.
const (
	kindDirectory = "directory" // the host's file system
	Identical     = "identical" // nobody: pieces have their space for good
	Chunks        = "chunks"    // skylun, when a chunk is written
)

// MemberConfig says what a member is. One of its ways to say so is used.
type MemberConfig struct {
	Path string // a directory, which is made when it does not exist; a block device; a file
	NBD  string // an export: unix:SOCKET, or unix:SOCKET?export=NAME

	Device Device // for callers that bring their own
	Member Member // likewise; it has no stamp, and its place in the list is its identity

	Weight   int    // stripes in a round; 0: one, and as many as the size of the member allows
	Allocate string // of a device: Identical, which is also what "" means, or Chunks
}

func (c *MemberConfig) where(i int) string {
	switch {
	case c.Path != "":
		return c.Path
	case c.NBD != "":
		return c.NBD
	}
	return fmt.Sprintf("member %d", i)
}

// arrayRecord is what is durable of the array, under "array".
//
// A member is in the record before it has its stamp, so that a crash in between
// leaves one that gets it at the next start. The record counts: the order of its
// members is that of the array, whatever the configuration says.
type arrayRecord struct {
	ID      string         `json:"id"`
	Last    int            `json:"last"` // number given to a member
	Members []memberRecord `json:"members"`
}

type memberRecord struct {
	ID      string `json:"id"`
	Number  int    `json:"number"`
	Where   string `json:"where"` // when it was seen last
	Kind    string `json:"kind"`
	Chunk   int64  `json:"chunk,omitempty"` // bytes, of those that hand out chunks
	Stamped bool   `json:"stamped,omitempty"`
	Lost    bool   `json:"lost,omitempty"` // it was missing: what was on it is forgotten
}

const arrayKey = "array"

// MissingError is the error of an array of which a member is missing that had
// files on it which may not be lost.
type MissingError struct {
	Where []string // of the members
	Files []string // that have a part on them
}

func (e *MissingError) Error() string {
	return fmt.Sprintf("%v: member %s is missing or empty, and %s on it: bring it back", ErrMember, strings.Join(e.Where, " and "), strings.Join(e.Files, ", "))
}

func (e *MissingError) Unwrap() error { return ErrMember }

// candidate is a member as the configuration names it.
type candidate struct {
	cfg     MemberConfig
	where   string
	kind    string
	stamped stamped // nil: it cannot carry a stamp
	device  Device
	dir     *dir
	member  Member // of its own
	stamp   *stamp
	file    [2]uint64 // which file of the host it is; zero: none
	absent  error     // why it cannot be opened
	back    bool      // it was a member once, and has nothing that is needed
	id      string    // of the record that it has; "": none
}

func (c *candidate) close() {
	switch {
	case c.dir != nil:
		c.dir.Close()
	case c.device != nil && c.cfg.Device == nil:
		c.device.Close()
	}
}

// assemble opens the members and finds out which ones they are.
func (a *Array) assemble() (err error) {
	var rec arrayRecord
	err = a.cfg.Records.Load(arrayKey, func(key string, value []byte) error {
		if key != arrayKey {
			return nil
		}
		return json.Unmarshal(value, &rec)
	})
	if err != nil {
		return fmt.Errorf("array: %w", err)
	}
	fresh := rec.ID == ""
	if fresh {
		rec.ID = newID()
	}
	var all []*candidate
	defer func() {
		for _, c := range all {
			if !slices.ContainsFunc(a.slots, func(s *slot) bool { return s.id == c.id }) {
				c.close()
			}
		}
	}()
	for i, m := range a.cfg.Members {
		c := &candidate{cfg: m, where: m.where(i)}
		c.identify(m.Path)
		all = append(all, c)
	}
	if err := distinct(all); err != nil { // before one is in the way of the other
		return err
	}
	for _, c := range all {
		if err := c.open(&rec); err != nil {
			return err
		}
	}
	if err := distinct(all); err != nil {
		return err
	}
	for _, c := range all {
		if err := c.recognise(&rec); err != nil {
			return err
		}
	}
	if err := a.missing(&rec, all); err != nil {
		return err
	}
	if fresh {
		if err := a.adopt(all); err != nil {
			return err
		}
	}
	if err := a.admit(&rec, all); err != nil {
		return err
	}
	return a.seat(&rec, all)
}

// member returns the record of a member, or nil.
func (r *arrayRecord) member(id string) *memberRecord {
	i := slices.IndexFunc(r.Members, func(m memberRecord) bool { return m.ID == id && id != "" })
	if i < 0 {
		return nil
	}
	return &r.Members[i]
}

// open opens what a candidate is, and reads its stamp. What the array knows and
// cannot be opened is absent.
func (c *candidate) open(rec *arrayRecord) (err error) {
	known := slices.ContainsFunc(rec.Members, func(m memberRecord) bool { return m.Where == c.where })
	switch {
	case c.cfg.Member != nil:
		c.kind, c.member = "own", c.cfg.Member
		return nil
	case c.cfg.Device != nil:
		c.device = c.cfg.Device
	case c.cfg.NBD != "":
		var d *nbdDevice
		if d, err = openNBD(c.cfg.NBD); err == nil {
			c.device = d
		}
	default:
		var st os.FileInfo
		st, err = os.Stat(c.cfg.Path)
		switch {
		case errors.Is(err, os.ErrNotExist) && !known, err == nil && st.IsDir():
			if c.dir, err = openDir(c.cfg.Path); err == nil {
				c.dir.lock, err = lockPath(c.cfg.Path)
			}
		case err == nil:
			var d *osDevice
			if d, err = openDevice(c.cfg.Path); err == nil {
				c.device = d
				err = flock(d.fd, c.cfg.Path)
			}
		}
	}
	if errors.Is(err, ErrMember) {
		return err
	}
	if err != nil {
		if known && !errors.Is(err, unix.EACCES) && !errors.Is(err, unix.EROFS) {
			c.close()
			c.absent, c.dir, c.device = err, nil, nil
			return nil
		}
		return fmt.Errorf("member %s: %w", c.where, err)
	}
	if c.dir != nil {
		c.kind, c.stamped = kindDirectory, c.dir
	} else {
		c.kind, c.stamped = c.cfg.Allocate, deviceStamp{c.device}
		if c.kind == "" {
			c.kind = Identical
		}
		if c.device.Size() < MinDevice {
			return fmt.Errorf("%w: %s has %d bytes: a member needs %d at least", ErrMember, c.where, c.device.Size(), MinDevice)
		}
	}
	if c.stamp, err = c.stamped.readStamp(); err != nil {
		return fmt.Errorf("%w: %s: %v; if nothing on it is needed any more, clear it and it can be added as a new member", ErrMember, c.where, err)
	}
	return nil
}

// identify finds out which file of the host a candidate is, whatever its path.
func (c *candidate) identify(path string) {
	var st unix.Stat_t
	if unix.Stat(path, &st) != nil {
		return
	}
	if c.file = [2]uint64{st.Dev, st.Ino}; st.Mode&unix.S_IFMT == unix.S_IFBLK {
		c.file = [2]uint64{1 << 63, st.Rdev}
	}
}

// lockPath locks a directory for this process.
func lockPath(path string) (*os.File, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	if err := flock(int(f.Fd()), path); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

func flock(fd int, path string) error {
	err := unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return fmt.Errorf("%w: %s is in use by another node; stop that one, or name another member", ErrMember, path)
	}
	return err
}

// distinct refuses what is named twice.
func distinct(all []*candidate) error {
	for i, c := range all {
		for _, o := range all[:i] {
			if c.file != [2]uint64{} && c.file == o.file || c.stamp != nil && o.stamp != nil && c.stamp.Member == o.stamp.Member {
				return fmt.Errorf("%w: %s and %s are the same member; name it once", ErrMember, o.where, c.where)
			}
			if c.dir != nil && o.dir != nil && within(c.dir.path, o.dir.path) {
				return fmt.Errorf("%w: of %s and %s one lies within the other; name directories beside each other", ErrMember, o.where, c.where)
			}
		}
	}
	return nil
}

// within tells whether one of two directories lies in the other.
func within(a, b string) bool {
	a, errA := filepath.EvalSymlinks(a)
	b, errB := filepath.EvalSymlinks(b)
	sep := string(filepath.Separator)
	return errA == nil && errB == nil && (strings.HasPrefix(a+sep, b+sep) || strings.HasPrefix(b+sep, a+sep))
}

// recognise finds the record of a candidate, if it has one.
func (c *candidate) recognise(rec *arrayRecord) error {
	for i := range rec.Members {
		m := &rec.Members[i]
		switch {
		case c.stamp != nil && m.ID == c.stamp.Member && rec.ID == c.stamp.Array,
			c.stamp == nil && c.absent == nil && m.Where == c.where && !m.Stamped,
			c.member != nil && m.Where == c.where:
			if c.id = m.ID; m.Kind != c.kind {
				return fmt.Errorf("%w: %s was set up as %s, the configuration says %s; put that back", ErrMember, c.where, m.Kind, c.kind)
			}
		}
	}
	switch {
	case c.id != "", c.stamp == nil:
		return nil
	case c.stamp.Array != rec.ID:
		return fmt.Errorf("%w: %s belongs to another array (%s, its member %d of %d), perhaps that of another node; name the right one, or, if nothing on it is needed any more, clear it%s",
			ErrMember, c.where, c.stamp.Array, c.stamp.Position, c.stamp.Count, c.howToClear())
	}
	if c.dir != nil && !c.dir.has("layers") {
		c.back = true
		return nil
	}
	return fmt.Errorf("%w: %s was a member of this array and was taken out; what is on it is out of date: clear it to add it as a new one%s", ErrMember, c.where, c.howToClear())
}

func (c *candidate) howToClear() string {
	if c.dir != nil {
		return fmt.Sprintf(" (remove %s, layers and caches from it)", stampFile)
	}
	return " (overwrite its first MiB with zeros)"
}

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
	a.log.Warn("members are missing, and nothing was on them that cannot be fetched again: going on without them", "members", strings.Join(gone.Where, ", "))
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

// put stores the record of the array, with other changes.
func (a *Array) put(rec *arrayRecord, changes map[string][]byte) error {
	value, err := json.Marshal(rec)
	if err != nil {
		return err
	}
	if changes == nil {
		changes = map[string][]byte{}
	}
	changes[arrayKey] = value
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

// clear removes what a directory has that is out of date. Of a device only the
// records told what was there.
func (c *candidate) clear() error {
	if c.dir == nil {
		return nil
	}
	return errors.Join(os.RemoveAll(c.dir.file("layers")), os.RemoveAll(c.dir.file("caches")))
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
			member, err = openExtents(c.device, a.cfg.Records, m.Number)
		case Chunks:
			member, err = openChunks(c.device, a.cfg.Records, m.Number, m.Chunk, a.cfg.Boot)
		}
		if err != nil {
			return fmt.Errorf("member %s: %w", c.where, err)
		}
		a.slots = append(a.slots, &slot{Member: member, id: m.ID, number: m.Number, where: c.where, kind: c.kind, weight: c.cfg.Weight})
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
