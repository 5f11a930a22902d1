package blobstore

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"skylun/block"
)

// scripted is a content whose ranges are given.
type scripted struct {
	ranges []block.Range
	err    error // after the ranges
}

func (c scripted) readAt(context.Context, []byte, int64) error { return c.err }

func (c scripted) dataRanges(_ context.Context, _ block.Range, f func(block.Range) error) error {
	for _, r := range c.ranges {
		if err := f(r); err != nil {
			return err
		}
	}
	return c.err
}

func TestDataRangesAreMerged(t *testing.T) {
	for _, c := range []struct {
		in, want []block.Range
	}{
		{nil, nil},
		{[]block.Range{{Off: 0, End: 512}}, []block.Range{{Off: 0, End: 512}}},
		{[]block.Range{{Off: 0, End: 512}, {Off: 512, End: 1024}, {Off: 2048, End: 2560}}, []block.Range{{Off: 0, End: 1024}, {Off: 2048, End: 2560}}},
		{[]block.Range{{Off: 3584, End: 9999}}, []block.Range{{Off: 3584, End: 4000}}}, // the blob ends
		{[]block.Range{{Off: 512, End: 512}, {Off: 4000, End: 9999}}, nil},
	} {
		m := &Image{info: Info{Size: 4096, BlobSize: 4000}, content: scripted{ranges: c.in}}
		var got []block.Range
		err := m.DataRanges(t.Context(), block.Range{Off: 0, End: 4096}, func(r block.Range) error { got = append(got, r); return nil })
		if err != nil || fmt.Sprint(got) != fmt.Sprint(c.want) {
			t.Errorf("%v: %v, %v, want %v", c.in, got, err, c.want)
		}
	}
}

// The log says once that an image is not what it was.
func TestChangeIsLoggedOnce(t *testing.T) {
	var log strings.Builder
	m := &Image{info: Info{Name: "a", Size: 512, BlobSize: 512}, content: scripted{err: errChanged("image a")}, log: slog.New(slog.NewTextHandler(&log, nil))}
	for range 3 {
		err := m.ReadAt(t.Context(), make([]byte, 512), 0)
		if !errors.Is(err, ErrChanged) || !errors.Is(err, block.ErrMedium) {
			t.Errorf("ReadAt: %v", err)
		}
	}
	if n := strings.Count(log.String(), "level=ERROR"); n != 1 || !strings.Contains(log.String(), "image=a") {
		t.Errorf("%d lines: %s", n, log.String())
	}
}
