package main

import "fmt"

// plainRows tell what the overlay costs: the same target has a plain file on the
// other side. The overlay's unit is one over an image; all of it was written, or,
// for first writes, nothing.
var plainRows = append([]row{
	{name: "4 KiB overwrites, 32 in flight", load: load{Write: true, Random: true, Size: 4 * kib, Depth: 32}, unit: ownUnit, against: "plain", want: 0.95},
	{name: "4 KiB first writes, 32 in flight", load: load{Write: true, Once: true, Size: 4 * kib, Depth: 32}, unit: freshUnit, against: "plain", want: 0.8},
	{name: "64 KiB first writes, 16 in flight", load: load{Write: true, Once: true, Size: 64 * kib, Depth: 16}, unit: freshUnit, against: "plain", want: 0.8},
	{name: "4 KiB, 70 % reads and 30 % overwrites, 32 in flight", load: load{Write: true, Reads: 70, Random: true, Size: 4 * kib, Depth: 32}, unit: ownUnit, against: "plain", want: 0.95},
	{name: "1 MiB sequential reads, 4 in flight", load: load{Size: 1024 * kib, Depth: 4}, unit: ownUnit, against: "plain", want: 0.95},
	{name: "1 MiB sequential overwrites, 4 in flight", load: load{Write: true, Size: 1024 * kib, Depth: 4}, unit: ownUnit, against: "plain", want: 0.95},
}, flushRows()...)

// flushRows are about a flush after some writes to scattered blocks.
func flushRows() (rows []row) {
	for _, n := range []int{1, 32, 256} {
		blocks := "blocks"
		if n == 1 {
			blocks = "block"
		}
		rows = append(rows,
			row{
				name: fmt.Sprintf("flush after overwrites of %d scattered %s", n, blocks), against: "plain", flush: true, want: 1.1,
				load: load{Write: true, Random: true, Size: 4 * kib, Depth: 32, Flush: n}, unit: ownUnit,
			},
			row{
				name: fmt.Sprintf("flush after first writes of %d scattered %s", n, blocks), against: "plain", flush: true, want: 2,
				load: load{Write: true, Once: true, Size: 4 * kib, Depth: 32, Flush: n, Limit: int64(min(200*n, 32<<10))}, unit: freshUnit,
			})
	}
	return rows
}
