package main

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
)

const sectorSize = 512

// stamp returns the content of a sector: it says which sector of which volume it
// is, and of which write. Write 0 is what the image has.
func stamp(p []byte, lun int, sector int64, write uint32) {
	binary.BigEndian.PutUint32(p, stampMagic)
	binary.BigEndian.PutUint32(p[4:], write)
	r := rand.NewPCG(uint64(lun)<<48|uint64(sector), uint64(write))
	for i := 8; i < sectorSize; i += 8 {
		binary.BigEndian.PutUint64(p[i:], r.Uint64())
	}
}

const stampMagic = 0x736b796c // "skyl"

// change is a write of a sector, or with zero set its being made zeros.
type change struct {
	sector int64
	write  uint32
	zero   bool
}

// history is what happened to one volume: what was sent, what was answered, and
// of what was promised that it is durable. Writes of the same sector follow one
// another, so those that have been answered are in their order.
type history struct {
	lun   int
	image bool // there is an image below: write 0 is a stamp, not zeros

	mu       sync.Mutex
	sent     [][]change // guarded by mu: by sector
	answered []change   // guarded by mu
}

func newHistory(lun int, sectors int64, image bool) *history {
	return &history{lun: lun, image: image, sent: make([][]change, sectors)}
}

// send notes what is about to be sent.
func (h *history) send(changes []change) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, c := range changes {
		h.sent[c.sector] = append(h.sent[c.sector], c)
	}
}

// answer notes what has been answered.
func (h *history) answer(changes []change) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.answered = append(h.answered, changes...)
}

// soFar returns how much has been answered: a flush that is sent afterwards
// makes it durable.
func (h *history) soFar() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.answered)
}

// promise is that changes of a volume are durable: the first n answered ones,
// and some others.
type promise struct {
	h     *history
	first int
	also  []change
}

// promises are those of all volumes, in the order in which they were marked.
type promises struct {
	mu   sync.Mutex
	mark func(name string) error
	made []promise // guarded by mu
}

// promiseMark is what marks begin with; a number follows.
const promiseMark = "promise"

// add makes a promise, and marks in the record that it has been made.
func (p *promises) add(new promise) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.made = append(p.made, new)
	return p.mark(fmt.Sprint(promiseMark, len(p.made)))
}

// least is what the sectors of a volume have to be at least: the number of the
// last write that was promised to be durable.
type least struct {
	h     *history
	first int // answered changes that are in it
	write []uint32
}

func newLeast(h *history) *least { return &least{h: h, write: make([]uint32, len(h.sent))} }

// add adds what a promise says.
func (l *least) add(p promise) {
	for _, c := range p.h.answered[min(l.first, p.first):p.first] {
		l.write[c.sector] = max(l.write[c.sector], c.write)
	}
	l.first = max(l.first, p.first)
	for _, c := range p.also {
		l.write[c.sector] = max(l.write[c.sector], c.write)
	}
}

// check tells what is wrong with the content of a sector, or nothing.
func (l *least) check(sector int64, got []byte) string {
	h, write := l.h, l.write[sector]
	if len(bytes.Trim(got, "\x00")) == 0 {
		if write == 0 && !h.image || slices.ContainsFunc(h.sent[sector], func(c change) bool { return c.zero && c.write >= write }) {
			return ""
		}
		return fmt.Sprintf("zeros, but write %d was durable", write)
	}
	has := binary.BigEndian.Uint32(got[4:])
	var want [sectorSize]byte
	stamp(want[:], h.lun, sector, has)
	known := has == 0 && h.image || slices.ContainsFunc(h.sent[sector], func(c change) bool { return c.write == has && !c.zero })
	switch {
	case !known || !bytes.Equal(got, want[:]):
		return fmt.Sprintf("no content that was ever written there, but % x..., and write %d was durable", got[:16], write)
	case has < write:
		return fmt.Sprintf("write %d, but write %d was durable", has, write)
	}
	return ""
}
