package overlay

import "slices"

// Recency tells when the regions of a cache were used last, in their order: by the
// clock of the pool, 0 where that is not known. It is kept while a cache is closed,
// so that it does not lose what was just used for what was not; that it is lost, or
// of earlier, costs no more than fetching again.
type Recency []uint64

// recencyRanks is how many ranks Ranks gives. The clock of a pool begins behind
// them: what was used before a restart is older than what is used after it.
const recencyRanks = 255

// Recency returns that of the cache now.
func (c *Cache) Recency() Recency {
	var all Recency
	for i := range c.regions.groups {
		group := c.regions.groups[i].Load()
		if group == nil {
			continue
		}
		first := i * groupRegions
		all = append(all, make(Recency, first+groupRegions-len(all))...)
		for j := range group {
			all[first+j] = group[j].used.Load()
		}
	}
	return all
}

// recall gives the regions the times that they had.
func (x *cacheRegions) recall(all Recency) {
	most := int64(len(x.groups)) * groupRegions
	for i, used := range all[:min(int64(len(all)), most)] {
		if used > 0 {
			x.at(int64(i) * regionSize).used.Store(used)
		}
	}
}

// Ranks puts the times of all caches of a pool into one order of recencyRanks ranks,
// a byte for each region.
func Ranks(caches []Recency) [][]byte {
	times := slices.Concat(caches...)
	slices.Sort(times)
	times = slices.Compact(times)
	if len(times) > 0 && times[0] == 0 {
		times = times[1:]
	}
	ranks := make([][]byte, len(caches))
	for i, c := range caches {
		ranks[i] = make([]byte, len(c))
		for j, used := range c {
			if used > 0 {
				at, _ := slices.BinarySearch(times, used)
				ranks[i][j] = byte(1 + at*recencyRanks/len(times))
			}
		}
	}
	return ranks
}

// Ranked returns the recency of ranks.
func Ranked(ranks []byte) Recency {
	all := make(Recency, len(ranks))
	for i, r := range ranks {
		all[i] = uint64(r)
	}
	return all
}
