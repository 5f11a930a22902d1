package blobstore

import (
	"bytes"
	"errors"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// Who was away so long that another striped import took over and finished
// changes nothing of it any more, whatever it does next.
func TestStripedUploadTakenOver(t *testing.T) {
	st := Striping{Parts: 4, Size: 64 << 10}
	for _, last := range []string{"WriteAt", "Checkpoint", "Commit", "Abort"} {
		for _, source := range []string{"one", "two"} { // of the one who takes over
			synctest.Test(t, func(t *testing.T) {
				f, s := newFake(t, Config{})
				const size = 1 << 20
				want := pattern(size)
				late, err := s.CreateStriped(t.Context(), "a", size, "one", st)
				if err != nil {
					t.Fatal(err)
				}
				defer late.Close()
				if err := late.WriteAt(t.Context(), want[:size/2], 0); err != nil {
					t.Fatal(err)
				}
				// Its renewals get lost.
				f.setFault(func(w http.ResponseWriter, r *http.Request, kind string, _ int) bool {
					if kind == "lease renew" {
						<-r.Context().Done()
						return true
					}
					return false
				})
				time.Sleep(time.Minute)
				u, err := s.CreateStriped(t.Context(), "a", size, source, st)
				if err != nil {
					t.Fatal(err)
				}
				f.setFault(nil)
				if err := u.WriteAt(t.Context(), want, 0); err != nil {
					t.Fatal(err)
				}
				info, err := u.Commit(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				switch last {
				case "WriteAt":
					err = late.WriteAt(t.Context(), bytes.Repeat([]byte{0xee}, size), 0)
				case "Checkpoint":
					err = late.Checkpoint(t.Context(), size)
				case "Commit":
					_, err = late.Commit(t.Context())
				case "Abort":
					err = late.Abort(t.Context())
				}
				if err == nil {
					t.Errorf("%s of the late one: no error", last)
				}
				if now, err := s.Stat(t.Context(), "a"); err != nil || now.Identity != info.Identity {
					t.Errorf("after %s of the late one: %v, %v", last, now, err)
				}
				requireImage(t, s, "a", want)
			})
		}
	}
}

// One that finds parts to clear away, and is away before it does, finds them to be
// somebody's when it comes back.
func TestStripedCleaningUpLate(t *testing.T) {
	st := Striping{Parts: 4, Size: 64 << 10}
	const size = 1 << 20
	want := pattern(size)
	for _, cleaner := range []string{"Create", "Delete", "Create, listing late", "Delete, listing late"} {
		late := strings.Contains(cleaner, "late")
		synctest.Test(t, func(t *testing.T) {
			f, s := newFake(t, Config{TryTimeout: time.Hour, Timeout: time.Hour})
			left, err := s.CreateStriped(t.Context(), "a", size, "src", st)
			if err != nil {
				t.Fatal(err)
			}
			if err := errors.Join(left.WriteAt(t.Context(), want, 0), left.Close()); err != nil {
				t.Fatal(err)
			}
			// The cleaner asks for the list, which is made now or later, and is away.
			listed, away := make(chan bool), make(chan bool)
			var once sync.Once
			f.setFault(func(w http.ResponseWriter, r *http.Request, kind string, _ int) bool {
				if kind == "list" {
					once.Do(func() {
						if !late {
							f.serve(w, r)
							http.NewResponseController(w).Flush()
						}
						f.setFault(func(w http.ResponseWriter, r *http.Request, kind string, _ int) bool {
							if kind == "lease renew" { // its lease runs out
								<-r.Context().Done()
								return true
							}
							return false
						})
						listed <- true
						<-away
						if late {
							f.serve(w, r)
						}
					})
					return true
				}
				return false
			})
			done := make(chan error)
			go func() {
				if strings.HasPrefix(cleaner, "Delete") {
					done <- s.Delete(t.Context(), "a")
					return
				}
				u, err := s.Create(t.Context(), "a", size, "other")
				if err == nil {
					err = u.Close()
				}
				done <- err
			}()
			<-listed
			time.Sleep(time.Minute)
			u, err := s.CreateStriped(t.Context(), "a", size, "src", st)
			if err != nil {
				t.Fatal(err)
			}
			f.setFault(nil)
			if err := u.WriteAt(t.Context(), want, 0); err != nil {
				t.Fatal(err)
			}
			if _, err := u.Commit(t.Context()); err != nil {
				t.Fatal(err)
			}
			close(away)
			t.Logf("%s: %v", cleaner, <-done)
			requireImage(t, s, "a", want)
		})
	}
}

// The same for striped images, of which nothing is left behind.
func TestStripedUploadsCollide(t *testing.T) {
	const size = 256 << 10
	dir := filepath.Join(t.TempDir(), "blobs")
	collide(t, dir, size, 25, func(s *fileStore, source string, turn int) (Upload, error) {
		return s.CreateStriped(t.Context(), "folder/a", size, source, Striping{Parts: 1 + turn%4, Size: 64 << 10})
	})
	s := openDir(t, dir)
	if err := s.Delete(t.Context(), "folder/a"); err != nil && !errors.Is(err, ErrNotFound) {
		t.Error(err)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, stripesDir, "*", "*")); len(left) != 0 {
		t.Errorf("%v is left behind", left)
	}
}
