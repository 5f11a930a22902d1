package blobstore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"skylun/block"
)

// pattern returns n bytes that tell where they are from.
func pattern(n int) []byte {
	p := make([]byte, n)
	for i := range p {
		p[i] = byte(i>>8) ^ byte(i*7)
	}
	return p
}

// disk is an Info of a blob put into a fake first.
func disk(content []byte) Info {
	return Info{Name: "disk", Size: block.Ceil(int64(len(content)), 512), BlobSize: int64(len(content)), Format: Raw, Identity: "0x1"}
}

// Every case is one read of a whole image of 64 KiB while the fake misbehaves.
func TestReadFaults(t *testing.T) {
	want := pattern(64 << 10)
	half := len(want) / 2
	hang := func(r *http.Request) { <-r.Context().Done() }
	type fault = func(f *fakeAzure) func(w http.ResponseWriter, r *http.Request, n int) bool
	for _, c := range []struct {
		name  string
		fault fault
		err   error         // nil: the read succeeds
		says  string        // in the error
		min   time.Duration // how long it takes
		max   time.Duration
		gets  string // the ranges asked for, when that matters
	}{
		{name: "none", fault: func(*fakeAzure) func(http.ResponseWriter, *http.Request, int) bool { return nil }, gets: "0-65535"},
		{name: "one 503 without a wish", max: time.Second, fault: func(*fakeAzure) func(http.ResponseWriter, *http.Request, int) bool {
			return func(w http.ResponseWriter, _ *http.Request, n int) bool {
				if n == 1 {
					fail(w, 503, "ServerBusy")
				}
				return n == 1
			}
		}},
		{name: "503 with Retry-After", min: 7 * time.Second, max: 8 * time.Second, fault: func(*fakeAzure) func(http.ResponseWriter, *http.Request, int) bool {
			return func(w http.ResponseWriter, _ *http.Request, n int) bool {
				if n == 1 {
					w.Header().Set("Retry-After", "7")
					fail(w, 503, "ServerBusy")
				}
				return n == 1
			}
		}},
		{name: "503 with more Retry-After than there is time", err: ErrThrottled, says: "slow down (503 ServerBusy)", max: time.Second, fault: func(*fakeAzure) func(http.ResponseWriter, *http.Request, int) bool {
			return func(w http.ResponseWriter, _ *http.Request, n int) bool {
				w.Header().Set("Retry-After", "60")
				fail(w, 503, "ServerBusy")
				return true
			}
		}},
		{name: "503 for ever", err: ErrThrottled, says: "tries:", min: 10 * time.Second, max: 20 * time.Second, fault: func(*fakeAzure) func(http.ResponseWriter, *http.Request, int) bool {
			return func(w http.ResponseWriter, _ *http.Request, n int) bool {
				fail(w, 503, "ServerBusy")
				return true
			}
		}},
		{name: "429 in milliseconds", min: 1500 * time.Millisecond, max: 2 * time.Second, fault: func(*fakeAzure) func(http.ResponseWriter, *http.Request, int) bool {
			return func(w http.ResponseWriter, _ *http.Request, n int) bool {
				if n == 1 {
					w.Header().Set("x-ms-retry-after-ms", "1500")
					fail(w, 429, "TooManyRequests")
				}
				return n == 1
			}
		}},
		{name: "500 twice", max: 2 * time.Second, fault: func(*fakeAzure) func(http.ResponseWriter, *http.Request, int) bool {
			return func(w http.ResponseWriter, _ *http.Request, n int) bool {
				if n <= 2 {
					fail(w, 500, "InternalError")
				}
				return n <= 2
			}
		}},
		{name: "body breaks off halfway", gets: "0-65535 32768-65535", max: time.Second, fault: func(*fakeAzure) func(http.ResponseWriter, *http.Request, int) bool {
			return func(w http.ResponseWriter, r *http.Request, n int) bool {
				if n == 1 {
					cut(w, want, half)
				}
				return false
			}
		}},
		{name: "body breaks off again and again", gets: "0-65535 1000-65535 2000-65535 3000-65535", max: 2 * time.Second, fault: func(*fakeAzure) func(http.ResponseWriter, *http.Request, int) bool {
			return func(w http.ResponseWriter, r *http.Request, n int) bool {
				if n <= 3 {
					cut(w, want[(n-1)*1000:], 1000)
				}
				return false
			}
		}},
		{name: "no answer once", gets: "0-65535 0-65535", min: 5 * time.Second, max: 6 * time.Second, fault: func(*fakeAzure) func(http.ResponseWriter, *http.Request, int) bool {
			return func(w http.ResponseWriter, r *http.Request, n int) bool {
				if n == 1 {
					hang(r)
				}
				return n == 1
			}
		}},
		{name: "no answer ever", err: ErrUnavailable, says: "does not answer", min: 15 * time.Second, max: 20 * time.Second, fault: func(*fakeAzure) func(http.ResponseWriter, *http.Request, int) bool {
			return func(w http.ResponseWriter, r *http.Request, n int) bool {
				hang(r)
				return true
			}
		}},
		{name: "body stops coming", gets: "0-65535 32768-65535", min: 5 * time.Second, max: 6 * time.Second, fault: func(*fakeAzure) func(http.ResponseWriter, *http.Request, int) bool {
			return func(w http.ResponseWriter, r *http.Request, n int) bool {
				if n == 1 {
					begin(w, want, half)
					hang(r)
				}
				return n == 1
			}
		}},
		{name: "body comes slowly", gets: "0-65535", min: 12 * time.Second, max: 13 * time.Second, fault: func(*fakeAzure) func(http.ResponseWriter, *http.Request, int) bool {
			return func(w http.ResponseWriter, r *http.Request, n int) bool {
				begin(w, want, 1)
				for i := 1; i <= 4; i++ {
					time.Sleep(3 * time.Second)
					w.Write(want[1+(i-1)*len(want)/4 : min(len(want), 1+i*len(want)/4)])
					w.(http.Flusher).Flush()
				}
				return true
			}
		}},
		{name: "answer is shorter than asked for", err: ErrUnavailable, says: "length", max: 20 * time.Second, fault: func(*fakeAzure) func(http.ResponseWriter, *http.Request, int) bool {
			return func(w http.ResponseWriter, r *http.Request, n int) bool {
				w.Header().Set("ETag", `"0x1"`)
				w.Header().Set("Content-Length", "100")
				w.Header().Set("Content-Range", "bytes 0-99/65536")
				w.WriteHeader(206)
				w.Write(want[:100])
				return true
			}
		}},
		{name: "answer is another range", err: ErrUnavailable, says: "range", max: 20 * time.Second, fault: func(*fakeAzure) func(http.ResponseWriter, *http.Request, int) bool {
			return func(w http.ResponseWriter, r *http.Request, n int) bool {
				w.Header().Set("ETag", `"0x1"`)
				w.Header().Set("Content-Length", "65536")
				w.Header().Set("Content-Range", "bytes 4096-69631/131072")
				w.WriteHeader(206)
				w.Write(want)
				return true
			}
		}},
		{name: "blob changes between tries", err: ErrChanged, says: "changed", max: time.Second, gets: "0-65535 32768-65535", fault: func(f *fakeAzure) func(http.ResponseWriter, *http.Request, int) bool {
			return func(w http.ResponseWriter, r *http.Request, n int) bool {
				if n == 1 {
					f.put("disk", bytes.Repeat([]byte{0xee}, len(want)))
					cut(w, want, half)
				}
				return false
			}
		}},
		{name: "condition is ignored", err: ErrChanged, max: time.Second, gets: "0-65535", fault: func(*fakeAzure) func(http.ResponseWriter, *http.Request, int) bool {
			return func(w http.ResponseWriter, r *http.Request, n int) bool {
				w.Header().Set("ETag", `"0x2"`)
				w.Header().Set("Content-Length", "65536")
				w.WriteHeader(200)
				w.Write(bytes.Repeat([]byte{0xee}, len(want)))
				return true
			}
		}},
		{name: "access denied", err: ErrAuth, says: "403 AuthenticationFailed", max: time.Second, gets: "0-65535", fault: func(*fakeAzure) func(http.ResponseWriter, *http.Request, int) bool {
			return func(w http.ResponseWriter, r *http.Request, n int) bool {
				fail(w, 403, "AuthenticationFailed")
				return true
			}
		}},
		{name: "archived", err: ErrUnavailable, says: "archive tier", max: time.Second, gets: "0-65535", fault: func(*fakeAzure) func(http.ResponseWriter, *http.Request, int) bool {
			return func(w http.ResponseWriter, r *http.Request, n int) bool {
				fail(w, 409, "BlobArchived")
				return true
			}
		}},
		{name: "redirected to elsewhere", err: ErrUnavailable, says: "302", max: time.Second, gets: "0-65535", fault: func(*fakeAzure) func(http.ResponseWriter, *http.Request, int) bool {
			return func(w http.ResponseWriter, r *http.Request, n int) bool {
				http.Redirect(w, r, "http://127.0.0.1:2/login", http.StatusFound)
				return true
			}
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f, s := newFake(t, Config{})
				f.put("disk", want)
				if ft := c.fault(f); ft != nil {
					f.setFault(func(w http.ResponseWriter, r *http.Request, kind string, n int) bool {
						return kind == "get" && ft(w, r, n)
					})
				}
				got := make([]byte, len(want))
				start := time.Now()
				err := s.Image(disk(want)).ReadAt(t.Context(), got, 0)
				took := time.Since(start)
				if !errors.Is(err, c.err) || (c.err != nil) != errors.Is(err, block.ErrMedium) {
					t.Errorf("ReadAt: %v, want %v", err, c.err)
				}
				if err == nil && !bytes.Equal(got, want) {
					t.Error("wrong bytes")
				}
				if err != nil && (!strings.Contains(err.Error(), c.says) || strings.Contains(err.Error(), "\n") || !strings.Contains(err.Error(), "disk")) {
					t.Errorf("error %q, want one line about disk with %q", err, c.says)
				}
				if took < c.min || c.max > 0 && took > c.max {
					t.Errorf("took %v, want %v to %v", took, c.min, c.max)
				}
				asked := f.asked()
				if gets := strings.Join(asked, " "); c.gets != "" && gets != c.gets {
					t.Errorf("asked for %s, want %s", gets, c.gets)
				}
				if n := f.unpinned(); n != 0 {
					t.Errorf("%d reads without If-Match", n)
				}
				st := s.Stats()
				failed := int64(len(asked))
				if err == nil {
					failed--
				}
				if st.Gets != int64(len(asked)) || st.Retries != st.Gets-1 || st.Errors != failed || st.InFlight != 0 {
					t.Errorf("%+v after %d requests of which %d failed", st, len(asked), failed)
				}
				if err == nil && st.GetBytes != int64(len(want)) {
					t.Errorf("%d bytes counted, want %d", st.GetBytes, len(want))
				}
			})
		})
	}
}

