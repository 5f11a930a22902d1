package main

import (
	"context"
	"fmt"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// iscsiPerf puts l, reads only, on the unit at url with libiscsi's iscsi-perf.
func (l load) iscsiPerf(ctx context.Context, url string) (result, error) {
	args := []string{"-m", strconv.Itoa(l.Depth), "-b", strconv.Itoa(l.Size / 512), "-t", strconv.Itoa(int(l.Time.Seconds()))}
	if l.Random {
		args = append(args, "-r")
	}
	out, err := output(ctx, "iscsi-perf", append(args, url)...)
	if err != nil {
		return result{}, err
	}
	all := averages.FindAllStringSubmatch(out, -1)
	if all == nil {
		return result{}, fmt.Errorf("iscsi-perf printed no average:\n%s", out)
	}
	rate, err := strconv.ParseFloat(all[len(all)-1][1], 64)
	return result{Ops: int64(rate * l.Time.Seconds()), Time: l.Time}, err
}

var averages = regexp.MustCompile(`iops average (\d+)`)

// qemuBench puts n commands of l on the unit at url with "qemu-img bench". It
// knows no random order; a step of many blocks, which comes around to each
// block once, stands in for it.
func (l load) qemuBench(ctx context.Context, url string, blocks, n int64) (result, error) {
	step := int64(1)
	if l.Random {
		step = scatter(blocks)
	}
	args := []string{"bench", "-f", "raw", "-t", "none", "-d", strconv.Itoa(l.Depth), "-s", strconv.Itoa(l.Size),
		"-S", strconv.FormatInt(step*int64(l.Size), 10), "-c", strconv.FormatInt(n, 10)}
	if l.Write {
		args = append(args, "-w")
	}
	out, err := output(ctx, "qemu-img", append(args, url)...)
	if err != nil {
		return result{}, err
	}
	m := completed.FindStringSubmatch(out)
	if m == nil {
		return result{}, fmt.Errorf("qemu-img bench printed no time:\n%s", out)
	}
	seconds, err := strconv.ParseFloat(m[1], 64)
	return result{Ops: n, Time: time.Duration(seconds * float64(time.Second))}, err
}

var completed = regexp.MustCompile(`Run completed in ([0-9.]+) seconds`)

// output runs a program and returns what it wrote.
func output(ctx context.Context, name string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	out, err := exec.CommandContext(ctx, name, args...).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%s %s: %w\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out), nil
}
