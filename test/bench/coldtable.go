package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"
)

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
