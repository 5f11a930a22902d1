package node

import (
	"bytes"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"skylun/block"
	"skylun/profile"
	"skylun/test/initiator"
	"skylun/test/shaped"
)

const bootTarget = "iqn.2026-11.io.skylun:t"

// bootConfig is a node with one disk of an image of 64 MiB, which does not
// prefetch.
func bootConfig(t *testing.T) Config {
	t.Helper()
	cfg := testConfig(t)
	cfg.Cache.Prefetch = "off"
	putImage(t, cfg, "os.img", pattern(64<<20, 1))
	disks(&cfg, DiskConfig{Volume: "v", Image: "os.img"})
	return cfg
}

// elsewhere returns the configuration of another node at the same store.
func elsewhere(t *testing.T, cfg Config) Config {
	t.Helper()
	cfg.DataDir = filepath.Join(t.TempDir(), "d")
	cfg.Local.Members = []MemberConfig{{Path: filepath.Join(cfg.DataDir, "local")}}
	return cfg
}

// boot is what a guest reads first: 4 MiB in all, beginning with the
// partition table.
var boot = []block.Range{{Off: 0, End: 4096}, {Off: 40 << 20, End: 42 << 20}, {Off: 10 << 20, End: 12<<20 - 4096}}

// bootGuest logs in to the disk and reads ranges, in order.
func bootGuest(t *testing.T, n *Node, ranges []block.Range) {
	t.Helper()
	c, err := initiator.Dial(n.Portals()[0].String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Login(initiator.Options{Initiator: "iqn.2026-11.com.example:client", Target: bootTarget}); err != nil {
		t.Fatal(err)
	}
	d, err := c.Disk(0)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range ranges {
		for off := r.Off; off < r.End; off += 256 << 10 {
			if err := d.ReadAt(t.Context(), make([]byte, min(256<<10, r.End-off)), off); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// stored returns the document that the store has for os.img, or nil.
func stored(t *testing.T, cfg Config) []byte {
	t.Helper()
	all, err := filepath.Glob(filepath.Join(strings.TrimPrefix(cfg.Blobstore.URL, "file:"), ".documents", "*", "*[0-9a-f]"))
	if err != nil || len(all) > 1 {
		t.Fatal(err, all)
	}
	if len(all) == 0 {
		return nil
	}
	doc, err := os.ReadFile(all[0])
	if err != nil {
		t.Fatal(err)
	}
	return doc
}

func storedRanges(t *testing.T, cfg Config) []block.Range {
	t.Helper()
	doc := stored(t, cfg)
	if doc == nil {
		return nil
	}
	p, err := profile.Decode(doc)
	if err != nil {
		t.Fatal(err)
	}
	return p.Ranges()
}

// What one node records when a guest boots, another one has before its guest
// asks.
func TestBootProfile(t *testing.T) {
	noLeaks(t)
	cfg := bootConfig(t)
	n := start(t, cfg)
	bootGuest(t, n, boot)
	eventually(t, func() string { // copies are kept after the guest was answered
		v, err := n.Volume(t.Context(), "v")
		if err != nil || v.Misses == 0 || v.Far > 60<<20 || v.Far < 50<<20 || v.Local() > 0.2 {
			return fmt.Sprintf("after a boot without a profile: %+v, %v", v, err)
		}
		return ""
	})
	stop(t, n)
	want := []block.Range{boot[0], boot[2], boot[1]} // all are near each other: by place
	if got := storedRanges(t, cfg); !reflect.DeepEqual(got, want) {
		t.Fatalf("the store has a profile of %v, want %v", got, want)
	}

	other := elsewhere(t, cfg)
	other.Cache.Prefetch = "idle"
	n = start(t, other)
	waitLocal(t, n, boot)
	bootGuest(t, n, boot)
	if s, err := n.caches(); err != nil || s[0].Misses != 0 {
		t.Errorf("the guest's reads took %d misses (%v)", s[0].Misses, err)
	}
	if v, err := n.Volume(t.Context(), "v"); err != nil || v.Hits == 0 || v.Misses != 0 || v.Prefetch != "idle" {
		t.Errorf("after a boot with a profile: %+v, %v", v, err)
	}
	images, err := n.Images(t.Context())
	if err != nil || len(images) != 1 {
		t.Errorf("images: %v, %v", images, err)
	}
	stop(t, n)
	// The second run is in it, too.
	if p, err := profile.Decode(stored(t, cfg)); err != nil || p.Runs() != 2 {
		t.Errorf("%v, %v", p, err)
	}
}

// waitLocal waits until all ranges of the image of volume v are local.
func waitLocal(t *testing.T, n *Node, ranges []block.Range) {
	t.Helper()
	v, err := n.acquire(t.Context(), "v")
	if err != nil {
		t.Fatal(err)
	}
	defer n.release(v)
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) {
		local := 0
		for _, r := range ranges {
			if done, _ := v.image.cache.TryReadAt(make([]byte, r.Len()), r.Off); done {
				local++
			}
		}
		if local == len(ranges) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d of %d ranges are local", local, len(ranges))
		}
	}
}

// A run ends after its time, while the node goes on, and later reads are of no
// concern.
func TestBootProfileEndsInTime(t *testing.T) {
	cfg := bootConfig(t)
	cfg.Cache.BootProfile = 300 * time.Millisecond
	n := start(t, cfg)
	bootGuest(t, n, boot)
	for deadline := time.Now().Add(20 * time.Second); stored(t, cfg) == nil; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("nothing is stored")
		}
	}
	before := storedRanges(t, cfg)
	write(t, n, "v", make([]byte, 4096), 0)
	if got := storedRanges(t, cfg); !reflect.DeepEqual(got, before) {
		t.Errorf("%v became %v", before, got)
	}
	stop(t, n)
}

