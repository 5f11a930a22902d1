//go:build boot

package boot

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"skylun/test/guest/image"
)

// kernel is Debian's for virtual machines, unpacked.
type kernel struct {
	root    string // of the package
	version string
}

// getKernel returns the kernel. The first time it downloads the one that
// apt-get would install.
func getKernel(ctx context.Context) (*kernel, error) {
	cache, err := image.CacheDir()
	if err != nil {
		return nil, err
	}
	cache = filepath.Join(cache, "boot")
	if k, err := unpacked(cache); err == nil {
		return k, nil
	}
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return nil, err
	}
	tmp, err := os.MkdirTemp(cache, "new")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(tmp)
	// The package without a version depends on the one that has the kernel.
	script := `set -e
p=$(apt-cache depends linux-image-cloud-amd64 | sed -n 's/.*Depends: \(linux-image-.*\)/\1/p')
apt-get -q -o APT::Sandbox::User=root download "$p"
dpkg-deb -x "$p"_*.deb kernel
busybox depmod -b kernel "${p#linux-image-}"`
	if err := run(ctx, tmp, "sh", "-c", script); err != nil {
		return nil, fmt.Errorf("download a kernel (does apt-get need an update?): %w", err)
	}
	if err := os.Rename(filepath.Join(tmp, "kernel"), filepath.Join(cache, "kernel")); err != nil {
		if k, err := unpacked(cache); err == nil {
			return k, nil // another test was faster
		}
		return nil, err
	}
	return unpacked(cache)
}

func unpacked(cache string) (*kernel, error) {
	k := &kernel{root: filepath.Join(cache, "kernel")}
	found, _ := filepath.Glob(k.path("boot/vmlinuz-*"))
	if len(found) != 1 {
		return nil, fmt.Errorf("%d kernels in %s", len(found), cache)
	}
	k.version = strings.TrimPrefix(filepath.Base(found[0]), "vmlinuz-")
	return k, nil
}

func (k *kernel) path(name string) string { return filepath.Join(k.root, name) }

// modules returns the files of modules and of those that they need, as paths
// in the package. One that is part of the kernel has none.
func (k *kernel) modules(names ...string) ([]string, error) {
	dir := filepath.Join("lib/modules", k.version)
	table, err := os.ReadFile(k.path(filepath.Join(dir, "modules.dep")))
	if err != nil {
		return nil, err
	}
	builtin, err := os.ReadFile(k.path(filepath.Join(dir, "modules.builtin")))
	if err != nil {
		return nil, err
	}
	needs := map[string][]string{}
	for line := range strings.Lines(string(table)) {
		file, rest, _ := strings.Cut(strings.TrimSpace(line), ":")
		needs[strings.TrimSuffix(filepath.Base(file), ".ko")] = append([]string{file}, strings.Fields(rest)...)
	}
	var files []string
	for _, name := range names {
		list, ok := needs[name]
		if !ok && !strings.Contains(string(builtin), "/"+name+".ko\n") {
			return nil, fmt.Errorf("kernel %s has no module %s", k.version, name)
		}
		for _, f := range list {
			files = append(files, filepath.Join(dir, f))
		}
	}
	return files, nil
}

// run runs a command in a folder; its error has what the command said.
func run(ctx context.Context, dir, name string, args ...string) error {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	if errors.Is(err, exec.ErrNotFound) {
		return fmt.Errorf("%w; the packages that this needs are in test/boot/packages.txt", err)
	}
	if err != nil {
		return fmt.Errorf("%s: %w\n%s", name, err, out)
	}
	return nil
}
