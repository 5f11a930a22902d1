package image

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// Image is what a guest boots.
type Image struct {
	Kernel    string // the program that is the kernel
	Initramfs string
	Versions  string // a file: every package that the image was made of, with its version
}

// CacheVariable names the environment variable that tells where the tests keep
// what they made or downloaded, instead of below the user's cache.
const CacheVariable = "SKYLUN_TEST_CACHE"

// CacheDir returns the folder below which everything of the guest tests is.
func CacheDir() (string, error) {
	if dir := os.Getenv(CacheVariable); dir != "" {
		return filepath.Join(dir, "guest"), nil
	}
	dir, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	return filepath.Join(dir, "skylun", "guest"), nil
}

// Make returns the image that the lists describe. The first time, or when
// again is true, it makes it: that needs apt-get, dpkg-deb, and where apt-get
// gets packages from. Logf tells what takes long.
func Make(ctx context.Context, again bool, logf func(format string, args ...any)) (Image, error) {
	cache, err := CacheDir()
	if err != nil {
		return Image{}, err
	}
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return Image{}, err
	}
	unlock, err := lock(filepath.Join(cache, "lock"))
	if err != nil {
		return Image{}, err
	}
	defer unlock()

	dir := filepath.Join(cache, "image-"+fingerprint())
	img := Image{filepath.Join(dir, "linux"), filepath.Join(dir, "initramfs"), filepath.Join(dir, "versions")}
	if _, err := os.Stat(dir); err == nil && !again {
		return img, nil
	}
	logf("making the guest: about a minute, once")
	tmp := filepath.Join(cache, "new")
	if err := errors.Join(os.RemoveAll(tmp), os.MkdirAll(tmp, 0o755)); err != nil {
		return Image{}, err
	}
	defer os.RemoveAll(tmp)
	if err := build(ctx, tmp, filepath.Join(cache, "packages")); err != nil {
		return Image{}, err
	}
	old, _ := filepath.Glob(filepath.Join(cache, "image-*"))
	for _, dir := range old {
		if err := os.RemoveAll(dir); err != nil {
			return Image{}, err
		}
	}
	return img, os.Rename(tmp, dir)
}

// build makes the files of an image in dir.
func build(ctx context.Context, dir, packages string) error {
	debs, err := resolve(ctx, words(packageList))
	if err != nil {
		return err
	}
	files, err := download(ctx, debs, packages)
	if err != nil {
		return err
	}
	t := &tree{root: filepath.Join(dir, "root"), names: make(map[string]bool)}
	for _, f := range files {
		if err := unpack(ctx, f, t.root); err != nil {
			return err
		}
	}
	version, err := t.addModules(words(moduleList))
	if err != nil {
		return err
	}
	if err := t.list(words(fileList)); err != nil {
		return err
	}
	if err := t.initramfs(filepath.Join(dir, "initramfs")); err != nil {
		return err
	}
	if err := os.Rename(filepath.Join(t.root, "usr/bin/linux.uml"), filepath.Join(dir, "linux")); err != nil {
		return err
	}
	record := bytes.NewBufferString("Linux " + version + "\n")
	for _, d := range debs {
		fmt.Fprintln(record, d.name, d.version)
	}
	if err := os.WriteFile(filepath.Join(dir, "versions"), record.Bytes(), 0o644); err != nil {
		return err
	}
	return os.RemoveAll(t.root)
}

// Summary returns the versions of the kernel and of the packages that tests
// are about, in one line.
func (img Image) Summary() string {
	all, err := os.ReadFile(img.Versions)
	if err != nil {
		return err.Error()
	}
	var some []string
	for line := range strings.Lines(string(all)) {
		switch name, _, _ := strings.Cut(line, " "); name {
		case "Linux", "open-iscsi", "multipath-tools", "udev", "fio":
			some = append(some, strings.TrimSpace(line))
		}
	}
	return strings.Join(some, ", ")
}

// lock waits until no other process holds the lock file.
func lock(name string) (unlock func(), err error) {
	f, err := os.OpenFile(name, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX); err != nil {
		f.Close()
		return nil, err
	}
	return func() { f.Close() }, nil
}
