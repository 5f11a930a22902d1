package lun

import (
	"context"
	"io"
	"log/slog"
	"slices"
	"strings"

	"github.com/sirupsen/logrus"
)

// RouteGotgtLog sends what gotgt logs to log, at its level. gotgt logs by the
// process-wide logger of logrus, so this is process-wide as well; the last
// call counts. It is for the start of the program.
func RouteGotgtLog(log *slog.Logger) {
	l := logrus.StandardLogger()
	l.SetOutput(io.Discard)
	l.SetFormatter(noFormat{})
	l.ReplaceHooks(logrus.LevelHooks{})
	l.AddHook(logHook{log})
	// What log would drop anyway is dropped where it costs nothing.
	level := logrus.ErrorLevel
	for _, v := range []logrus.Level{logrus.WarnLevel, logrus.InfoLevel, logrus.DebugLevel} {
		if log.Enabled(context.Background(), slogLevel(v)) {
			level = v
		}
	}
	l.SetLevel(level)
}

// logHook is a logrus.Hook that passes entries on.
type logHook struct{ log *slog.Logger }

// Levels implements logrus.Hook.
func (logHook) Levels() []logrus.Level { return logrus.AllLevels }

// Fire implements logrus.Hook.
func (h logHook) Fire(e *logrus.Entry) error {
	attrs := make([]slog.Attr, 0, len(e.Data)+1)
	for k, v := range e.Data {
		attrs = append(attrs, slog.Any(k, v))
	}
	slices.SortFunc(attrs, func(a, b slog.Attr) int { return strings.Compare(a.Key, b.Key) })
	attrs = append(attrs, slog.String("from", "gotgt"))
	ctx := e.Context
	if ctx == nil {
		ctx = context.Background()
	}
	h.log.LogAttrs(ctx, slogLevel(e.Level), e.Message, attrs...)
	return nil
}

// slogLevel returns the level that means the same. Panic and fatal entries
// are errors: what they do besides is up to their caller.
func slogLevel(l logrus.Level) slog.Level {
	switch l {
	case logrus.TraceLevel, logrus.DebugLevel:
		return slog.LevelDebug
	case logrus.InfoLevel:
		return slog.LevelInfo
	case logrus.WarnLevel:
		return slog.LevelWarn
	default:
		return slog.LevelError
	}
}

// noFormat is a logrus.Formatter that saves the work.
type noFormat struct{}

// Format implements logrus.Formatter.
func (noFormat) Format(*logrus.Entry) ([]byte, error) { return nil, nil }
