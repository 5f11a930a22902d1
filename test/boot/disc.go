//go:build boot

package boot

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

var (
	//go:embed disc/init
	initScript string
	//go:embed disc/grub.cfg
	grubDisc string
	//go:embed disc/disk.cfg
	grubDisk string
)

// drivers are the kernel modules that the system on the disc loads.
var drivers = []string{"virtio_pci", "virtio_scsi", "sd_mod", "sr_mod", "isofs", "ext4", "vfat", "nls_cp437", "nls_ascii", "nls_iso8859-1"}

// makeDisc makes an ISO in dir that boots with both firmwares, and returns it
// and a text that no other disc has: the system on it says it on the console.
func makeDisc(ctx context.Context, dir string) (iso, text string, err error) {
	k, err := getKernel(ctx)
	if err != nil {
		return "", "", err
	}
	root, tree := filepath.Join(dir, "root"), filepath.Join(dir, "disc")
	text = rand.Text()
	files := map[string]string{
		filepath.Join(root, "init"):               initScript,
		filepath.Join(tree, "system.txt"):         text + "\n",
		filepath.Join(tree, "boot/grub/grub.cfg"): grubDisc,
		filepath.Join(dir, "disk.cfg"):            grubDisk,
	}
	for name, content := range files {
		if err := write(name, strings.NewReader(content)); err != nil {
			return "", "", err
		}
	}
	if err := makeRoot(ctx, k, root); err != nil {
		return "", "", err
	}
	if err := run(ctx, root, "sh", "-c", "find . | busybox cpio -o -H newc | gzip -1 >../disc/initrd"); err != nil {
		return "", "", err
	}
	if err := copyFile(k.path("boot/vmlinuz-"+k.version), filepath.Join(tree, "vmlinuz")); err != nil {
		return "", "", err
	}
	const modules = "part_msdos ext2 fat linux search search_fs_file configfile"
	err = run(ctx, dir, "grub-mkstandalone", "-O", "x86_64-efi", "-o", "disc/bootx64.efi", "--modules="+modules, "--install-modules="+modules+" normal",
		"--locales=", "--themes=", "--fonts=", "boot/grub/grub.cfg=disk.cfg")
	if err != nil {
		return "", "", err
	}
	if err := sums(tree, "vmlinuz", "initrd", "system.txt"); err != nil {
		return "", "", err
	}
	iso = filepath.Join(dir, "system.iso")
	return iso, text, run(ctx, dir, "grub-mkrescue", "-o", iso, "disc", "--", "-volid", "SYSTEM")
}

// makeRoot puts into root what the system has beside its first process:
// busybox, modules, and what installs the BIOS's boot loader.
func makeRoot(ctx context.Context, k *kernel, root string) error {
	extlinux, err := exec.LookPath("extlinux")
	if err != nil {
		return fmt.Errorf("%w; the packages that this needs are in test/boot/packages.txt", err)
	}
	busybox, err := exec.LookPath("busybox")
	if err != nil {
		return err
	}
	copies := map[string]string{"bin/extlinux": extlinux, "bin/busybox": busybox, "boot/mbr.bin": "/usr/lib/syslinux/mbr/mbr.bin"}
	libraries, err := exec.CommandContext(ctx, "ldd", extlinux).Output()
	if err != nil {
		return fmt.Errorf("ldd %s: %w", extlinux, err)
	}
	for _, word := range strings.Fields(string(libraries)) {
		if strings.HasPrefix(word, "/") {
			copies[word] = word
		}
	}
	modules, err := k.modules(drivers...)
	if err != nil {
		return err
	}
	for _, m := range modules {
		copies[m] = k.path(m)
	}
	for to, from := range copies {
		if err := copyFile(from, filepath.Join(root, to)); err != nil {
			return err
		}
	}
	if err := os.Chmod(filepath.Join(root, "init"), 0o755); err != nil {
		return err
	}
	return run(ctx, root, "busybox", "depmod", "-b", ".", k.version)
}

func copyFile(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	return write(to, in)
}

// write makes a file that can be executed, and its folder.
func write(name string, content io.Reader) (err error) {
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return err
	}
	out, err := os.OpenFile(name, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o755)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	_, err = io.Copy(out, content)
	return err
}

// sums writes the checksums of files to SUMS.
func sums(dir string, names ...string) error {
	var list strings.Builder
	for _, name := range names {
		content, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			return err
		}
		fmt.Fprintf(&list, "%x  %s\n", sha256.Sum256(content), name)
	}
	return os.WriteFile(filepath.Join(dir, "SUMS"), []byte(list.String()), 0o644)
}
