//go:build e2e

package e2e

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"skylun/test/boottrace"
	"skylun/test/initiator"
)

const bootSize = 256 << 20

// bootImage makes a sparse file that holds data where a guest that boots
// looks, and around it.
func bootImage(t *testing.T, trace boottrace.Trace) string {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "os.img"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(bootSize); err != nil {
		t.Fatal(err)
	}
	ranges, _ := trace.Distinct()
	for _, r := range ranges {
		r = r.Outward(512 << 10)
		p := make([]byte, r.Len())
		for i := 0; i < len(p); i += 512 {
			binary.LittleEndian.PutUint64(p[i:], bootWord(r.Off+int64(i)))
		}
		if _, err := f.WriteAt(p, r.Off); err != nil {
			t.Fatal(err)
		}
	}
	return f.Name()
}

func bootWord(off int64) uint64 { return uint64(off) + 0xb007<<48 }

// boot replays the trace on a disk and checks what it reads.
func boot(ctx context.Context, d *initiator.Disk, trace boottrace.Trace) error {
	return trace.Replay(ctx, 0.2, func(ctx context.Context, p []byte, off int64) error {
		if err := d.ReadAt(ctx, p, off); err != nil {
			return err
		}
		for i := 0; i < len(p); i += 512 {
			if got := binary.LittleEndian.Uint64(p[i:]); got != bootWord(off+int64(i)) {
				return fmt.Errorf("at %d is %#x", off+int64(i), got)
			}
		}
		return nil
	})
}

// What a guest reads at boot on one node, another node has before its guests
// ask, also 64 of them at once: each byte is fetched once, and little else.
func TestBootStorm(t *testing.T) {
	const volumes = 64
	trace := boottrace.Linux(bootSize, 8<<20, 5)
	_, distinct := trace.Distinct()
	st := newToxicStore(t)

	first := newServer(t, st, "volume: disk, image: os.img")
	first.edit("cache: {prefetch: off}", "cache: {prefetch: off, boot_profile: 1m}")
	first.cli("image", "import", bootImage(t, trace), "os.img")
	if err := st.link.Latency(20 * time.Millisecond); err != nil {
		t.Fatal(err)
	}
	if err := st.link.Bandwidth(100e6); err != nil {
		t.Fatal(err)
	}
	first.start()
	begin := time.Now()
	if err := boot(t.Context(), connect(t, first, 1), trace); err != nil {
		t.Fatal(err)
	}
	alone := time.Since(begin)
	first.stop()
	if err := st.server.Get(t.Context(), st.container, ".documents/profile/os.img", io.Discard); err != nil {
		t.Fatalf("no profile in the store: %v\n%s", err, tail(first.logged()))
	}

	var disks []string
	for i := range volumes {
		disks = append(disks, fmt.Sprintf("volume: disk%d, image: os.img", i))
	}
	second := newServer(t, st, disks...)
	second.edit("cache: {prefetch: off}", "cache: {prefetch: readahead}")
	second.start()
	var guests []*initiator.Disk
	for i := range volumes {
		guests = append(guests, guestOf(t, second, i))
	}
	begin = time.Now()
	var wg sync.WaitGroup
	for _, d := range guests {
		wg.Go(func() {
			if err := boot(t.Context(), d, trace); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	together := time.Since(begin)
	c := second.ask().Caches[0]
	t.Logf("%d reads of %d bytes; one guest without a profile: %v; %d with one: %v, %d misses, %d bytes fetched",
		trace.Reads(), distinct, alone, volumes, together, c.Misses, c.FetchedBytes)
	if c.FetchedBytes > distinct*11/10 {
		t.Errorf("%d guests read %d bytes, and %d were fetched", volumes, distinct, c.FetchedBytes)
	}
	// Generous: this machine is that of all guests, too.
	if together > 3*alone+5*time.Second {
		t.Errorf("%d guests took %v, one alone %v", volumes, together, alone)
	}
	second.stop()
	second.check()

	// The profile is no image, and goes with its image.
	if list := first.cli("image", "list"); strings.Contains(list, "profile") || strings.Count(list, "os.img") != 1 {
		t.Errorf("image list:\n%s", list)
	}
	second.cli("image", "show", "os.img")
	third := newServer(t, st)
	third.cli("image", "rm", "os.img")
	if err := st.server.Get(t.Context(), st.container, ".documents/profile/os.img", io.Discard); err == nil {
		t.Error("the image is gone and its profile is not")
	}
}

// guestOf logs in and returns the disk at a number.
func guestOf(t *testing.T, s *server, lun int) *initiator.Disk {
	t.Helper()
	c, err := initiator.Dial(s.portal)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.Timeout = time.Minute
	if _, err := c.Login(initiator.Options{Initiator: fmt.Sprintf("iqn.2026-11.io.skylun:guest%d", lun), Target: iqn}); err != nil {
		t.Fatal(err)
	}
	d, err := c.Disk(uint8(lun))
	if err != nil {
		t.Fatal(err)
	}
	return d
}
