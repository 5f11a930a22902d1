package blobstore

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"

	"skylun/block"
)

// An upload is two files in the folder .uploads, named after a hash of the
// image's name:
//
//	HASH.part   the content, sparse; locked with flock while an Upload is open
//	HASH.json   what it is to become and how much of it is durable (partState)
//
// Order of a checkpoint: sync the content, then replace the state. The other
// way round a power cut leaves a state that promises bytes which are not there.
//
// Order of Commit: sync the content, rename it to its name (never over an
// existing file), sync the folder it is in now, remove the state. A crash
// before the rename leaves an upload to go on with; a crash after it leaves the
// complete image, perhaps with a stale state, which nobody looks at without its
// content and which Create replaces and Delete removes. Renaming before the
// sync could show an image with holes after a power cut.
type fileUpload struct {
	s     *fileStore
	name  string
	size  int64
	start int64 // Stored

	puts, putBytes *atomic.Int64 // where writes are counted

	f  *os.File // nil after Close
	mu sync.Mutex
	partState
}

var _ object = (*fileUpload)(nil)

// partState is the content of HASH.json.
type partState struct {
	Version int    `json:"version"`
	Name    string `json:"name"`
	Size    int64  `json:"size"`
	Source  string `json:"source"`
	Stored  int64  `json:"stored"`
}

const partVersion = 1

// uploadFiles returns the paths of content and state of an upload.
func (s *fileStore) uploadFiles(name string) (content, state string) {
	if isPart(name) {
		return s.path(name), s.path(name) + ".json"
	}
	h := sha256.Sum256([]byte(name))
	base := filepath.Join(s.dir, uploadsDir, hex.EncodeToString(h[:16]))
	return base + ".part", base + ".json"
}

func (s *fileStore) contentPath(name string) string { c, _ := s.uploadFiles(name); return c }
func (s *fileStore) statePath(name string) string   { _, st := s.uploadFiles(name); return st }

// Create implements Store.
func (s *fileStore) Create(ctx context.Context, name string, size int64, source string) (Upload, error) {
	return create(ctx, s, name, size, source)
}

// CreateStriped implements Store.
func (s *fileStore) CreateStriped(ctx context.Context, name string, size int64, source string, st Striping) (Upload, error) {
	return createStriped(ctx, s, name, size, source, st)
}

// createObject implements striper.
func (s *fileStore) createObject(ctx context.Context, name string, size int64, source string) (object, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	s.n.others.Add(1)
	u, err := s.create(name, size, source)
	if err != nil {
		return nil, s.fail(err, "image "+name)
	}
	return u, nil
}

// checkUpload tells what is wrong with the arguments of Create.
func checkUpload(name string, size int64) error {
	if err := CheckName(name); err != nil {
		return err
	}
	if size <= 0 || size%sector != 0 {
		return &fault{ErrFormat, fmt.Sprintf("image %s: size %d is not a positive multiple of %d", name, size, sector)}
	}
	return nil
}

func (s *fileStore) create(name string, size int64, source string) (*fileUpload, error) {
	var f *os.File
	for round := 1; ; round++ {
		err := makeDirs(filepath.Dir(s.contentPath(name)))
		if err == nil {
			f, err = s.lockPart(name, os.O_CREATE)
		}
		if err == nil {
			break
		}
		// Who deletes the last part takes its folder away, too.
		if !isPart(name) || !errors.Is(err, fs.ErrNotExist) || round == maxRounds {
			return nil, err
		}
	}
	var err error
	u := &fileUpload{s: s, name: name, size: size, f: f, puts: &s.n.puts, putBytes: &s.n.putBytes}
	// Under the lock: whoever held it before may have committed.
	switch _, err := os.Lstat(s.path(name)); {
	case isPart(name): // it is where it stays
	case err == nil:
		return nil, errors.Join(fs.ErrExist, u.drop())
	case errors.Is(err, syscall.ENOTDIR):
		return nil, errors.Join(&fault{ErrExists, fmt.Sprintf("image %s: a part of its name is an image in %s: choose another name", name, s.URL())}, u.drop())
	case !isAbsent(err):
		return nil, errors.Join(err, u.Close())
	}
	want := partState{Version: partVersion, Name: name, Size: size, Source: source}
	if found, ok := u.resumable(want); ok {
		u.partState, u.start = found, found.Stored
		return u, nil
	}
	// First forget, durably, then drop the content, then size it and say what
	// it is: no state may ever promise the bytes of a content that is gone.
	u.partState = want
	err = u.dropState()
	if err == nil {
		err = f.Truncate(0)
	}
	if err == nil {
		err = f.Truncate(size)
	}
	if err == nil {
		err = u.writeState()
	}
	if err != nil {
		return nil, errors.Join(err, u.Close())
	}
	return u, nil
}

// resumable returns the state of what is there, if that is a part of want.
func (u *fileUpload) resumable(want partState) (partState, bool) {
	found, err := readState(u.s.statePath(u.name))
	if err != nil || want.Source == "" {
		return partState{}, false
	}
	want.Stored = found.Stored
	// A content that was just created is empty, whatever an old state says.
	fi, err := u.f.Stat()
	return found, err == nil && fi.Size() == u.size && found == want && found.Stored <= u.size
}

// lockPart opens the content of an upload and locks it. The lock goes with the
// descriptor, so also when the process is killed.
func (s *fileStore) lockPart(name string, flags int) (*os.File, error) {
	for {
		f, err := os.OpenFile(s.contentPath(name), os.O_RDWR|flags, 0o644)
		if err != nil {
			return nil, err
		}
		if err := flock(f); err != nil {
			f.Close()
			if errors.Is(err, syscall.EWOULDBLOCK) {
				return nil, &fault{ErrBusy, fmt.Sprintf("image %s is being imported by another process: wait for it, or stop it", name)}
			}
			return nil, err
		}
		// The holder of the lock may have renamed or removed the file
		// between opening and locking: then this is another file.
		mine, err := f.Stat()
		if err != nil {
			f.Close()
			return nil, err
		}
		if now, err := os.Stat(f.Name()); err == nil && os.SameFile(mine, now) {
			return f, nil
		}
		f.Close()
	}
}

