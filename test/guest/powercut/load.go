package main

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"skylun/test/initiator"
)

// load is what is written while the device records.
type load struct {
	promises *promises
	ops      int // by each worker, each time
	workers  []*worker
	keeper   *keeper
}

// workersPerVolume is how many initiators use a volume at once. Each has a part
// of it to itself, so nobody else writes a sector while it does.
const workersPerVolume = 2

func newLoad(s *server, volumes []*history, promises *promises, ops int, seed uint64) *load {
	l := &load{promises: promises, ops: ops, keeper: &keeper{server: s, volumes: volumes, promises: promises}}
	for i := range workersPerVolume * len(volumes) {
		h := volumes[i%len(volumes)]
		size := int64(len(h.sent)) / workersPerVolume
		w := &worker{
			load: l, h: h, first: int64(i/len(volumes)) * size, holds: make([]change, size),
			random: rand.New(rand.NewPCG(seed, uint64(i))),
		}
		for s := range w.holds {
			w.holds[s] = change{sector: w.first + int64(s), zero: !h.image}
		}
		l.workers = append(l.workers, w)
	}
	return l
}

// run has all workers log in and do their operations, and snapshots taken.
func (l *load) run() error {
	errs := make([]error, len(l.workers)+1)
	var wg sync.WaitGroup
	wg.Go(func() { errs[len(l.workers)] = l.keeper.run() })
	for i, w := range l.workers {
		wg.Go(func() {
			if err := w.run(byte(i)); err != nil {
				errs[i] = fmt.Errorf("worker %d: %w", i, err)
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// worker is an initiator that has the sectors from first on to itself.
type worker struct {
	load   *load
	h      *history
	c      *initiator.Conn
	random *rand.Rand
	first  int64
	holds  []change // by sector, the last write
	writes uint32
}

func (w *worker) run(id byte) (err error) {
	if w.c, err = login(id); err != nil {
		return err
	}
	defer w.c.Close()
	for op := range w.load.ops {
		if err := w.op(); err != nil {
			return fmt.Errorf("operation %d: %w", op, err)
		}
	}
	return nil
}

// op does one operation.
func (w *worker) op() error {
	switch n := w.random.IntN(100); {
	case n < 60:
		return w.write(w.blocksOrSectors(), false)
	case n < 70:
		return w.write(w.blocksOrSectors(), true)
	case n < 78:
		return w.unmap(w.blocksOrSectors())
	case n < 88:
		return w.flush()
	default:
		return w.read(w.blocksOrSectors())
	}
}

// span is some sectors, counted from the first of the worker.
type span struct{ off, n int64 }

// blocksOrSectors returns what an operation is about: some blocks of 4 KiB, or
// some sectors. Half of the operations meet in an eighth of the worker's part.
func (w *worker) blocksOrSectors() span {
	const block = 4096 / sectorSize
	all := int64(len(w.holds))
	if w.random.IntN(2) == 0 {
		all /= 8
	}
	if w.random.IntN(4) == 0 {
		n := 1 + w.random.Int64N(20)
		return span{w.random.Int64N(all - n + 1), n}
	}
	n := 1 + w.random.Int64N(8)
	if w.random.IntN(10) == 0 {
		n = 32
	}
	return span{w.random.Int64N(all/block-n+1) * block, n * block}
}

// changes returns the next write of the sectors of s, after noting that it is
// sent.
func (w *worker) changes(s span, zero bool) []change {
	w.writes++
	changes := make([]change, s.n)
	for i := range changes {
		changes[i] = change{w.first + s.off + int64(i), w.writes, zero}
	}
	w.h.send(changes)
	return changes
}

// done notes that changes have been answered.
func (w *worker) done(s span, changes []change) {
	w.h.answer(changes)
	copy(w.holds[s.off:], changes)
}

func (w *worker) write(s span, durable bool) error {
	changes := w.changes(s, false)
	cdb := w.cdb(0x8a, s) // WRITE(16)
	if durable {
		cdb[1] |= 0x08 // FUA
	}
	if _, err := w.do(cdb, 0, w.contents(changes)); err != nil {
		return err
	}
	w.done(s, changes)
	if !durable {
		return nil
	}
	return w.load.promises.add(promise{h: w.h, also: changes})
}

func (w *worker) unmap(s span) error {
	changes := w.changes(s, true)
	list := make([]byte, 24)
	binary.BigEndian.PutUint16(list, 22)
	binary.BigEndian.PutUint16(list[2:], 16)
	binary.BigEndian.PutUint64(list[8:], uint64(w.first+s.off))
	binary.BigEndian.PutUint32(list[16:], uint32(s.n))
	if _, err := w.do([]byte{0: 0x42, 8: byte(len(list)), 9: 0}, 0, list); err != nil { // UNMAP
		return err
	}
	w.done(s, changes)
	return nil
}

func (w *worker) flush() error {
	n := w.h.soFar()
	if _, err := w.do(w.cdb(0x91, span{off: -w.first}), 0, nil); err != nil { // SYNCHRONIZE CACHE(16), all
		return err
	}
	return w.load.promises.add(promise{h: w.h, first: n})
}

// read reads what was written last.
func (w *worker) read(s span) error {
	got, err := w.do(w.cdb(0x88, s), int(s.n*sectorSize), nil) // READ(16)
	if err == nil && !bytes.Equal(got, w.contents(w.holds[s.off:s.off+s.n])) {
		err = fmt.Errorf("sectors %d+%d do not read as they were written", w.first+s.off, s.n)
	}
	return err
}

// contents returns what sectors hold after changes.
func (w *worker) contents(changes []change) []byte {
	p := make([]byte, len(changes)*sectorSize)
	for i, c := range changes {
		if !c.zero {
			stamp(p[i*sectorSize:][:sectorSize], w.h.lun, c.sector, c.write)
		}
	}
	return p
}

func (w *worker) cdb(opcode byte, s span) []byte {
	cdb := make([]byte, 16)
	cdb[0] = opcode
	binary.BigEndian.PutUint64(cdb[2:], uint64(w.first+s.off))
	binary.BigEndian.PutUint32(cdb[10:], uint32(s.n))
	return cdb
}

func (w *worker) do(cdb []byte, in int, out []byte) ([]byte, error) {
	return do(w.c, w.h.lun, cdb, in, out)
}

// do executes a command that has to end well.
func do(c *initiator.Conn, lun int, cdb []byte, in int, out []byte) ([]byte, error) {
	r, err := c.Do(uint8(lun), cdb, in, out)
	if err != nil {
		return nil, err
	}
	if r.Status != 0 || len(r.Data) != in {
		return nil, fmt.Errorf("opcode 0x%02x: status %d, sense %06x, %d bytes", cdb[0], r.Status, r.Key(), len(r.Data))
	}
	return r.Data, nil
}

// login returns a session of its own for each id.
func login(id byte) (*initiator.Conn, error) {
	c, err := initiator.Dial(portal)
	if err != nil {
		return nil, err
	}
	c.ISID[5], c.Timeout = id, time.Minute // a busy guest is slow
	if _, err := c.Login(initiator.Options{Initiator: "iqn.2026-11.io.skylun:powercut", Target: targetName}); err != nil {
		c.Close()
		return nil, err
	}
	for lun := range luns { // fetch what unit attentions there are
		for range 4 {
			if r, err := c.Do(uint8(lun), make([]byte, 6), 0, nil); err != nil || r.Status == 0 {
				break
			}
		}
	}
	return c, nil
}
