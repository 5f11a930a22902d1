package plan

import (
	"math"
	"math/bits"
	"slices"
)

// Demand is what an array has to hold and to do. Zero rates demand nothing.
type Demand struct {
	Size  int64 // bytes
	IOPS  int64
	Bytes int64 // a second
}

// Disk is one disk: what it holds and does.
type Disk struct {
	Size  int64 // bytes
	IOPS  int64
	Bytes int64 // a second
}

const (
	gib = 1 << 30

	maxWeight = 256 // raid/stripe.MaxWeight
)

// Array returns what an array of disks with these weights gives, wherever in
// it the data is. Without weights (nil) disks get bytes as they have room, in
// zones.
func Array(disks []Disk, weights []int) Disk {
	if len(disks) == 0 {
		return Disk{}
	}
	if weights == nil {
		return zones(disks)
	}
	total := int64(0)
	for _, w := range weights {
		total += int64(w)
	}
	var all Disk
	for i, d := range disks {
		w := int64(weights[i])
		share := Disk{mulDiv(d.Size, total, w), mulDiv(d.IOPS, total, w), mulDiv(d.Bytes, total, w)}
		if i == 0 {
			all = share
		}
		all = least(all, share)
	}
	return all
}

// mulDiv returns a×b/c, rounded down, of numbers that are not negative.
func mulDiv(a, b, c int64) int64 {
	hi, lo := bits.Mul64(uint64(a), uint64(b))
	if hi >= uint64(c) {
		return math.MaxInt64
	}
	q, _ := bits.Div64(hi, lo, uint64(c))
	return int64(min(q, math.MaxInt64))
}

func least(a, b Disk) Disk {
	return Disk{min(a.Size, b.Size), min(a.IOPS, b.IOPS), min(a.Bytes, b.Bytes)}
}

// zones is Array without weights: the slowest zone is what counts.
func zones(disks []Disk) Disk {
	sorted := slices.Clone(disks)
	slices.SortStableFunc(sorted, func(a, b Disk) int {
		switch {
		case a.Size < b.Size:
			return -1
		case a.Size > b.Size:
			return 1
		}
		return 0
	})
	var all Disk
	for i, d := range sorted {
		all.Size += d.Size
		if i > 0 && d.Size == sorted[i-1].Size {
			continue // the same zone
		}
		zone := d
		for _, other := range sorted[i:] {
			zone = least(zone, other)
		}
		n := int64(len(sorted) - i)
		if iops := zone.IOPS * n; i == 0 || iops < all.IOPS {
			all.IOPS = iops
		}
		if b := zone.Bytes * n; i == 0 || b < all.Bytes {
			all.Bytes = b
		}
	}
	return all
}

// most returns how many of total stripes a disk can take, as the demand is.
func (d Disk) most(total int64, want Demand) int64 {
	n := int64(maxWeight)
	for _, r := range [][2]int64{{d.Size, want.Size}, {d.IOPS, want.IOPS}, {d.Bytes, want.Bytes}} {
		if r[1] > 0 {
			n = min(n, mulDiv(r[0], total, r[1]))
		}
	}
	return n
}

// fraction returns which part of the demand a disk can bear.
func (d Disk) fraction(want Demand) float64 {
	f := float64(d.Size) / float64(want.Size)
	if want.IOPS > 0 {
		f = min(f, float64(d.IOPS)/float64(want.IOPS))
	}
	if want.Bytes > 0 {
		f = min(f, float64(d.Bytes)/float64(want.Bytes))
	}
	return f
}