func flock(f *os.File) error {
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err != unix.EINTR {
			return err
		}
	}
}

// dropUpload removes what an unfinished upload of that name left, and tells
// whether there was something.
func (s *fileStore) dropUpload(name string) (bool, error) {
	f, err := s.lockPart(name, 0)
	if isAbsent(err) {
		// A state without content: see the order of Commit.
		return false, (&fileUpload{s: s, name: name}).dropState()
	}
	if err != nil {
		return false, err
	}
	return true, (&fileUpload{s: s, name: name, f: f}).drop()
}

// Stored implements Upload.
func (u *fileUpload) Stored() int64 { return u.start }

// WriteAt implements Upload.
func (u *fileUpload) WriteAt(ctx context.Context, p []byte, off int64) error {
	if err := checkWrite(u.name, p, off, u.size); err != nil {
		return err
	}
	u.s.n.inFlight.Add(1)
	defer u.s.n.inFlight.Add(-1)
	for _, r := range dataRuns(p, 0) {
		if err := ctx.Err(); err != nil {
			return err
		}
		u.puts.Add(1)
		if _, err := u.f.WriteAt(p[r.Off:r.End], off+r.Off); err != nil {
			return u.s.fail(err, "image "+u.name)
		}
		u.putBytes.Add(r.Len())
	}
	return nil
}

// checkWrite tells what is wrong with the arguments of WriteAt.
func checkWrite(name string, p []byte, off, size int64) error {
	if err := block.CheckRange(off, int64(len(p)), size); err != nil {
		return fmt.Errorf("image %s: %w", name, err)
	}
	if off%sector != 0 || len(p)%sector != 0 {
		return fmt.Errorf("image %s: write %d+%d is not in sectors of %d: %w", name, off, len(p), sector, block.ErrOutOfRange)
	}
	return nil
}

// Checkpoint implements Upload.
func (u *fileUpload) Checkpoint(ctx context.Context, off int64) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if off <= u.partState.Stored {
		return nil
	}
	err := unix.Fdatasync(int(u.f.Fd()))
	if err == nil {
		u.partState.Stored = off
		err = u.writeState()
	}
	return u.s.fail(err, "image "+u.name)
}

// seal implements object.
func (u *fileUpload) seal(ctx context.Context) (string, error) {
	err := u.f.Sync()
	if err == nil {
		err = syncDir(filepath.Dir(u.f.Name()))
	}
	var id identity
	if err == nil {
		id, err = settledIdentity(ctx, u.f)
	}
	return id.String(), u.s.fail(err, "image "+u.name)
}

// held implements object: the lock is held as long as the file is open.
func (u *fileUpload) held(context.Context) error { return nil }

// uncounted implements object.
func (u *fileUpload) uncounted() { u.puts, u.putBytes = &u.s.n.others, new(atomic.Int64) }

// Commit implements Upload.
func (u *fileUpload) Commit(ctx context.Context) (Info, error) {
	if err := ctx.Err(); err != nil {
		return Info{}, err
	}
	if err := u.commit(); err != nil {
		return Info{}, u.s.fail(err, "image "+u.name)
	}
	return u.s.Stat(ctx, u.name)
}

func (u *fileUpload) commit() error {
	if err := u.f.Sync(); err != nil {
		return err
	}
	path := u.s.path(u.name)
	for {
		if err := makeDirs(filepath.Dir(path)); err != nil {
			return err
		}
		err := renameNew(u.f.Name(), path)
		if err == nil {
			break
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		// Delete has removed the folder, empty as it was, under our feet;
		// unless it is the content that is missing.
		if _, err := os.Lstat(u.f.Name()); err != nil {
			return err
		}
	}
	if err := syncDir(filepath.Dir(path)); err != nil {
		return err
	}
	return errors.Join(u.dropState(), u.Close())
}

// Abort implements Upload.
func (u *fileUpload) Abort(context.Context) error {
	return u.s.fail(u.drop(), "image "+u.name)
}

// drop removes the upload and closes it: the state first, so that no state is
// ever without its content.
func (u *fileUpload) drop() error {
	err := u.dropState()
	if err == nil {
		err = os.Remove(u.f.Name())
	}
	if err == nil && isPart(u.name) {
		os.Remove(filepath.Dir(u.f.Name())) // unless there are others in it
	}
	return errors.Join(err, u.Close())
}

// dropState removes the state, durably.
func (u *fileUpload) dropState() error {
	path := u.s.statePath(u.name)
	err := os.Remove(path)
	if isAbsent(err) {
		return nil
	}
	if err == nil {
		err = syncDir(filepath.Dir(path))
	}
	return err
}

// Close implements Upload.
func (u *fileUpload) Close() error {
	if u.f == nil {
		return nil
	}
	err := u.f.Close()
	u.f = nil
	return err
}

// writeState replaces the state.
func (u *fileUpload) writeState() error {
	data, err := json.Marshal(u.partState)
	if err != nil {
		return err
	}
	return replaceFile(u.s.statePath(u.name), data, 0o600)
}

// readState reads a state; what cannot be understood is an error.
func readState(path string) (partState, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return partState{}, err
	}
	var st partState
	if err := json.Unmarshal(data, &st); err != nil || st.Stored < 0 {
		return partState{}, fmt.Errorf("%s is damaged", path)
	}
	return st, nil
}