// begin answers with the length of all of p, but sends only n bytes of it.
func begin(w http.ResponseWriter, p []byte, n int) {
	total := len(pattern(64 << 10))
	w.Header().Set("ETag", `"0x1"`)
	w.Header().Set("Content-Length", fmt.Sprint(len(p)))
	w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", total-len(p), total-1, total))
	w.WriteHeader(206)
	w.Write(p[:n])
	w.(http.Flusher).Flush()
}

// cut is begin, and then the connection breaks.
func cut(w http.ResponseWriter, p []byte, n int) {
	begin(w, p, n)
	panic(http.ErrAbortHandler)
}

// Nobody to connect to is an error within the bound, and no harm is left when
// somebody comes back.
func TestStoreDownAndUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, s := newFake(t, Config{})
		want := pattern(4096)
		f.put("disk", want)
		back := time.Now().Add(30 * time.Second)
		f.down = func() error {
			if time.Now().Before(back) {
				return syscall.ECONNREFUSED
			}
			return nil
		}
		m := s.Image(disk(want))
		start := time.Now()
		err := m.ReadAt(t.Context(), make([]byte, 4096), 0)
		if took := time.Since(start); !errors.Is(err, ErrUnavailable) || !errors.Is(err, block.ErrMedium) || took > 20*time.Second {
			t.Errorf("ReadAt: %v after %v, want ErrUnavailable within 20 s", err, took)
		}
		got := make([]byte, 4096)
		if err := m.ReadAt(t.Context(), got, 0); err != nil || !bytes.Equal(got, want) {
			t.Errorf("ReadAt after %v: %v, or wrong bytes", time.Since(start), err)
		}
		if took := time.Since(start); took < 30*time.Second || took > 33*time.Second {
			t.Errorf("store was away for 30 s, noticed after %v", took)
		}
	})
}

