package image

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// deb is a Debian package in one version.
type deb struct{ name, version string }

// file returns what apt-get calls its download, up to the architecture.
func (d deb) file() string {
	return d.name + "_" + strings.ReplaceAll(d.version, ":", "%3a") + "_"
}

var installs = regexp.MustCompile(`^Inst (\S+) \((\S+) `)

// resolve returns the packages with all that they depend on, as apt would
// install them on an empty system.
func resolve(ctx context.Context, packages []string) ([]deb, error) {
	cmd := exec.CommandContext(ctx, "apt-get", append([]string{"--simulate", "--no-install-recommends",
		"-o", "Dir::State::status=/dev/null", "-o", "APT::Architecture=amd64", "install"}, packages...)...)
	var said bytes.Buffer
	cmd.Stderr = &said
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("ask apt-get for the packages of the guest (does it need apt-get update?): %w\n%s%s", err, out, said.Bytes())
	}
	var debs []deb
	for s := bufio.NewScanner(bytes.NewReader(out)); s.Scan(); {
		if m := installs.FindStringSubmatch(s.Text()); m != nil {
			debs = append(debs, deb{strings.TrimSuffix(m[1], ":amd64"), m[2]})
		}
	}
	slices.SortFunc(debs, func(a, b deb) int { return strings.Compare(a.name, b.name) })
	return debs, nil
}

// download puts those packages into dir that are not there, and returns the
// files of all.
func download(ctx context.Context, debs []deb, dir string) ([]string, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	have := func(d deb) string {
		found, _ := filepath.Glob(filepath.Join(dir, d.file()+"*.deb"))
		if len(found) == 0 {
			return ""
		}
		return found[0]
	}
	var missing []string
	for _, d := range debs {
		if have(d) == "" {
			missing = append(missing, d.name+"="+d.version)
		}
	}
	if len(missing) > 0 {
		// The sandbox is another user, who may not write where we cache.
		cmd := exec.CommandContext(ctx, "apt-get", append([]string{"-q", "-o", "APT::Sandbox::User=root", "download"}, missing...)...)
		cmd.Dir = dir
		if out, err := cmd.CombinedOutput(); err != nil {
			return nil, fmt.Errorf("download the packages of the guest (does apt-get need an update?): %w\n%s", err, out)
		}
	}
	var files []string
	for _, d := range debs {
		f := have(d)
		if f == "" {
			return nil, fmt.Errorf("apt-get downloaded no %s %s", d.name, d.version)
		}
		files = append(files, f)
	}
	return files, nil
}
