package node

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"skylun/raid"
)

var (
	snapSeed  = flag.Uint64("snap.seed", 0, "seed of TestSnapshotsAtRandom, 0: a new one")
	snapSteps = flag.Int("snap.steps", 80, "how much TestSnapshotsAtRandom does")
)

// TestSnapshotsAtRandom does everything that can be done to volumes and
// snapshots in random order, while layers are merged in the background, and
// compares all of it with a model again and again: on a directory, on two
// members, one of which hands out chunks, and on a device whose bytes are not made zeros.
func TestSnapshotsAtRandom(t *testing.T) {
	t.Run("directory", func(t *testing.T) { changeAtRandom(t, testConfig(t)) })
	t.Run("members", func(t *testing.T) {
		cfg := testConfig(t)
		cfg.Local.Members, cfg.Local.StripeSize = []MemberConfig{{Path: t.TempDir()}, smallDisk(t)}, 64<<10
		changeAtRandom(t, cfg)
	})
	t.Run("device with bytes of before", func(t *testing.T) {
		cfg := testConfig(t)
		cfg.Local.Members = []MemberConfig{usedDisk(t)}
		changeAtRandom(t, cfg)
	})
}

// usedDisk is a file on which layers have their space for good, and which holds
// something wherever nobody looks when it is made a member.
func usedDisk(t *testing.T) MemberConfig {
	t.Helper()
	m := MemberConfig{Path: filepath.Join(t.TempDir(), "disk"), Allocate: raid.Identical}
	p := bytes.Repeat([]byte{0xa5}, 64<<20)
	clear(p[:1<<20])
	clear(p[len(p)-1<<20:])
	if err := os.WriteFile(m.Path, p, 0o600); err != nil {
		t.Fatal(err)
	}
	return m
}

// smallDisk is a file that hands out chunks.
func smallDisk(t *testing.T) MemberConfig {
	t.Helper()
	m := MemberConfig{Path: filepath.Join(t.TempDir(), "disk"), Allocate: raid.Chunks}
	if err := errors.Join(os.WriteFile(m.Path, nil, 0o600), os.Truncate(m.Path, 256<<20)); err != nil {
		t.Fatal(err)
	}
	return m
}

func changeAtRandom(t *testing.T, cfg Config) {
	noLeaks(t)
	seed := *snapSeed
	if seed == 0 {
		seed = uint64(time.Now().UnixNano())
	}
	t.Logf("-snap.seed=%d", seed)
	rnd := rand.New(rand.NewPCG(seed, 0))
	const size = 256 << 10
	image := pattern(size/2+512, 0)
	putImage(t, cfg, "i", image)
	disks(&cfg, DiskConfig{Volume: "v", Size: size}, DiskConfig{Volume: "over", Image: "i", Size: size})
	n := start(t, cfg)
	ctx := t.Context()
	volumes := map[string][]byte{"v": make([]byte, size), "over": append(slices.Clone(image), make([]byte, size-len(image))...)}
	type kept map[string][]byte
	snapshots := map[string]kept{}
	removed := map[string]bool{} // volumes of which snapshots may be left
	one := func(names []string) string {
		slices.Sort(names) // so that the seed tells
		return names[rnd.IntN(len(names))]
	}
	anyVolume := func() string { return one(slices.Collect(maps.Keys(volumes))) }
	anySnapshot := func() (string, string) {
		if len(snapshots) == 0 {
			return "", ""
		}
		s := one(slices.Collect(maps.Keys(snapshots)))
		return s, one(slices.Collect(maps.Keys(snapshots[s])))
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	verify := func() {
		t.Helper()
		for name, want := range volumes {
			if !bytes.Equal(content(t, n, name), want) {
				t.Errorf("volume %s is not what was written", name)
			}
		}
		for name, of := range snapshots {
			for v, want := range of {
				if !bytes.Equal(snapshotContent(t, n, name+"/"+v), want) {
					t.Errorf("snapshot %s is not what volume %s was", name, v)
				}
			}
		}
		sound(t, n)
		if t.Failed() {
			t.FailNow()
		}
	}
	for step := range *snapSteps {
		switch what := rnd.IntN(24); {
		case what < 9:
			name := anyVolume()
			p := pattern(1+rnd.IntN(24<<10), byte(rnd.Uint32()))
			off := rnd.IntN(len(volumes[name]) - len(p))
			write(t, n, name, p, int64(off))
			copy(volumes[name][off:], p)
		case what < 11:
			name := anyVolume()
			length := 1 + rnd.IntN(64<<10)
			off := rnd.IntN(len(volumes[name]) - length)
			v, err := n.acquire(ctx, name)
			must(err)
			must(v.dev.Discard(ctx, int64(off), int64(length)))
			must(n.release(v))
			clear(volumes[name][off:][:length])
		case what < 15:
			names := slices.Sorted(maps.Keys(volumes))
			rnd.Shuffle(len(names), func(i, j int) { names[i], names[j] = names[j], names[i] })
			names = names[:1+rnd.IntN(len(names))]
			name := fmt.Sprint("s", step)
			snapshot(t, n, name, names...)
			snapshots[name] = kept{}
			for _, v := range names {
				snapshots[name][v] = bytes.Clone(volumes[v])
			}
		case what < 18:
			if name, _ := anySnapshot(); name != "" {
				must(n.DeleteSnapshot(ctx, name))
				delete(snapshots, name)
			}
		case what < 19:
			if name, v := anySnapshot(); name != "" && len(volumes) < 5 {
				clone := fmt.Sprint("c", step)
				_, err := n.CreateVolume(ctx, VolumeSpec{Name: clone, Snapshot: name + "/" + v})
				must(err)
				volumes[clone] = bytes.Clone(snapshots[name][v])
			}
		case what < 21:
			if name, v := anySnapshot(); name != "" && !removed[v] {
				_, err := n.RollbackSnapshot(ctx, name, RollbackSpec{Volumes: []string{v}})
				must(err)
				volumes[v] = bytes.Clone(snapshots[name][v])
			}
		case what < 22:
			if name := anyVolume(); name != "v" && name != "over" {
				must(n.DeleteVolume(ctx, name))
				delete(volumes, name)
				removed[name] = true
			}
		case what < 23:
			name := anyVolume()
			length := size/2 + 8192 + 512*rnd.IntN(size/512)
			_, err := n.ResizeVolume(ctx, name, ResizeSpec{Size: int64(length), Force: true})
			must(err)
			p := volumes[name]
			volumes[name] = append(bytes.Clone(p[:min(len(p), length)]), make([]byte, max(0, length-len(p)))...)
		default:
			stop(t, n)
			n = start(t, cfg)
		}
		if step%10 == 0 {
			verify()
		}
	}
	verify()
	for name := range snapshots {
		must(n.DeleteSnapshot(ctx, name))
	}
	clear(snapshots)
	cleaned(t, n)
	verify()
	if layers := len(mustTree(t, n).Layers); layers > 4*len(volumes) {
		t.Errorf("%d layers for %d volumes", layers, len(volumes))
	}
	stop(t, n)
}
