package blobstore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

func openDir(t *testing.T, dir string) *fileStore {
	t.Helper()
	s, err := openFile(Config{URL: "file:" + dir}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return s.(*fileStore)
}

// Every way in which a file can become another changes its identity.
func TestFileIdentity(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "a")
	write := func(path, content string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(path, strings.Repeat("x", 1000))
	s := openDir(t, dir)
	last, err := s.Stat(t.Context(), "a")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		what string
		do   func() error
	}{
		{"a byte in place", func() error {
			f, err := os.OpenFile(path, os.O_WRONLY, 0)
			if err != nil {
				return err
			}
			defer f.Close()
			_, err = f.WriteAt([]byte("y"), 500)
			return err
		}},
		{"longer", func() error { return os.Truncate(path, 1001) }},
		{"another hole", func() error { return os.Truncate(path, 1000) }},
		{"replaced by rename, times kept", func() error {
			fi, err := os.Stat(path)
			if err != nil {
				return err
			}
			write(path+".new", strings.Repeat("z", 1000))
			if err := os.Chtimes(path+".new", fi.ModTime(), fi.ModTime()); err != nil {
				return err
			}
			return os.Rename(path+".new", path)
		}},
	} {
		m := s.Image(last)
		if err := m.ReadAt(t.Context(), make([]byte, 100), 0); err != nil {
			t.Fatalf("before %s: %v", c.what, err)
		}
		// At once: no two contents share a tick of the clock.
		if err := c.do(); err != nil {
			t.Fatal(err)
		}
		if err := m.ReadAt(t.Context(), make([]byte, 100), 0); !errors.Is(err, ErrChanged) {
			t.Errorf("%s: ReadAt: %v, want ErrChanged", c.what, err)
		}
		next, err := s.Stat(t.Context(), "a")
		if err != nil || next.Identity == last.Identity {
			t.Errorf("%s: Stat: %v, identity %s after %s", c.what, err, next.Identity, last.Identity)
		}
		last = next
	}
	// What does not touch the content does not touch the identity.
	if err := os.Chmod(path, 0o640); err != nil {
		t.Fatal(err)
	}
	if err := os.Link(path, filepath.Join(dir, "b")); err != nil {
		t.Fatal(err)
	}
	if same, err := s.Stat(t.Context(), "a"); err != nil || same.Identity != last.Identity {
		t.Errorf("after chmod and link: Stat: %v, identity %s, was %s", err, same.Identity, last.Identity)
	}
}

func TestParseIdentity(t *testing.T) {
	good := identity{1 << 40, 1763816400123456789, 1 << 60}
	if got, err := parseIdentity(good.String()); err != nil || got != good {
		t.Errorf("parseIdentity(%s) = %v, %v", good, got, err)
	}
	for _, s := range []string{"", "1", "1-2", "1-2-3-4", "1-2-3 ", "01-2-3", "+1-2-3", "0x1-2-3", "a-b-c"} {
		if got, err := parseIdentity(s); err == nil {
			t.Errorf("parseIdentity(%q) = %v", s, got)
		}
	}
}

