package raid

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
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
	Lost    bool   `json:"lost,omitempty"`    // it was missing: what was on it is forgotten
	Leaving bool   `json:"leaving,omitempty"` // nothing is laid out over it any more
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

// assemble opens the members and finds out which ones they are.
func (a *Array) assemble() (err error) {
	rec, err := a.members()
	if err != nil {
		return err
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
		if err := c.open(rec); err != nil {
			return err
		}
	}
	if err := distinct(all); err != nil {
		return err
	}
	for _, c := range all {
		if err := c.recognise(rec); err != nil {
			return err
		}
	}
	if err := a.missing(rec, all); err != nil {
		return err
	}
	if fresh {
		if err := a.adopt(all); err != nil {
			return err
		}
	}
	if err := a.admit(rec, all); err != nil {
		return err
	}
	return a.seat(rec, all)
}

// member returns the record of a member, or nil.
func (r *arrayRecord) member(id string) *memberRecord {
	i := slices.IndexFunc(r.Members, func(m memberRecord) bool { return m.ID == id && id != "" })
	if i < 0 {
		return nil
	}
	return &r.Members[i]
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
