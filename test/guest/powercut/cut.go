package main

import (
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
)

// chunk is the largest piece that a write reaches the disk in as a whole.
const chunk = 4096

// replay is a disk on which the record is done again, up to one point after the
// other.
type replay struct {
	record  *os.File
	entries []entry
	disk    *os.File // as of the last flush before the point
	done    int      // entries that are on it
}

// points chooses at which entries the power is cut, in ascending order: after
// half of them a promise has just been made, the others are anywhere.
func points(entries []entry, n int, random *rand.Rand) []int {
	var marks []int
	for i, e := range entries {
		if e.flags&flagMark != 0 {
			marks = append(marks, i)
		}
	}
	chosen := make(map[int]bool)
	for range 20 * n { // by chance some come twice
		if len(chosen) == min(n, len(entries)) {
			break
		}
		if p := random.IntN(len(entries)); random.IntN(2) == 0 || len(marks) == 0 {
			chosen[p] = true
		} else {
			chosen[marks[p%len(marks)]] = true
		}
	}
	var all []int
	for i := range entries {
		if chosen[i] {
			all = append(all, i)
		}
	}
	return all
}

// to brings the disk to what it was when entry point had happened, or perhaps had:
// of what was written after the last flush, what random says is on top. Top is
// called when the disk is as of that flush, and returns what is laid on it.
func (r *replay) to(point int, random *rand.Rand, top func() (*os.File, error)) error {
	safe := r.done
	for i := r.done; i <= point; i++ {
		if r.entries[i].flush() {
			safe = i + 1
		}
	}
	for _, e := range r.entries[r.done:safe] {
		if err := e.apply(r.disk, r.record, 0, e.n); err != nil {
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
		for off := int64(0); off < e.n; off += chunk {
			n := min(chunk, e.n-off)
			if !e.durable() && !all && random.IntN(2) == 0 {
				if random.IntN(2) == 0 { // none of it, or not this piece
					break
				}
				continue
			}
			if err := e.apply(over, r.record, off, n); err != nil {
				return err
			}
		}
	}
	return over.Sync()
}

// command runs a program that says nothing unless it fails.
func command(name string, args ...string) error {
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, out)
	}
	return nil
}
