package cmd

import (
	"fmt"
	"io"
	"time"

	"github.com/schollz/progressbar/v3"

	"skylun/node"
)

// progress shows how far a transfer is: a bar on a terminal, a line every few
// seconds elsewhere.
type progress struct {
	w     io.Writer
	what  string // "import disk.img"
	bar   *progressbar.ProgressBar
	begun time.Time
	last  time.Time

	done, total int64
}

// progressEvery is how often a line is written where there is no terminal.
const progressEvery = 5 * time.Second

func newProgress(w io.Writer, what string) *progress {
	now := time.Now()
	return &progress{w: w, what: what, begun: now, last: now}
}

// update says that done of total bytes are done.
func (p *progress) update(done, total int64) {
	p.done, p.total = done, total
	if isTerminal(p.w) {
		if p.bar == nil {
			p.bar = progressbar.NewOptions64(total,
				progressbar.OptionSetWriter(p.w),
				progressbar.OptionSetDescription(p.what),
				progressbar.OptionShowBytes(true),
				progressbar.OptionShowTotalBytes(true),
				progressbar.OptionUseIECUnits(true),
				progressbar.OptionFullWidth(),
				progressbar.OptionThrottle(100*time.Millisecond),
				progressbar.OptionSetPredictTime(true),
			)
		}
		p.bar.Set64(done)
		return
	}
	if now := time.Now(); now.Sub(p.last) >= progressEvery {
		p.last = now
		fmt.Fprintf(p.w, "%s: %s\n", p.what, p.reached())
	}
}

// reached returns how far it is, in words.
func (p *progress) reached() string {
	if p.total == 0 {
		return "0%"
	}
	return fmt.Sprintf("%d%% (%s of %s)", 100*p.done/p.total, node.Size(p.done).Human(), node.Size(p.total).Human())
}

// end leaves the bar's line.
func (p *progress) end() {
	if p.bar != nil {
		p.bar.Exit()
		fmt.Fprintln(p.w)
	}
}
