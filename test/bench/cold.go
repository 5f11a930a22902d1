package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	mathrand "math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"text/tabwriter"
	"time"

	"golang.org/x/sync/errgroup"

	"skylun/block"
	"skylun/test/boottrace"
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
	coldBoot = 32 << 20
	coldSeq  = 256 << 20
	coldMany = 64 // volumes of a boot storm
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
	{name: "cold: boot without profile", unit: "s", atMost: true, want: 1, against: []string{"nbdkit", "copy-on-read"}, measure: bootCold},
	{name: "cold: boot with profile", unit: "s", atMost: true, want: 1, against: []string{"nbdkit", "copy-on-read"}, measure: bootProfiled, theirs: bootCold},
	{name: "cold: boot after full prefetch", unit: "s", atMost: true, want: 1, against: []string{"nbdkit", "copy-on-read"}, measure: bootLocal},
	{name: "cold: time of 64 boots together", unit: "s", atMost: true, want: 1.5, against: []string{""}, other: "one boot", measure: stormTime, theirs: slowBoot},
	{name: "cold: time of 64 boots together, with profile", unit: "s", atMost: true, want: 1.5, against: []string{""}, other: "one boot", measure: stormProfiled, theirs: slowBoot},
	{name: "cold: time of 64 boots together, with profile", unit: "s", atMost: true, want: 1.5, against: []string{""}, other: "64 boots of what is local", measure: stormProfiled, theirs: stormLocal},
	{name: "cold: bytes fetched by 64 boots", unit: "MiB", atMost: true, want: 1.1, against: []string{""}, other: "distinct bytes read", measure: stormBytes, theirs: distinctBytes},
	{name: "cold: bytes fetched by 64 boots, with profile", unit: "MiB", atMost: true, want: 1.1, against: []string{""}, other: "distinct bytes read", measure: stormBytesProfiled, theirs: distinctBytes},
	{name: "cold: p99 of local reads while all is fetched", unit: "ms", atMost: true, want: 1.1, against: []string{""}, other: "without prefetch", measure: latency("idle", true), theirs: latency("off", true)},
	{name: "cold: p99 of far reads while all is fetched", unit: "ms", atMost: true, want: 1.1, against: []string{""}, other: "without prefetch", measure: latency("idle", false), theirs: latency("off", false)},
	{name: "cold: prefetch of an idle volume", unit: "MiB/s", want: 0.9, against: []string{""}, other: "plain parallel download", measure: fill, theirs: download},
}

// coldLine is what a row came to against one side.
type coldLine struct {
	coldRow
	their           string
	ours, his       float64 // medians
	ratio, low, top float64
}

func (l coldLine) good() bool {
	if l.atMost {
		return l.ratio <= l.want
	}
	return l.ratio >= l.want
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

// scattered are offsets of blocks that are far from each other.
func (c *cold) scattered(n int) []int64 {
	rnd := mathrand.New(mathrand.NewPCG(uint64(c.turn), 1))
	var offs []int64
	for i := range int64(n) {
		part := c.size / int64(n)
		offs = append(offs, i*part+part/4+rnd.Int64N(part/2/4096)*4096)
	}
	rnd.Shuffle(n, func(i, j int) { offs[i], offs[j] = offs[j], offs[i] })
	return offs
}

const firsts = 15

// firstReads is the median time of reads of 4 KiB here and there.
func firstReads(ctx context.Context, c *cold, side coldSide) (ms float64, err error) {
	err = c.with(side, coldConfig{prefetch: "readahead"}, 1, func(_ *coldServer, d block.Reader) error {
		ms, err = c.each(c.scattered(firsts), func(off int64) error { return d.ReadAt(ctx, make([]byte, 4096), off) })
		return err
	})
	return ms, err
}

// bareGETs is the same of the store itself.
func bareGETs(ctx context.Context, c *cold, _ coldSide) (float64, error) {
	client := &http.Client{Transport: &http.Transport{}}
	defer client.CloseIdleConnections()
	return c.each(c.scattered(firsts), func(off int64) error { return c.download(ctx, client, make([]byte, 4096), off) })
}

func (c *cold) download(ctx context.Context, client *http.Client, p []byte, off int64) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.store.URL(coldImage), nil)
	if err != nil {
		return err
	}
	req.Header.Set("Range", fmt.Sprintf("bytes=%d-%d", off, off+int64(len(p))-1))
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusPartialContent {
		return errors.New(resp.Status)
	}
	_, err = io.ReadFull(resp.Body, p)
	return err
}

