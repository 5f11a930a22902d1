package raid

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

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

// clear removes what a directory has that is out of date. Of a device only the
// records told what was there.
func (c *candidate) clear() error {
	if c.dir == nil {
		return nil
	}
	return errors.Join(os.RemoveAll(c.dir.file("layers")), os.RemoveAll(c.dir.file("caches")))
}
