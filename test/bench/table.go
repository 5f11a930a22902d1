package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"golang.org/x/sys/unix"
)

// A table is what was measured with files in one directory.
type table struct {
	options
	dir    string
	system string // of the files
	lines  []line
}

var heading = []string{"load", "client", "skylun", "against", "", "ratio", "rounds", "wanted", "CPU/op", "theirs", "ratio", "wanted", ""}

// cells are one line of the table.
func (l line) cells() []string {
	ours, theirs, sign := fmt.Sprintf("%.0f/s", l.ours.rate), fmt.Sprintf("%.0f/s", l.theirs.rate), "≥ "
	if l.flush {
		ours, theirs, sign = micro(l.ours.flush), micro(l.theirs.flush), "≤ "
	}
	want, wantCPU := "", ""
	if l.want > 0 {
		want = fmt.Sprintf("%s%.2f", sign, l.want)
	}
	if l.wantCPU > 0 {
		wantCPU = fmt.Sprintf("≤ %.2f", l.wantCPU)
	}
	verdict := "missed"
	if l.good() {
		verdict = "ok"
	}
	return []string{l.name, l.client, ours, l.their, theirs, fmt.Sprintf("%.2f", l.ratio), fmt.Sprintf("%.2f–%.2f", l.low, l.high),
		want, micro(l.ours.cpu), micro(l.theirs.cpu), fmt.Sprintf("%.2f", l.cpuRatio()), wantCPU, verdict}
}

func micro(d time.Duration) string {
	return fmt.Sprintf("%.1f µs", float64(d)/float64(time.Microsecond))
}

// title says what the table holds.
func (t *table) title() string {
	return fmt.Sprintf("Files of %d MiB on %s (%s), %d turns of %v each, medians", t.size>>20, t.system, t.dir, t.repeats, t.time)
}

// text writes the table for a terminal.
func (t *table) text(w io.Writer) {
	fmt.Fprintf(w, "\n%s\n\n", t.title())
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(tw, strings.Join(heading, "\t"))
	for _, l := range t.lines {
		fmt.Fprintln(tw, strings.Join(l.cells(), "\t"))
	}
	tw.Flush()
}

// appendMarkdown adds the table to a file.
func (t *table) appendMarkdown(name string) error {
	f, err := os.OpenFile(name, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer f.Close()
	fmt.Fprintf(f, "\n%s:\n\n", t.title())
	fmt.Fprintf(f, "| %s |\n|%s\n", strings.Join(heading, " | "), strings.Repeat("---|", len(heading)))
	for _, l := range t.lines {
		fmt.Fprintf(f, "| %s |\n", strings.Join(l.cells(), " | "))
	}
	return f.Close()
}

// fileSystem returns the name of the file system that holds dir.
func fileSystem(dir string) string {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return "an unknown file system"
	}
	switch st.Type {
	case unix.TMPFS_MAGIC:
		return "tmpfs"
	case unix.EXT4_SUPER_MAGIC:
		return "ext4"
	case unix.XFS_SUPER_MAGIC:
		return "xfs"
	case unix.BTRFS_SUPER_MAGIC:
		return "btrfs"
	}
	return fmt.Sprintf("file system %#x", st.Type)
}
