package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
)

// snapshot is one of all volumes, taken under load.
type snapshot struct {
	name string
	has  []*least // by volume: it holds this at least, and nothing sent later
}

// keeper takes and removes snapshots while the workers write.
type keeper struct {
	server   *server
	volumes  []*history
	promises *promises
	taken    int
	kept     []*snapshot // that are there, oldest first
}

// run takes some snapshots and removes others: the oldest while there is a
// younger one, so that layers are merged whose neighbours are in use.
func (k *keeper) run() error {
	for range 3 {
		if err := k.take(); err != nil {
			return err
		}
		if len(k.kept) > 1 {
			if err := k.remove(k.kept[0]); err != nil {
				return err
			}
			k.kept = k.kept[1:]
		}
	}
	return nil
}

func (k *keeper) take() error {
	k.taken++
	s := &snapshot{name: fmt.Sprint("snapshot", k.taken)}
	for _, h := range k.volumes {
		l := newLeast(h)
		l.add(promise{h: h, first: h.soFar()})
		s.has = append(s.has, l)
	}
	if _, err := k.server.run("snapshot", "create", s.name, "blank", "overlay"); err != nil {
		return err
	}
	for _, l := range s.has {
		l.limit()
		if err := k.promises.add(promise{h: l.h, first: l.first}); err != nil { // taking it makes it durable
			return err
		}
	}
	k.kept = append(k.kept, s)
	return k.promises.add(promise{snapshot: s, there: true})
}

func (k *keeper) remove(s *snapshot) error {
	if err := k.promises.add(promise{snapshot: s}); err != nil { // from here on it may be gone
		return err
	}
	if _, err := k.server.run("snapshot", "rm", s.name); err != nil {
		return err
	}
	return k.promises.add(promise{snapshot: s, gone: true})
}

// snapshots are those that have to be there after a cut, and those that must
// not be.
type snapshots struct {
	there []*snapshot
	gone  []string
}

// add adds what a promise says.
func (s *snapshots) add(p promise) {
	s.there = slices.DeleteFunc(s.there, func(t *snapshot) bool { return t == p.snapshot })
	switch {
	case p.there:
		s.there = append(s.there, p.snapshot)
	case p.gone:
		s.gone = append(s.gone, p.snapshot.name)
	}
}

// check compares all snapshots with what they have to hold.
func (s *snapshots) check(server *server) error {
	out, err := server.run("snapshot", "list", "-o", "json")
	if err != nil {
		return lostError{err.Error()}
	}
	var list []struct{ Name string }
	if err := json.Unmarshal(out, &list); err != nil {
		return err
	}
	for _, l := range list {
		if slices.Contains(s.gone, l.Name) {
			return lostError{l.Name + " is there again"}
		}
	}
	for _, snapshot := range s.there {
		for lun, l := range snapshot.has {
			volume := []string{blank: "blank", overlay: "overlay"}[lun]
			file := filepath.Join(server.work, "export")
			if _, err := server.run("snapshot", "export", "--force", snapshot.name+"/"+volume, file); err != nil {
				return lostError{err.Error()}
			}
			p, err := os.ReadFile(file)
			if err != nil {
				return err
			}
			if err := l.checkAll(p); err != nil {
				return lostError{fmt.Sprintf("%s, %s: %v", snapshot.name, volume, err)}
			}
		}
	}
	return nil
}
