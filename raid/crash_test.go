package raid_test

import (
	"context"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"

	"skylun/raid"
	"skylun/raid/raidtest"
	"skylun/test/devicetest"
)

var crashSeeds = flag.Int("raid.seeds", 0, "how many seeds for power cuts; 0: some hundred")

const sector = raidtest.Sector

// crashWorld is an array on disks that know what a power cut leaves of them, and what
// its files may hold: of each sector the values that it was given since the file was
// synced, the oldest one being the synced one.
type crashWorld struct {
	rnd     *rand.Rand
	lies    raidtest.Faults // what disks do not do
	faults  *raidtest.Faults
	kinds   []string // of the members
	weights []int
	disks   []*raidtest.Disk // nil: a directory
	dirs    []*raidtest.Dir
	records *raidtest.Records
	boot    int
	value   uint64
	array   *raid.Array
	files   []*crashFile
	looking sync.Mutex // members are synced beside each other
	cuts    int
	emptied int   // members, which were exchanged then
	err     error // the first thing found
	doing   string
	killed  bool // a process was, and the power is on since: what was written last is there
}

type crashFile struct {
	name    string
	f       *raid.File
	sectors [][]uint64
}

func newCrashWorld(rnd *rand.Rand, members int, lies raidtest.Faults) (*crashWorld, error) {
	w := &crashWorld{rnd: rnd, lies: lies}
	w.faults = &lies
	w.faults.Hook = w.point
	w.records = raidtest.NewRecords(w.faults)
	for range members {
		kind := []string{"directory", raid.Identical, raid.Chunks}[rnd.IntN(3)]
		w.kinds, w.weights = append(w.kinds, kind), append(w.weights, rnd.IntN(2)*(1+rnd.IntN(3)))
		var disk *raidtest.Disk
		var dir *raidtest.Dir
		if size := 4<<20 + rnd.Int64N(4<<20); kind == "directory" {
			dir = raidtest.NewDir(size, w.faults)
		} else {
			disk = raidtest.NewDisk(size, w.faults)
		}
		w.disks, w.dirs = append(w.disks, disk), append(w.dirs, dir)
	}
	err := errors.New("not looked at while it is set up")
	w.err = err
	if err := w.open(); err != nil {
		return nil, err
	}
	for i := range 3 {
		f := &crashFile{name: fmt.Sprintf("layers/%d", i)}
		w.files = append(w.files, f)
		if err := w.create(f); err != nil {
			return nil, err
		}
	}
	w.err = nil
	return w, nil
}

func (w *crashWorld) config() raid.Config {
	c := raid.Config{Stripe: 4 << 10, Chunk: 8 << 10, MovePiece: 24 << 10, Records: w.records, Boot: fmt.Sprint("boot ", w.boot)}
	for i, kind := range w.kinds {
		m := raid.MemberConfig{Weight: w.weights[i]}
		if kind == "directory" {
			m.Member = w.dirs[i]
		} else {
			m.Device, m.Allocate = w.disks[i], kind
		}
		c.Members = append(c.Members, m)
	}
	return c
}

func (w *crashWorld) open() (err error) {
	if w.array, err = raid.OpenArray(w.config()); err != nil {
		return fmt.Errorf("open: %w", err)
	}
	for _, f := range w.files {
		if f.f, err = w.array.Open(f.name, int64(len(f.sectors))*sector); err != nil {
			return fmt.Errorf("open %s: %w", f.name, err)
		}
	}
	return nil
}

func (w *crashWorld) create(f *crashFile) (err error) {
	f.sectors = make([][]uint64, 1+w.rnd.IntN(400))
	for s := range f.sectors {
		f.sectors[s] = []uint64{0}
	}
	f.f, err = w.array.Create(f.name, int64(len(f.sectors))*sector)
	return err
}

// left returns the world after a power cut, or as a process that is killed leaves
// it, opened again.
func (w *crashWorld) left(cut bool) (*crashWorld, error) {
	n := &crashWorld{rnd: w.rnd, kinds: w.kinds, weights: w.weights, boot: w.boot, value: w.value, lies: w.lies}
	n.faults = new(raidtest.Faults)
	*n.faults = w.lies
	if cut {
		n.boot++
	}
	n.records = w.records.Copy(n.faults)
	for i := range w.kinds {
		disk, dir := w.disks[i], w.dirs[i]
		switch {
		case disk != nil && cut:
			disk = disk.Cut(w.rnd, n.faults)
		case disk != nil:
			disk = disk.Killed(n.faults)
		case cut:
			dir = dir.Cut(w.rnd, n.faults)
		default:
			dir = dir.Killed(n.faults)
		}
		n.disks, n.dirs = append(n.disks, disk), append(n.dirs, dir)
	}
	n.killed = !cut
	for _, f := range w.files {
		c := &crashFile{name: f.name, sectors: make([][]uint64, len(f.sectors))}
		for s, allowed := range f.sectors {
			c.sectors[s] = slices.Clone(allowed)
		}
		n.files = append(n.files, c)
	}
	return n, n.open()
}

