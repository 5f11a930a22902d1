package node

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"

	"skylun/block"
)

type fakeSpace struct {
	free int64
	err  error
	told int
}

func (f *fakeSpace) Space(context.Context) (block.Space, error) {
	return block.Space{Free: f.free}, f.err
}
func (f *fakeSpace) SpaceLow() { f.told++ }

// TestSpaceWatch checks that each crossing is told once.
func TestSpaceWatch(t *testing.T) {
	var log bytes.Buffer
	w := &spaceWatch{limit: 1600, log: slog.New(slog.NewTextHandler(&log, nil)), low: map[string]bool{}}
	a, b := &fakeSpace{}, &fakeSpace{}
	lines := 0
	for i, c := range []struct {
		free int64
		err  error
		told int
		line int
	}{
		{free: 1600},
		{free: 1599, told: 1, line: 1},
		{free: 10},
		{free: 1650}, // not much more
		{free: 1599},
		{free: 5000, err: errors.New("cannot tell")},
		{free: 1700},
		{free: 0, told: 1, line: 1},
	} {
		a.free, a.err, a.told = c.free, c.err, 0
		b.free, b.err, b.told = c.free, c.err, 0
		w.look(t.Context(), []watched{{"a", a, a}, {"b", b, b}})
		if a.told != c.told || b.told != c.told {
			t.Errorf("step %d: told %d and %d times, want %d", i, a.told, b.told, c.told)
		}
		n := strings.Count(log.String(), "local space gets low")
		if n-lines != c.line {
			t.Errorf("step %d: %d log lines, want %d", i, n-lines, c.line)
		}
		lines = n
	}
}
