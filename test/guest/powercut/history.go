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
	answered []change   // guarded by mu, as they came
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

// promise is that changes of a volume are durable, the first n answered ones and
// some others, or that a snapshot is there, may be gone, or is gone.
type promise struct {
	h     *history
	first int
	also  []change

	snapshot    *snapshot
	there, gone bool
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
	most  []uint32 // of a snapshot: the last write that may be in it; nil: any
}

func newLeast(h *history) *least { return &least{h: h, write: make([]uint32, len(h.sent))} }

// add adds what a promise says.
func (l *least) add(p promise) {
	p.h.mu.Lock()
	defer p.h.mu.Unlock()
	for _, c := range p.h.answered[min(l.first, p.first):p.first] {
		l.write[c.sector] = max(l.write[c.sector], c.write)
	}
	l.first = max(l.first, p.first)
	for _, c := range p.also {
		l.write[c.sector] = max(l.write[c.sector], c.write)
	}
}

// limit forbids what has not been sent yet.
func (l *least) limit() {
	l.h.mu.Lock()
	defer l.h.mu.Unlock()
	l.most = make([]uint32, len(l.write))
	for sector, sent := range l.h.sent {
		if n := len(sent); n > 0 {
			l.most[sector] = sent[n-1].write
		}
	}
}

// allows tells whether a sector may hold that write.
func (l *least) allows(sector int64, write uint32) bool {
	return write >= l.write[sector] && (l.most == nil || write <= l.most[sector])
}

// checkAll tells what is wrong with the content of a volume, or nothing.
func (l *least) checkAll(p []byte) error {
	if len(p) != len(l.write)*sectorSize {
		return fmt.Errorf("%d bytes", len(p))
	}
	for sector := range l.write {
		if wrong := l.check(int64(sector), p[sector*sectorSize:][:sectorSize]); wrong != "" {
			return fmt.Errorf("sector %d: %s", sector, wrong)
		}
	}
	return nil
}

// check tells what is wrong with the content of a sector, or nothing.
func (l *least) check(sector int64, got []byte) string {
	h, write := l.h, l.write[sector]
	if len(bytes.Trim(got, "\x00")) == 0 {
		if write == 0 && !h.image || slices.ContainsFunc(h.sent[sector], func(c change) bool { return c.zero && l.allows(sector, c.write) }) {
			return ""
		}
		return fmt.Sprintf("zeros, but write %d was there before", write)
	}
	has := binary.BigEndian.Uint32(got[4:])
	var want [sectorSize]byte
	stamp(want[:], h.lun, sector, has)
	known := has == 0 && h.image || slices.ContainsFunc(h.sent[sector], func(c change) bool { return c.write == has && !c.zero })
	switch {
	case !known || !bytes.Equal(got, want[:]):
		return fmt.Sprintf("no content that was ever written there, but % x..., and write %d was there before", got[:16], write)
	case has < write:
		return fmt.Sprintf("write %d, but write %d was there before", has, write)
	case !l.allows(sector, has):
		return fmt.Sprintf("write %d, which was sent later", has)
	}
	return ""
}
