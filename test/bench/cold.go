package main

import (
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"time"

	"skylun/block"
	"skylun/test/shaped"
)

// The cold rows measure what is read of an image that is not local yet. The
// store is test/shaped, in this process: its link has a latency and a
// bandwidth, and every side reads from it over HTTP. Each turn begins with a
// server that has nothing.
type cold struct {
	store   *shaped.Store
	content *os.File
	size    int64
	work    string
	program string
	repeats int
	turn    int
}

// The link of the store, and what is read over it.
var coldLink = shaped.Link{Latency: 20 * time.Millisecond, Bandwidth: 200e6}

const (
	coldSize = 512 << 20
	coldSeq  = 256 << 20
)

// A coldRow is one line of the table, or several: one for each side it is
// compared with.
type coldRow struct {
	name    string
	unit    string // of what is measured
	atMost  bool   // ours/theirs is to be at most want, else at least
	want    float64
	against []string // sides, by their keys; "": measure says it all
	measure func(ctx context.Context, c *cold, side coldSide) (float64, error)
	theirs  func(ctx context.Context, c *cold, side coldSide) (float64, error) // nil: as ours
	other   string                                                             // what theirs is, when against is ""
}

var coldRows = []coldRow{
	{name: "cold: first 4 KiB", unit: "ms", atMost: true, want: 1.2, against: []string{""}, other: "bare ranged GET", measure: firstReads, theirs: bareGETs},
	{name: "cold: first 4 KiB", unit: "ms", atMost: true, want: 1.2, against: []string{"nbdkit", "copy-on-read"}, measure: firstReads},
	{name: "cold: sequential read", unit: "MiB/s", want: 1, against: []string{"nbdkit", "copy-on-read"}, measure: sequential},
	{name: "cold: boot without profile", unit: "s", atMost: true, want: 1, against: []string{"nbdkit", "copy-on-read"}, measure: one.with("idle").seconds},
	{name: "cold: boot without profile, readahead", unit: "s", atMost: true, want: 1, against: []string{"nbdkit", "copy-on-read"}, measure: one.seconds},
	{name: "cold: boot with profile", unit: "s", atMost: true, want: 1, against: []string{"nbdkit", "copy-on-read"}, measure: one.profiled().seconds, theirs: one.seconds},
	{name: "cold: boot after full prefetch", unit: "s", atMost: true, want: 1, against: []string{"nbdkit", "copy-on-read"}, measure: one.locally().seconds},
	{name: "cold: time of 64 boots together", unit: "s", atMost: true, want: 1.5, against: []string{""}, other: "one boot", measure: storm.seconds, theirs: slow.seconds},
	{name: "cold: time of 64 boots together, idle", unit: "s", atMost: true, want: 1.5, against: []string{""}, other: "one boot, idle", measure: storm.with("idle").seconds, theirs: slow.with("idle").seconds},
	{name: "cold: time of 64 boots together, with profile", unit: "s", atMost: true, want: 1.5, against: []string{""}, other: "one boot without", measure: storm.profiled().seconds, theirs: slow.seconds},
	{name: "cold: time of 64 boots together, with profile", unit: "s", atMost: true, want: 1.5, against: []string{""}, other: "one boot with it", measure: storm.profiled().seconds, theirs: slow.profiled().seconds},
	{name: "cold: time of 64 boots together, with profile", unit: "s", atMost: true, want: 1.5, against: []string{""}, other: "64 boots of what is local", measure: storm.profiled().seconds, theirs: storm.locally().seconds},
	{name: "cold: bytes fetched by one boot", unit: "MiB", atMost: true, want: 1.1, against: []string{""}, other: "distinct bytes read", measure: one.fetched, theirs: distinctBytes},
	{name: "cold: bytes fetched by 64 boots", unit: "MiB", atMost: true, want: 1.1, against: []string{""}, other: "distinct bytes read", measure: storm.fetched, theirs: distinctBytes},
	{name: "cold: bytes fetched by 64 boots, off", unit: "MiB", atMost: true, want: 1.1, against: []string{""}, other: "distinct bytes read", measure: storm.with("off").fetched, theirs: distinctBytes},
	{name: "cold: bytes fetched by 64 boots, with profile", unit: "MiB", atMost: true, want: 1.1, against: []string{""}, other: "distinct bytes read", measure: storm.profiled().fetched, theirs: distinctBytes},
	{name: "cold: p99 of local reads while all is fetched", unit: "ms", atMost: true, want: 1.1, against: []string{""}, other: "without prefetch", measure: latency("idle", true), theirs: latency("off", true)},
	{name: "cold: p99 of far reads while all is fetched", unit: "ms", atMost: true, want: 1.1, against: []string{""}, other: "without prefetch", measure: latency("idle", false), theirs: latency("off", false)},
	{name: "cold: prefetch of an idle volume", unit: "MiB/s", want: 0.9, against: []string{""}, other: "plain parallel download", measure: fill, theirs: download},
}

