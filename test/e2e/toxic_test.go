//go:build e2e

package e2e

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"skylun/test/azurite"
	"skylun/test/toxic"
)

// toxicStore is an Azurite behind a toxiproxy.
type toxicStore struct {
	*azureStore
	link *toxic.Proxy
}

func newToxicStore(t *testing.T) *toxicStore {
	st := newAzureStore(t)
	link, err := toxic.New(st.proxy.Addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(link.Close)
	if err := os.WriteFile(st.creds, []byte(azurite.ConnectionString(link.Addr)+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return &toxicStore{st, link}
}

func (st *toxicStore) config() string {
	return fmt.Sprintf("url: http://%s/%s/%s\nconnection_string_file: %s\ntimeout: 15s\ntry_timeout: 2s", st.link.Addr, azurite.Account, st.container, st.creds)
}

// randomImage makes a file of size bytes without a block of zeros, and returns
// it with its content.
func randomImage(t *testing.T, size int) (string, []byte) {
	t.Helper()
	content := make([]byte, size)
	rand.NewChaCha8([32]byte{1}).Read(content)
	name := filepath.Join(t.TempDir(), "random.img")
	if err := os.WriteFile(name, content, 0o644); err != nil {
		t.Fatal(err)
	}
	return name, content
}

// The whole image is fetched over a link that is slow, breaks, throttles and is
// gone for a while; a guest reads what is right meanwhile, and none of its reads
// fails. No error ends it. When all of the image is here the store can go.
func TestFlakyStore(t *testing.T) {
	t.Parallel() // it waits a lot
	st := newToxicStore(t)
	s := newServer(t, st, "volume: disk, image: random")
	file, content := randomImage(t, 48<<20)
	s.cli("image", "import", file, "random")
	s.edit("cache: {prefetch: off}", "cache: {prefetch: full, prefetch_rate: 6MiB}")
	s.start()

	disk := connect(t, s, 1)
	verify := func(off, n int64) error {
		p := make([]byte, n)
		if err := disk.ReadAt(t.Context(), p, off); err != nil {
			return err
		}
		if !bytes.Equal(p, content[off:off+n]) {
			return fmt.Errorf("what was read at %d+%d is not what the image holds", off, n)
		}
		return nil
	}
	ctx, cancel := context.WithCancel(t.Context())
	var guest sync.WaitGroup
	reads := 0
	guest.Go(func() {
		rnd := rand.New(rand.NewPCG(2, 3))
		for ctx.Err() == nil {
			n := (1 + rnd.Int64N(32)) * 4096
			if err := verify(rnd.Int64N(int64(len(content)/2)-n)/512*512, n); err != nil {
				t.Error(err)
				return
			}
			reads++
			time.Sleep(time.Duration(rnd.Int64N(int64(100 * time.Millisecond))))
		}
	})
	defer guest.Wait()
	defer cancel()

	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(st.link.Latency(20 * time.Millisecond))
	must(st.link.Bandwidth(4e6))
	// season waits until the prefetch has said why it rests, or has gone on.
	season := func(name string, begin func(), seen func(state, reason string) bool) {
		t.Helper()
		before, since := s.ask().Caches[0], time.Now()
		defer func() { t.Logf("%s: after %v", name, time.Since(since).Round(time.Millisecond)) }()
		begin()
		eventually(t, 40*time.Second, func() string {
			c := s.ask().Caches[0]
			if c.Absent == 0 {
				t.Fatalf("%s: all was fetched before", name)
			}
			if seen == nil && c.Prefetch.Filled >= before.Prefetch.Filled+512<<10 || seen != nil && seen(c.Prefetch.State, c.Prefetch.Reason) {
				return ""
			}
			return fmt.Sprintf("%s: prefetch is %+v, before %+v", name, c.Prefetch, before.Prefetch)
		})
	}
	season("slow", func() {}, nil)

	season("throttled", func() {
		st.proxy.SetFault(func(w http.ResponseWriter, r *http.Request) bool {
			w.Header().Set("Retry-After", "1")
			return azurite.Unavailable(w, r)
		})
	}, func(state, reason string) bool { return state != "filling" && strings.Contains(reason, "slow down") })
	// While it is asked to slow down, it does: a request now and then. A guest's
	// read tries again by itself.
	began := st.reads(s, "random")
	time.Sleep(2 * time.Second)
	if n := st.reads(s, "random") - began; n > 30 {
		t.Errorf("%d requests in 2 s to a store that asks to slow down", n)
	}
	st.proxy.SetFault(nil)
	season("after throttling", func() {}, nil)

	must(st.link.Reset(30 * time.Millisecond))
	time.Sleep(2 * time.Second)
	st.link.Clear(t.Context())
	must(st.link.CutAfter(100_000)) // of each connection
	time.Sleep(time.Second)
	st.link.Clear(t.Context())
	must(st.link.Latency(20 * time.Millisecond))
	season("after resets", func() {}, nil)

	cancel() // reads would fail now
	guest.Wait()
	season("gone", st.link.Down, func(state, reason string) bool {
		return state == "waiting" && strings.Contains(reason, "after an error")
	})
	must(st.link.Up())
	season("back", func() {}, nil)

	eventually(t, 90*time.Second, func() string {
		if c := s.ask().Caches[0]; c.Absent > 0 || c.Prefetch.State != "complete" {
			return fmt.Sprintf("not complete: %+v", c)
		}
		return ""
	})
	t.Logf("the guest has read %d times; prefetch met %d errors", reads, s.ask().Caches[0].Prefetch.Errors)
	st.link.Down()
	for off := int64(0); off < int64(len(content)); off += 1 << 20 {
		must(verify(off, 1<<20))
	}
	s.stop()
	s.start() // without a store
	disk = connect(t, s, 1)
	for off := int64(0); off < int64(len(content)); off += 1 << 20 {
		must(verify(off, 1<<20))
	}
	s.stop()
	s.check()
}
