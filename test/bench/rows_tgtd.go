package main

// tgtdRows compare the whole server with a target from Debian.
var tgtdRows = []row{
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
}
