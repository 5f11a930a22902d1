package main

import (
	"context"
	"slices"
	"time"
)

// A row is one line of the table: a load, the two sides it runs on, and what
// their ratio should be.
type row struct {
	name    string
	load    load
	unit    unit
	against string  // "tgtd": the faster of its backends; "plain": a plain file below our own target
	flush   bool    // compare the time of a flush instead of operations per second
	want    float64 // ours/theirs: at least, or with flush at most; 0: no wish
	wantCPU float64 // CPU time per operation, ours/theirs, at most; 0: no wish

	// contest is set in rows that run no load on a unit: then it is called once,
	// and load, unit and against say nothing.
	contest func(ctx context.Context, o options, dir string) (*contest, error)
}

// A contest is what two sides do that are there for one row only.
type contest struct {
	client string // what puts the load on the sides
	theirs string // name of the other side
	run    func(ctx context.Context, ours bool, round int) (result, error)
	close  func() // ends what was started for it
}

const kib = 1 << 10

// rows are the comparisons, in the order of the table. Times are filled in
// from the flags.
var rows = slices.Concat(tgtdRows, plainRows, memberRows, stripedRows, filesRows)

// freshUnits is how many unwritten units a side needs for all turns, and
// freshBytes is how much is written to them.
func (o options) freshUnits() (n int) {
	for _, r := range o.rows {
		if r.unit == freshUnit {
			n += o.repeats
		}
	}
	return n
}

func (o options) freshBytes() (n int64) {
	for _, r := range o.rows {
		if r.unit == freshUnit {
			bytes := o.size
			if r.load.Limit > 0 {
				bytes = min(bytes, r.load.Limit*int64(r.load.Size))
			}
			n += bytes * int64(o.repeats)
		}
	}
	return n
}

// clients are the load generators that can do l: the loop of this program
// always, libiscsi's programs where they can.
func (r row) clients() []string {
	c := []string{"go"}
	if r.against == "tgtd" && r.load.Time > 0 && !r.load.Digests { // libiscsi has no data digests
		c = append(c, "libiscsi")
	}
	return c
}

// timed returns r with loads that are not bounded otherwise bounded by d.
func (r row) timed(d time.Duration) row {
	if !r.load.Once {
		r.load.Time = d
	}
	return r
}
