package raid

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
)

const filePrefix = "file/"

// record returns what is durable of a file.
func (a *Array) record(name string) (r *fileRecord, err error) {
	if a.cfg.Records == nil {
		return nil, nil
	}
	err = a.cfg.Records.Load(filePrefix+name, func(key string, value []byte) error {
		if key != filePrefix+name {
			return nil
		}
		r = &fileRecord{}
		return json.Unmarshal(value, r)
	})
	if err != nil {
		return nil, fmt.Errorf("layout of %s: %w", name, err)
	}
	return r, nil
}

func (a *Array) store(name string, r *fileRecord) error {
	if err := a.storeAll(map[string]*fileRecord{name: r}); err != nil {
		return fmt.Errorf("layout of %s: %w", name, err)
	}
	return nil
}

// storeAll makes records durable, all or none; nil removes one.
func (a *Array) storeAll(all map[string]*fileRecord) error {
	if a.cfg.Records == nil {
		return nil
	}
	changes := map[string][]byte{}
	for name, r := range all {
		changes[filePrefix+name] = nil
		if r != nil {
			changes[filePrefix+name] = r.encode()
		}
	}
	return a.cfg.Records.Store(changes)
}

// sweep finishes what was being done when the process ended: files that were
// being made are removed, and pieces that nothing needs.
func (a *Array) sweep() error {
	return a.eachRecord(func(name string, r *fileRecord) error {
		switch {
		case r.Making:
			return a.Remove(name)
		case r.MakingNext:
			if err := a.removePieces(name, *r.Next); err != nil {
				return err
			}
			return a.store(name, &fileRecord{At: r.At})
		case r.Old != nil:
			if err := a.removePieces(name, *r.Old); err != nil {
				return err
			}
			return a.store(name, &fileRecord{At: r.At, Next: r.Next, Cursor: r.Cursor})
		case len(r.Also) > 0: // it was to grow onto them
			for _, p := range []*placement{&r.At, r.Next} {
				if p == nil {
					continue
				}
				l, err := locate(*p)
				if err != nil {
					return err
				}
				unused := slices.DeleteFunc(slices.Clone(r.Also), func(number int) bool { return l.used[number] > 0 })
				if err := a.removePieces(name, placement{p.Gen, []segment{{On: unused}}}); err != nil {
					return err
				}
			}
			return a.store(name, &fileRecord{At: r.At, Next: r.Next, Cursor: r.Cursor})
		}
		return nil
	})
}

// eachRecord calls f for every file that has a record.
func (a *Array) eachRecord(f func(name string, r *fileRecord) error) error {
	all := map[string]*fileRecord{}
	var names []string
	err := a.cfg.Records.Load(filePrefix, func(key string, value []byte) error {
		r := &fileRecord{}
		if err := json.Unmarshal(value, r); err != nil {
			return fmt.Errorf("layout of %s: %w", key, err)
		}
		name := strings.TrimPrefix(key, filePrefix)
		all[name], names = r, append(names, name)
		return nil
	})
	for _, name := range names {
		if err == nil {
			err = f(name, all[name])
		}
	}
	return err
}

// Names returns the names of all files. An array without records does not know
// them.
func (a *Array) Names() (names []string, err error) {
	if a.cfg.Records == nil {
		return nil, errors.New("an array without records does not know its files")
	}
	err = a.eachRecord(func(name string, _ *fileRecord) error {
		names = append(names, name)
		return nil
	})
	return names, err
}
