package blobstore

import (
	"bytes"
	"cmp"
	"slices"

	"skylun/block"
)

var zeroBlock [block.Size]byte

func isZero(p []byte) bool {
	for len(p) > 0 {
		n := min(len(p), len(zeroBlock))
		if !bytes.Equal(p[:n], zeroBlock[:n]) {
			return false
		}
		p = p[n:]
	}
	return true
}

// dataRuns returns the ranges of p that hold anything but blocks of zeros, as
// offsets in p. When there are more than limit, those with the least between
// them are merged until there are not: each run costs a request. Zero: no
// limit.
func dataRuns(p []byte, limit int) []block.Range {
	var runs []block.Range
	for off := 0; off < len(p); off += block.Size {
		end := min(off+block.Size, len(p))
		switch {
		case isZero(p[off:end]):
		case len(runs) > 0 && runs[len(runs)-1].End == int64(off):
			runs[len(runs)-1].End = int64(end)
		default:
			runs = append(runs, block.Range{Off: int64(off), End: int64(end)})
		}
	}
	if limit <= 0 || len(runs) <= limit {
		return runs
	}
	// The limit-1 largest gaps stay.
	after := make([]int, len(runs)-1) // the gap after runs[i]
	for i := range after {
		after[i] = i
	}
	slices.SortStableFunc(after, func(a, b int) int {
		return cmp.Compare(runs[b+1].Off-runs[b].End, runs[a+1].Off-runs[a].End)
	})
	keep := after[:limit-1]
	slices.Sort(keep)
	merged := make([]block.Range, 0, limit)
	start := 0
	for _, i := range keep {
		merged = append(merged, block.Range{Off: runs[start].Off, End: runs[i].End})
		start = i + 1
	}
	return append(merged, block.Range{Off: runs[start].Off, End: runs[len(runs)-1].End})
}