// measureCold measures rows with local files below dir.
func measureCold(ctx context.Context, o options, rows []coldRow, dir string) (lines []coldLine, err error) {
	c := &cold{size: coldSize, repeats: o.repeats}
	if c.work, err = os.MkdirTemp(dir, "skylun-cold-"); err != nil {
		return nil, err
	}
	defer os.RemoveAll(c.work)
	if c.program, err = o.program(c.work); err != nil {
		return nil, err
	}
	if c.content, err = os.Create(filepath.Join(c.work, "image")); err != nil {
		return nil, err
	}
	defer c.content.Close()
	if _, err := io.Copy(c.content, io.LimitReader(rand.Reader, c.size)); err != nil {
		return nil, err
	}
	if c.store, err = shaped.New(coldLink); err != nil {
		return nil, err
	}
	defer c.store.Close()
	c.store.Put(coldImage, c.content, c.size)
	for _, r := range rows {
		for _, against := range r.against {
			if needs := coldSides[against].needs; needs != "" {
				if _, err := exec.LookPath(needs); err != nil {
					return nil, fmt.Errorf("%s: %w: install the package %s", r.name, err, needs)
				}
			}
			l, err := c.compare(ctx, r, against)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", r.name, err)
			}
			lines = append(lines, l)
			fmt.Fprintf(os.Stderr, "%s / %s: %.2f\n", l.name, l.their, l.ratio)
		}
	}
	return lines, nil
}

// compare has both sides take turns.
func (c *cold) compare(ctx context.Context, r coldRow, against string) (coldLine, error) {
	l := coldLine{coldRow: r, their: r.other}
	theirs, side := r.theirs, coldSides["skylun"]
	if against != "" {
		side = coldSides[against]
		l.their = side.name
	}
	if theirs == nil {
		theirs = r.measure
	}
	var ours, his, ratios []float64
	for round := range c.repeats {
		var a, b float64
		for i := range 2 {
			var err error
			if (round+i)%2 == 0 {
				a, err = r.measure(ctx, c, coldSides["skylun"])
			} else {
				b, err = theirs(ctx, c, side)
			}
			if err != nil {
				return l, err
			}
		}
		ours, his, ratios = append(ours, a), append(his, b), append(ratios, a/b)
	}
	l.ours, l.his = middleOf(ours), middleOf(his)
	l.ratio, l.low, l.top = l.ours/l.his, slices.Min(ratios), slices.Max(ratios)
	return l, nil
}

func middleOf(v []float64) float64 {
	v = slices.Clone(v)
	slices.Sort(v)
	return v[len(v)/2]
}

// serve runs a server of a side, f with it, and ends it.
func (c *cold) serve(side coldSide, cfg coldConfig, f func(s *coldServer) error) error {
	c.turn++
	dir := filepath.Join(c.work, fmt.Sprint("turn-", c.turn))
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if cfg.prefetch == "" {
		cfg.prefetch = "off"
	}
	s, err := side.start(c, dir, cfg)
	if s != nil {
		defer s.stop()
	}
	if err != nil {
		return err
	}
	if err := f(s); err != nil {
		log, _ := os.ReadFile(filepath.Join(dir, s.name+".log"))
		return fmt.Errorf("%s: %w\n%s", side.name, err, log)
	}
	return s.end()
}

// with is serve for one disk.
func (c *cold) with(side coldSide, cfg coldConfig, connections int, f func(s *coldServer, d block.Reader) error) error {
	return c.serve(side, cfg, func(s *coldServer) error {
		d, hangUp, err := s.disks(0, connections)
		if err != nil {
			return err
		}
		defer hangUp()
		return f(s, d)
	})
}
