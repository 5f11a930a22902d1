package raidtest

import (
	"bytes"
	"maps"
	"slices"
	"strings"
	"sync"
)

// Records are records in memory.
type Records struct {
	*Faults

	mu  sync.Mutex
	all map[string][]byte // guarded by mu
}

// NewRecords returns records that are empty.
func NewRecords(f *Faults) *Records { return &Records{Faults: f, all: map[string][]byte{}} }

// Load calls f with those whose key begins with prefix.
func (r *Records) Load(prefix string, f func(key string, value []byte) error) error {
	all := r.Copy(nil).all
	for _, k := range slices.Sorted(maps.Keys(all)) {
		if strings.HasPrefix(k, prefix) {
			if err := f(k, all[k]); err != nil {
				return err
			}
		}
	}
	return nil
}

// Store makes changes.
func (r *Records) Store(changes map[string][]byte) error {
	r.at("before records are stored")
	if err := r.fault("store"); err != nil {
		return err
	}
	r.mu.Lock()
	for k, v := range changes {
		if v == nil {
			delete(r.all, k)
		} else {
			r.all[k] = bytes.Clone(v)
		}
	}
	r.mu.Unlock()
	r.at("records stored")
	return nil
}

// Copy returns the same records.
func (r *Records) Copy(f *Faults) *Records {
	r.mu.Lock()
	defer r.mu.Unlock()
	return &Records{Faults: f, all: maps.Clone(r.all)}
}

// Keys returns all keys.
func (r *Records) Keys() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Sorted(maps.Keys(r.all))
}
