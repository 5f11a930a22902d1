package node

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"skylun/overlay"
)

// When the regions of caches were used last is remembered while they are closed,
// and written down when the node stops in good order: else the first copies to
// leave after the next start would be any. After a crash it is what it was at the
// start, and only the order counts.

const recencyRecords = "recency/"

func recencyRecord(id uint64) string { return recencyRecords + fmt.Sprint(id) }

// loadRecency reads what was written down.
func (n *Node) loadRecency() {
	err := n.db.Records().Load(recencyRecords, func(key string, ranks []byte) error {
		id, err := strconv.ParseUint(strings.TrimPrefix(key, recencyRecords), 10, 64)
		n.recency[id] = overlay.Ranked(ranks)
		return err
	})
	if err != nil {
		n.log.Warn("it is not known which local copies of images were used last; any may leave first", "err", err)
	}
}

// closeCache closes a cache and remembers when its regions were used. The caller
// holds changes.
func (n *Node) closeCache(id uint64, c interface {
	Recency() overlay.Recency
	Close() error
}) error {
	n.recency[id], n.recencyMoved = c.Recency(), true
	return c.Close()
}

// saveRecency writes down what is remembered, if there is something new. The
// caller holds changes.
func (n *Node) saveRecency() error {
	if !n.recencyMoved {
		return nil
	}
	all, err := n.db.Caches()
	if err != nil {
		return err
	}
	records := map[string][]byte{} // those of caches that are gone are removed
	for id := range n.recency {
		records[recencyRecord(id)] = nil
	}
	known := map[uint64]overlay.Recency{}
	for _, c := range all {
		if r := n.recency[c.Map]; len(r) > 0 {
			known[c.Map] = r
		}
	}
	ids := slices.Collect(maps.Keys(known))
	caches := make([]overlay.Recency, len(ids))
	for i, id := range ids {
		caches[i] = known[id]
	}
	for i, ranks := range overlay.Ranks(caches) {
		records[recencyRecord(ids[i])] = ranks
	}
	return n.db.Records().Store(records)
}