// each returns the median of the milliseconds that read takes.
func (c *cold) each(offs []int64, read func(off int64) error) (float64, error) {
	var took []float64
	for _, off := range offs {
		begin := time.Now()
		if err := read(off); err != nil {
			return 0, err
		}
		took = append(took, float64(time.Since(begin))/float64(time.Millisecond))
	}
	return middleOf(took), nil
}

// sequential reads the first part of the image from start to end.
func sequential(ctx context.Context, c *cold, side coldSide) (rate float64, err error) {
	const piece, depth = 256 << 10, 4
	err = c.with(side, coldConfig{prefetch: "readahead"}, depth, func(_ *coldServer, d block.Reader) error {
		var next atomic.Int64
		g, ctx := errgroup.WithContext(ctx)
		begin := time.Now()
		for range depth {
			g.Go(func() error {
				p := make([]byte, piece)
				for {
					off := next.Add(piece) - piece
					if off >= coldSeq {
						return nil
					}
					if err := d.ReadAt(ctx, p, off); err != nil {
						return err
					}
				}
			})
		}
		err := g.Wait()
		rate = coldSeq / (1 << 20) / time.Since(begin).Seconds()
		return err
	})
	return rate, err
}

func (c *cold) trace() boottrace.Trace { return boottrace.Linux(c.size, coldBoot, 1) }

// chains is how many reads a guest has in flight when it boots.
const chains = 6

func (c *cold) boot(ctx context.Context, d block.Reader) (float64, error) { return c.bootAt(ctx, d, 1) }

func (c *cold) bootAt(ctx context.Context, d block.Reader, pace float64) (float64, error) {
	begin := time.Now()
	err := c.trace().Replay(ctx, pace, d.ReadAt)
	return time.Since(begin).Seconds(), err
}

// stormPace makes guests work about two seconds while they boot. 64 of them
// and the server share the processors with each other, which guests of their
// own machines do not.
const stormPace = 24

// slowBoot is bootCold with a guest like those of a storm.
func slowBoot(ctx context.Context, c *cold, side coldSide) (s float64, err error) {
	c.forget()
	err = c.with(side, coldConfig{prefetch: "readahead"}, chains, func(_ *coldServer, d block.Reader) error {
		s, err = c.bootAt(ctx, d, stormPace)
		return err
	})
	return s, err
}

// bootCold is the time of a boot from what nobody has read before.
func bootCold(ctx context.Context, c *cold, side coldSide) (s float64, err error) {
	c.forget()
	err = c.with(side, coldConfig{prefetch: "readahead"}, chains, func(_ *coldServer, d block.Reader) error {
		s, err = c.boot(ctx, d)
		return err
	})
	return s, err
}

// forget takes the boot profile out of the store.
func (c *cold) forget() { c.store.Put(coldImage, c.content, c.size) }

// record puts a boot profile into the store, as a boot elsewhere does.
func (c *cold) record(ctx context.Context) error {
	c.forget()
	return c.with(coldSides["skylun"], coldConfig{record: time.Minute}, chains, func(_ *coldServer, d block.Reader) error {
		_, err := c.boot(ctx, d)
		return err
	})
}

// bootProfiled is the time of a boot of what another node has booted before:
// the guest begins as soon as the server is there.
func bootProfiled(ctx context.Context, c *cold, side coldSide) (s float64, err error) {
	if err := c.record(ctx); err != nil {
		return 0, err
	}
	err = c.with(side, coldConfig{prefetch: "readahead"}, chains, func(_ *coldServer, d block.Reader) error {
		s, err = c.boot(ctx, d)
		return err
	})
	return s, err
}

