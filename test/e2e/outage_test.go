//go:build e2e

package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// While the store is gone, what was read or written before is served, and the
// rest ends in an error, soon. When it is back all is well again, without a
// restart.
func TestStoreGone(t *testing.T) {
	t.Parallel() // it waits a lot
	outage := func(t *testing.T, st store) {
		s := newServer(t, st, "volume: disk, image: pattern")
		s.cli("image", "import", patternImage(t, 64, 0x40), "pattern")
		s.start()
		qemuIO(t, s.url(0), "read -P 0x41 1M 1M", "write -P 0x99 40M 1M", "flush")
		// What was read is stored behind the answer.
		eventually(t, 20*time.Second, func() string {
			if c := s.ask().Caches; len(c) != 1 || c[0].Cached < 1<<20 {
				return fmt.Sprintf("what was read is not cached: %+v", c)
			}
			return ""
		})

		st.leave()
		qemuIO(t, s.url(0), "read -P 0x41 1M 1M", "read -P 0x99 40M 1M", "write -P 0x9a 50M 64k", "flush", "read -P 0x9a 50M 64k")
		begin := time.Now()
		if key := senseOf(t, s.url(0), 63<<20); key != mediumError && key != hardwareError {
			t.Errorf("a block that nobody has ends with sense key %s", key)
		}
		if d := time.Since(begin); d > 40*time.Second {
			t.Errorf("the error took %v", d)
		}
		if log := s.logged(); !strings.Contains(log, "pattern") || !strings.Contains(log, "unavailable") && !strings.Contains(log, "is not there") {
			t.Errorf("no log line says that the store is gone:\n%s", tail(log))
		}
		qemuIO(t, s.url(0), "read -P 0x41 1M 1M") // and still

		st.comeBack()
		qemuIO(t, s.url(0), "read -P 0x7f 63M 4k", "read -P 0x7e 62M 4k", "read -P 0x9a 50M 64k", "read -P 0x99 40M 1M")
		s.stop()
		s.check()
	}
	t.Run("file", func(t *testing.T) { outage(t, newFileStore(t)) })
	t.Run("azurite", func(t *testing.T) { outage(t, newOwnAzureStore(t)) })
}

// A server whose store does not answer when it starts serves what it has.
func TestStartWithoutStore(t *testing.T) {
	t.Parallel() // it waits a lot
	without := func(t *testing.T, st store) {
		s := newServer(t, st, "volume: disk, image: pattern")
		s.cli("image", "import", patternImage(t, 8, 0x40), "pattern")
		s.start()
		qemuIO(t, s.url(0), "read -P 0x41 1M 1M", "write -P 0x99 4M 1M", "flush")
		s.stop()
		st.leave()
		s.start()
		qemuIO(t, s.url(0), "read -P 0x41 1M 1M", "read -P 0x99 4M 1M")
		st.comeBack()
		qemuIO(t, s.url(0), "read -P 0x47 7M 1M")
		s.stop()
		s.check()
	}
	t.Run("file", func(t *testing.T) { without(t, newFileStore(t)) })
	t.Run("azurite", func(t *testing.T) { without(t, newOwnAzureStore(t)) })
}

// A blob that changes under the server is not mixed into a disk: what was read
// before stays, the rest is an error that the log explains.
func TestBlobChanges(t *testing.T) {
	eachStore(t, func(t *testing.T, st store) {
		s := newServer(t, st, "volume: disk, image: pattern")
		s.cli("image", "import", patternImage(t, 64, 0x40), "pattern")
		s.start()
		qemuIO(t, s.url(0), "read -P 0x41 1M 1M", "write -P 0x99 40M 1M", "flush")
		eventually(t, 20*time.Second, func() string {
			if c := s.ask().Caches; len(c) != 1 || c[0].Cached < 1<<20 {
				return fmt.Sprintf("what was read is not cached: %+v", c)
			}
			return ""
		})

		// One reader is under way when it happens.
		old, failed, done := 0, 0, make(chan struct{})
		disk, p := connect(t, s, 0), make([]byte, 64<<10)
		go func() {
			defer close(done)
			for off := int64(4 << 20); off < 36<<20; off += int64(len(p)) {
				if err := disk.ReadAt(t.Context(), p, off); err != nil {
					failed++
				} else if want := 0x40 + byte(off>>20); p[0] != want || p[len(p)-1] != want {
					t.Errorf("at %d: read %#x and %#x, want %#x", off, p[0], p[len(p)-1], want)
				} else {
					old++
				}
			}
		}()
		st.put("pattern", patternImage(t, 64, 0xa0))
		<-done
		t.Logf("a reader during the change: %d reads of what was, %d errors", old, failed)
		qemuIO(t, s.url(0), "read -P 0x41 1M 1M", "read -P 0x99 40M 1M")
		for _, mib := range []int{2, 3, 38, 41, 63} {
			o := tryQemuIO(t, s.url(0), fmt.Sprintf("read -P %#x %dM 4k", 0x40+mib, mib))
			if out := o.stdout + o.stderr; strings.Contains(out, "Pattern verification failed") {
				t.Errorf("at %d MiB the new blob's content showed up", mib)
			}
		}
		if key := senseOf(t, s.url(0), 63<<20); key != mediumError {
			t.Errorf("a block of the changed blob ends with sense key %s", key)
		}
		if log := s.logged(); !strings.Contains(log, "changed") {
			t.Errorf("no log line says that the blob has changed:\n%s", tail(log))
		}
		s.stop()
		s.check()
	})
}
