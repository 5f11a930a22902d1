//go:build e2e

package e2e

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"skylun/test/initiator"
)

var (
	cutSeed   = flag.Uint64("cut.seed", 0, "seed of TestSnapshotKill, 0: a new one")
	cutRounds = flag.Int("cut.rounds", 12, "how often TestSnapshotKill kills the server")
)

const (
	cutVolumes = 4
	cutBlock   = 4096
	cutSlots   = 256 // blocks of each volume
)

// sequence writes numbers to volumes in turn, each one after the one before was
// answered: number n goes to volume n%cutVolumes. So if a state of all volumes at
// one moment holds a number, it holds all that were before it.
type sequence struct {
	disks    []*initiator.Disk
	begun    atomic.Int64 // numbers below may have been written
	answered atomic.Int64 // numbers below are written
}

func (q *sequence) write(ctx context.Context) {
	for n := q.begun.Load(); ctx.Err() == nil; n++ {
		p := make([]byte, cutBlock)
		for i := 0; i < cutBlock; i += sector {
			stamp(p[i:][:sector], n/cutVolumes%cutSlots, uint64(n+1))
		}
		q.begun.Store(n + 1)
		if q.disks[n%cutVolumes].WriteAt(ctx, p, n/cutVolumes%cutSlots*cutBlock) != nil {
			return
		}
		q.answered.Store(n + 1)
	}
}

// cutAt returns how many numbers the state of all volumes holds, or what is
// wrong with it.
func cutAt(volumes [][]byte) (int64, error) {
	var held int64
	value := func(v, slot int) (int64, error) {
		p := volumes[v][slot*cutBlock:][:cutBlock]
		first, err := stamped(p[:sector], int64(slot))
		for i := sector; i < cutBlock && err == nil; i += sector {
			var other uint64
			if other, err = stamped(p[i:][:sector], int64(slot)); err == nil && other != first {
				err = fmt.Errorf("holds numbers %d and %d", first, other)
			}
		}
		if err != nil {
			return 0, fmt.Errorf("volume %d, block %d: %w", v, slot, err)
		}
		return int64(first), nil
	}
	for v := range volumes {
		for slot := range cutSlots {
			n, err := value(v, slot)
			if err != nil {
				return 0, err
			}
			held = max(held, n)
		}
	}
	for v := range volumes {
		for slot := range cutSlots {
			want := int64(0) // the last number below held that goes there, and one
			if n := held - 1 - int64(v+cutVolumes*slot); n >= 0 {
				want = int64(v+cutVolumes*slot) + n/(cutVolumes*cutSlots)*(cutVolumes*cutSlots) + 1
			}
			if n, _ := value(v, slot); n != want {
				return 0, fmt.Errorf("volume %d, block %d holds number %d, with %d held in all it must be %d", v, slot, n-1, held, want-1)
			}
		}
	}
	return held, nil
}

// cut is a snapshot as the test knows it.
type cut struct {
	least, most int64 // numbers that it may hold
	maybe       bool  // it was being taken or removed when the server died
}

