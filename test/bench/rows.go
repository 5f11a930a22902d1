package main

import "time"

// A row is one line of the table: a load, the two sides it runs on, and what
// their ratio should be.
type row struct {
	name    string
	load    load
	unit    unit
	against string  // "tgtd": the faster of its backends; "plain": a plain file below our own target
	flush   bool    // compare the time of a flush instead of operations per second
	want    float64 // ours/theirs: at least, or with flush at most
	wantCPU float64 // CPU time per operation, ours/theirs, at most; 0: no wish
}

const kib = 1 << 10

// rows are the comparisons, in the order of the table. Times are filled in
// from the flags.
var rows = []row{
	{name: "4 KiB random reads, 32 in flight", load: load{Random: true, Size: 4 * kib, Depth: 32}, against: "tgtd", want: 2, wantCPU: 0.45},
	{name: "4 KiB random reads, 1 in flight", load: load{Random: true, Size: 4 * kib, Depth: 1}, against: "tgtd", want: 1.1},
	{name: "64 KiB random reads, 16 in flight", load: load{Random: true, Size: 64 * kib, Depth: 16}, against: "tgtd", want: 1.6},
	{name: "256 KiB sequential reads, 8 in flight", load: load{Size: 256 * kib, Depth: 8}, against: "tgtd", want: 1.8},
	{name: "4 KiB random writes, 32 in flight", load: load{Write: true, Random: true, Size: 4 * kib, Depth: 32}, unit: ownUnit, against: "tgtd", want: 1.5, wantCPU: 0.6},
	{name: "64 KiB random writes, 16 in flight", load: load{Write: true, Random: true, Size: 64 * kib, Depth: 16}, unit: ownUnit, against: "tgtd", want: 2.5},
	{name: "256 KiB sequential writes, 8 in flight", load: load{Write: true, Size: 256 * kib, Depth: 8}, unit: ownUnit, against: "tgtd", want: 2.5},

	{name: "4 KiB random reads, 32 in flight, digests", load: load{Random: true, Size: 4 * kib, Depth: 32, Digests: true}, against: "tgtd", want: 2, wantCPU: 0.45},
	{name: "4 KiB random writes, 32 in flight, digests", load: load{Write: true, Random: true, Size: 4 * kib, Depth: 32, Digests: true}, unit: ownUnit, against: "tgtd", want: 1.5, wantCPU: 0.6},
	{name: "256 KiB sequential reads, 8 in flight, digests", load: load{Size: 256 * kib, Depth: 8, Digests: true}, against: "tgtd", want: 1.8},
	{name: "256 KiB sequential writes, 8 in flight, digests", load: load{Write: true, Size: 256 * kib, Depth: 8, Digests: true}, unit: ownUnit, against: "tgtd", want: 2.5},

	{name: "4 KiB random reads, two initiators with 32 in flight", load: load{Random: true, Size: 4 * kib, Depth: 32, Clients: 2}, against: "tgtd", want: 2, wantCPU: 0.45},
	{name: "4 KiB random writes, two initiators with 32 in flight", load: load{Write: true, Random: true, Size: 4 * kib, Depth: 32, Clients: 2}, unit: ownUnit, against: "tgtd", want: 1.5, wantCPU: 0.6},
	{name: "256 KiB sequential reads, two initiators with 8 in flight", load: load{Size: 256 * kib, Depth: 8, Clients: 2}, against: "tgtd", want: 1.8},
	{name: "256 KiB sequential writes, two initiators with 8 in flight", load: load{Write: true, Size: 256 * kib, Depth: 8, Clients: 2}, unit: ownUnit, against: "tgtd", want: 2.5},
	{name: "4 KiB random reads, two initiators with 32 in flight, digests", load: load{Random: true, Size: 4 * kib, Depth: 32, Digests: true, Clients: 2}, against: "tgtd", want: 2, wantCPU: 0.45},

	{name: "4 KiB overwrites, 32 in flight", load: load{Write: true, Random: true, Size: 4 * kib, Depth: 32}, unit: ownUnit, against: "plain", want: 0.95},
	{name: "4 KiB first writes, 32 in flight", load: load{Write: true, Once: true, Size: 4 * kib, Depth: 32}, unit: freshUnit, against: "plain", want: 0.8},
	{name: "flush after 32 overwrites of 4 KiB", load: load{Write: true, Random: true, Size: 4 * kib, Depth: 32, Flush: 32}, unit: ownUnit, against: "plain", flush: true, want: 1.1},
	{name: "flush after 32 first writes of 4 KiB", load: load{Write: true, Once: true, Size: 4 * kib, Depth: 32, Flush: 32, Limit: 32 * 200}, unit: freshUnit, against: "plain", flush: true, want: 2},
}

// freshUnits is how many unwritten units a side needs for all turns.
func (o options) freshUnits() int {
	n := 0
	for _, r := range o.rows {
		if r.unit == freshUnit {
			n += o.repeats
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
