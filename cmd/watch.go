package cmd

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"text/tabwriter"
	"time"

	"skylun/admin"
	"skylun/node"
)

// clearScreen moves the cursor to the top left corner; clearRest erases what is
// behind it. Erasing after drawing, line by line, does not flicker.
const (
	clearScreen = "\x1b[H"
	clearLine   = "\x1b[K"
	clearRest   = "\x1b[J"
)

// watch shows the status again and again until ctx ends, which is how a watch
// is meant to end.
func (e *env) watch(ctx context.Context, client *admin.Client, every time.Duration) error {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		st, err := client.Status(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if err == nil {
			err = e.watched(st, time.Now())
		}
		if err != nil {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// watched shows one status.
func (e *env) watched(st node.Status, now time.Time) error {
	if e.output == "json" {
		return json.NewEncoder(e.stdout).Encode(st)
	}
	var b bytes.Buffer
	if isTerminal(e.stdout) {
		t := &table{w: tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)}
		statusText(t, st, now)
		if err := t.w.Flush(); err != nil {
			return err
		}
		text := bytes.ReplaceAll(b.Bytes(), []byte("\n"), []byte(clearLine+"\n"))
		_, err := fmt.Fprintf(e.stdout, "%s%s%s", clearScreen, text, clearRest)
		return err
	}
	for _, u := range imageUses(st) {
		fmt.Fprintf(&b, "%s %s\n", now.UTC().Format(time.RFC3339), u)
	}
	_, err := e.stdout.Write(b.Bytes())
	return err
}

// imageUse is an image as one disk or drive uses it.
type imageUse struct {
	disk  string
	cache node.CacheStatus // of which Prefetch is not nil

	// Of the disk alone; of a drive, what its image has.
	local        float64
	strategy     string
	hits, misses int64
	shared       int64
}

// imageUses returns who uses which image that is open.
func imageUses(s node.Status) (all []imageUse) {
	for _, c := range s.Caches {
		if c.Prefetch == nil {
			continue
		}
		for _, name := range c.Drives {
			all = append(all, imageUse{name, c, c.Local(), c.Prefetch.Strategy, int64(c.Hits), int64(c.Misses), c.Prefetch.Shared})
		}
		for _, v := range s.Volumes {
			if slices.Contains(c.Volumes, v.Name) {
				strategy := v.Prefetch
				if v.PrefetchPaused {
					strategy += " paused"
				}
				all = append(all, imageUse{v.Name, c, v.Local(), strategy, v.Hits, v.Misses, v.Shared})
			}
		}
	}
	return all
}

// String returns the line of a watch without a terminal.
func (u imageUse) String() string {
	p := u.cache.Prefetch
	line := fmt.Sprintf("%s: image %s, %s local, prefetch %s: %s", u.disk, u.cache.Image, node.Percent(u.local), u.strategy, p.State)
	if p.Reason != "" {
		line += " (" + p.Reason + ")"
	}
	if p.Rate > 0 {
		line += ", " + rate(p.Rate)
	}
	if p.Left > 0 {
		line += ", " + left(p.Left) + " left"
	}
	return line + fmt.Sprintf(", %d hits, %d misses, %s ahead, %s of it used, %s shared",
		u.hits, u.misses, node.Size(p.Filled+p.Ahead).Human(), node.Size(p.Used).Human(), node.Size(u.shared).Human())
}

func rate(n int64) string {
	if n == 0 {
		return "-"
	}
	return node.Size(n).Human() + "/s"
}

func left(seconds int64) string {
	if seconds == 0 {
		return "-"
	}
	return (time.Duration(seconds) * time.Second).String()
}
