package node

import (
	"bytes"
	"log/slog"
	"testing"

	"skylun/lun"
	"skylun/test/memdev"
)

// TestCopyPeers checks between which targets copies go: what a copy reaches,
// its initiator could have logged in to.
func TestCopyPeers(t *testing.T) {
	const name = "iqn.1993-08.org.debian:01:a"
	chap := ChapConfig{User: "u", SecretFile: "/a"}
	for _, c := range []struct {
		why      string
		from, to TargetConfig
		want     bool
	}{
		{"anybody may use either", TargetConfig{}, TargetConfig{}, true},
		{"who is let in here is let in there", TargetConfig{Initiators: []string{name}, Chap: chap, Networks: []string{"10.0.0.0/8"}}, TargetConfig{}, true},
		{"named there", TargetConfig{}, TargetConfig{Initiators: []string{"iqn.2000-01.x:y", "IQN.1993-08.org.Debian:01:a"}}, true},
		{"not named there", TargetConfig{}, TargetConfig{Initiators: []string{"iqn.2000-01.x:y"}}, false},
		{"CHAP there alone", TargetConfig{}, TargetConfig{Chap: chap}, false},
		{"the same CHAP", TargetConfig{Chap: chap}, TargetConfig{Chap: chap}, true},
		{"the same user with another secret", TargetConfig{Chap: chap}, TargetConfig{Chap: ChapConfig{User: "u", SecretFile: "/b"}}, false},
		{"one user of several here", TargetConfig{Chap: ChapConfig{Users: []ChapUser{{User: "u", SecretFile: "/a"}, {User: "v", SecretFile: "/b"}}}}, TargetConfig{Chap: chap}, false},
		{"a network there alone", TargetConfig{}, TargetConfig{Networks: []string{"10.0.0.0/8"}}, false},
		{"the same network", TargetConfig{Networks: []string{"10.0.0.0/8"}}, TargetConfig{Networks: []string{"10.0.0.0/8"}}, true},
		{"another network", TargetConfig{Networks: []string{"10.0.0.0/8"}}, TargetConfig{Networks: []string{"10.1.0.0/16"}}, false},
	} {
		if got := c.from.peer(&c.to, name); got != c.want {
			t.Errorf("%s: %v, want %v", c.why, got, c.want)
		}
	}
}

// TestConnect copies from a disk of one target to one of another.
func TestConnect(t *testing.T) {
	const a, b, closed = "iqn.2026-11.io.skylun:a", "iqn.2026-11.io.skylun:b", "iqn.2026-11.io.skylun:closed"
	n := &Node{cfg: Config{Targets: []TargetConfig{{IQN: a}, {IQN: b}, {IQN: closed, Initiators: []string{"iqn.2000-01.x:y"}}}}}
	units, devices := map[string]*lun.Map{}, map[string]*memdev.Device{}
	nexus := &lun.Nexus{InitiatorName: "iqn.1993-08.org.debian:01:a", TargetName: a, PortalGroup: 1}
	names := map[string][]byte{}
	run := func(target string, cdb, out []byte) *lun.Command {
		c := &lun.Command{CDB: cdb, Nexus: nexus, Out: out, InLimit: 1 << 16, Alloc: pool{}}
		if u := units[target].Unit([8]byte{}); !u.Try(c) {
			u.Execute(t.Context(), c)
		}
		return c
	}
	for i, target := range []string{a, b, closed} {
		units[target] = lun.NewMap()
		devices[target] = memdev.Of(bytes.Repeat([]byte{byte(i + 1)}, 4096))
		disk := lun.NewDisk(devices[target], lun.DiskConfig{ID: [16]byte{byte(i)}}, slog.New(slog.DiscardHandler))
		if err := units[target].Add(0, disk); err != nil {
			t.Fatal(err)
		}
		page := run(target, []byte{0x12, 1, 0x83, 0, 0xff, 0}, nil).In // the NAA designator comes first
		d := make([]byte, 32)
		d[0], d[4], d[5], d[7] = 0xe4, 1, 3, 16
		copy(d[8:], page[8:24])
		names[target] = d
	}
	n.connect(units)
	units[a].AttachNexus(nexus)
	run(a, make([]byte, 6), nil) // the unit attention
	for _, c := range []struct {
		source string
		want   lun.Status
	}{{b, lun.StatusGood}, {closed, lun.StatusCheckCondition}} {
		list := make([]byte, 16+64+28)
		list[3], list[11] = 64, 28
		copy(list[16:], names[c.source])
		copy(list[48:], names[a])
		copy(list[80:], []byte{0x02, 0, 0, 24, 0, 0, 0, 1, 0, 0, 0, 8})
		cdb := []byte{0x83, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, byte(len(list)), 0, 0}
		if got := run(a, cdb, list); got.Status != c.want {
			t.Errorf("copy from %s: status %02x, sense % x", c.source, got.Status, got.Sense)
		}
	}
	got := make([]byte, 4096)
	if err := devices[a].ReadAt(t.Context(), got, 0); err != nil || !bytes.Equal(got, bytes.Repeat([]byte{2}, 4096)) {
		t.Errorf("the disk holds % x..., %v", got[:8], err)
	}
}

// pool hands out new buffers.
type pool struct{}

func (pool) Get(n int) []byte { return make([]byte, n) }