// point is where a power cut may leave something else than before.
func (w *crashWorld) point(name string) {
	w.looking.Lock()
	defer w.looking.Unlock()
	if w.err != nil || w.rnd.IntN(4) > 0 || strings.HasPrefix(w.doing, "create") {
		return
	}
	w.cuts++
	left, err := w.left(true)
	if err == nil {
		err = left.verify()
	}
	if err == nil && w.rnd.IntN(4) == 0 {
		err = left.goOn()
	}
	if err == nil {
		err = left.array.Close()
	}
	if err != nil {
		w.err = fmt.Errorf("power cut %q: %w", name, err)
	}
}

// goOn writes to all files of what is left, and reads everything again: no chunk
// may be in two of them.
func (w *crashWorld) goOn() error {
	for range 6 {
		if err := w.write(w.files[w.rnd.IntN(len(w.files))]); err != nil {
			return err
		}
	}
	return w.verify()
}

// verify reads everything, twice, and narrows what it may be to what it is.
func (w *crashWorld) verify() error {
	for range 2 {
		for _, f := range w.files {
			got := make([]byte, len(f.sectors)*sector)
			if err := f.f.ReadAt(got, 0); err != nil {
				return fmt.Errorf("%s: %w", f.name, err)
			}
			for s, allowed := range f.sectors {
				v, err := sectorValue(got[s*sector:][:sector])
				if w.killed {
					allowed = allowed[len(allowed)-1:]
				}
				if err != nil || !slices.Contains(allowed, v) {
					return fmt.Errorf("%s: sector %d of %d holds %#x (%v), want one of %#x", f.name, s, len(f.sectors), v, err, allowed)
				}
				if !w.killed { // else the power may still be cut, and take it back
					f.sectors[s] = []uint64{v}
				}
			}
		}
	}
	return nil
}

func sectorValue(b []byte) (uint64, error) {
	v := binary.LittleEndian.Uint64(b)
	for ; len(b) > 0; b = b[8:] {
		if binary.LittleEndian.Uint64(b) != v {
			return 0, errors.New("torn")
		}
	}
	return v, nil
}

func (w *crashWorld) write(f *crashFile) error {
	first := w.rnd.IntN(len(f.sectors))
	n := 1 + w.rnd.IntN(min(40, len(f.sectors)-first))
	w.value++
	p := make([]byte, n*sector)
	for i := 0; i < len(p); i += 8 {
		binary.LittleEndian.PutUint64(p[i:], w.value)
	}
	for s := first; s < first+n; s++ {
		f.sectors[s] = append(f.sectors[s], w.value)
	}
	return f.f.WriteAt(p, int64(first)*sector)
}

func (f *crashFile) add(first, end int, v uint64) {
	for s := first; s < end; s++ {
		f.sectors[s] = append(f.sectors[s], v)
	}
}

func (f *crashFile) synced() {
	for s, allowed := range f.sectors {
		f.sectors[s] = allowed[len(allowed)-1:]
	}
}

func (w *crashWorld) step() (what string, err error) {
	f := w.files[w.rnd.IntN(len(w.files))]
	size := len(f.sectors)
	switch op := w.rnd.IntN(20); {
	case op < 7:
		return "write " + f.name, w.write(f)
	case op < 9:
		first := w.rnd.IntN(size)/8*8 + 8
		end := min(size/8*8, first+8*w.rnd.IntN(20))
		if first >= end {
			return "", nil
		}
		f.add(first, end, 0)
		return fmt.Sprintf("punch [%d,%d) of %s", first, end, f.name), f.f.Punch(int64(first)*sector, int64(end-first)*sector)
	case op < 12:
		err := f.f.Sync()
		if err == nil {
			f.synced()
		}
		return "sync " + f.name, err
	case op < 13:
		to := 1 + w.rnd.IntN(500)
		was := size
		if to == was {
			return "", nil
		}
		for len(f.sectors) < to {
			f.sectors = append(f.sectors, []uint64{0})
		}
		if to < was { // nobody may want to see again what is cut off
			f.sectors = f.sectors[:to:to]
			return fmt.Sprintf("shrink %s from %d to %d", f.name, was, to), f.f.Resize(int64(to) * sector)
		}
		// A power cut in the middle of it finds the old length.
		long := f.sectors
		f.sectors = f.sectors[:was]
		err := f.f.Resize(int64(to) * sector)
		f.sectors = long
		if err == nil {
			f.synced()
		}
		return fmt.Sprintf("grow %s from %d to %d", f.name, was, to), err
	case op < 14:
		w.doing = "create " + f.name // until it is there again, nothing is promised of it
		defer func() { w.doing = "" }()
		return w.doing, errors.Join(f.f.Close(), w.create(f))
	case op < 16:
		return w.rebalance()
	case op < 17:
		left, err := w.left(false)
		if err == nil {
			err = left.verify()
		}
		if err == nil {
			err = left.array.Close()
		}
		return "look at a killed process", err
	case op < 19:
		return w.leave()
	default:
		return "close and open", w.restart()
	}
}

