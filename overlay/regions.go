package overlay

import (
	"sync/atomic"

	"skylun/block"
)

const (
	regionSize  = 1 << 20
	regionLocks = 64
)

// regionSpan returns the locks of r's regions: count of them from first on,
// modulo regionLocks.
func regionSpan(r block.Range) (first, count int64) {
	first = r.Off / regionSize
	return first, min((r.End-1)/regionSize-first+1, regionLocks)
}

// eachRegion calls f with the number of each lock that r needs, in ascending
// order, until f returns false.
func eachRegion(r block.Range, f func(i int) bool) bool {
	if r.Empty() {
		return true
	}
	first, count := regionSpan(r)
	lo, hi := first%regionLocks, first%regionLocks+count // may wrap around
	for i := int64(0); i < hi-regionLocks; i++ {
		if !f(int(i)) {
			return false
		}
	}
	for i := lo; i < min(hi, regionLocks); i++ {
		if !f(int(i)) {
			return false
		}
	}
	return true
}

func (v *Volume) share(r block.Range) {
	eachRegion(r, func(i int) bool { v.regions[i].RLock(); return true })
}

// tryShare is share that does not wait.
func (v *Volume) tryShare(r block.Range) bool {
	taken := 0
	if eachRegion(r, func(i int) bool {
		if !v.regions[i].TryRLock() {
			return false
		}
		taken++
		return true
	}) {
		return true
	}
	eachRegion(r, func(i int) bool {
		if taken == 0 {
			return false
		}
		taken--
		v.regions[i].RUnlock()
		return true
	})
	return false
}

func (v *Volume) unshare(r block.Range) {
	eachRegion(r, func(i int) bool { v.regions[i].RUnlock(); return true })
}

func (v *Volume) own(r block.Range) {
	eachRegion(r, func(i int) bool { v.regions[i].Lock(); return true })
}

func (v *Volume) disown(r block.Range) {
	eachRegion(r, func(i int) bool { v.regions[i].Unlock(); return true })
}

// ownAll owns all regions: nothing is written until disownAll.
func (v *Volume) ownAll() {
	for i := range v.regions {
		v.regions[i].Lock()
	}
}

func (v *Volume) disownAll() {
	for i := range v.regions {
		v.regions[i].Unlock()
	}
}

// volumes counts those that were opened: their numbers are the order in which
// regions of several are taken.
var volumes atomic.Uint64

// ownAndShare owns the regions of r in v and shares those of q in s, which may
// be v. unlock gives them back.
func ownAndShare(v *Volume, r block.Range, s *Volume, q block.Range) (unlock func()) {
	type mode uint8
	const (
		shared mode = iota + 1
		owned
	)
	var of, ofSource [regionLocks]mode
	if s == v {
		eachRegion(q, func(i int) bool { of[i] = shared; return true })
	} else {
		eachRegion(q, func(i int) bool { ofSource[i] = shared; return true })
	}
	eachRegion(r, func(i int) bool { of[i] = owned; return true })
	lock := func(v *Volume, modes *[regionLocks]mode) {
		for i, m := range modes {
			switch m {
			case shared:
				v.regions[i].RLock()
			case owned:
				v.regions[i].Lock()
			}
		}
	}
	if s.number < v.number {
		lock(s, &ofSource)
		lock(v, &of)
	} else {
		lock(v, &of)
		lock(s, &ofSource)
	}
	return func() {
		for i := range of {
			switch of[i] {
			case shared:
				v.regions[i].RUnlock()
			case owned:
				v.regions[i].Unlock()
			}
			if ofSource[i] == shared {
				s.regions[i].RUnlock()
			}
		}
	}
}
