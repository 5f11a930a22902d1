package measure

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

const short = 250 * time.Millisecond

func requireSense(t *testing.T, r Result) {
	t.Helper()
	if r.Size <= 0 || r.Space < minSpace/16 || r.ReadBytes <= 0 || r.WriteBytes <= 0 || r.ReadIOPS <= 0 || r.WriteIOPS <= 0 || r.Median <= 0 || r.P99 < r.Median {
		t.Errorf("result %+v", r)
	}
	t.Logf("%+v", r)
}

// A directory is measured within bounded time and space, and left as it was.
func TestDirectory(t *testing.T) {
	dir := t.TempDir()
	var steps []string
	begun := time.Now()
	r, err := Path(t.Context(), dir, Options{Time: short, Space: minSpace, Progress: func(s string) {
		steps = append(steps, s)
		if entries, err := os.ReadDir(dir); err != nil || len(entries) != 0 {
			t.Errorf("%s: %v in the directory, %v", s, entries, err)
		}
	}})
	if err != nil {
		t.Fatal(err)
	}
	requireSense(t, r)
	if r.Space > minSpace || len(steps) != 5 {
		t.Errorf("%d bytes written, steps %q", r.Space, steps)
	}
	if took := time.Since(begun); took > time.Minute { // it is given a second and a bit
		t.Errorf("took %v", took)
	}
}

// An empty file is measured like a device, and is empty again.
func TestEmptyFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "member")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	const size = 40<<20 + 1000
	if err := os.Truncate(path, size); err != nil {
		t.Fatal(err)
	}
	r, err := Path(t.Context(), path, Options{Time: short, Space: minSpace})
	if err != nil {
		t.Fatal(err)
	}
	requireSense(t, r)
	if r.Size != size {
		t.Errorf("size %d, want %d", r.Size, size)
	}
	requireZeros(t, path, size)

	// Also when it is stopped in the middle.
	ctx, cancel := context.WithCancel(t.Context())
	_, err = Path(ctx, path, Options{Time: short, Space: minSpace, Progress: func(s string) {
		if s == "reading at random" {
			cancel()
		}
	}})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("stopped: %v", err)
	}
	requireZeros(t, path, size)
}

func requireZeros(t *testing.T, path string, size int) {
	t.Helper()
	p, err := os.ReadFile(path)
	if err != nil || len(p) != size || !bytes.Equal(p, make([]byte, size)) {
		t.Errorf("%s is not what it was, error %v", path, err)
	}
}

// What holds anything where it would be looked at or written to is not touched.
func TestNotEmpty(t *testing.T) {
	const size = 40 << 20
	for _, at := range []int64{0, 4096, size / 2, size - 1} {
		path := filepath.Join(t.TempDir(), "disk")
		want := make([]byte, size)
		want[at] = 1
		if err := os.WriteFile(path, want, 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := Path(t.Context(), path, Options{Time: short, Space: minSpace})
		if !errors.Is(err, ErrNotEmpty) || !strings.Contains(err.Error(), "--force overwrites") || !strings.Contains(err.Error(), path) {
			t.Errorf("something at %d: %v, want ErrNotEmpty", at, err)
		}
		if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, want) {
			t.Errorf("something at %d: the file was changed, error %v", at, err)
		}
	}
	// By force only the stretch in the middle is lost.
	path := filepath.Join(t.TempDir(), "disk")
	want := bytes.Repeat([]byte{7}, size)
	if err := os.WriteFile(path, want, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Path(t.Context(), path, Options{Time: short, Space: minSpace, Force: true}); err != nil {
		t.Fatal(err)
	}
	clear(want[(size-minSpace)/2 : (size+minSpace)/2])
	if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, want) {
		t.Errorf("the file is not what it should be, error %v", err)
	}
}

func TestRefused(t *testing.T) {
	dir := t.TempDir()
	small := filepath.Join(dir, "small")
	if err := os.WriteFile(small, make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		path string
		o    Options
		says string
	}{
		{filepath.Join(dir, "none"), Options{}, "no such file"},
		{"/dev/null", Options{}, "neither"},
		{small, Options{}, "too small"},
		{dir, Options{Time: time.Microsecond}, "too short"},
		{dir, Options{Space: 1}, "space"},
		{dir, Options{Space: maxSpace}, "not enough"},
	} {
		if _, err := Path(t.Context(), c.path, c.o); err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s, %+v: %v, want an error that says %q", c.path, c.o, err, c.says)
		}
	}
}