// A caller that goes away does not wait for the store.
func TestCancelWhileHanging(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, s := newFake(t, Config{})
		f.put("disk", pattern(4096))
		f.setFault(func(w http.ResponseWriter, r *http.Request, _ string, _ int) bool {
			<-r.Context().Done()
			return true
		})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		start := time.Now()
		err := s.Image(disk(pattern(4096))).ReadAt(ctx, make([]byte, 4096), 0)
		if took := time.Since(start); !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, block.ErrMedium) || took != time.Second {
			t.Errorf("ReadAt: %v after %v, want context.DeadlineExceeded after 1 s", err, took)
		}
	})
}

// Connections are used again, also after parallel reads.
func TestConnectionsAreKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, s := newFake(t, Config{})
		f.put("disk", pattern(1<<20))
		var dials atomic.Int64
		f.down = func() error { dials.Add(1); return nil }
		m := s.Image(disk(pattern(1 << 20)))
		for range 5 {
			var wg sync.WaitGroup
			for i := range int64(32) {
				wg.Go(func() {
					if err := m.ReadAt(t.Context(), make([]byte, 4096), i*4096); err != nil {
						t.Error(err)
					}
				})
			}
			wg.Wait()
		}
		if n := dials.Load(); n > 40 {
			t.Errorf("%d connections for 160 reads, 32 at a time", n)
		}
	})
}

