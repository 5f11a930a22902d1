package main

import (
	"encoding/binary"
	"fmt"
	"os"
	"slices"

	"golang.org/x/sync/errgroup"

	"skylun/raid/nbd"
	"skylun/test/guest/dmlog"
)

// A trace is what a guest did to its disk. It is done again on two disks: the
// writes between two flushes at once, up to a depth, and a flush when they have
// ended.
type trace struct {
	record  *os.File
	entries []dmlog.Entry
}

const (
	traceDepth = 32
	tracePiece = 64 << 10 // larger writes are made in pieces
)

// A tracer does what a trace says, each in the order in which it is called.
// Writes and discards may still run when the call returns; flush waits for all.
type tracer interface {
	write(p []byte, off int64, durable bool) error
	discard(off, n int64) error
	flush() error
}

// run does all of it.
func (t *trace) run(to tracer) error {
	p := make([]byte, tracePiece)
	for i, all := 0, t.entries; len(all) > 0; i++ {
		n := neighbours(all)
		if err := t.do(all[:n], p, to); err != nil {
			return fmt.Errorf("request %d of the trace: %w", i, err)
		}
		all = all[n:]
	}
	return to.flush()
}

// neighbours returns how many of the entries, from the first on, make one request:
// what was recorded are the parts that the file system has sent, of which the
// guest's block layer makes larger requests for a disk.
func neighbours(all []dmlog.Entry) int {
	n, size := 1, all[0].N
	for n < len(all) {
		last, next := all[n-1], all[n]
		if last.Durable() || next.Durable() || last.Discard() != next.Discard() || last.Off+last.N != next.Off || size+next.N > tracePiece {
			break
		}
		size += next.N
		n++
	}
	return n
}

// do makes one request of entries that are neighbours.
func (t *trace) do(all []dmlog.Entry, p []byte, to tracer) error {
	first := all[0]
	if first.Flush() {
		if err := to.flush(); err != nil {
			return err
		}
	}
	n := int64(0)
	for _, e := range all {
		if !e.Discard() && first.N <= tracePiece {
			if err := e.ReadAt(t.record, p[n:n+e.N], 0); err != nil {
				return err
			}
		}
		n += e.N
	}
	switch {
	case n == 0:
		return nil
	case first.Discard():
		return to.discard(first.Off, n)
	case n <= tracePiece:
		return to.write(p[:n], first.Off, first.FUA())
	}
	for off := int64(0); off < n; off += tracePiece { // a single large one
		p := p[:min(tracePiece, n-off)]
		if err := first.ReadAt(t.record, p, off); err != nil {
			return err
		}
		if err := to.write(p, first.Off+off, first.FUA()); err != nil {
			return err
		}
	}
	return nil
}

// count says what is in the trace.
func (t *trace) count() string {
	var writes, flushes, discards int
	var bytes int64
	for all := t.entries; len(all) > 0; {
		n := neighbours(all)
		if all[0].Flush() {
			flushes++
		}
		switch {
		case all[0].Discard():
			discards++
		case all[0].N > 0:
			writes++
		}
		for _, e := range all[:n] {
			if !e.Discard() {
				bytes += e.N
			}
		}
		all = all[n:]
	}
	return fmt.Sprintf("%d writes of %.1f KiB on average, %d flushes, %d discards", writes, float64(bytes)/1024/float64(max(writes, 1)), flushes, discards)
}

// iscsiTracer does a trace on a unit.
type iscsiTracer struct {
	c        *client
	inFlight int
	tag      uint32
}

func (t *iscsiTracer) write(p []byte, off int64, durable bool) error {
	if err := t.room(); err != nil {
		return err
	}
	cdb := rw16(true, off, len(p))
	if durable {
		cdb[1] |= 0x08 // FUA
	}
	t.c.data = p
	t.c.command(t.next(), cdb, len(p), true)
	return nil
}

func (t *iscsiTracer) discard(off, n int64) error {
	if err := t.room(); err != nil {
		return err
	}
	t.c.data = unmapList(off, n)
	cdb := cdb(0x42, 10) // UNMAP
	cdb[8] = byte(len(t.c.data))
	t.c.command(t.next(), cdb, len(t.c.data), true)
	return nil
}

func (t *iscsiTracer) flush() error {
	if err := t.drain(0); err != nil {
		return err
	}
	t.c.command(t.next(), cdb(0x35, 10), 0, false) // SYNCHRONIZE CACHE(10)
	return t.drain(0)
}

// next returns a tag for one more command in flight.
func (t *iscsiTracer) next() uint32 {
	t.inFlight++
	t.tag++
	return t.tag
}

// room makes sure that one more command can be sent.
func (t *iscsiTracer) room() error { return t.drain(traceDepth - 1) }

// drain waits until no more than n commands are in flight.
func (t *iscsiTracer) drain(n int) error {
	for t.inFlight > n || t.inFlight > 0 && !t.c.window() {
		if err := t.c.flushWait(); err != nil {
			return err
		}
		t.inFlight--
	}
	return nil
}

// nbdTracer does a trace on an export.
type nbdTracer struct {
	c      *nbd.Client
	writes errgroup.Group
}

func newNBDTracer(c *nbd.Client) *nbdTracer {
	t := &nbdTracer{c: c}
	t.writes.SetLimit(traceDepth)
	return t
}

func (t *nbdTracer) write(p []byte, off int64, durable bool) error {
	p = slices.Clone(p)
	t.writes.Go(func() error {
		err := t.c.WriteAt(p, off)
		if err == nil && durable {
			err = t.c.Flush()
		}
		return err
	})
	return nil
}

func (t *nbdTracer) discard(off, n int64) error {
	t.writes.Go(func() error { return t.c.Zero(off, n) })
	return nil
}

func (t *nbdTracer) flush() error {
	if err := t.writes.Wait(); err != nil {
		return err
	}
	return t.c.Flush()
}

// unmapList returns the parameters of UNMAP for a range, SBC-4 5.35.
func unmapList(off, n int64) []byte {
	p := make([]byte, 24)
	binary.BigEndian.PutUint16(p, 22)
	binary.BigEndian.PutUint16(p[2:], 16)
	binary.BigEndian.PutUint64(p[8:], uint64(off/512))
	binary.BigEndian.PutUint32(p[16:], uint32(n/512))
	return p
}