// The server is killed again and again while numbers are written to volumes in
// turn, and snapshots of all of them are taken and removed. Every snapshot holds
// what was answered before it, nothing that was sent after it, and no number
// without those before; it is the same after each crash and each merge.
func TestSnapshotKill(t *testing.T) {
	seed := *cutSeed
	if seed == 0 {
		seed = uint64(time.Now().UnixNano())
	}
	t.Logf("-cut.seed=%d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	var disks, names []string
	for v := range cutVolumes {
		names = append(names, fmt.Sprint("v", v))
		disks = append(disks, fmt.Sprintf("volume: v%d, size: %d", v, cutSlots*cutBlock))
	}
	s := newServer(t, newFileStore(t), disks...)
	q := &sequence{}
	cuts := map[string]cut{}
	taken, removed := 0, 0
	for round := range *cutRounds {
		s.start()
		q.disks = nil
		for v := range cutVolumes {
			q.disks = append(q.disks, connectTo(t, s, byte(v), byte(v)))
		}
		ctx, cancel := context.WithCancel(t.Context())
		var busy sync.WaitGroup
		busy.Go(func() { q.write(ctx) })
		busy.Go(func() { // snapshots, until the server is gone
			var order []string
			for i := 0; ctx.Err() == nil; i++ {
				name := fmt.Sprintf("r%d-%d", round, i)
				least := q.answered.Load()
				cuts[name] = cut{least, math.MaxInt64, true}
				if s.try(append([]string{"snapshot", "create", name}, names...)...).status != 0 {
					return
				}
				cuts[name] = cut{least, q.begun.Load(), false}
				taken++
				if order = append(order, name); len(order) < 3 {
					continue
				}
				gone := order[len(order)-2] // one in the middle
				order = append(order[:len(order)-2], name)
				c := cuts[gone]
				c.maybe = true
				cuts[gone] = c
				if s.try("snapshot", "rm", gone).status != 0 {
					return
				}
				delete(cuts, gone)
				removed++
			}
		})
		time.Sleep(time.Duration(100+rng.IntN(700)) * time.Millisecond) // when it dies is up to chance
		s.kill()
		cancel()
		busy.Wait()

		s.check()
		s.start()
		s.verifyCuts(t, cuts)
		held := s.cutOf(t, func(v int, file string) []string { return []string{"volume", "export", fmt.Sprint("v", v), file} })
		if held < q.answered.Load() || held > q.begun.Load() {
			t.Fatalf("round %d: the volumes hold %d numbers, want %d to %d", round, held, q.answered.Load(), q.begun.Load())
		}
		q.begun.Store(held)
		q.answered.Store(held)
		for name := range cuts { // not too many
			if len(cuts) > 5 {
				s.cli("snapshot", "rm", name)
				delete(cuts, name)
				removed++
			}
		}
		if round%2 == 0 {
			s.stop()
		} else {
			s.kill()
		}
		s.check()
	}
	t.Logf("%d kills, %d snapshots taken and %d removed meanwhile, %d numbers written", *cutRounds, taken, removed, q.begun.Load())
	if taken < *cutRounds || removed == 0 {
		t.Errorf("only %d snapshots, %d removed: the test tests nothing", taken, removed)
	}
}

// verifyCuts requires that the snapshots are there that must be, and hold what
// they may. What they do hold is all that they may hold from now on.
func (s *server) verifyCuts(t *testing.T, cuts map[string]cut) {
	t.Helper()
	there := map[string]bool{}
	for _, snap := range s.snapshots() {
		there[snap.Name] = true
		c, ok := cuts[snap.Name]
		if !ok {
			t.Fatalf("snapshot %s was removed, and is there", snap.Name)
		}
		held := s.cutOf(t, func(v int, file string) []string {
			return []string{"snapshot", "export", fmt.Sprintf("%s/v%d", snap.Name, v), file}
		})
		if held < c.least || held > c.most {
			t.Fatalf("snapshot %s holds %d numbers, want %d to %d", snap.Name, held, c.least, c.most)
		}
		cuts[snap.Name] = cut{held, held, false}
	}
	for name, c := range cuts {
		if there[name] {
			continue
		}
		if !c.maybe {
			t.Fatalf("snapshot %s is gone", name)
		}
		delete(cuts, name)
	}
}

// cutOf exports all volumes and returns how many numbers they hold.
func (s *server) cutOf(t *testing.T, export func(v int, file string) []string) int64 {
	t.Helper()
	var volumes [][]byte
	dir := t.TempDir()
	for v := range cutVolumes {
		file := filepath.Join(dir, fmt.Sprint(v))
		s.cli(export(v, file)...)
		p, err := os.ReadFile(file)
		if err != nil || len(p) != cutSlots*cutBlock {
			t.Fatalf("%d bytes, %v", len(p), err)
		}
		volumes = append(volumes, p)
	}
	held, err := cutAt(volumes)
	if err != nil {
		t.Fatalf("%v: %v", export(0, "FILE"), err)
	}
	return held
}

// connectTo opens a session and returns a logical unit as a device.
func connectTo(t *testing.T, s *server, isid, lun byte) *initiator.Disk {
	t.Helper()
	c, err := initiator.Dial(s.portal)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.Timeout = time.Minute
	c.ISID[5] = isid
	if _, err := c.Login(initiator.Options{Initiator: "iqn.2026-11.io.skylun:test", Target: iqn}); err != nil {
		t.Fatal(err)
	}
	d, err := c.Disk(lun)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// A snapshot of 100 volumes holds their writes for a short time, idle and
// under load. What it was is in the log of the test; the bound is one that only
// copying or syncing while writes are held would miss.
func TestSnapshotHold(t *testing.T) {
	const volumes, writers, times = 100, 8, 5
	var disks, names []string
	for v := range volumes {
		names = append(names, fmt.Sprint("v", v))
		disks = append(disks, fmt.Sprintf("volume: v%d, size: 1GiB", v))
	}
	s := newServer(t, newFileStore(t), disks...)
	s.start()
	take := func(what string) {
		t.Helper()
		for i := range times {
			var snap snapshotStatus
			args := append([]string{"snapshot", "create", "-o", "json", fmt.Sprint(what, i)}, names...)
			began := time.Now()
			if err := json.Unmarshal([]byte(s.cli(args...)), &snap); err != nil {
				t.Fatal(err)
			}
			held := time.Duration(snap.Held * float64(time.Second))
			t.Logf("%s: %d volumes, writes held for %v; the command took %v", what, volumes, held, time.Since(began).Round(time.Millisecond))
			if held <= 0 || held > time.Second {
				t.Errorf("%s: writes were held for %v", what, held)
			}
		}
	}
	take("idle")

	ctx, cancel := context.WithCancel(t.Context())
	var busy sync.WaitGroup
	var writes, slowest atomic.Int64
	for w := range writers {
		d := connectTo(t, s, byte(w), byte(w*volumes/writers))
		rng := rand.New(rand.NewPCG(uint64(w), 0))
		busy.Go(func() {
			p := make([]byte, cutBlock)
			for ctx.Err() == nil {
				began := time.Now()
				if err := d.WriteAt(ctx, p, rng.Int64N(64<<20/cutBlock)*cutBlock); err != nil {
					if ctx.Err() == nil {
						t.Error(err)
					}
					return
				}
				writes.Add(1)
				if took := int64(time.Since(began)); took > slowest.Load() {
					slowest.Store(took)
				}
			}
		})
	}
	for writes.Load() < 1000 && ctx.Err() == nil && !t.Failed() {
		time.Sleep(time.Millisecond)
	}
	take("load")
	cancel()
	busy.Wait()
	t.Logf("%d writes meanwhile, the slowest took %v", writes.Load(), time.Duration(slowest.Load()))
	s.check()
	s.stop()
}