// What a SAS token grants must not get into anybody's log.
func TestSASStaysSecret(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "sas")
		if err := os.WriteFile(file, []byte("?sv=2024-01-01&sp=rl&sig=TOPSECRET%3D\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		f, s := newFake(t, Config{SASTokenFile: file, Timeout: 2 * time.Second, TryTimeout: time.Second})
		f.put("disk", pattern(512))
		var queries []string
		f.setFault(func(w http.ResponseWriter, r *http.Request, kind string, n int) bool {
			queries = append(queries, r.URL.RawQuery)
			return false
		})
		m := s.Image(disk(pattern(512)))
		if err := m.ReadAt(t.Context(), make([]byte, 512), 0); err != nil || !strings.Contains(strings.Join(queries, " "), "sig=TOPSECRET") {
			t.Fatalf("ReadAt: %v, queries %v", err, queries)
		}
		f.setFault(func(w http.ResponseWriter, r *http.Request, kind string, n int) bool {
			fail(w, 403, "AuthenticationFailed")
			return true
		})
		denied := m.ReadAt(t.Context(), make([]byte, 512), 0)
		s.tr.client.CloseIdleConnections()
		f.down = func() error { return syscall.EHOSTUNREACH }
		for what, err := range map[string]error{"denied": denied, "unreachable": m.ReadAt(t.Context(), make([]byte, 512), 0)} {
			if err == nil || strings.Contains(err.Error(), "TOPSECRET") {
				t.Errorf("%s: %v", what, err)
			}
		}
		if out := fmt.Sprintf("%v %+v %#v %s", s.cred, s.cred, s.cred, s.cred.sas) + s.URL(); strings.Contains(out, "TOPSECRET") {
			t.Errorf("printed as %s", out)
		}
	})
}
