package admin

import (
	"bytes"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"skylun/node"
)

func (h *handler) metrics(w http.ResponseWriter, r *http.Request) {
	s, err := h.api.Status(r.Context())
	if err != nil {
		h.fail(w, r, err)
		return
	}
	w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
	w.Write(metricsText(s))
}

// metricsText returns a status in the text format of Prometheus.
func metricsText(s node.Status) []byte {
	var b bytes.Buffer
	metric := func(name, kind, help string) {
		fmt.Fprintf(&b, "# HELP skylun_%s %s\n# TYPE skylun_%s %s\n", name, help, name, kind)
	}
	value := func(name string, v any, labels ...string) {
		b.WriteString("skylun_" + name)
		for i := 0; i+1 < len(labels); i += 2 {
			sep := ","
			if i == 0 {
				sep = "{"
			}
			fmt.Fprintf(&b, `%s%s="%s"`, sep, labels[i], labelEscapes.Replace(labels[i+1]))
		}
		if len(labels) > 0 {
			b.WriteByte('}')
		}
		fmt.Fprintf(&b, " %v\n", v)
	}
	one := func(name, kind, help string, v any) {
		metric(name, kind, help)
		value(name, v)
	}

	metric("info", "gauge", "What runs here.")
	value("info", 1, "node", s.Node, "version", s.Version)
	one("start_time_seconds", "gauge", "When the node started, in Unix time.", s.Started.Unix())

	one("iscsi_sessions", "gauge", "Sessions that are logged in.", s.SCSI.Sessions)
	one("iscsi_login_failures_total", "counter", "Connections that ended before they had logged in.", s.SCSI.Failures)
	one("iscsi_connections_refused_total", "counter", "Connections closed at once because there were too many.", s.SCSI.Refused)
	one("iscsi_commands_total", "counter", "SCSI commands received.", s.SCSI.Commands)
	one("iscsi_read_bytes_total", "counter", "Bytes sent to initiators.", s.SCSI.BytesRead)
	one("iscsi_written_bytes_total", "counter", "Bytes received from initiators.", s.SCSI.BytesWritten)

	one("store_gets_total", "counter", "Requests to the blob store that read.", s.Store.Gets)
	one("store_puts_total", "counter", "Requests to the blob store that wrote.", s.Store.Puts)
	one("store_read_bytes_total", "counter", "Bytes read from the blob store.", s.Store.BytesIn)
	one("store_written_bytes_total", "counter", "Bytes written to the blob store.", s.Store.BytesOut)
	one("store_errors_total", "counter", "Tries at the blob store that failed.", s.Store.Errors)

	volumes := func(name, kind, help string, f func(node.VolumeStatus) any) {
		metric(name, kind, help)
		for _, v := range s.Volumes {
			value(name, f(v), "volume", v.Name)
		}
	}
	volumes("volume_size_bytes", "gauge", "Size of the disk.", func(v node.VolumeStatus) any { return v.Size })
	volumes("volume_written_bytes", "gauge", "Bytes in blocks that were written to it.", func(v node.VolumeStatus) any { return v.Written })
	volumes("volume_zeroed_bytes", "gauge", "Bytes in blocks that were discarded or zeroed.", func(v node.VolumeStatus) any { return v.Zeroed })

	one("layers", "gauge", "Layers of all volumes and snapshots.", s.Layers)
	one("layers_unneeded", "gauge", "Layers that are still to be merged or removed.", s.Cleaning.Layers)
	one("layers_unneeded_bytes", "gauge", "Bytes in layers that are still to be merged or removed.", s.Cleaning.Bytes)
	one("layers_merged_total", "counter", "Layers merged into others.", s.Cleaning.Merged)
	one("snapshots", "gauge", "Snapshots of this node.", len(s.Snapshots))
	snapshots := func(name, kind, help string, f func(node.SnapshotStatus) any) {
		metric(name, kind, help)
		for _, v := range s.Snapshots {
			value(name, f(v), "snapshot", v.Name)
		}
	}
	snapshots("snapshot_created_seconds", "gauge", "When the snapshot was taken, in Unix time.", func(v node.SnapshotStatus) any { return v.Created.Unix() })
	snapshots("snapshot_held_seconds", "gauge", "How long writes were held to take the snapshot.", func(v node.SnapshotStatus) any { return v.HeldSeconds })
	snapshots("snapshot_own_bytes", "gauge", "Bytes that were written since the snapshot before.", func(v node.SnapshotStatus) any { return v.Own })

	members := func(name, kind, help string, f func(node.MemberStatus) any) {
		metric(name, kind, help)
		for _, m := range s.Local.Members {
			value(name, f(m), "member", m.Name, "kind", m.Kind)
		}
	}
	members("member_size_bytes", "gauge", "Size of the local member.", func(m node.MemberStatus) any { return m.Size })
	members("member_free_bytes", "gauge", "Bytes that are free on it.", func(m node.MemberStatus) any { return m.Free })
	members("member_errors_total", "counter", "Calls of it that failed.", func(m node.MemberStatus) any { return m.Errors })
	members("member_queue_depth", "gauge", "Calls that it is busy with.", func(m node.MemberStatus) any { return m.QueueDepth })
	one("rebalance_left_bytes", "gauge", "Bytes that a rebalancing has still to look at.", s.Local.Rebalance.Total-s.Local.Rebalance.Done)
	volumes("volume_far_bytes", "gauge", "Bytes that only the store has.", func(v node.VolumeStatus) any { return v.Far })
	volumes("volume_hits_total", "counter", "Reads of its image answered locally.", func(v node.VolumeStatus) any { return v.Hits })
	volumes("volume_misses_total", "counter", "Reads of its image that waited for the store.", func(v node.VolumeStatus) any { return v.Misses })
	volumes("volume_shared_bytes_total", "counter", "Bytes not fetched again because another disk of its image had them fetched.", func(v node.VolumeStatus) any { return v.Shared })

	caches := func(name, kind, help string, f func(node.CacheStatus) any) {
		metric(name, kind, help)
		for _, c := range s.Caches {
			value(name, f(c), "image", c.Image, "identity", c.Identity)
		}
	}
	caches("cache_size_bytes", "gauge", "Size of the image.", func(c node.CacheStatus) any { return c.Size })
	caches("cache_cached_bytes", "gauge", "Bytes of the image copied from the store.", func(c node.CacheStatus) any { return c.Cached })
	caches("cache_absent_bytes", "gauge", "Bytes of the image that only the store has.", func(c node.CacheStatus) any { return c.Absent })
	caches("cache_hits_total", "counter", "Reads of the image answered locally.", func(c node.CacheStatus) any { return c.Hits })
	caches("cache_misses_total", "counter", "Reads of the image that needed the store.", func(c node.CacheStatus) any { return c.Misses })
	caches("cache_fetches_total", "counter", "Ranged reads of the store for the image.", func(c node.CacheStatus) any { return c.Fetches })
	caches("cache_fetched_bytes_total", "counter", "Bytes fetched from the store for the image.", func(c node.CacheStatus) any { return c.FetchedBytes })
	caches("cache_zero_bytes", "gauge", "Bytes of the image that are known to be zeros.", func(c node.CacheStatus) any { return c.Zero })
	caches("cache_dropped_total", "counter", "Fetches that were answered and not kept.", func(c node.CacheStatus) any { return c.Dropped })
	caches("cache_damaged_blocks_total", "counter", "Copied blocks that were not what had been stored, and were fetched again.", func(c node.CacheStatus) any { return c.Damaged })
	caches("cache_unreadable_blocks_total", "counter", "Copied blocks that the local disk could not read, and were fetched again.", func(c node.CacheStatus) any { return c.Unreadable })
	one("cache_limit_bytes", "gauge", "What all caches may hold together; 0: no limit.", s.Cache.Limit)
	one("cache_held_bytes", "gauge", "What they hold.", s.Cache.Held)
	one("cache_pinned_bytes", "gauge", "Of it, for volumes that are pinned.", s.Cache.Pinned)
	one("cache_evicted_bytes_total", "counter", "Bytes that have left the caches.", s.Cache.Evicted)
	one("cache_gave_way_bytes_total", "counter", "Of these, because the local disk was full or got low.", s.Cache.GaveWay)

	open := slices.DeleteFunc(slices.Clone(s.Caches), func(c node.CacheStatus) bool { return c.Prefetch == nil })
	prefetch := func(name, kind, help string, f func(node.PrefetchStatus) any) {
		metric(name, kind, help)
		for _, c := range open {
			value(name, f(*c.Prefetch), "image", c.Image, "identity", c.Identity)
		}
	}
	metric("prefetch_state", "gauge", "1 for what the prefetch of an image is doing, with the strategy that its disks ask for.")
	for _, c := range open {
		value("prefetch_state", 1, "image", c.Image, "identity", c.Identity, "strategy", c.Prefetch.Strategy, "state", string(c.Prefetch.State))
	}
	prefetch("prefetch_rate_bytes", "gauge", "Bytes per second that filling has brought lately.", func(p node.PrefetchStatus) any { return p.Rate })
	prefetch("prefetch_left_seconds", "gauge", "Until all is local at that rate; 0: unknown, or complete.", func(p node.PrefetchStatus) any { return p.Left })
	prefetch("prefetch_filled_bytes_total", "counter", "Bytes brought to have the whole image.", func(p node.PrefetchStatus) any { return p.Filled })
	prefetch("prefetch_ahead_bytes_total", "counter", "Bytes brought ahead of sequential readers.", func(p node.PrefetchStatus) any { return p.Ahead })
	prefetch("prefetch_used_bytes_total", "counter", "Of both, where somebody has then read.", func(p node.PrefetchStatus) any { return p.Used })
	prefetch("prefetch_hits_total", "counter", "First reads of a region that prefetch had brought.", func(p node.PrefetchStatus) any { return p.Hits })
	prefetch("prefetch_late_total", "counter", "Reads that waited for a prefetch under way.", func(p node.PrefetchStatus) any { return p.Late })
	prefetch("prefetch_errors_total", "counter", "Prefetches that failed and are tried again.", func(p node.PrefetchStatus) any { return p.Errors })
	prefetch("cache_shared_bytes_total", "counter", "Bytes not fetched again because another disk of the image had them fetched.", func(p node.PrefetchStatus) any { return p.Shared })
	return b.Bytes()
}

var labelEscapes = strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`)