// What is no boot is not recorded: the login of somebody who was cut off, too
// little, and nothing at all with the key at zero.
func TestBootProfileOfBootsOnly(t *testing.T) {
	for _, c := range []struct {
		name   string
		time   time.Duration
		ranges []block.Range
	}{
		{"reconnected", time.Minute, boot[1:]},
		{"reads the start later", time.Minute, []block.Range{boot[1], boot[0]}},
		{"partition table only", time.Minute, boot[:1]},
		{"nothing", time.Minute, nil},
		{"off", 0, boot},
	} {
		cfg := bootConfig(t)
		cfg.Cache.BootProfile = c.time
		n := start(t, cfg)
		bootGuest(t, n, c.ranges)
		stop(t, n)
		if doc := stored(t, cfg); doc != nil {
			t.Errorf("%s: recorded", c.name)
		}
	}
}

// A profile of another content of the image is not used, and is replaced as
// soon as the new content was booted. What a store holds in place of a
// profile harms nobody; one of a later version stays.
func TestBootProfileUnusable(t *testing.T) {
	cfg := bootConfig(t)
	n := start(t, cfg)
	bootGuest(t, n, boot)
	stop(t, n)
	good := stored(t, cfg)

	later := bytes.Clone(good)
	later[8]++
	for _, c := range []struct {
		name     string
		doc      []byte
		replaced bool
	}{
		{"other content", profile.New("other", 64<<20).Merge(boot).Encode(), true},
		{"other size", func() []byte {
			info, err := n.store.Stat(t.Context(), "os.img")
			if err != nil {
				t.Fatal(err)
			}
			return profile.New(info.Identity, 1<<20).Merge([]block.Range{{Off: 0, End: 1 << 20}}).Encode()
		}(), true},
		{"garbage", pattern(1000, 3), true},
		{"cut", good[:len(good)-1], true},
		{"empty", []byte{}, true},
		{"later version", later, false},
	} {
		path, _ := filepath.Glob(filepath.Join(strings.TrimPrefix(cfg.Blobstore.URL, "file:"), ".documents", "*", "*[0-9a-f]"))
		if err := os.WriteFile(path[0], c.doc, 0o600); err != nil {
			t.Fatal(err)
		}
		next := elsewhere(t, cfg)
		next.Cache.Prefetch = "readahead"
		n := start(t, next)
		bootGuest(t, n, boot)
		stop(t, n)
		if got := stored(t, cfg); bytes.Equal(got, c.doc) == c.replaced {
			t.Errorf("%s: replaced is %v, want %v", c.name, !c.replaced, c.replaced)
		} else if c.replaced && !bytes.Equal(got, good) {
			t.Errorf("%s: replaced by something else than the first run", c.name)
		}
	}
}

// Nodes that boot together lose nothing of each other, and the profile goes
// with its image.
func TestBootProfileOfSeveralNodes(t *testing.T) {
	cfg := bootConfig(t)
	var nodes []*Node
	for i := range 4 {
		c := elsewhere(t, cfg)
		n := start(t, c)
		bootGuest(t, n, append([]block.Range{boot[0], boot[1]}, block.Range{Off: int64(i+1) << 20, End: int64(i+2) << 20}))
		nodes = append(nodes, n)
	}
	var wg sync.WaitGroup
	for _, n := range nodes {
		wg.Go(func() { stop(t, n) })
	}
	wg.Wait()
	p, err := profile.Decode(stored(t, cfg))
	if err != nil || p.Runs() != 4 || p.Bytes() != 4096+2<<20+4<<20 {
		t.Errorf("%d runs, %d bytes, %v", p.Runs(), p.Bytes(), err)
	}
	next := cfg
	next.Targets = nil
	n := start(t, next)
	if err := n.DeleteImage(t.Context(), "os.img"); err != nil {
		t.Fatal(err)
	}
	stop(t, n)
	if stored(t, cfg) != nil {
		t.Error("the profile is still there")
	}
}

// A store that may only be read costs one line in the log.
func TestBootProfileReadOnlyStore(t *testing.T) {
	store, err := shaped.New(shaped.Link{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(store.Close)
	store.Put("os.img", bytes.NewReader(pattern(64<<20, 1)), 64<<20)
	store.SetFault(func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method != http.MethodPut {
			return false
		}
		w.Header().Set("x-ms-error-code", "AuthorizationPermissionMismatch")
		w.WriteHeader(http.StatusForbidden)
		return true
	})
	cfg := bootConfig(t)
	cfg.Blobstore.URL, cfg.Blobstore.AccountKeyFile = store.ContainerURL(), filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(cfg.Blobstore.AccountKeyFile, []byte(shaped.Key), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg.Cache.BootProfile = 100 * time.Millisecond
	var log lockedBuffer
	n, err := Start(t.Context(), cfg, slog.New(slog.NewTextHandler(&log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	bootGuest(t, n, boot)
	for deadline := time.Now().Add(20 * time.Second); !n.profiles.denied.Load(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("nobody tried to save")
		}
	}
	bootGuest(t, n, boot)
	stop(t, n)
	if lines := strings.Count(log.String(), "boot profile"); lines != 1 {
		t.Errorf("%d lines:\n%s", lines, log.String())
	}
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}
