package raid

import (
	"slices"
)

// grow makes f as long as size, with another segment: the pieces first, so that
// a crash leaves some that are longer than anybody knows. The caller holds
// f.changing.
func (a *Array) grow(f *body, size int64) error {
	if f.gone {
		return errGone
	}
	grown := []*placed{f.at}
	if f.next != nil {
		grown = append(grown, f.next)
	}
	r := &fileRecord{Cursor: f.cursor}
	var parts []*part
	var also []int
	for i, l := range grown {
		p := placement{Gen: l.Gen, Segments: slices.Clone(l.Segments)}
		if size > l.size {
			seg, err := a.segment(size - l.size)
			if err != nil {
				return err
			}
			p.Segments = append(p.Segments, seg)
		}
		now, err := locate(p)
		if err != nil {
			return err
		}
		have := map[int]*part{}
		for _, s := range l.segs {
			for _, p := range s.parts {
				if p != nil {
					have[p.on.number] = p
				}
			}
		}
		for number, used := range now.used {
			if p := have[number]; p != nil {
				if err := p.Piece.Resize(used); err != nil {
					return err
				}
				continue
			}
			s := a.slot(number)
			if !slices.Contains(also, number) { // a crash must not leave a piece that nobody knows
				also = append(also, number)
				was := &fileRecord{At: f.at.placement, Cursor: f.cursor, Also: also}
				if f.next != nil {
					was.Next = &f.next.placement
				}
				if err := a.store(f.name, was); err != nil {
					return err
				}
			}
			piece, err := s.Create(pieceName(f.name, l.Gen), used)
			if err != nil {
				return err
			}
			have[number] = &part{Piece: piece, on: s}
			parts = append(parts, have[number])
		}
		now.connect(have)
		if grown[i] = now; i == 0 {
			r.At = p
		} else {
			r.Next = &p
		}
	}
	if err := a.store(f.name, r); err != nil {
		for _, p := range parts {
			p.Close()
		}
		return err
	}
	f.gate.close()
	defer f.gate.open()
	f.at = grown[0]
	if f.next != nil {
		f.next = grown[1]
	}
	f.parts = slices.Concat(f.parts, parts)
	f.choose()
	return nil
}
