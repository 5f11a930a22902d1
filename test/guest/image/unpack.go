package image

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"
)

// unwanted are folders that no guest needs and that make up most of a package.
var unwanted = []string{
	"usr/share/doc", "usr/share/man", "usr/share/locale", "usr/share/info", "usr/share/icu", "usr/share/perl",
	"usr/share/perl5", "usr/lib/x86_64-linux-gnu/perl", "usr/lib/x86_64-linux-gnu/perl-base",
	"usr/lib/python3", "usr/lib/python3.11", "usr/lib/python3.12", "usr/lib/python3.13",
}

// unpack writes the files of a Debian package below root.
func unpack(ctx context.Context, deb, root string) error {
	cmd := exec.CommandContext(ctx, "dpkg-deb", "--fsys-tarfile", deb)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	err = untar(out, root)
	if err != nil {
		cmd.Process.Kill()
	}
	if werr := cmd.Wait(); err == nil {
		err = werr
	}
	if err != nil {
		return fmt.Errorf("unpack %s: %w", filepath.Base(deb), err)
	}
	return nil
}

func untar(r io.Reader, root string) error {
	for t := tar.NewReader(r); ; {
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			_, err = io.Copy(io.Discard, r) // what fills up the last record
			return err
		}
		if err != nil {
			return err
		}
		name := merged(h.Name)
		if name == "" || skip(name) {
			continue
		}
		file := filepath.Join(root, name)
		if h.Typeflag != tar.TypeDir {
			if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
				return err
			}
		}
		switch h.Typeflag {
		case tar.TypeDir:
			err = os.MkdirAll(file, 0o755)
		case tar.TypeReg:
			err = writeFile(file, os.FileMode(h.Mode)&0o777, t)
		case tar.TypeSymlink:
			err = os.Symlink(h.Linkname, file)
		case tar.TypeLink:
			err = os.Link(filepath.Join(root, merged(h.Linkname)), file)
		}
		if err != nil {
			return err
		}
	}
}

func writeFile(name string, mode os.FileMode, r io.Reader) error {
	f, err := os.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, mode|0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, r)
	return errors.Join(err, f.Close())
}

// merged returns where a path of a package is in a system whose /bin, /sbin
// and /lib* are links into /usr, relative to the root.
func merged(name string) string {
	name = strings.TrimPrefix(path.Clean("/"+name), "/")
	first, _, _ := strings.Cut(name, "/")
	switch first {
	case "bin", "sbin", "lib", "lib64":
		if name == first {
			return ""
		}
		return "usr/" + name
	}
	return name
}

func skip(name string) bool {
	for _, dir := range unwanted {
		if name == dir || strings.HasPrefix(name, dir+"/") {
			return true
		}
	}
	return false
}
