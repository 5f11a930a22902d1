package raid

import (
	"encoding/json"
	"errors"
	"fmt"

	"skylun/block"
)

// A member that is to be taken out is emptied first, while it is in use:
//
//	its record says that it is leaving: a crash must not forget that while files
//	are on their way off it, or they would come back.
//	then no file is laid out over it any more, and Rebalance finds all that are.
//	when the last one has moved, no record names it: it may be missing, as any
//	member that holds nothing, and is forgotten at the first start without it.
//
// Until then it counts in full, and what is not moved yet is read there and written to.

// Leave has a member leave: nothing more is laid out over it, and Rebalance moves off
// it what is there.
func (a *Array) Leave(where string) error { return a.setLeaving(where, true) }

// Stay takes back Leave. What has moved stays where it is until Rebalance.
func (a *Array) Stay(where string) error { return a.setLeaving(where, false) }

func (a *Array) setLeaving(where string, leaving bool) error {
	a.opening.Lock()
	defer a.opening.Unlock()
	var s *slot
	others := 0
	for _, o := range a.slots {
		if o.where == where {
			s = o
		} else if !o.leaving.Load() {
			others++
		}
	}
	switch {
	case s == nil || a.cfg.Records == nil:
		return fmt.Errorf("%w: %s is none of this array", ErrMember, where)
	case s.leaving.Load() == leaving:
		return nil
	case leaving && others == 0:
		return fmt.Errorf("%w: %s is the last one that stays; add another, which takes what is on it", ErrMember, where)
	}
	if leaving {
		if err := a.roomWithout(s); err != nil {
			return err
		}
	}
	rec, err := a.members()
	if err != nil {
		return err
	}
	rec.member(s.id).Leaving = leaving
	if err := a.put(rec, nil); err != nil {
		return err
	}
	s.leaving.Store(leaving)
	return nil
}

// members returns what is durable of the array.
func (a *Array) members() (*arrayRecord, error) {
	rec := &arrayRecord{}
	err := a.cfg.Records.Load(arrayKey, func(key string, value []byte) error {
		if key != arrayKey {
			return nil
		}
		return json.Unmarshal(value, rec)
	})
	if err != nil {
		return nil, fmt.Errorf("array: %w", err)
	}
	return rec, nil
}

// roomWithout fails when those that stay have no room for what a member holds. That
// they have is not certain even so: each has to have it for its part.
func (a *Array) roomWithout(leaving *slot) error {
	var room, holds int64
	for _, s := range a.slots {
		if s == leaving || s.leaving.Load() {
			continue
		}
		_, free, err := s.Space()
		if err != nil {
			return err
		}
		room += free
	}
	err := a.eachRecord(func(name string, r *fileRecord) error {
		for _, p := range []*placement{&r.At, r.Next} {
			if p == nil || r.Making || p == r.Next && r.MakingNext {
				continue
			}
			l, err := locate(*p)
			if err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
			used := l.used[leaving.number]
			if used == 0 {
				continue
			}
			piece, err := leaving.Open(pieceName(name, p.Gen), used)
			if errors.Is(err, ErrNotExist) { // it has just been moved away
				continue
			}
			if err != nil {
				return err
			}
			n, err := piece.Allocated()
			piece.Close()
			if err != nil {
				return err
			}
			holds += n
		}
		return nil
	})
	if err != nil {
		return err
	}
	if holds > room {
		return fmt.Errorf("%w: member %s holds %d bytes, and %d are free on those that stay; add another first", block.ErrNoSpace, leaving.where, holds, room)
	}
	return nil
}

// filesOn returns how many files have a part on a member.
func (a *Array) filesOn(s *slot) (n int, err error) {
	err = a.eachRecord(func(_ string, r *fileRecord) error {
		if r.on(s.number) {
			n++
		}
		return nil
	})
	return n, err
}
