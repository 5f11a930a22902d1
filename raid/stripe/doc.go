// Package stripe is the address maths of a RAID-0 array: which byte of a whole
// is where on which member. It does no I/O and imports nothing of ours, so what
// is striped, files on local disks or blobs in a store, is its user's business.
//
// The whole is cut into stripes of one size, which are dealt to the members in
// turn. Members of different size are used to the full by zones, as Linux md
// does it: the first zone lies on all members and ends when the smallest is full,
// the next lies on the others, and so on.
//
//	        member 0   member 1   member 2
//	zone 0      0          1          2
//	            3          4          5
//	zone 1                 6          7
//	                       8          9
//	zone 2                            10
//
// A member of more weight than the others gets more stripes in a round, evenly
// spread over it: with the weights 3 and 1, members 0 0 1 0. At the end of a
// member that has fewer stripes left than its weight, a zone with one smaller
// round uses them.
//
// A Layout is a value that follows from the sizes, the weights and the size of a
// stripe alone: who stores those has stored the layout. The order in which stripes
// are dealt is part of the format of everything that is laid out by it, and must
// not change.
package stripe
