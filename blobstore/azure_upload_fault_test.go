package blobstore

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

func requireImage(t *testing.T, s *azureStore, name string, want []byte) {
	t.Helper()
	info, err := s.Stat(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	got := make([]byte, info.Size)
	if err := s.Image(info).ReadAt(t.Context(), got, 0); err != nil || !bytes.Equal(got, want) {
		t.Errorf("image of %d bytes is not what was uploaded, error %v", info.Size, err)
	}
}

// An outage that outlasts the lease does not end an upload, as nobody else has
// touched the blob.
func TestUploadOutlivesItsLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, s := newFake(t, Config{})
		want := pattern(8192)
		u, err := s.Create(t.Context(), "a", 8192, "src")
		if err != nil {
			t.Fatal(err)
		}
		defer u.Close()
		if err := u.WriteAt(t.Context(), want[:4096], 0); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute) // the lease is renewed
		if _, err := s.Create(t.Context(), "a", 8192, "src"); !errors.Is(err, ErrBusy) {
			t.Errorf("Create while another is idle: %v, want ErrBusy", err)
		}
		if err := u.Checkpoint(t.Context(), 4096); err != nil {
			t.Fatal(err)
		}
		back := time.Now().Add(40 * time.Second)
		var written bool
		f.setFault(func(w http.ResponseWriter, _ *http.Request, kind string, _ int) bool {
			gone := time.Now().Before(back)
			if kind == "page" && !gone {
				written = true // and refused: the lease has run out
			}
			if gone || kind == "lease renew" && !written {
				fail(w, 503, "ServerBusy")
				return true
			}
			return false
		})
		if err := u.WriteAt(t.Context(), want[4096:], 4096); err != nil {
			t.Fatal(err)
		}
		if now := time.Now(); now.Before(back) {
			t.Errorf("written %v before the store was back", back.Sub(now))
		}
		if _, err := u.Commit(t.Context()); err != nil {
			t.Fatal(err)
		}
		requireImage(t, s, "a", want)
	})
}

// Who was away so long that another import took over writes nothing any more.
func TestUploadTakenOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, s := newFake(t, Config{})
		late, err := s.Create(t.Context(), "a", 8192, "one")
		if err != nil {
			t.Fatal(err)
		}
		defer late.Close()
		// Its renewals get lost, its writes do not.
		f.setFault(func(w http.ResponseWriter, r *http.Request, kind string, _ int) bool {
			if kind == "lease renew" {
				<-r.Context().Done()
				return true
			}
			return false
		})
		time.Sleep(time.Minute)
		want := pattern(8192)
		u, err := s.Create(t.Context(), "a", 8192, "two")
		if err != nil {
			t.Fatal(err)
		}
		defer u.Close()
		f.setFault(nil)
		if err := u.WriteAt(t.Context(), want, 0); err != nil {
			t.Fatal(err)
		}
		for what, err := range map[string]error{
			"WriteAt":    late.WriteAt(t.Context(), bytes.Repeat([]byte{0xee}, 512), 0),
			"Checkpoint": late.Checkpoint(t.Context(), 512),
			"Commit":     func() error { _, err := late.Commit(t.Context()); return err }(),
			"Abort":      late.Abort(t.Context()),
		} {
			if !errors.Is(err, ErrBusy) {
				t.Errorf("%s of the late one: %v, want ErrBusy", what, err)
			}
		}
		if _, err := u.Commit(t.Context()); err != nil {
			t.Fatal(err)
		}
		requireImage(t, s, "a", want)
	})
}

// A killed upload keeps its lease for a while; the next one waits for it.
func TestUploadWaitsForTheLeaseOfTheDead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, s := newFake(t, Config{})
		want := pattern(8192)
		dead, err := s.Create(t.Context(), "a", 8192, "src")
		if err != nil {
			t.Fatal(err)
		}
		if err := dead.WriteAt(t.Context(), want[:4096], 0); err != nil {
			t.Fatal(err)
		}
		if err := dead.Checkpoint(t.Context(), 4096); err != nil {
			t.Fatal(err)
		}
		f.setFault(func(w http.ResponseWriter, _ *http.Request, kind string, _ int) bool {
			if kind == "lease release" {
				fail(w, 400, "InvalidInput") // it never came
				return true
			}
			return false
		})
		dead.Close()
		start := time.Now()
		u, err := s.Create(t.Context(), "a", 8192, "src")
		if err != nil {
			t.Fatal(err)
		}
		f.setFault(nil)
		if took := time.Since(start); took < 10*time.Second || took > 16*time.Second || u.Stored() != 4096 {
			t.Errorf("got on at %d after %v, want 4096 after at most the time of a lease", u.Stored(), took)
		}
		if err := u.WriteAt(t.Context(), want[4096:], 4096); err != nil {
			t.Fatal(err)
		}
		if _, err := u.Commit(t.Context()); err != nil {
			t.Fatal(err)
		}
		requireImage(t, s, "a", want)
	})
}

