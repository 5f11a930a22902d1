package overlay

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"skylun/block"
)

// history is what each sector may read as after a power cut: its value at the
// last flush that was answered, and every later one.
type history [][]uint64

func newHistory(sectors int64, value func(s int64) uint64) history {
	h := make(history, sectors)
	for s := range h {
		h[s] = []uint64{value(int64(s))}
	}
	return h
}

func (h history) write(r block.Range, value uint64) {
	for s := r.Off / sector; s < r.End/sector; s++ {
		h[s] = append(h[s], value)
	}
}

// copy is a write of what o's sectors hold from another place on.
func (h history) copy(r block.Range, o history, from int64) {
	for i := range r.Len() / sector {
		h[r.Off/sector+i] = append(h[r.Off/sector+i], o.last(from/sector+i))
	}
}

func (h history) last(s int64) uint64 { return h[s][len(h[s])-1] }

func (h history) flushed() {
	for s := range h {
		h[s] = h[s][len(h[s])-1:]
	}
}

// resize cuts sectors off, or adds such as read as zeros.
func (h history) resize(size int64) history {
	sectors := size / sector
	return append(h[:min(sectors, int64(len(h)))], newHistory(max(0, sectors-int64(len(h))), func(int64) uint64 { return 0 })...)
}

func (h history) clone() history {
	c := slices.Clone(h)
	for s := range c {
		c[s] = slices.Clip(c[s]) // appending to one does not show in the other
	}
	return c
}

// check tells which sector of p does not hold what it may, and then makes
// what it holds the only thing that it may.
func (h history) check(p []byte) error {
	for s := range h {
		value, err := sectorValue(p[s*sector : (s+1)*sector])
		if err == nil && !slices.Contains(h[s], value) {
			err = fmt.Errorf("holds %d, want one of %v", value, h[s])
		}
		if err != nil {
			return fmt.Errorf("sector %d: %w", s, err)
		}
		h[s] = []uint64{value}
	}
	return nil
}

func fillSectors(p []byte, value uint64) []byte {
	for i := 0; i < len(p); i += 8 {
		binary.BigEndian.PutUint64(p[i:], value)
	}
	return p
}

// sectorValue returns the value that p is filled with.
func sectorValue(p []byte) (uint64, error) {
	value := binary.BigEndian.Uint64(p)
	for i := 8; i < sector; i += 8 {
		if binary.BigEndian.Uint64(p[i:]) != value {
			return 0, errors.New("bytes of different writes in one sector")
		}
	}
	return value, nil
}
