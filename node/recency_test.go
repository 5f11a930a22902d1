package node

import (
	"bytes"
	"fmt"
	"testing"

	"skylun/meta"
)

// TestRecencyOverRestart: what was used last before a restart leaves last after it.
func TestRecencyOverRestart(t *testing.T) {
	noLeaks(t)
	cfg := testConfig(t)
	cfg.Cache.MaxSize = 8 << 20
	putImage(t, cfg, "i", pattern(12<<20, 0))
	disks(&cfg, DiskConfig{Volume: "v", Image: "i"})
	n := start(t, cfg)
	var v *volume
	read := func(mib ...int64) {
		t.Helper()
		for _, i := range mib {
			if err := v.dev.ReadAt(t.Context(), make([]byte, 1<<20), i<<20); err != nil {
				t.Fatal(err)
			}
		}
	}
	use := func() {
		t.Helper()
		var err error
		if v, err = n.acquire(t.Context(), "v"); err != nil {
			t.Fatal(err)
		}
	}
	let := func() {
		t.Helper()
		if err := n.release(v); err != nil {
			t.Fatal(err)
		}
	}
	use()
	read(0, 1, 2, 3, 4, 5, 6, 7)
	soon(t, "kept", func() bool { return v.image.cache.Stats().Cached == 8<<20 })
	read(7, 0)
	let()
	stop(t, n)
	n = start(t, cfg)
	use()
	read(8, 9)
	soon(t, "kept", func() bool { done, err := v.dev.TryReadAt(make([]byte, 4096), 9<<20); return done && err == nil })
	for i, here := range []bool{true, false, false} {
		before := v.image.cache.Stats().Misses
		if read(int64(i)); (v.image.cache.Stats().Misses == before) != here {
			t.Errorf("MiB %d is here: %v", i, !here)
		}
	}
	let()
	stop(t, n)

	// What is written down of a cache goes when that does.
	disks(&cfg)
	n, err := Open(t.Context(), cfg, false, quiet)
	if err != nil {
		t.Fatal(err)
	}
	if err := n.DeleteVolume(t.Context(), "v"); err != nil {
		t.Fatal(err)
	}
	if err := n.DeleteImage(t.Context(), "i"); err != nil {
		t.Fatal(err)
	}
	n.recencyMoved = true // as by another image
	stop(t, n)
	db, err := meta.Open(cfg.DatabasePath(), meta.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	err = db.Records().Load(recencyRecords, func(key string, _ []byte) error { return fmt.Errorf("%s is left", key) })
	if err != nil {
		t.Error(err)
	}
}

// TestCacheLimitWithoutNode: what caches hold that nothing uses counts also where no
// node runs.
func TestCacheLimitWithoutNode(t *testing.T) {
	noLeaks(t)
	cfg := testConfig(t)
	cfg.Cache.MaxSize = 16 << 20
	for i := range 2 {
		putImage(t, cfg, fmt.Sprint("i", i), pattern(12<<20, byte(8*i)))
	}
	for i := range 2 { // a command each
		n, err := Open(t.Context(), cfg, true, quiet)
		if err != nil {
			t.Fatal(err)
		}
		name := fmt.Sprint("w", i)
		if _, err := n.CreateVolume(t.Context(), VolumeSpec{Name: name, Image: fmt.Sprint("i", i)}); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(content(t, n, name), pattern(12<<20, byte(8*i))) {
			t.Error("not the content of the image")
		}
		stop(t, n)
	}
	n, err := Open(t.Context(), cfg, false, quiet)
	if err != nil {
		t.Fatal(err)
	}
	if s := status(t, n); s.Caches[0].Cached+s.Caches[1].Cached > 16<<20 || s.Caches[1].Cached < 8<<20 {
		t.Errorf("caches hold %d and %d bytes, may hold 16 MiB", s.Caches[0].Cached, s.Caches[1].Cached)
	}
	stop(t, n)
}
