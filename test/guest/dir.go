package guest

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"skylun/test/guest/image"
)

// A run owns a folder, which it keeps locked. A folder that nobody has locked
// is of a run that was killed.

// release gives the folder of a run up.
type release struct{ dir *os.File }

// newDir makes a folder for a run and removes those of killed runs.
func newDir() (string, release, error) {
	cache, err := image.CacheDir()
	if err != nil {
		return "", release{}, err
	}
	runs := filepath.Join(cache, "runs")
	if err := os.MkdirAll(runs, 0o755); err != nil {
		return "", release{}, err
	}
	// one at a time: a new folder is not locked at once
	all, err := os.Open(runs)
	if err != nil {
		return "", release{}, err
	}
	defer all.Close()
	if err := syscall.Flock(int(all.Fd()), syscall.LOCK_EX); err != nil {
		return "", release{}, err
	}
	if err := removeStale(runs); err != nil {
		return "", release{}, err
	}
	name, err := os.MkdirTemp(runs, "")
	if err != nil {
		return "", release{}, err
	}
	dir, err := os.Open(name)
	if err != nil {
		return "", release{}, err
	}
	return name, release{dir}, syscall.Flock(int(dir.Fd()), syscall.LOCK_EX)
}

func removeStale(runs string) error {
	old, err := filepath.Glob(filepath.Join(runs, "*"))
	if err != nil {
		return err
	}
	for _, name := range old {
		dir, err := os.Open(name)
		if err != nil {
			continue // its run has just ended
		}
		err = syscall.Flock(int(dir.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		dir.Close()
		if err != nil {
			continue
		}
		if err := os.RemoveAll(name); err != nil {
			return fmt.Errorf("remove what a killed run left: %w", err)
		}
	}
	return nil
}

// Remove removes the folder of the run.
func (r release) Remove() error {
	if r.dir == nil {
		return nil
	}
	return errors.Join(os.RemoveAll(r.dir.Name()), r.dir.Close())
}

// Keep moves the folder of the run to where it stays until one is kept by the
// same name again, and returns where that is.
func (r release) Keep(name string) (string, error) {
	if r.dir == nil {
		return "", nil
	}
	defer r.dir.Close()
	failed := filepath.Join(filepath.Dir(filepath.Dir(r.dir.Name())), "failed")
	kept := filepath.Join(failed, strings.ReplaceAll(name, "/", "-"))
	err := errors.Join(os.MkdirAll(failed, 0o755), os.RemoveAll(kept), os.Rename(r.dir.Name(), kept))
	if err != nil {
		return r.dir.Name(), err
	}
	return kept, nil
}