// A write between opening and reading does not go unnoticed.
func TestReadUnchanged(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a")
	if err := os.WriteFile(path, make([]byte, 512), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	id, err := settledIdentity(t.Context(), f)
	if err != nil {
		t.Fatal(err)
	}
	if err := readUnchanged(f, id, make([]byte, 512), 0); err != nil {
		t.Error(err)
	}
	if _, err := f.WriteAt([]byte{1}, 0); err != nil {
		t.Fatal(err)
	}
	if err := readUnchanged(f, id, make([]byte, 512), 0); !errors.Is(err, ErrChanged) {
		t.Errorf("readUnchanged: %v, want ErrChanged", err)
	}
}

// A read that overlaps a write returns old bytes or an error.
func TestFileChangesDuringReads(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "a")
	if err := os.WriteFile(path, make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	s := openDir(t, dir)
	info, err := s.Stat(t.Context(), "a")
	if err != nil {
		t.Fatal(err)
	}
	m := s.Image(info)
	began := make(chan struct{})
	failed := make(chan error)
	go func() {
		p := make([]byte, 1<<20)
		for first := true; ; first = false {
			err := m.ReadAt(t.Context(), p, 0)
			if err == nil && !isZero(p) {
				err = errors.New("new bytes under the old identity")
			}
			if err != nil {
				failed <- err
				return
			}
			if first {
				close(began)
			}
		}
	}()
	<-began
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	ones := make([]byte, 64<<10)
	for i := range ones {
		ones[i] = 1
	}
	for off := int64(0); off < 1<<20; off += int64(len(ones)) {
		if _, err := f.WriteAt(ones, off); err != nil {
			t.Fatal(err)
		}
	}
	if err := <-failed; !errors.Is(err, ErrChanged) {
		t.Errorf("reading ends with %v, want ErrChanged", err)
	}
}

// States that a crash, or a person with rm, can leave are not believed.
func TestStaleUploadState(t *testing.T) {
	const size = 8192
	leave := func(t *testing.T, s *fileStore) {
		u, err := s.Create(t.Context(), "a", size, "src")
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(u.WriteAt(t.Context(), pattern(4096), 0), u.Checkpoint(t.Context(), 4096), u.Close()); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		what string
		do   func(part string) error
		want int64 // Stored
	}{
		{"nothing", func(string) error { return nil }, 4096},
		{"content is gone", func(part string) error { return os.Remove(part + ".part") }, 0},
		{"content is cut off", func(part string) error { return os.Truncate(part+".part", 4096) }, 0},
		{"state is gone", func(part string) error { return os.Remove(part + ".json") }, 0},
		{"state is empty", func(part string) error { return os.Truncate(part+".json", 0) }, 0},
		{"state is cut off", func(part string) error { return os.Truncate(part+".json", 20) }, 0},
		{"state is of another version", func(part string) error {
			return os.WriteFile(part+".json", fmt.Appendf(nil, `{"version":2,"name":"a","size":%d,"source":"src","stored":4096}`, size), 0o600)
		}, 0},
		{"state promises too much", func(part string) error {
			return os.WriteFile(part+".json", fmt.Appendf(nil, `{"version":1,"name":"a","size":%d,"source":"src","stored":%d}`, size, size+512), 0o600)
		}, 0},
		{"state promises less than nothing", func(part string) error {
			return os.WriteFile(part+".json", fmt.Appendf(nil, `{"version":1,"name":"a","size":%d,"source":"src","stored":-512}`, size), 0o600)
		}, 0},
		{"half a new state beside", func(part string) error { return os.WriteFile(part+".json.new", []byte(`{"ver`), 0o600) }, 4096},
	} {
		t.Run(c.what, func(t *testing.T) {
			s := openDir(t, filepath.Join(t.TempDir(), "blobs"))
			leave(t, s)
			if err := c.do(strings.TrimSuffix(s.contentPath("a"), ".part")); err != nil {
				t.Fatal(err)
			}
			u, err := s.Create(t.Context(), "a", size, "src")
			if err != nil {
				t.Fatal(err)
			}
			defer u.Close()
			if got := u.Stored(); got != c.want {
				t.Errorf("Stored = %d, want %d", got, c.want)
			}
			if _, err := u.Commit(t.Context()); err != nil {
				t.Fatal(err)
			}
			entries, err := os.ReadDir(filepath.Join(s.dir, uploadsDir))
			for _, e := range entries {
				if !strings.HasSuffix(e.Name(), ".new") {
					t.Errorf("%s is left behind", e.Name())
				}
			}
			if err != nil {
				t.Error(err)
			}
		})
	}
}

// A Create that fails halfway must not leave the state of what it has dropped.
func TestCreateFailsHalfway(t *testing.T) {
	s := openDir(t, t.TempDir())
	u, err := s.Create(t.Context(), "a", 4096, "one")
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(u.WriteAt(t.Context(), pattern(4096), 0), u.Checkpoint(t.Context(), 4096), u.Close()); err != nil {
		t.Fatal(err)
	}
	inTheWay := s.statePath("a") + ".new"
	if err := os.Mkdir(inTheWay, 0o755); err != nil {
		t.Fatal(err)
	}
	if u, err := s.Create(t.Context(), "a", 4096, "two"); err == nil {
		u.Close()
		t.Fatal("no error")
	}
	if err := os.Remove(inTheWay); err != nil {
		t.Fatal(err)
	}
	if u, err = s.Create(t.Context(), "a", 4096, "one"); err != nil {
		t.Fatal(err)
	}
	defer u.Close()
	if u.Stored() != 0 {
		t.Errorf("Stored = %d of a content that was dropped", u.Stored())
	}
}

// collide has four import, read and delete an image of size bytes in dir, in each
// other's way: each image that appears is of one of them, and no mixture.
func collide(t *testing.T, dir string, size int64, rounds int, create func(s *fileStore, source string, turn int) (Upload, error)) {
	var wg sync.WaitGroup
	for i := range 4 {
		s := openDir(t, dir)
		content := bytes.Repeat([]byte{byte(i + 1)}, int(size))
		wg.Go(func() {
			for round := range rounds {
				u, err := create(s, fmt.Sprint(i, round), i+round)
				if errors.Is(err, ErrBusy) {
					continue
				}
				if errors.Is(err, ErrExists) {
					info, err := s.Stat(t.Context(), "folder/a")
					p := make([]byte, size)
					if err == nil {
						err = s.Image(info).ReadAt(t.Context(), p, 0)
					}
					if err == nil && (p[0] == 0 || !bytes.Equal(p, bytes.Repeat(p[:1], len(p)))) {
						t.Errorf("an image mixed of %v", slices.Compact(slices.Clone(p)))
					}
					if err := s.Delete(t.Context(), "folder/a"); err != nil && !errors.Is(err, ErrNotFound) && !errors.Is(err, ErrBusy) {
						t.Errorf("Delete: %v", err)
					}
					continue
				}
				if err != nil {
					t.Errorf("Create: %v", err)
					continue
				}
				if u.Stored() != 0 {
					t.Errorf("Stored = %d of another's source", u.Stored())
				}
				err = errors.Join(u.WriteAt(t.Context(), content, 0), u.Checkpoint(t.Context(), size))
				if err == nil && round%3 == 0 {
					err = u.Abort(t.Context())
				} else if err == nil {
					// Somebody may delete it before Commit has looked at it.
					if _, err = u.Commit(t.Context()); errors.Is(err, ErrNotFound) || errors.Is(err, ErrChanged) {
						err = nil
					}
				}
				if err := errors.Join(err, u.Close()); err != nil {
					t.Errorf("upload: %v", err)
				}
			}
		})
	}
	wg.Wait()
}

// Many that want the same name.
func TestUploadsCollide(t *testing.T) {
	const size = 64 << 10
	collide(t, t.TempDir(), size, 30, func(s *fileStore, source string, _ int) (Upload, error) {
		return s.Create(t.Context(), "folder/a", size, source)
	})
}

// A crash between the two steps of Commit leaves the image and a state without
// content: no upload may believe it later.
func TestCommitCrash(t *testing.T) {
	s := openDir(t, t.TempDir())
	u, err := s.Create(t.Context(), "a", 4096, "src")
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(u.WriteAt(t.Context(), pattern(4096), 0), u.Checkpoint(t.Context(), 4096)); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.Rename(s.contentPath("a"), s.path("a")), u.Close()); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Stat(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Create(t.Context(), "a", 4096, "src"); !errors.Is(err, ErrExists) {
		t.Errorf("Create: %v, want ErrExists", err)
	}
	if err := s.Delete(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	u, err = s.Create(t.Context(), "a", 4096, "src")
	if err != nil {
		t.Fatal(err)
	}
	defer u.Close()
	if u.Stored() != 0 {
		t.Errorf("Stored = %d of a new upload", u.Stored())
	}
}

// Names and folders share one directory; what is in the way is named.
func TestFileNamesInTheWay(t *testing.T) {
	s := openDir(t, t.TempDir())
	for _, name := range []string{"image", "folder/image"} {
		if err := os.MkdirAll(filepath.Dir(s.path(name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(s.path(name), make([]byte, 512), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"folder", "image/below", "image/below/deeper"} {
		if _, err := s.Create(t.Context(), name, 512, "src"); !errors.Is(err, ErrExists) {
			t.Errorf("Create(%q): %v, want ErrExists", name, err)
		}
		if _, err := s.Stat(t.Context(), name); !errors.Is(err, ErrNotFound) {
			t.Errorf("Stat(%q): %v, want ErrNotFound", name, err)
		}
		if err := s.Delete(t.Context(), name); !errors.Is(err, ErrNotFound) {
			t.Errorf("Delete(%q): %v, want ErrNotFound", name, err)
		}
	}
	if _, err := s.Stat(t.Context(), "folder/image"); err != nil {
		t.Error(err)
	}
	// A link to an image elsewhere is an image, one to nothing is none.
	elsewhere := filepath.Join(t.TempDir(), "x")
	if err := os.WriteFile(elsewhere, make([]byte, 1024), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.Symlink(elsewhere, s.path("link")), os.Symlink("/nowhere", s.path("dangling")), syscall.Mkfifo(s.path("fifo"), 0o600)); err != nil {
		t.Fatal(err)
	}
	infos, err := s.List(t.Context())
	var names []string
	for _, info := range infos {
		names = append(names, info.Name)
	}
	if got := strings.Join(names, " "); err != nil || got != "folder/image image link" {
		t.Errorf("List = %s, %v", got, err)
	}
}

func TestFileFail(t *testing.T) {
	s := &fileStore{dir: t.TempDir()}
	for _, c := range []struct {
		err  error
		kind error
	}{
		{syscall.ENOENT, ErrNotFound},
		{syscall.ENOTDIR, ErrNotFound},
		{syscall.EEXIST, ErrExists},
		{syscall.EACCES, ErrAuth},
		{syscall.EPERM, ErrAuth},
		{syscall.EROFS, ErrAuth},
		{syscall.ENOSPC, ErrFull},
		{syscall.EDQUOT, ErrFull},
		{syscall.EFBIG, ErrFull},
		{syscall.EIO, ErrUnavailable},
		{syscall.ESTALE, ErrUnavailable},
		{errors.Join(syscall.ENOSPC, errors.New("and more")), ErrFull},
	} {
		err := s.fail(&fs.PathError{Op: "write", Path: "/blobs/x", Err: c.err}, "image a")
		if !errors.Is(err, c.kind) || !strings.HasPrefix(err.Error(), "image a: ") || strings.Contains(err.Error(), "\n") {
			t.Errorf("%v: %v, want %v", c.err, err, c.kind)
		}
	}
	for _, pass := range []error{nil, context.Canceled, errChanged("a"), fmt.Errorf("x: %w", context.DeadlineExceeded)} {
		if err := s.fail(pass, "image a"); err != pass {
			t.Errorf("%v became %v", pass, err)
		}
	}
}

// A directory that cannot be one is noticed when the store is opened.
func TestOpenFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, url := range []string{"file:" + file, "file:" + file + "/below"} {
		if _, err := Open(t.Context(), Config{URL: url}, slog.New(slog.DiscardHandler)); !errors.Is(err, ErrConfig) || !strings.Contains(err.Error(), file) {
			t.Errorf("Open(%s): %v, want ErrConfig", url, err)
		}
	}
}

// The file's clock may be ahead, or never settle.
func TestSettledIdentity(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a")
	if err := os.WriteFile(path, make([]byte, 512), 0o600); err != nil {
		t.Fatal(err)
	}
	ahead := time.Now().Add(time.Hour)
	if err := os.Chtimes(path, ahead, ahead); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if id, err := settledIdentity(t.Context(), f); err != nil || id.mtime != ahead.UnixNano() {
		t.Errorf("settledIdentity = %v, %v", id, err)
	}
	now := time.Now()
	if err := os.Chtimes(path, now, now); err != nil {
		t.Fatal(err)
	}
	if _, err := settledIdentity(t.Context(), f); err != nil || time.Since(now) < mtimeTick {
		t.Errorf("settledIdentity: %v after %v", err, time.Since(now))
	}
}
