package image

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestWords(t *testing.T) {
	got := words("# all of it\none two # some\n\n\tthree\n")
	if want := []string{"one", "two", "three"}; !slices.Equal(got, want) {
		t.Errorf("words = %q, want %q", got, want)
	}
	for name, list := range map[string]string{"packages": packageList, "files": fileList, "modules": moduleList} {
		all := words(list)
		slices.Sort(all)
		if len(all) == 0 || len(slices.Compact(slices.Clone(all))) != len(all) {
			t.Errorf("%s is empty or names something twice", name)
		}
	}
}

func TestMerged(t *testing.T) {
	for in, want := range map[string]string{
		"./": "", "./bin/": "", "/lib64": "", "./bin/sh": "usr/bin/sh", "/lib64/ld-linux-x86-64.so.2": "usr/lib64/ld-linux-x86-64.so.2",
		"./usr/bin/sh": "usr/bin/sh", "./etc/passwd": "etc/passwd", "../../etc/passwd": "etc/passwd", "./library/x": "library/x",
	} {
		if got := merged(in); got != want {
			t.Errorf("merged(%q) = %q, want %q", in, got, want)
		}
	}
}

func TestModuleName(t *testing.T) {
	for in, want := range map[string]string{
		"kernel/drivers/md/dm-mod.ko": "dm_mod", "kernel/fs/xfs/xfs.ko.xz": "xfs", "dm-mod": "dm_mod", "iscsi_tcp": "iscsi_tcp",
	} {
		if got := moduleName(in); got != want {
			t.Errorf("moduleName(%q) = %q, want %q", in, got, want)
		}
	}
}

// TestArchive compares with what "cpio -o -H newc" writes, except for what
// depends on the file system.
func TestArchive(t *testing.T) {
	var out bytes.Buffer
	a := newArchive(&out)
	if err := a.entry("etc", modeDir|0o755, 0, 0, 0, nil); err != nil {
		t.Fatal(err)
	}
	if err := a.entry("etc/name", modeFile|0o644, 0, 0, 6, strings.NewReader("guest\n")); err != nil {
		t.Fatal(err)
	}
	if err := a.close(); err != nil {
		t.Fatal(err)
	}
	header := func(inode, mode, size, name string) string {
		zero := "00000000"
		return "070701" + inode + mode + zero + zero + "00000001" + zero + size + zero + zero + zero + zero + name + zero
	}
	want := header("00000001", "000041ED", "00000000", "00000004") + "etc\x00\x00\x00" +
		header("00000002", "000081A4", "00000006", "00000009") + "etc/name\x00\x00" + "guest\n\x00\x00" +
		header("00000000", "00000000", "00000000", "0000000B") + "TRAILER!!!\x00\x00\x00\x00"
	if out.String() != want {
		t.Errorf("the archive is\n%q, want\n%q", out.String(), want)
	}
	if err := newArchive(&out).entry("short", modeFile, 0, 0, 6, strings.NewReader("gu")); err == nil {
		t.Error("a file that is shorter than its header says is no error")
	}
}

func TestTree(t *testing.T) {
	root := t.TempDir()
	for name, content := range map[string]string{"usr/bin/tool": "#!/bin/sh\n", "usr/share/tool/a/b": "", "usr/share/tool/c": "", "usr/bin/other": ""} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(root, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(root, name), []byte(content), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for name, to := range map[string]string{"usr/bin/link": "/bin/tool", "usr/bin/nothing": "../share/nothing"} {
		if err := os.Symlink(to, filepath.Join(root, name)); err != nil {
			t.Fatal(err)
		}
	}
	tr := &tree{root: root, names: make(map[string]bool)}
	if err := tr.list([]string{"link", "nothing", "usr/share/tool"}); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"usr", "usr/bin", "usr/bin/link", "usr/bin/tool", "usr/bin/nothing", "usr/share/tool/a/b", "usr/share/tool/c"} {
		if !tr.names[want] {
			t.Errorf("the tree has no %s", want)
		}
	}
	if tr.names["usr/bin/other"] {
		t.Error("the tree has what nobody asked for")
	}
	if err := tr.list([]string{"missing", "link"}); err == nil || !strings.Contains(err.Error(), "missing") {
		t.Errorf("asked for what is not there: %v", err)
	}
}
