package raid

import (
	"errors"
	"slices"
)

// grow makes f as long as size, with another segment: the pieces first, so that
// a crash leaves some that are longer than anybody knows. The caller holds
// f.changing.
func (a *Array) grow(f *body, size int64) error {
	if f.gone {
		return errGone
	}
	g := growth{array: a, f: f}
	grown := []*placed{f.at}
	if f.next != nil {
		grown = append(grown, f.next)
	}
	for i, l := range grown {
		var err error
		if grown[i], err = g.extend(l, size); err != nil {
			return errors.Join(err, g.undo())
		}
	}
	r := &fileRecord{At: grown[0].placement, Cursor: f.cursor}
	if f.next != nil {
		r.Next = &grown[1].placement
	}
	if err := a.store(f.name, r); err != nil { // whether it was is not known: what was made has to be there
		for _, m := range g.made {
			m.part.Close()
		}
		return err
	}
	f.gate.close()
	defer f.gate.open()
	f.at = grown[0]
	if f.next != nil {
		f.next = grown[1]
	}
	f.parts = slices.Clone(f.parts)
	for _, m := range g.made {
		f.parts = append(f.parts, m.part)
	}
	f.choose()
	return nil
}

// growth is a file that grows.
type growth struct {
	array *Array
	f     *body
	also  []int // members on which there may be a piece that the layout does not name
	made  []madePiece
}

type madePiece struct {
	name string
	part *part
}

// extend returns a placement with another segment, so that it is as long as size.
// The pieces are as long as that then.
func (g *growth) extend(l *placed, size int64) (*placed, error) {
	p := placement{Gen: l.Gen, Segments: slices.Clone(l.Segments)}
	if size > l.size {
		seg, err := g.array.segment(size - l.size)
		if err != nil {
			return nil, err
		}
		p.Segments = append(p.Segments, seg)
	}
	now, err := locate(p)
	if err != nil {
		return nil, err
	}
	have := map[int]*part{}
	for _, p := range partsOf(l) {
		have[p.on.number] = p
	}
	for number, used := range now.used {
		if p := have[number]; p != nil {
			if err := p.Piece.Resize(used); err != nil {
				return nil, err
			}
			continue
		}
		if have[number], err = g.make(number, pieceName(g.f.name, l.Gen), used); err != nil {
			return nil, err
		}
	}
	now.connect(have)
	return now, nil
}

// make makes a piece on a member on which the file has none.
func (g *growth) make(number int, name string, size int64) (*part, error) {
	if !slices.Contains(g.also, number) { // a crash must not leave a piece that nobody knows
		g.also = append(g.also, number)
		if err := g.record(); err != nil {
			return nil, err
		}
	}
	s := g.array.slot(number)
	piece, err := s.Create(name, size)
	if err != nil {
		return nil, err
	}
	p := &part{Piece: piece, on: s}
	g.made = append(g.made, madePiece{name, p})
	return p, nil
}

// record stores the layout of before, with also.
func (g *growth) record() error {
	r := &fileRecord{At: g.f.at.placement, Cursor: g.f.cursor, Also: g.also}
	if g.f.next != nil {
		r.Next = &g.f.next.placement
	}
	return g.array.store(g.f.name, r)
}

// undo removes what was made. Pieces that have become longer stay so, for the next
// time.
func (g *growth) undo() error {
	if g.also == nil {
		return nil
	}
	var errs []error
	for _, m := range g.made {
		errs = append(errs, m.part.Close(), m.part.on.Remove(m.name))
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	g.also = nil
	return g.record()
}
