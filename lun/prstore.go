package lun

import (
	"encoding/json"
	"errors"
	"fmt"
)

// With APTPL, registrations and reservation are kept over a loss of power,
// SPC-4 5.13.5, under this name in the Store of the unit. PRGENERATION is not:
// it begins with zero then, 6.15.2. What has been kept is replaced before the
// command is answered, and before it has an effect: after a crash in between
// it has happened and nobody was told, which an initiator must expect of any
// command.
const savedReservations = "persistent reservations"

// savedState is registrations as they are kept, in JSON.
type savedState struct {
	Version int             `json:"version"` // 1
	Type    reservationType `json:"type,omitempty"`
	Holder  *nexusName      `json:"holder,omitempty"`
	List    []registration  `json:"registrations"`
}

// encode returns what is to be kept of r, nil for nothing.
func (r *registrations) encode() ([]byte, error) {
	if !r.persist || len(r.list) == 0 {
		return nil, nil
	}
	s := savedState{Version: 1, Type: r.kind, List: r.list}
	if r.kind != 0 && !r.kind.ofAll() {
		s.Holder = &r.holder
	}
	return json.Marshal(s)
}

// decodeRegistrations is the reverse of encode.
func decodeRegistrations(value []byte) (r registrations, err error) {
	if value == nil {
		return r, nil
	}
	var s savedState
	if err := json.Unmarshal(value, &s); err != nil {
		return r, err
	}
	if s.Version != 1 {
		return r, fmt.Errorf("version %d", s.Version)
	}
	if len(s.List) == 0 || len(s.List) > maxRegistrations {
		return r, fmt.Errorf("%d registrations", len(s.List))
	}
	r = registrations{kind: s.Type, persist: true}
	for _, g := range s.List {
		if g.Key == 0 || r.index(g.Who) >= 0 {
			return registrations{}, errors.New("a registration without a key of its own")
		}
		r.list = append(r.list, g)
	}
	if r.kind != 0 && !r.kind.valid() {
		return registrations{}, fmt.Errorf("reservation of type %d", r.kind)
	}
	if r.kind != 0 && !r.kind.ofAll() {
		if s.Holder == nil || r.index(*s.Holder) < 0 {
			return registrations{}, errors.New("a reservation whose holder is not registered")
		}
		r.holder = *s.Holder
	}
	return r, nil
}
