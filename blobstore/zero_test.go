package blobstore

import (
	"math/rand/v2"
	"testing"

	"skylun/block"
)

func TestDataRuns(t *testing.T) {
	rnd := rand.New(rand.NewPCG(5, 6))
	for round := range 300 {
		blocks := 1 + rnd.IntN(100)
		p := make([]byte, blocks*block.Size-rnd.IntN(8)*512)
		density := rnd.Float64()
		holds := make([]bool, blocks)
		for i := range holds {
			if holds[i] = rnd.Float64() < density; holds[i] {
				from, to := i*block.Size, min((i+1)*block.Size, len(p))
				p[from+rnd.IntN(to-from)] = 1
			}
		}
		limit := rnd.IntN(20) // 0: none
		runs := dataRuns(p, limit)
		covered, extra := 0, 0
		for i, r := range runs {
			if r.Empty() || r.Off%block.Size != 0 || r.End > int64(len(p)) || i > 0 && r.Off <= runs[i-1].End {
				t.Fatalf("round %d: run %v in %v of %d bytes", round, r, runs, len(p))
			}
			if !holds[r.Off/block.Size] || !holds[(r.End-1)/block.Size] {
				t.Errorf("round %d: run %v begins or ends with zeros", round, r)
			}
			for b := r.Off / block.Size; b*block.Size < r.End; b++ {
				if holds[b] {
					covered++
				} else {
					extra++
				}
			}
		}
		want := 0
		for _, h := range holds {
			if h {
				want++
			}
		}
		if covered != want {
			t.Errorf("round %d: %d of %d blocks with data are in %v", round, covered, want, runs)
		}
		if limit == 0 && extra > 0 {
			t.Errorf("round %d: %d blocks of zeros in %v", round, extra, runs)
		}
		if limit > 0 && (len(runs) > limit || extra > 0 && len(runs) < limit) {
			t.Errorf("round %d: %d runs with %d blocks of zeros, the limit is %d", round, len(runs), extra, limit)
		}
	}
	// Of all gaps the least are given up.
	p := make([]byte, 100*block.Size)
	for _, b := range []int{0, 2, 50, 53, 99} {
		p[b*block.Size] = 1
	}
	got := dataRuns(p, 3)
	want := []block.Range{{Off: 0, End: 3 * block.Size}, {Off: 50 * block.Size, End: 54 * block.Size}, {Off: 99 * block.Size, End: 100 * block.Size}}
	if len(got) != 3 || got[0] != want[0] || got[1] != want[1] || got[2] != want[2] {
		t.Errorf("dataRuns = %v, want %v", got, want)
	}
}
