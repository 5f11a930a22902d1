package image

import (
	"errors"
	"maps"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// folders that packages do not bring, or that stay empty until the guest runs.
var folders = []string{"dev", "etc", "etc/iscsi", "etc/multipath", "host", "mnt", "proc", "root", "run", "run/lock", "sys", "tmp",
	"usr", "usr/lib64", "var", "var/lib", "var/lib/iscsi", "var/log"}

// links make one system of it.
var links = map[string]string{
	"bin": "usr/bin", "sbin": "usr/sbin", "lib": "usr/lib", "lib64": "usr/lib64",
	"var/run": "/run", "var/lock": "/run/lock", "etc/mtab": "/proc/self/mounts",
	// the packages' own names, which their installation would make
	"usr/bin/which": "busybox", "usr/bin/awk": "busybox",
}

// texts are files of the guest that come from no package. udev's rules name
// groups, and complain about those that do not exist.
var texts = map[string]string{
	"etc/passwd": "root:x:0:0:root:/root:/bin/sh\n",
	"etc/group": "root:x:0:\ntty:x:5:\ndisk:x:6:\nlp:x:7:\ndialout:x:20:\ncdrom:x:24:\nfloppy:x:25:\ntape:x:26:\naudio:x:29:\n" +
		"video:x:44:\ninput:x:97:\nrender:x:98:\nkvm:x:99:\nsgx:x:96:\n",
	"etc/hosts":  "127.0.0.1 localhost\n",
	"etc/fstab":  "",
	"etc/shells": "/bin/sh\n",
}

// initramfs writes an archive of what is in the tree, and of what is above.
func (t *tree) initramfs(file string) (err error) {
	f, err := os.Create(file)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	for _, name := range folders {
		t.names[name] = true
	}
	applets, err := t.applets()
	if err != nil {
		return err
	}
	links := maps.Clone(links)
	for _, name := range applets {
		links["usr/bin/"+name] = "busybox"
	}
	for name := range links {
		if t.names[name] {
			delete(links, name)
		}
	}

	a := newArchive(f)
	for _, name := range slices.Sorted(maps.Keys(t.names)) { // folders before what is in them
		if err := t.pack(a, name); err != nil {
			return err
		}
	}
	for _, name := range slices.Sorted(maps.Keys(links)) {
		if err := a.entry(name, modeLink|0o777, 0, 0, int64(len(links[name])), strings.NewReader(links[name])); err != nil {
			return err
		}
	}
	for _, name := range slices.Sorted(maps.Keys(texts)) {
		if err := a.entry(name, modeFile|0o644, 0, 0, int64(len(texts[name])), strings.NewReader(texts[name])); err != nil {
			return err
		}
	}
	// the kernel opens it for init before anything is mounted
	if err := a.entry("dev/console", modeChar|0o600, 5, 1, 0, nil); err != nil {
		return err
	}
	if err := a.entry("init", modeFile|0o755, 0, 0, int64(len(initScript)), strings.NewReader(initScript)); err != nil {
		return err
	}
	return a.close()
}

// pack adds one name of the tree to the archive.
func (t *tree) pack(a *archive, name string) error {
	full := filepath.Join(t.root, name)
	info, err := os.Lstat(full)
	switch {
	case errors.Is(err, os.ErrNotExist): // one of folders
		return a.entry(name, modeDir|0o755, 0, 0, 0, nil)
	case err != nil:
		return err
	case info.IsDir():
		return a.entry(name, modeDir|0o755, 0, 0, 0, nil)
	case info.Mode()&os.ModeSymlink != 0:
		to, err := os.Readlink(full)
		if err != nil {
			return err
		}
		return a.entry(name, modeLink|0o777, 0, 0, int64(len(to)), strings.NewReader(to))
	}
	if _, ours := texts[name]; ours {
		return nil
	}
	f, err := os.Open(full)
	if err != nil {
		return err
	}
	defer f.Close()
	return a.entry(name, modeFile|uint32(info.Mode().Perm()), 0, 0, info.Size(), f)
}

// applets returns the commands that busybox has and the packages do not.
func (t *tree) applets() ([]string, error) {
	out, err := exec.Command(filepath.Join(t.root, "usr/bin/busybox"), "--list").Output()
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(strings.Fields(string(out)), func(name string) bool {
		return name == "busybox" || t.names[path.Join("usr/bin", name)] || t.names[path.Join("usr/sbin", name)]
	}), nil
}
