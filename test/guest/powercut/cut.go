package main

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"strings"

	"skylun/test/guest/dmlog"
)

// chunk is the largest piece that a write reaches the disk in as a whole.
const chunk = 4096

// replay is a disk on which the record is done again, up to one point after the
// other.
type replay struct {
	record  *os.File
	entries []dmlog.Entry
	disk    *os.File // as of the last flush before the point
	done    int      // entries that are on it
}

// points chooses at which entries the power is cut, in ascending order: some come
// before the first promise, when the first server makes what is not there yet; after
// half of them a promise has just been made; the others are anywhere.
func points(entries []dmlog.Entry, n int, random *rand.Rand) []int {
	var marks []int
	for i, e := range entries {
		if e.Mark != "" {
			marks = append(marks, i)
		}
	}
	chosen := make(map[int]bool)
	for range 20 * n { // by chance some come twice
		if len(chosen) == min(n, len(entries)) {
			break
		}
		switch kind := random.IntN(10); {
		case len(marks) == 0:
			return nil
		case kind < 2:
			chosen[random.IntN(marks[0]+1)] = true
		case kind < 7:
			chosen[marks[random.IntN(len(marks))]] = true
		default:
			chosen[random.IntN(len(entries))] = true
		}
	}
	return slices.Sorted(maps.Keys(chosen))
}

// to brings the disk to what it was when entry point had happened, or perhaps had:
// of what was written after the last flush, what random says is on top. Top is
// called when the disk is as of that flush, and returns what is laid on it.
func (r *replay) to(point int, random *rand.Rand, top func() (*os.File, error)) error {
	safe := r.done
	for i := r.done; i <= point; i++ {
		if r.entries[i].Flush() {
			safe = i + 1
		}
	}
	for _, e := range r.entries[r.done:safe] {
		if err := r.apply(e, r.disk, 0, e.N); err != nil {
			return err
		}
	}
	r.done = safe
	if err := r.disk.Sync(); err != nil {
		return err
	}
	over, err := top()
	if err != nil {
		return err
	}
	defer over.Close()
	all := random.IntN(2) == 0
	for _, e := range r.entries[safe : point+1] {
		for off := int64(0); off < e.N; off += chunk {
			n := min(chunk, e.N-off)
			if !e.Durable() && !all && random.IntN(2) == 0 {
				if random.IntN(2) == 0 { // none of it, or not this piece
					break
				}
				continue
			}
			if err := r.apply(e, over, off, n); err != nil {
				return err
			}
		}
	}
	return over.Sync()
}

// apply does to a disk what the part [off, off+n) of an entry did.
func (r *replay) apply(e dmlog.Entry, to *os.File, off, n int64) error {
	p := make([]byte, n)
	if err := e.ReadAt(r.record, p, off); err != nil {
		return err
	}
	_, err := to.WriteAt(p, e.Off+off)
	return err
}

// command runs a program that says nothing unless it fails.
func command(name string, args ...string) error {
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, out)
	}
	return nil
}
