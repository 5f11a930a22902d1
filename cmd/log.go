package cmd

import (
	"io"
	"log/slog"
	"os"
	"time"

	"github.com/lmittmann/tint"
	"golang.org/x/term"

	"skylun/node"
)

// newLogger returns a logger that writes to w as c says: JSON, or lines for
// people, in colour when w is a terminal.
func newLogger(w io.Writer, c node.LogConfig) *slog.Logger {
	var level slog.Level
	level.UnmarshalText([]byte(c.Level)) // validated
	if c.Format == "json" {
		return slog.New(slog.NewJSONHandler(w, &slog.HandlerOptions{Level: level}))
	}
	opt := &tint.Options{Level: level, NoColor: true, TimeFormat: time.RFC3339}
	if isTerminal(w) && os.Getenv("NO_COLOR") == "" {
		opt.NoColor, opt.TimeFormat = false, time.TimeOnly
	}
	return slog.New(tint.NewTextHandler(w, opt))
}

// isTerminal tells whether a person reads what is written to w.
func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}
