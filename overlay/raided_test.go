package overlay

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"syscall"
	"testing"

	"skylun/block"
	"skylun/raid"
	"skylun/raid/raidtest"
	"skylun/test/devicetest"
)

// onArray is where the bytes of a memFile are when it is a file of an array, on
// members that know what a power cut would leave of them.
type onArray struct {
	faults  *raidtest.Faults
	kinds   []string // of the members
	disks   []*raidtest.Disk
	dirs    []*raidtest.Dir
	records *raidtest.Records
	boot    int
	array   *raid.Array // nil: not open
	file    *raid.File
}

const directoryKind = "directory"

// newFile makes a file, on an array of as many members as the world says.
func (w *world) newFile(size int64) *memFile {
	f := newMemFile(size)
	if w.members == 0 {
		return f
	}
	f.now, f.synced, f.dirty = nil, nil, nil
	f.on = &onArray{faults: &raidtest.Faults{}}
	f.on.records = raidtest.NewRecords(f.on.faults)
	for range w.members {
		kind := []string{directoryKind, raid.Identical, raid.Chunks}[w.rnd.IntN(3)]
		var disk *raidtest.Disk
		var dir *raidtest.Dir
		if bytes := 4<<20 + w.rnd.Int64N(8<<20); kind == directoryKind {
			dir = raidtest.NewDir(bytes, f.on.faults)
		} else {
			disk = raidtest.NewDisk(bytes, f.on.faults)
		}
		f.on.kinds, f.on.disks, f.on.dirs = append(f.on.kinds, kind), append(f.on.disks, disk), append(f.on.dirs, dir)
	}
	if err := f.on.open(); err != nil {
		panic(err)
	}
	file, err := f.on.array.Create("file", size)
	if err != nil {
		panic(err)
	}
	f.on.file = file
	return f
}

func (o *onArray) open() (err error) {
	c := raid.Config{Stripe: 4 << 10, Chunk: 8 << 10, Records: o.records, Boot: fmt.Sprint("boot ", o.boot)}
	for i, kind := range o.kinds {
		m := raid.MemberConfig{Member: o.dirs[i]}
		if o.disks[i] != nil {
			m = raid.MemberConfig{Device: o.disks[i], Allocate: kind}
		}
		c.Members = append(c.Members, m)
	}
	o.array, err = raid.OpenArray(c)
	return err
}

// opened is the file opened again, as after a process was killed if nobody has
// closed it.
func (o *onArray) opened(size int64) {
	err := o.quietly(o.open)
	if err == nil {
		o.file, err = o.array.Open("file", size)
	}
	if err != nil {
		panic(err)
	}
}

// quietly calls f without faults: opening an array is not what is tested here.
func (o *onArray) quietly(f func() error) error {
	was := *o.faults
	*o.faults = raidtest.Faults{}
	defer func() { *o.faults = was }()
	return f()
}

// close leaves nothing open, and nothing that only memory knows.
func (o *onArray) close() error { return errors.Join(o.file.Close(), o.quietly(o.array.Close)) }

// cut returns what a power cut leaves, not opened.
func (o *onArray) cut(rnd *rand.Rand) *onArray {
	left := &onArray{faults: &raidtest.Faults{}, kinds: o.kinds, boot: o.boot + 1}
	left.records = o.records.Copy(left.faults)
	for i := range o.kinds {
		var disk *raidtest.Disk
		var dir *raidtest.Dir
		if o.disks[i] != nil {
			disk = o.disks[i].Cut(rnd, left.faults)
		} else {
			dir = o.dirs[i].Cut(rnd, left.faults)
		}
		left.disks, left.dirs = append(left.disks, disk), append(left.dirs, dir)
	}
	return left
}

// dataRanges tells blocks, as a memFile does: devices do not know better than
// whole chunks.
func (f *memFile) dataRanges(fn func(block.Range) error) error {
	return f.on.file.DataRanges(func(r block.Range) error {
		for off := r.Off; off < r.End; off += block.Size {
			part := block.Range{Off: off, End: min(off+block.Size, r.End)}
			p := make([]byte, part.Len())
			if err := f.on.file.ReadAt(p, off); err != nil {
				return err
			}
			if bytes.Count(p, []byte{0}) < len(p) {
				if err := fn(part); err != nil {
					return err
				}
			}
		}
		return nil
	})
}

// TestPowerCutOnArrays is TestPowerCut with layers and notes on arrays of
// members of all kinds and of different size.
func TestPowerCutOnArrays(t *testing.T) {
	first, dir := devicetest.Seed(t), crashDir(t)
	n := 8
	if *crashSeeds > 0 {
		n = 1 + *crashSeeds/200 // each takes as long as many of the others
	} else if testing.Short() || raceEnabled {
		n = 5
	}
	for _, members := range []int{1, 2, 5} {
		t.Run(fmt.Sprint(members), func(t *testing.T) {
			cuts := 0
			for i := range n {
				c, err := crashRunOn(members, first+uint64(i), dir, lie{})
				cuts += c
				if err != nil {
					t.Fatalf("-devicetest.seed=%d -overlay.seeds=1: %v", first+uint64(i), err)
				}
			}
			if cuts < 5*n {
				t.Errorf("only %d power cuts", cuts)
			}
			t.Logf("%d seeds, %d power cuts", n, cuts)
		})
	}
}

// TestFaultsOnArrays is TestFaultsEverywhere on arrays: what fails is a call of
// one of the members, or of the records of an array.
func TestFaultsOnArrays(t *testing.T) {
	first, dir := devicetest.Seed(t), crashDir(t)
	every := 13 // calls, of which one fails
	if testing.Short() || raceEnabled {
		every = 61
	}
	for _, members := range []int{1, 2, 5} {
		t.Run(fmt.Sprint(members), func(t *testing.T) {
			met := map[string]int{}
			// A seed whose operations are few meets few calls: then others, too.
			for seed := first; seed == first || seed < first+20 && met["write"]+met["sync"]+met["note"] == 0; seed++ {
				for _, kind := range []struct{ cause, want error }{
					{syscall.ENOSPC, block.ErrNoSpace}, {syscall.EIO, block.ErrMedium},
				} {
					for at := 1 + int(seed%uint64(every)); ; at += every {
						f := &fault{at: at, err: kind.cause}
						if err := faultRunOn(members, seed, dir, f, kind.want); err != nil {
							t.Fatalf("-devicetest.seed=%d, call %d (%s) fails with %q: %v", seed, at, f.op, kind.cause, err)
						}
						if !f.met() {
							break
						}
						met[f.op]++
					}
				}
			}
			t.Log(met)
			if met["write"]+met["sync"]+met["note"] == 0 {
				t.Error("nothing ever failed")
			}
		})
	}
}

func (f *memFile) setHook(hook func(point string)) {
	if f.hook = hook; f.on != nil {
		f.on.faults.Hook = hook
	}
}

func (f *memFile) setFailing(failing func(op string) error) {
	if f.failing = failing; f.on != nil {
		f.on.faults.Failing = failing
	}
}
