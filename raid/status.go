package raid

import "errors"

// MemberStatus is a member at one moment.
type MemberStatus struct {
	Where       string
	Kind        string
	Weight      int
	Total, Free int64  // bytes
	Errors      uint64 // calls that failed
	InFlight    int64  // calls that it is busy with
	Err         error  // why its space, or its files, are not known
	Leaving     bool   // it is to be taken out
	Files       int    // of one that is leaving: that have a part on it still
}

// Members returns the members in their order.
func (a *Array) Members() (all []MemberStatus) {
	alone := map[*slot]int64{} // calls of files that are on one member
	a.mu.Lock()
	for _, f := range a.files {
		inside := f.gate.inside.Load()
		if f.gate.tryEnter() {
			if f.only != nil {
				alone[f.only.on] += inside
			}
			f.gate.leave()
		}
	}
	a.mu.Unlock()
	for _, s := range a.slots {
		m := MemberStatus{Where: s.where, Kind: s.kind, Weight: s.weight, Errors: s.errors.Load(), InFlight: s.inFlight.Load()}
		m.Total, m.Free, m.Err = s.Space()
		m.InFlight += alone[s]
		if m.Leaving = s.leaving.Load(); m.Leaving {
			var err error
			m.Files, err = a.filesOn(s)
			m.Err = errors.Join(m.Err, err)
		}
		all = append(all, m)
	}
	return all
}
