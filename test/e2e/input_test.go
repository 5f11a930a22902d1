//go:build e2e

package e2e

import (
	"bytes"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// refuse requires that a command fails with the given status and one line,
// which holds all of the words. Log lines of a server that is about to start
// may come before it, but none that warns.
func (s *server) refuse(status int, words []string, args ...string) {
	s.t.Helper()
	o := s.try(args...)
	if o.status != status {
		s.t.Errorf("%v: exit status %d, want %d", args, o.status, status)
	}
	var said []string
	for line := range strings.Lines(o.stderr) {
		if text, ok := strings.CutPrefix(line, "skylun: "); ok {
			said = append(said, text)
		} else if !strings.Contains(line, "level=INFO") && !strings.Contains(line, "level=DEBUG") {
			s.t.Errorf("%v: another line: %s", args, line)
		}
	}
	if len(said) != 1 {
		s.t.Fatalf("%v: want one line about what is wrong, got %q", args, said)
	}
	for _, w := range words {
		if !strings.Contains(said[0], w) {
			s.t.Errorf("%v: %q does not name %q", args, said[0], w)
		}
	}
	s.t.Logf("%v: %s", args, said[0])
}

// made returns the files that exist below the data directory, but for the
// database, and what tells the member that belongs to it.
func (s *server) made() (names []string) {
	filepath.WalkDir(filepath.Join(s.dir, "data"), func(name string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() && !strings.HasPrefix(d.Name(), "skylun.db") && d.Name() != ".skylun-member" {
			names = append(names, name)
		}
		return nil
	})
	return names
}

// A configuration that makes no sense by itself is refused before anything is
// touched.
func TestBadConfiguration(t *testing.T) {
	const good = `
data_dir: ./data
blobstore: {url: "file:./blobs"}
portals: ["127.0.0.1:0"]
targets:
  - iqn: iqn.2026-11.io.skylun:e2e
    luns:
      - {lun: 0, disk: {volume: a, size: 1GiB}}
`
	for _, c := range []struct {
		name, old, new string
		words          []string
	}{
		{"unknown key", "data_dir:", "data_dri: x\ndata_dir:", []string{"data_dri", "config.yaml:2"}},
		{"unknown key in a list", "size: 1GiB", "size: 1GiB, sise: 2GiB", []string{"targets[0].luns[0].disk.sise"}},
		{"bad size", "1GiB", "1GyB", []string{"targets[0].luns[0].disk.size", "1GyB"}},
		{"negative size", "1GiB", "-1GiB", []string{"targets[0].luns[0].disk.size"}},
		{"size of no whole blocks", "1GiB", "1000", []string{"targets[0].luns[0].disk.size"}},
		{"bad IQN", "iqn.2026-11.io.skylun:e2e", "iqn.26.skylun", []string{"targets[0].iqn", "iqn.26.skylun"}},
		{"bad portal", "127.0.0.1:0", "127.0.0.1:port", []string{"portals[0]"}},
		{"same volume on two units", "1GiB}}", "1GiB}}\n      - {lun: 1, disk: {volume: a, size: 1GiB}}", []string{"targets[0].luns[1].disk.volume", "a"}},
		{"same volume with another size", "1GiB}}", "1GiB}}\n      - {lun: 1, disk: {volume: a, size: 2GiB}}", []string{"targets[0].luns[1].disk.volume", "a"}},
		{"same number twice", "1GiB}}", "1GiB}}\n      - {lun: 0, disk: {volume: b, size: 1GiB}}", []string{"targets[0].luns[1].lun"}},
		{"not YAML", "portals: [", "portals: [[", []string{"config.yaml"}},
		{"text where a list belongs", `["127.0.0.1:0"]`, "{a: b}", []string{"portals"}},
		{"bad log level", "portals:", "log: {level: loud}\nportals:", []string{"log.level", "loud"}},
		{"bad store", "file:./blobs", "ftp://blobs", []string{"blobstore.url"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := &server{t: t, dir: t.TempDir()}
			s.file = filepath.Join(s.dir, "config.yaml")
			bad := strings.Replace(good, c.old, c.new, 1)
			if bad == good {
				t.Fatal("the case changes nothing")
			}
			s.configure(bad)
			s.refuse(2, c.words, "serve")
			if entries, _ := os.ReadDir(s.dir); len(entries) != 1 {
				t.Errorf("made: %v", entries)
			}
		})
	}
	t.Run("no file", func(t *testing.T) {
		s := &server{t: t, dir: t.TempDir()}
		s.file = filepath.Join(s.dir, "missing.yaml")
		s.refuse(2, []string{"missing.yaml"}, "serve")
	})
	t.Run("environment", func(t *testing.T) {
		s := &server{t: t, dir: t.TempDir()}
		s.file = filepath.Join(s.dir, "config.yaml")
		s.configure(good)
		t.Setenv("SKYLUN_LOG_LEVEL", "loud")
		s.refuse(2, []string{"SKYLUN_LOG_LEVEL", "log.level", "loud"}, "serve")
	})
	t.Run("the good one", func(t *testing.T) {
		s := &server{t: t, dir: t.TempDir()}
		s.file = filepath.Join(s.dir, "config.yaml")
		s.configure(good)
		s.start()
		s.stop()
	})
}

// What the configuration asks for and the machine or the store does not have
// is refused before a volume is made.
func TestCannotStart(t *testing.T) {
	eachStore(t, func(t *testing.T, st store) {
		small := newServer(t, st)
		small.cli("image", "import", patternImage(t, 8, 1), "eight")
		truncated := filepath.Join(t.TempDir(), "truncated.vhd")
		tool(t, "qemu-img", "create", "-q", "-f", "vpc", "-o", "subformat=fixed,force_size=on", truncated, "8M")
		if err := os.Truncate(truncated, 8<<20); err != nil {
			t.Fatal(err)
		}
		st.put("cut.vhd", truncated)

		refused := func(t *testing.T, s *server, words ...string) {
			t.Helper()
			s.refuse(1, words, "serve")
			if names := s.made(); len(names) > 0 {
				t.Errorf("half-created: %v", names)
			}
			if out := s.try("volume", "list", "-o", "json").stdout; strings.Contains(out, "good") {
				t.Errorf("half-created: %s", out)
			}
		}
		// The first disk could be made, and must not be.
		const good = "volume: good, size: 1GiB"
		t.Run("image missing", func(t *testing.T) {
			refused(t, newServer(t, st, good, "volume: b, image: nosuch"), "targets[0].luns[1].disk.image", "nosuch")
		})
		t.Run("image larger than the volume", func(t *testing.T) {
			refused(t, newServer(t, st, good, "volume: b, image: eight, size: 4MiB"), "targets[0].luns[1].disk.size", "eight")
		})
		t.Run("truncated VHD", func(t *testing.T) {
			refused(t, newServer(t, st, good, "volume: b, image: cut.vhd"), "targets[0].luns[1].disk.image", "cut.vhd")
		})
		t.Run("import of a truncated VHD", func(t *testing.T) {
			small.refuse(1, []string{"truncated.vhd"}, "image", "import", truncated, "t.vhd")
			if out := small.cli("image", "list", "-o", "json"); strings.Contains(out, "t.vhd") {
				t.Errorf("half-created: %s", out)
			}
		})
		t.Run("import of what is not there", func(t *testing.T) {
			small.refuse(1, []string{"nosuch.img"}, "image", "import", filepath.Join(t.TempDir(), "nosuch.img"), "n")
		})
		t.Run("port in use", func(t *testing.T) {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			s := newServer(t, st, good)
			s.edit("127.0.0.1:0", l.Addr().String())
			refused(t, s, l.Addr().String())
		})
	})
}

// edit replaces a part of the configuration.
func (s *server) edit(old, new string) {
	s.t.Helper()
	b, err := os.ReadFile(s.file)
	if err != nil {
		s.t.Fatal(err)
	}
	if !bytes.Contains(b, []byte(old)) {
		s.t.Fatalf("the configuration holds no %q", old)
	}
	s.configure(strings.ReplaceAll(string(b), old, new))
}

// Two servers do not share a data directory.
func TestDataDirInUse(t *testing.T) {
	s := newServer(t, newFileStore(t), "volume: a, size: 1GiB")
	s.start()
	s.refuse(1, []string{filepath.Join(s.dir, "data"), "in use"}, "serve")
	s.stop()
}

// A data directory of a newer version is left alone.
func TestNewerDataDir(t *testing.T) {
	s := newServer(t, newFileStore(t), "volume: a, size: 1GiB")
	s.start()
	s.stop()
	db := filepath.Join(s.dir, "data", "skylun.db")
	b, err := os.ReadFile(db)
	if err != nil {
		t.Fatal(err)
	}
	version := regexp.MustCompile(`version\x00\x00\x00[\x01-\x0f]`) // package meta: key and value
	if !version.Match(b) {
		t.Fatal("the database does not hold its version where it is expected")
	}
	b = version.ReplaceAll(b, []byte("version\x00\x00\x00\x63"))
	if err := os.WriteFile(db, b, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"serve"}, {"check"}, {"volume", "list"}, {"volume", "create", "b", "--size", "1GiB"}} {
		s.refuse(1, []string{filepath.Join(s.dir, "data"), "newer"}, args...)
	}
	after, err := os.ReadFile(db)
	if err != nil || !bytes.Equal(after, b) {
		t.Errorf("the database was changed (%v)", err)
	}
}

// Wrong usage of the commands themselves.
func TestBadUsage(t *testing.T) {
	s := newServer(t, newFileStore(t))
	for _, args := range [][]string{
		{"sevre"},
		{"volume", "create"},
		{"volume", "create", "b"},
		{"volume", "create", "b", "--size", "10GyB"},
		{"volume", "create", "b", "--colour", "red"},
		{"image", "import"},
		{"status", "-o", "xml"},
	} {
		if o := s.try(args...); o.status != 2 || o.stderr == "" || o.stdout != "" {
			t.Errorf("%v: exit status %d, stdout %q, stderr %q", args, o.status, o.stdout, o.stderr)
		}
	}
	for _, args := range [][]string{
		{"volume", "show", "nosuch"},
		{"volume", "rm", "nosuch"},
		{"image", "show", "nosuch"},
		{"image", "rm", "nosuch"},
		{"volume", "create", "b", "--image", "nosuch"},
	} {
		s.refuse(1, nil, args...)
	}
	if names := s.made(); len(names) > 0 {
		t.Errorf("made: %v", names)
	}
}
