package node

import (
	"reflect"
	"slices"
	"strings"

	"skylun/lun"
)

// peer says whether initiators that have logged in to the target from may name
// disks of the target to in copies: whether they could log in there, too, by
// what they have shown to be let in here. The name, in lower case, is what they
// say it is, there as here.
func (from *TargetConfig) peer(to *TargetConfig, initiator string) bool {
	switch {
	case len(to.Initiators) > 0 && !slices.ContainsFunc(to.Initiators, func(name string) bool { return strings.ToLower(name) == initiator }):
		return false
	case len(to.Networks) > 0 && !slices.Equal(to.Networks, from.Networks):
		return false
	case len(to.Chap.entries("")) > 0 && !reflect.DeepEqual(to.Chap, from.Chap):
		return false
	}
	return true
}

// connect lets copies reach from each target those that its initiators could
// log in to as well.
func (n *Node) connect(units map[string]*lun.Map) {
	for i := range n.cfg.Targets {
		from := &n.cfg.Targets[i]
		units[from.IQN].SetPeers(func(nexus *lun.Nexus) (peers []*lun.Map) {
			for i := range n.cfg.Targets {
				if to := &n.cfg.Targets[i]; to != from && from.peer(to, nexus.InitiatorName) {
					peers = append(peers, units[to.IQN])
				}
			}
			return peers
		})
	}
}
