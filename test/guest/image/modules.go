package image

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strings"
)

// addModules adds kernel modules with those they need, and the tables by which
// modprobe finds them. A module that is part of the kernel is there already.
// The name of the kernel's version is returned.
func (t *tree) addModules(names []string) (version string, err error) {
	found, err := filepath.Glob(filepath.Join(t.root, "usr/lib/uml/modules/*"))
	if err != nil || len(found) != 1 {
		return "", fmt.Errorf("%d folders of kernel modules, want one: %v", len(found), err)
	}
	// the kernel looks for them where every kernel does
	if err := os.Rename(filepath.Dir(found[0]), filepath.Join(t.root, "usr/lib/modules")); err != nil {
		return "", err
	}
	version = filepath.Base(found[0])
	dir := path.Join("usr/lib/modules", version)
	tables, err := filepath.Glob(filepath.Join(t.root, dir, "modules.*"))
	if err != nil {
		return "", err
	}
	for _, table := range tables {
		if err := t.add(path.Join(dir, filepath.Base(table))); err != nil {
			return "", err
		}
	}
	needs, err := os.ReadFile(filepath.Join(t.root, dir, "modules.dep"))
	if err != nil {
		return "", err
	}
	builtin, err := os.ReadFile(filepath.Join(t.root, dir, "modules.builtin"))
	if err != nil {
		return "", err
	}
	files := make(map[string][]string) // module -> its file and those it needs
	for s := bufio.NewScanner(bytes.NewReader(builtin)); s.Scan(); {
		files[moduleName(s.Text())] = nil
	}
	for s := bufio.NewScanner(bytes.NewReader(needs)); s.Scan(); {
		file, rest, _ := strings.Cut(s.Text(), ":")
		files[moduleName(file)] = append([]string{file}, strings.Fields(rest)...)
	}
	for _, name := range names {
		list, ok := files[moduleName(name)]
		if !ok {
			continue // other kernels, other modules; a script that needs it says so
		}
		for _, file := range list {
			if err := t.add(path.Join(dir, file)); err != nil {
				return "", err
			}
		}
	}
	return version, nil
}

// moduleName returns what modprobe takes for the same module.
func moduleName(file string) string {
	name, _, _ := strings.Cut(path.Base(file), ".ko")
	return strings.ReplaceAll(name, "-", "_")
}