// rebalance gives a member another weight, and moves some files for a while.
func (w *crashWorld) rebalance() (string, error) {
	if w.rnd.IntN(2) == 0 {
		w.weights = slices.Clone(w.weights)
		w.weights[w.rnd.IntN(len(w.weights))] = w.rnd.IntN(4)
		if err := w.restart(); err != nil {
			return "restart", err
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	pieces, left := 0, w.rnd.IntN(20)
	err := w.array.Rebalance(ctx, func(raid.Progress) {
		if pieces++; pieces >= left {
			cancel()
		}
	})
	if errors.Is(err, context.Canceled) {
		err = nil
	}
	return fmt.Sprintf("rebalance %d pieces with weights %v", pieces, w.weights), err
}

// leave has a member leave, or stay, and moves some files for a while. One that is
// empty then is exchanged for a new one.
func (w *crashWorld) leave() (string, error) {
	i := w.rnd.IntN(len(w.kinds))
	where := fmt.Sprint("member ", i)
	status := func() raid.MemberStatus {
		all := w.array.Members() // a new one comes last
		return all[slices.IndexFunc(all, func(m raid.MemberStatus) bool { return m.Where == where })]
	}
	if status().Leaving && w.rnd.IntN(2) == 0 {
		return where + " stays", w.array.Stay(where)
	}
	if err := w.array.Leave(where); errors.Is(err, raid.ErrMember) {
		return where + " is the last one", nil
	} else if err != nil {
		return where + " leaves", err
	}
	what, err := w.rebalance()
	if m := status(); err != nil || m.Err != nil || m.Files > 0 {
		return where + " leaves, " + what, errors.Join(err, m.Err)
	}
	w.emptied++
	if size := 4<<20 + w.rnd.Int64N(4<<20); w.dirs[i] != nil {
		w.dirs = slices.Clone(w.dirs)
		w.dirs[i] = raidtest.NewDir(size, w.faults)
	} else {
		w.disks = slices.Clone(w.disks)
		w.disks[i] = raidtest.NewDisk(size, w.faults)
	}
	return where + " is exchanged, " + what, w.restart()
}

func (w *crashWorld) restart() error {
	for _, f := range w.files {
		if err := f.f.Close(); err != nil {
			return err
		}
	}
	if err := w.array.Close(); err != nil {
		return err
	}
	return w.open()
}

func crashRun(seed uint64, members int, lies raidtest.Faults) (cuts, emptied int, err error) {
	rnd := rand.New(rand.NewPCG(seed, 29))
	w, err := newCrashWorld(rnd, members, lies)
	if err != nil {
		return 0, 0, err
	}
	var log []string
	for op := range 60 {
		what, err := w.step()
		log = append(log, what)
		if err == nil {
			err = w.err
		}
		if err == nil && rnd.IntN(12) == 0 {
			cuts, emptied = cuts+w.cuts, emptied+w.emptied
			cut := rnd.IntN(2) == 0
			log = append(log, fmt.Sprintf("power cut %v, killed %v", cut, !cut))
			if w, err = w.left(cut); err == nil {
				err = w.verify()
				w.faults.Hook = w.point
			}
		}
		if err != nil {
			return cuts, emptied, fmt.Errorf("members %v, weights %v: operation %d: %w; after:\n%s", w.kinds, w.weights, op, err, strings.Join(log, "\n"))
		}
	}
	return cuts + w.cuts, emptied + w.emptied, w.restart()
}

// TestPowerCut does random operations on arrays of all kinds and cuts the power at the
// points where something becomes durable.
func TestPowerCut(t *testing.T) {
	first := devicetest.Seed(t)
	n := *crashSeeds
	if n == 0 {
		n = 30
		if testing.Short() {
			n = 8
		}
	}
	for _, members := range []int{1, 2, 5} {
		t.Run(fmt.Sprint(members), func(t *testing.T) {
			cuts, emptied := 0, 0
			for i := range uint64(n) {
				c, e, err := crashRun(first+i, members, raidtest.Faults{})
				cuts, emptied = cuts+c, emptied+e
				if err != nil {
					t.Fatalf("-devicetest.seed=%d -raid.seeds=1: %v", first+i, err)
				}
			}
			t.Logf("%d seeds, %d power cuts, %d members emptied", n, cuts, emptied)
			if cuts < 3*n {
				t.Errorf("only %d power cuts", cuts)
			}
			if members > 1 && emptied < n/8 {
				t.Errorf("only %d members were emptied", emptied)
			}
		})
	}
}

// TestPowerCutBites gives the crash test disks that break a promise each: it must
// find every one.
func TestPowerCutBites(t *testing.T) {
	first := devicetest.Seed(t)
	for name, lies := range map[string]raidtest.Faults{
		"a sync does nothing":                      {SyncsNothing: true},
		"what is made zeros stays":                 {ZeroNothing: true},
		"notes of a process that is killed vanish": {ForgetsNotes: true},
	} {
		t.Run(name, func(t *testing.T) {
			for i := range uint64(300) {
				if _, _, err := crashRun(first+i, 2, lies); err != nil {
					t.Logf("found by seed %d of them: %.300v", i+1, err)
					return
				}
			}
			t.Error("not found")
		})
	}
}