// bootLocal is the time of a boot when all is local: fetched before, on our
// side, and read before, on others.
func bootLocal(ctx context.Context, c *cold, side coldSide) (s float64, err error) {
	c.forget()
	err = c.with(side, coldConfig{prefetch: "full"}, chains, func(server *coldServer, d block.Reader) error {
		if side.needs == "" {
			err = server.waitLocal(ctx)
		} else {
			_, err = c.boot(ctx, d)
		}
		if err == nil {
			s, err = c.boot(ctx, d)
		}
		return err
	})
	return s, err
}

// storm boots from many volumes of the image together; if local, when all of it
// is local.
func (c *cold) storm(ctx context.Context, local bool) (seconds, mib float64, err error) {
	cfg := coldConfig{prefetch: "readahead", volumes: coldMany}
	if local {
		cfg.prefetch = "full"
	}
	before := c.store.Stats().Bytes
	err = c.serve(coldSides["skylun"], cfg, func(s *coldServer) error {
		if local {
			if err := s.waitLocal(ctx); err != nil {
				return err
			}
		}
		var all []block.Reader
		for v := range coldMany {
			d, hangUp, err := s.disks(v, chains)
			if err != nil {
				return err
			}
			defer hangUp()
			all = append(all, d)
		}
		begin := time.Now()
		g, ctx := errgroup.WithContext(ctx)
		for _, d := range all {
			g.Go(func() error {
				_, err := c.bootAt(ctx, d, stormPace)
				return err
			})
		}
		err := g.Wait()
		seconds = time.Since(begin).Seconds()
		return err
	})
	return seconds, float64(c.store.Stats().Bytes-before) / (1 << 20), err
}

func stormTime(ctx context.Context, c *cold, _ coldSide) (float64, error) {
	c.forget()
	s, _, err := c.storm(ctx, false)
	return s, err
}

func stormLocal(ctx context.Context, c *cold, _ coldSide) (float64, error) {
	c.forget()
	s, _, err := c.storm(ctx, true)
	return s, err
}

func stormBytes(ctx context.Context, c *cold, _ coldSide) (float64, error) {
	c.forget()
	_, mib, err := c.storm(ctx, false)
	return mib, err
}

func stormProfiled(ctx context.Context, c *cold, _ coldSide) (float64, error) {
	if err := c.record(ctx); err != nil {
		return 0, err
	}
	s, _, err := c.storm(ctx, false)
	return s, err
}

func stormBytesProfiled(ctx context.Context, c *cold, _ coldSide) (float64, error) {
	if err := c.record(ctx); err != nil {
		return 0, err
	}
	_, mib, err := c.storm(ctx, false)
	return mib, err
}

func distinctBytes(_ context.Context, c *cold, _ coldSide) (float64, error) {
	_, n := c.trace().Distinct()
	return float64(n) / (1 << 20), nil
}

// latency returns what measures the 99th percentile of a guest's reads of 4
// KiB while the server prefetches so: of what is local, or of what is far.
func latency(prefetch string, local bool) func(context.Context, *cold, coldSide) (float64, error) {
	const near, reads = 32 << 20, 2000
	return func(ctx context.Context, c *cold, side coldSide) (ms float64, err error) {
		c.forget()
		err = c.with(side, coldConfig{prefetch: prefetch}, 1, func(_ *coldServer, d block.Reader) error {
			rnd := mathrand.New(mathrand.NewPCG(uint64(c.turn), 2))
			n := reads
			pick := func() int64 { return rnd.Int64N(near/4096) * 4096 }
			if local {
				for range 2 { // what was not kept the first time
					for off := int64(0); off < near; off += 1 << 20 {
						if err := d.ReadAt(ctx, make([]byte, 1<<20), off); err != nil {
							return err
						}
					}
				}
			} else {
				n = 300
				pick = func() int64 { return near + rnd.Int64N((c.size-near)/4096)*4096 }
			}
			var took []float64
			for range n {
				time.Sleep(time.Duration(rnd.Int64N(int64(2 * time.Millisecond))))
				begin := time.Now()
				if err := d.ReadAt(ctx, make([]byte, 4096), pick()); err != nil {
					return err
				}
				took = append(took, float64(time.Since(begin))/float64(time.Millisecond))
			}
			slices.Sort(took)
			ms = took[len(took)*99/100]
			return nil
		})
		return ms, err
	}
}

