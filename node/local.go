package node

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"skylun/meta"
	"skylun/raid"
	"skylun/raid/stripe"
)

// maxStripe is the largest stripe: with a larger one a request of an initiator
// would hardly ever be for more than one member.
const maxStripe Size = 64 << 20

func (c *Config) validateLocal(ps *Problems) {
	for i, m := range c.Local.Members {
		key := fmt.Sprintf("local.members[%d]", i)
		m.validate(ps, key)
		if j := slices.IndexFunc(c.Local.Members[:i], func(o MemberConfig) bool { return m.String() != "" && o.String() == m.String() }); j >= 0 {
			ps.add(key, "%v is local.members[%d] already; name every member once", m, j)
		}
	}
	if n := len(c.Local.Members); n > stripe.MaxMembers {
		ps.add("local.members", "%d of them; an array has up to %d", n, stripe.MaxMembers)
	}
	if s := c.Local.StripeSize; s != 0 && (s < stripe.MinSize || s > maxStripe || s&(s-1) != 0) {
		ps.add("local.stripe_size", "%v is not a power of two between %v and %v", s, Size(stripe.MinSize), maxStripe)
	}
}

// paths returns the members that have one.
func (c *LocalConfig) paths() (all []string) {
	for _, m := range c.Members {
		if m.Path != "" {
			all = append(all, m.Path)
		}
	}
	return all
}

func (m *MemberConfig) validate(ps *Problems, key string) {
	if m.Weight < 0 || m.Weight > stripe.MaxWeight {
		ps.add(key+".weight", "%d is not between 1 and %d", m.Weight, stripe.MaxWeight)
	}
	if m.Allocate != "" && m.Allocate != raid.Identical && m.Allocate != raid.Chunks {
		ps.add(key+".allocate", "%q is neither %s nor %s", m.Allocate, raid.Identical, raid.Chunks)
	}
	switch {
	case m.Path != "" && m.NBD != "":
		ps.add(key, "both a path and an NBD export; name each as a member of its own")
		return
	case m.NBD != "":
		if err := raid.CheckNBD(m.NBD); err != nil {
			ps.add(key+".nbd", "%v", err)
		}
		return
	case m.Path == "":
		ps.add(key, "empty; name a directory, a block device or a file")
		return
	}
	st, err := os.Stat(m.Path)
	switch {
	case err != nil || st.IsDir():
		if m.Allocate != "" && err == nil {
			ps.add(key+".allocate", "%s is a directory, in which the file system allocates; leave the key out", m.Path)
		}
	case st.Mode().IsRegular():
		if st.Size() < raid.MinDevice {
			ps.add(key, "%s is a file of %v; a member that is a file has its full size from the start, %v at least", m.Path, Size(st.Size()), Size(raid.MinDevice))
		}
	case st.Mode()&os.ModeDevice == 0 || st.Mode()&os.ModeCharDevice != 0:
		ps.add(key, "%s is neither a directory nor a block device nor a file", m.Path)
	}
}

// openArray opens the local array.
func (n *Node) openArray() (err error) {
	cfg := raid.Config{
		Stripe: int64(n.cfg.Local.StripeSize), Records: n.db.Records(), Boot: n.boot, Log: n.log,
		Expendable: func(name string) bool { return strings.HasPrefix(name, cachesDir) },
	}
	for _, m := range n.cfg.Local.Members {
		cfg.Members = append(cfg.Members, raid.MemberConfig{Path: m.Path, NBD: m.NBD, Weight: m.Weight, Allocate: m.Allocate})
	}
	n.array, err = raid.OpenArray(cfg)
	var missing *raid.MissingError
	if errors.As(err, &missing) {
		return n.missingError(missing)
	}
	if err != nil {
		return localError("local.members", err)
	}
	return nil
}

// missingError says which volumes a missing member hits.
func (n *Node) missingError(m *raid.MissingError) error {
	tree, err := n.db.Tree()
	if err != nil {
		return errors.Join(m, err)
	}
	touches := func(top uint64) bool {
		for id := top; id != 0; id = tree.Layers[id].Parent {
			if slices.Contains(m.Files, layerFile(id)) || slices.Contains(m.Files, notesFile(id)) {
				return true
			}
		}
		return false
	}
	var hit []string
	for _, v := range tree.Volumes {
		if touches(v.Layer) {
			hit = append(hit, "volume "+v.Name)
		}
	}
	for _, s := range tree.Snapshots {
		if slices.ContainsFunc(s.Volumes, func(v meta.SnapshotVolume) bool { return touches(v.Layer) }) {
			hit = append(hit, "snapshot "+s.Name)
		}
	}
	if len(hit) == 0 {
		hit = m.Files
	}
	return fmt.Errorf("local.members: %s is missing or empty, and has parts of %s: bring it back (is it mounted?); nothing was changed", strings.Join(m.Where, " and "), strings.Join(hit, ", "))
}

// removeOrphans removes files of the array that the database does not know: a
// process was killed, or lost its power, between making a file and recording what
// it is for. Nobody may be making files. Array and database belong to this process
// alone, and what is on the members without being a file of the array is left alone.
func (n *Node) removeOrphans() error {
	tree, err := n.db.Tree()
	if err != nil {
		return err
	}
	caches, err := n.db.Caches()
	if err != nil {
		return err
	}
	known := map[string]bool{}
	for id := range tree.Layers {
		known[layerFile(id)], known[notesFile(id)] = true, true
	}
	for _, c := range caches {
		known[cacheFile(c.Map)], known[sumsFile(c.Map)] = true, true
	}
	names, err := n.array.Names()
	if err != nil {
		return err
	}
	orphans := slices.DeleteFunc(names, func(name string) bool { return known[name] })
	if len(orphans) == 0 {
		return nil
	}
	n.log.Info("removing files that nothing has come to refer to before the last process ended", "files", strings.Join(orphans, ", "))
	return n.array.RemoveAll(orphans)
}
