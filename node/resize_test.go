package node

import (
	"bytes"
	"errors"
	"strings"
	"testing"
)

func TestResizeVolume(t *testing.T) {
	noLeaks(t)
	cfg := testConfig(t)
	image := pattern(1<<20, 0)
	putImage(t, cfg, "i", image)
	disks(&cfg, DiskConfig{Volume: "v", Size: 1 << 20}, DiskConfig{Volume: "over", Image: "i"})
	n := start(t, cfg)
	size := func(name string, want int64) {
		t.Helper()
		v, err := n.Volume(t.Context(), name)
		if err != nil || v.Size != want || v.LUN == nil || v.LUN.Size != want {
			t.Errorf("%s: %+v %v, want %d bytes", name, v, err, want)
		}
		if got := int64(len(content(t, n, name))); got != want {
			t.Errorf("%s: %d bytes of content, want %d", name, got, want)
		}
		if problems, err := n.Check(t.Context()); err != nil || len(problems) > 0 {
			t.Errorf("check: %q %v", problems, err)
		}
	}
	for _, c := range []struct {
		volume string
		spec   ResizeSpec
		kind   error
		text   string
	}{
		{"nope", ResizeSpec{Size: 4096}, ErrNotFound, "volume nope: no such volume"},
		{"v", ResizeSpec{}, ErrInvalid, "0 is not a size for a disk"},
		{"v", ResizeSpec{Size: -512, Force: true}, ErrInvalid, "is not a size for a disk"},
		{"v", ResizeSpec{Size: 1<<20 + 100}, ErrInvalid, "volume v: 1048676 bytes is not a multiple of 512"},
		{"v", ResizeSpec{Size: int64(MaxVolumeSize) + 512}, ErrInvalid, "is more than"},
		{"v", ResizeSpec{Size: 512 << 10}, ErrInvalid, "volume v: it has 1MiB, and what lies beyond 512KiB would be lost; make the file system on it smaller first, and then force it with --force"},
		{"over", ResizeSpec{Size: 512 << 10, Force: true}, ErrInvalid, "volume over: 512KiB is less than image i, which has 1MiB"},
	} {
		_, err := n.ResizeVolume(t.Context(), c.volume, c.spec)
		if !errors.Is(err, c.kind) || !strings.Contains(err.Error(), c.text) {
			t.Errorf("%s to %+v: %v, want %v: %s", c.volume, c.spec, err, c.kind, c.text)
		}
	}
	size("v", 1<<20)
	for _, s := range []ResizeSpec{{Size: 1 << 20}, {Size: 3<<20 + 512}, {Size: 2 << 20, Force: true}, {Size: 5 << 20}} {
		v, err := n.ResizeVolume(t.Context(), "v", s)
		if err != nil || v.Size != s.Size {
			t.Errorf("%+v: %+v %v", s, v, err)
		}
		size("v", s.Size)
		if _, err := n.ResizeVolume(t.Context(), "v", ResizeSpec{Size: s.Size - 512}); !errors.Is(err, ErrInvalid) {
			t.Errorf("smaller than %d: %v, want %v", s.Size, err, ErrInvalid)
		}
	}
	if _, err := n.ResizeVolume(t.Context(), "over", ResizeSpec{Size: 3 << 20}); err != nil {
		t.Error(err)
	}
	if got := content(t, n, "over"); !bytes.Equal(got[:1<<20], image) || !bytes.Equal(got[1<<20:], make([]byte, 2<<20)) {
		t.Error("the grown volume is not the image with zeros behind it")
	}
	stop(t, n)

	// The configuration still has the sizes of before.
	cfg.Targets[0].LUNs[0].Disk.Size = 1 << 20
	n = start(t, cfg)
	size("v", 5<<20)
	size("over", 3<<20)
	stop(t, n)

	// Nobody shows it: the same without a server.
	n, err := Open(t.Context(), cfg, false, quiet)
	if err != nil {
		t.Fatal(err)
	}
	if v, err := n.ResizeVolume(t.Context(), "v", ResizeSpec{Size: 512, Force: true}); err != nil || v.Size != 512 {
		t.Errorf("%+v %v", v, err)
	}
	if _, err := n.ResizeVolume(t.Context(), "v", ResizeSpec{Size: 8192}); err != nil {
		t.Error(err)
	}
	stop(t, n)
	n = start(t, cfg)
	size("v", 8192)
	stop(t, n)
}