// fill is the rate at which the whole image becomes local when nobody reads.
func fill(ctx context.Context, c *cold, side coldSide) (rate float64, err error) {
	c.forget()
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	err = c.serve(side, coldConfig{prefetch: "idle"}, func(s *coldServer) error {
		before := c.store.Stats().Bytes
		begin := time.Now()
		err := s.waitLocal(ctx)
		rate = float64(c.store.Stats().Bytes-before) / (1 << 20) / time.Since(begin).Seconds()
		return err
	})
	return rate, err
}

// download is the rate of a program that does nothing but fetch the image in
// parallel pieces into a file.
func download(ctx context.Context, c *cold, _ coldSide) (float64, error) {
	const piece, parallel = 4 << 20, 16
	f, err := os.Create(filepath.Join(c.work, "download"))
	if err != nil {
		return 0, err
	}
	defer os.Remove(f.Name())
	defer f.Close()
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: parallel}}
	defer client.CloseIdleConnections()
	pool := sync.Pool{New: func() any { return new([piece]byte) }}
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(parallel)
	begin := time.Now()
	for off := int64(0); off < c.size; off += piece {
		g.Go(func() error {
			p := pool.Get().(*[piece]byte)
			defer pool.Put(p)
			if err := c.download(ctx, client, p[:], off); err != nil {
				return err
			}
			_, err := f.WriteAt(p[:], off)
			return err
		})
	}
	err = g.Wait()
	return float64(c.size) / (1 << 20) / time.Since(begin).Seconds(), err
}

var coldHeading = []string{"load", "skylun", "against", "", "ratio", "rounds", "wanted", ""}

func (l coldLine) cells() []string {
	sign, verdict := "≥ ", "missed"
	if l.atMost {
		sign = "≤ "
	}
	if l.good() {
		verdict = "ok"
	}
	value := func(v float64) string { return fmt.Sprintf("%.3g %s", v, l.unit) }
	return []string{l.name, value(l.ours), l.their, value(l.his), fmt.Sprintf("%.2f", l.ratio), fmt.Sprintf("%.2f–%.2f", l.low, l.top),
		fmt.Sprintf("%s%.2f", sign, l.want), verdict}
}

func coldTitle(o options, dir string) string {
	return fmt.Sprintf("An image of %d MiB behind %v and %d MB/s, local files on %s (%s), %d turns, medians",
		coldSize>>20, coldLink.Latency, coldLink.Bandwidth/1e6, fileSystem(dir), dir, o.repeats)
}

// coldText writes the table for a terminal.
func coldText(w io.Writer, title string, lines []coldLine) {
	fmt.Fprintf(w, "\n%s\n\n", title)
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(tw, strings.Join(coldHeading, "\t"))
	for _, l := range lines {
		fmt.Fprintln(tw, strings.Join(l.cells(), "\t"))
	}
	tw.Flush()
}

// coldMarkdown adds the table to a file.
func coldMarkdown(name, title string, lines []coldLine) error {
	f, err := os.OpenFile(name, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer f.Close()
	fmt.Fprintf(f, "\n%s:\n\n| %s |\n|%s\n", title, strings.Join(coldHeading, " | "), strings.Repeat("---|", len(coldHeading)))
	for _, l := range lines {
		fmt.Fprintf(f, "| %s |\n", strings.Join(l.cells(), " | "))
	}
	return f.Close()
}