// An import over a store that fails every third request, in every way, is
// complete and correct.
func TestImportOverBadStore(t *testing.T) {
	src := filepath.Join(t.TempDir(), "src")
	want := pattern(13<<20 + 512)
	if err := os.WriteFile(src, want, 0o600); err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		f, s := newFake(t, Config{})
		var requests atomic.Int64
		f.setFault(func(w http.ResponseWriter, r *http.Request, kind string, n int) bool {
			switch i := requests.Add(1); {
			case i%3 != 0:
				return false
			case i%4 == 0:
				fail(w, 503, "ServerBusy")
			case i%4 == 1:
				fail(w, 500, "OperationTimedOut")
			case i%4 == 2:
				panic(http.ErrAbortHandler)
			default:
				<-r.Context().Done()
			}
			return true
		})
		if _, err := Import(t.Context(), s, src, "a", ImportOptions{Checkpoint: 1}); err != nil {
			t.Fatal(err)
		}
		f.setFault(nil)
		requireImage(t, s, "a", want)
		if st := s.Stats(); st.Errors < 5 || st.Retries == 0 || st.Throttled == 0 {
			t.Errorf("%+v: the faults did not happen", st)
		}
	})
}

// The answer to a request that was done may get lost.
func TestLostAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, s := newFake(t, Config{})
		lose := func(what string) {
			first := true
			f.setFault(func(w http.ResponseWriter, r *http.Request, kind string, _ int) bool {
				if kind == what && first {
					first = false
					f.serve(discard{http.Header{}}, r)
					panic(http.ErrAbortHandler)
				}
				return false
			})
		}
		lose("create")
		u, err := s.Create(t.Context(), "a", 512, "src")
		if err != nil {
			t.Fatal(err)
		}
		lose("metadata")
		if _, err := u.Commit(t.Context()); err != nil {
			t.Fatal(err)
		}
		requireImage(t, s, "a", make([]byte, 512))
		lose("delete")
		if err := s.Delete(t.Context(), "a"); err != nil {
			t.Errorf("Delete: %v", err)
		}
		if _, err := s.Stat(t.Context(), "a"); !errors.Is(err, ErrNotFound) {
			t.Errorf("Stat: %v, want ErrNotFound", err)
		}
	})
}

type discard struct{ h http.Header }

func (d discard) Header() http.Header         { return d.h }
func (d discard) Write(p []byte) (int, error) { return len(p), nil }
func (d discard) WriteHeader(int)             {}

// An import that cannot go on says so in bounded time and leaves nothing
// visible.
func TestImportIntoDeadStore(t *testing.T) {
	src := filepath.Join(t.TempDir(), "src")
	if err := os.WriteFile(src, pattern(9<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		f, s := newFake(t, Config{})
		var dead atomic.Bool
		f.down = func() error {
			if dead.Load() {
				return syscall.ECONNREFUSED
			}
			return nil
		}
		f.setFault(func(w http.ResponseWriter, _ *http.Request, kind string, n int) bool {
			if kind == "page" && n > 1 {
				dead.Store(true)
				panic(http.ErrAbortHandler)
			}
			return false
		})
		start := time.Now()
		_, err := Import(t.Context(), s, src, "a", ImportOptions{Parallel: 1})
		if took := time.Since(start); !errors.Is(err, ErrUnavailable) || took > 5*time.Minute || strings.Contains(err.Error(), "\n") {
			t.Errorf("Import: %v after %v, want ErrUnavailable", err, took)
		}
		dead.Store(false)
		f.setFault(nil)
		if _, err := s.Stat(t.Context(), "a"); !errors.Is(err, ErrNotFound) {
			t.Errorf("Stat: %v, want ErrNotFound", err)
		}
		if _, err := Import(context.WithoutCancel(t.Context()), s, src, "a", ImportOptions{}); err != nil {
			t.Fatal(err)
		}
		requireImage(t, s, "a", pattern(9<<20))
	})
}
