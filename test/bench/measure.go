package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"sync"

	"golang.org/x/sys/unix"
)

// measure puts l on a unit of s with the given client, "go" or "libiscsi", and
// returns what came of it with the CPU time the server spent.
func (l load) measure(ctx context.Context, s *side, u unit, client string, size int64) (result, error) {
	lun, err := s.take(u)
	if err != nil {
		return result{}, err
	}
	url := fmt.Sprintf("iscsi://%s/%s/%d", s.addr, iqn, lun)
	blocks := size / int64(l.Size)
	run := func(i int) (result, error) {
		l := l
		l.Seed += uint64(i) << 32 // each its own order
		return l.child(ctx, s.addr, s.target(l.Digests), lun)
	}
	switch {
	case client == "libiscsi" && l.Write:
		sample, err := l.qemuBench(ctx, url, blocks, 2000) // it takes a number of commands, not a time
		if err != nil {
			return result{}, err
		}
		n := int64(sample.rate() * l.Time.Seconds())
		run = func(int) (result, error) { return l.qemuBench(ctx, url, blocks, n) }
	case client == "libiscsi":
		run = func(int) (result, error) { return l.iscsiPerf(ctx, url) }
	}
	syncAll()
	before, err := s.cpu()
	if err != nil {
		return result{}, err
	}
	r, err := together(l.Clients, run)
	if err != nil {
		return r, fmt.Errorf("%s: %w", s.name, err)
	}
	after, err := s.cpu()
	r.CPU = after - before
	return r, err
}

// syncAll has all files written back, so that what earlier turns wrote is not
// written back during the next.
func syncAll() { unix.Sync() }

// together runs n clients at once and returns what they did in sum, over the
// time of the longest.
func together(n int, run func(i int) (result, error)) (sum result, err error) {
	results := make([]result, max(n, 1))
	errs := make([]error, len(results))
	var wg sync.WaitGroup
	for i := range results {
		wg.Go(func() { results[i], errs[i] = run(i) })
	}
	wg.Wait()
	for _, r := range results {
		sum.Ops += r.Ops
		sum.Time = max(sum.Time, r.Time)
		sum.Flush = max(sum.Flush, r.Flush)
	}
	return sum, errors.Join(errs...)
}

// child runs l in a process of its own: "bench load ADDR IQN LUN LOAD".
func (l load) child(ctx context.Context, addr, iqn string, lun int) (result, error) {
	spec, err := json.Marshal(l)
	if err != nil {
		return result{}, err
	}
	cmd := exec.CommandContext(ctx, "/proc/self/exe", "load", addr, iqn, fmt.Sprint(lun), string(spec))
	cmd.Env = append(os.Environ(), "GOMAXPROCS=1")
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return result{}, fmt.Errorf("load on LUN %d: %w", lun, err)
	}
	var r result
	return r, json.Unmarshal(out, &r)
}

// loadMain is the child's main.
func loadMain(addr, iqn, lun, spec string) error {
	var l load
	if err := json.Unmarshal([]byte(spec), &l); err != nil {
		return err
	}
	var n int
	if _, err := fmt.Sscan(lun, &n); err != nil {
		return err
	}
	c, err := dial(addr, iqn, n, l.Digests)
	if err != nil {
		return err
	}
	defer c.close()
	r, err := l.run(c)
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(r)
}
