package main

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"
)

// A line is what a row came to with one client.
type line struct {
	row
	client       string
	their        string // name of the other side
	ours, theirs numbers
	ratio        float64 // ours/theirs, by the medians
	low, high    float64 // the ratio in the single rounds
}

// numbers are the medians of one side's turns.
type numbers struct {
	rate  float64       // operations per second
	cpu   time.Duration // the server's, per operation
	flush time.Duration // of one flush
}

// compare measures r on our side and on each side it is compared with, in
// turns, and sets our numbers against the best of the others.
func (o options) compare(ctx context.Context, r row, client string, sides []*side) (line, error) {
	var players []*side // ours first
	for _, s := range sides {
		if s.name == "skylun" {
			players = slices.Insert(players, 0, s)
		} else if strings.HasPrefix(s.name, r.against) {
			players = append(players, s)
		}
	}
	results := make(map[*side][]result)
	for round := range o.repeats {
		turn := slices.Clone(players)
		if round%2 == 1 {
			slices.Reverse(turn)
		}
		for _, s := range turn {
			l := r.load
			l.Seed = uint64(round) + 1
			res, err := l.measure(ctx, s, r.unit, client, o.size)
			if err != nil {
				return line{}, err
			}
			results[s] = append(results[s], res)
		}
	}
	best := slices.MaxFunc(players[1:], func(a, b *side) int {
		return cmp.Compare(r.value(results[a]...), r.value(results[b]...))
	})
	return r.line(client, best.name, results[players[0]], results[best]), nil
}

// hold lets the sides of a contest take turns.
func (o options) hold(ctx context.Context, r row, c *contest) (line, error) {
	defer c.close()
	var results [2][]result // ours, theirs
	for round := range o.repeats {
		for turn := range 2 {
			side := (round + turn) % 2
			res, err := c.run(ctx, side == 0, round)
			if err != nil {
				return line{}, err
			}
			results[side] = append(results[side], res)
		}
	}
	return r.line(c.client, c.theirs, results[0], results[1]), nil
}

// line returns the line of a row with these results, by round.
func (r row) line(client, their string, ours, theirs []result) line {
	l := line{row: r, client: client, their: their, ours: median(ours), theirs: median(theirs)}
	var ratios []float64
	for round := range ours {
		ratios = append(ratios, r.value(ours[round])/r.value(theirs[round]))
	}
	l.low, l.high = slices.Min(ratios), slices.Max(ratios)
	l.ratio = r.value(ours...) / r.value(theirs...)
	return l
}

// value is the median of the number that r compares.
func (r row) value(results ...result) float64 {
	if m := median(results); r.flush {
		return m.flush.Seconds()
	} else {
		return m.rate
	}
}

func median(results []result) numbers {
	return numbers{
		rate:  middle(results, result.rate),
		cpu:   middle(results, result.cpuPerOp),
		flush: middle(results, func(r result) time.Duration { return r.Flush }),
	}
}

func middle[T cmp.Ordered](results []result, f func(result) T) T {
	var all []T
	for _, r := range results {
		all = append(all, f(r))
	}
	slices.Sort(all)
	return all[len(all)/2]
}

// cpuRatio is our CPU time per operation over theirs.
func (l line) cpuRatio() float64 { return float64(l.ours.cpu) / float64(max(l.theirs.cpu, 1)) }

// good tells whether the line is as wanted.
func (l line) good() bool {
	if l.flush && l.want > 0 {
		return l.ratio <= l.want
	}
	return l.ratio >= l.want && (l.wantCPU == 0 || l.cpuRatio() <= l.wantCPU)
}

func (l line) progress() string {
	return fmt.Sprintf("%s (%s): %.2f", l.name, l.client, l.ratio)
}
