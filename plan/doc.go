// Package plan picks the cheapest set of disks that a RAID-0 array of a given
// size and speed can be made of.
//
// A catalogue lists kinds of disks with what they hold, do and cost. A demand is
// bytes, operations a second and bytes a second. A plan is how many disks of
// which kinds, with the weights they need in the array.
//
// # What an array gives
//
// The maths is that of package raid, whose arrays deal stripes to members in
// rounds. A member of weight w in an array of weights W together gets w/W of
// all stripes, so of all bytes and, as it does not matter where in the array a
// guest reads or writes, of all operations. It takes that part as long as
//
//	w/W × size       ≤ what it holds
//	w/W × IOPS       ≤ what it does
//	w/W × throughput ≤ what it moves
//
// so a kind of disk can bear at most the fraction c = the least of the three
// quotients of the demand, and a set meets the demand when whole weights from 1 to
// 256 exist that give no member more than its c. That their c add up to 1 is
// necessary, and with equal members sufficient.
//
// Without weights an array gives its members bytes as they have room, in zones:
// the first lies on all members, the last on the largest alone, and is as fast
// as that is. Array tells what such a set gives wherever the data is.
//
// # Exact
//
// Search looks at all sets of equal members, and if asked at all mixtures of
// kinds of fixed performance: by branch and bound, which leaves out what cannot
// be among the best. Kinds whose performance is bought apart from their size
// (Azure's Premium SSD v2 and Ultra Disk) are considered in sets of their own, since
// each of them could be bought larger instead of adding another one. A search that
// would take too long is cut off after MaxSteps, and its result says so; the best
// set of equal disks is in it all the same.
package plan
