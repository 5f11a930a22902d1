package image

import (
	"debug/elf"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// libraries are the folders that the dynamic linker searches without being
// told.
var libraries = []string{"usr/lib/x86_64-linux-gnu", "usr/lib", "usr/lib64"}

// tree collects what the guest gets of the unpacked packages below root.
// Names are relative to it.
type tree struct {
	root  string
	names map[string]bool
}

// list adds what a list of files asks for.
func (t *tree) list(words []string) error {
	var errs []error
	for _, w := range words {
		errs = append(errs, t.word(w))
	}
	return errors.Join(errs...)
}

func (t *tree) word(w string) error {
	patterns := []string{w}
	if !strings.Contains(w, "/") {
		patterns = []string{"usr/bin/" + w, "usr/sbin/" + w}
	}
	found := 0
	for _, p := range patterns {
		names, err := filepath.Glob(filepath.Join(t.root, p))
		if err != nil {
			return err
		}
		for _, name := range names {
			rel, err := filepath.Rel(t.root, name)
			if err != nil {
				return err
			}
			if err := t.add(rel); err != nil {
				return err
			}
			found++
		}
	}
	if found == 0 {
		return fmt.Errorf("no package of the guest has %s", w)
	}
	return nil
}

// add adds a file and what it needs: the folder it is in, what it links to,
// the libraries of a program, everything in a folder.
func (t *tree) add(name string) error {
	if name == "." || t.names[name] {
		return nil
	}
	for dir := path.Dir(name); dir != "." && !t.names[dir]; dir = path.Dir(dir) {
		t.names[dir] = true
	}
	full := filepath.Join(t.root, name)
	info, err := os.Lstat(full)
	if err != nil {
		return err
	}
	t.names[name] = true
	switch {
	case info.IsDir():
		entries, err := os.ReadDir(full)
		if err != nil {
			return err
		}
		for _, e := range entries {
			if err := t.add(path.Join(name, e.Name())); err != nil {
				return err
			}
		}
		return nil
	case info.Mode()&fs.ModeSymlink != 0:
		to, err := os.Readlink(full)
		if err != nil {
			return err
		}
		target := merged(to)
		if !path.IsAbs(to) {
			target = merged(path.Join(path.Dir(name), to))
		}
		if _, err := os.Lstat(filepath.Join(t.root, target)); errors.Is(err, fs.ErrNotExist) {
			return nil // to what exists only when the system runs
		}
		return t.add(target)
	default:
		return t.addNeeded(name)
	}
}

// addNeeded adds the dynamic linker and the libraries that a program or a
// library names.
func (t *tree) addNeeded(name string) error {
	f, err := elf.Open(filepath.Join(t.root, name))
	if err != nil {
		return nil // not a program
	}
	defer f.Close()
	if s := f.Section(".interp"); s != nil {
		linker, err := s.Data()
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		if err := t.add(merged(strings.TrimRight(string(linker), "\x00"))); err != nil {
			return err
		}
	}
	needed, err := f.ImportedLibraries()
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	where := slices.Concat(searchPath(f, name), libraries)
	for _, lib := range needed {
		if err := t.addLibrary(lib, where); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}

func (t *tree) addLibrary(lib string, where []string) error {
	for _, dir := range where {
		name := path.Join(dir, lib)
		if _, err := os.Lstat(filepath.Join(t.root, name)); err == nil {
			return t.add(name)
		}
	}
	return fmt.Errorf("no package of the guest has the library %s", lib)
}

// searchPath returns where a file wants its libraries searched first.
func searchPath(f *elf.File, name string) []string {
	var dirs []string
	for _, tag := range []elf.DynTag{elf.DT_RUNPATH, elf.DT_RPATH} {
		paths, _ := f.DynString(tag)
		for _, list := range paths {
			for dir := range strings.SplitSeq(list, ":") {
				dir = strings.ReplaceAll(dir, "$ORIGIN", "/"+path.Dir(name))
				dirs = append(dirs, merged(dir))
			}
		}
	}
	return dirs
}
