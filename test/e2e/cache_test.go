//go:build e2e

package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// readPattern reads an image that patternImage made, each MiB.
func readPattern(t *testing.T, url string, mib int, pattern byte) {
	t.Helper()
	var reads []string
	for i := range mib {
		reads = append(reads, fmt.Sprintf("read -P %#x %dM 1M", pattern+byte(i), i))
	}
	qemuIO(t, url, reads...)
}

// cachesOnDisk returns what the copies of images take up.
func (s *server) cachesOnDisk(member string) (bytes int64) {
	s.t.Helper()
	files, err := filepath.Glob(filepath.Join(member, "caches", "*"))
	if err != nil || len(files) == 0 {
		s.t.Fatalf("no caches below %s (%v)", member, err)
	}
	for _, f := range files {
		var st syscall.Stat_t
		if err := syscall.Stat(f, &st); err != nil {
			s.t.Fatal(err)
		}
		bytes += st.Blocks * 512
	}
	return bytes
}

// A pinned volume works without the store, also when the server was killed and
// starts again: all of its image is there, whatever else is read.
func TestPinnedVolume(t *testing.T) {
	t.Parallel() // it waits a lot
	pinned := func(t *testing.T, st store, byConfig bool) {
		disk := "volume: disk, image: pattern"
		if byConfig {
			disk += ", pin: true"
		}
		s := newServer(t, st, disk, "volume: other, image: other")
		s.edit("prefetch: off", "prefetch: off, max_size: 40MiB")
		s.cli("image", "import", patternImage(t, 32, 0x40), "pattern")
		s.cli("image", "import", patternImage(t, 32, 0x80), "other")
		s.start()
		qemuIO(t, s.url(0), "write -P 0x99 20M 1M", "flush")
		if !byConfig {
			s.refuse(1, []string{"nope"}, "volume", "pin", "nope")
			s.cli("volume", "pin", "disk")
			s.refuse(1, []string{"cache.max_size", "64 MiB"}, "volume", "pin", "other")
		} else {
			s.refuse(1, []string{"pin: true"}, "volume", "unpin", "disk")
		}
		eventually(t, 60*time.Second, func() string {
			if out := s.cli("volume", "show", "disk"); !strings.Contains(out, "100% (32 MiB copied") || !strings.Contains(strings.Join(strings.Fields(out), " "), "pinned yes") {
				return "not all is local:\n" + out
			}
			return ""
		})
		readPattern(t, s.url(1), 32, 0x80)
		if c := s.ask().Cache; c.Held > 40<<20 || c.Pinned != 32<<20 {
			t.Errorf("after another image was read: %+v", c)
		}
		time.Sleep(10 * time.Second) // what nobody flushes is recorded within 5 s, if the machine has time
		st.leave()
		s.kill()
		s.start()
		qemuIO(t, s.url(0), "read -P 0x99 20M 1M")
		for i := range 32 {
			if i != 20 {
				qemuIO(t, s.url(0), fmt.Sprintf("read -P %#x %dM 1M", 0x40+i, i))
			}
		}
		st.comeBack()
		if !byConfig {
			s.cli("volume", "unpin", "disk")
			readPattern(t, s.url(1), 32, 0x80)
			if c := s.ask().Cache; c.Pinned != 0 || c.Evicted == 0 {
				t.Errorf("nothing of what is not pinned any more has left: %+v", c)
			}
		}
		s.stop()
		s.check()
	}
	t.Run("file", func(t *testing.T) { pinned(t, newFileStore(t), false) })
	t.Run("azurite", func(t *testing.T) { pinned(t, newOwnAzureStore(t), true) })
}

// The caches hold no more than they may, also on disk, and show nothing wrong.
func TestCacheLimit(t *testing.T) {
	s := newServer(t, newFileStore(t), "volume: disk, image: pattern")
	s.edit("prefetch: off", "prefetch: off, max_size: 24MiB")
	s.cli("image", "import", patternImage(t, 64, 0x40), "pattern")
	s.start()
	for range 2 {
		readPattern(t, s.url(0), 64, 0x40)
		eventually(t, 20*time.Second, func() string { // what was read is stored behind the answer
			if c := s.ask().Cache; c.Held > 24<<20 || c.Held < 16<<20 || c.Limit != 24<<20 || c.Evicted < 40<<20 {
				return fmt.Sprintf("after 64 MiB were read: %+v", c)
			}
			return ""
		})
		if n := s.cachesOnDisk(filepath.Join(s.dir, "data", "local")); n > 24<<20+256<<10 {
			t.Errorf("the files of the cache take up %d bytes", n)
		}
	}
	s.kill()
	s.start()
	readPattern(t, s.url(0), 64, 0x40)
	s.stop()
	s.check()
	if n := s.cachesOnDisk(filepath.Join(s.dir, "data", "local")); n > 24<<20+256<<10 {
		t.Errorf("after a crash the files of the cache take up %d bytes", n)
	}
}

// On a full disk copies give way to what is written.
func TestCacheGivesWay(t *testing.T) {
	s := newServer(t, newFileStore(t), "volume: disk, image: pattern", "volume: blank, size: 1GiB")
	members := filepath.Join(s.dir, "members")
	if err := os.Mkdir(members, 0o700); err != nil {
		t.Fatal(err)
	}
	s.edit("portals:", "local: {members: [./members], low_space: 0}\nportals:")
	s.cli("image", "import", patternImage(t, 40, 0x40), "pattern")
	s.startWith(inSmall(members, 64, program, "serve", "-c", s.file))
	readPattern(t, s.url(0), 40, 0x40)
	eventually(t, 20*time.Second, func() string {
		if c := s.ask().Cache; c.Held < 36<<20 {
			return fmt.Sprintf("the copies are not there: %+v", c)
		}
		return ""
	})
	for i := range 12 {
		qemuIO(t, s.url(1), fmt.Sprintf("write -P %#x %dM 4M", 0x80+i, 4*i), "flush")
	}
	if c := s.ask().Cache; c.GaveWay < 20<<20 {
		t.Errorf("48 MiB were written beside 40 MiB of copies in 64 MiB, and these did not leave: %+v", c)
	}
	readPattern(t, s.url(0), 40, 0x40)
	for i := range 12 {
		qemuIO(t, s.url(1), fmt.Sprintf("read -P %#x %dM 4M", 0x80+i, 4*i))
	}
	if o := tryQemuIO(t, s.url(1), "write -P 1 100M 64M"); !failedIO(o.stdout + o.stderr) {
		t.Error("112 MiB went to a disk of 64 MiB")
	}
	s.check()
	s.stop()
}

// When the disk gets full, copies leave before anybody is warned.
func TestCacheShrinksFirst(t *testing.T) {
	s := newServer(t, newFileStore(t), "volume: disk, image: pattern", "volume: blank, size: 1GiB")
	members := filepath.Join(s.dir, "members")
	if err := os.Mkdir(members, 0o700); err != nil {
		t.Fatal(err)
	}
	s.edit("portals:", "local: {members: [./members], low_space: 16MiB}\nportals:")
	s.cli("image", "import", patternImage(t, 24, 0x40), "pattern")
	s.startWith(inSmall(members, 64, program, "serve", "-c", s.file))
	m := join(t, s, "host", 1)
	readPattern(t, s.url(0), 24, 0x40)
	qemuIO(t, s.url(1), "write -P 0x11 0 30M", "flush")
	eventually(t, 20*time.Second, func() string {
		if c := s.ask().Cache; c.GaveWay == 0 || c.Held > 20<<20 {
			return fmt.Sprintf("10 MiB are free, and no copies have left: %+v", c)
		}
		return ""
	})
	m.ends("not warned", m.do(make([]byte, 6), 0, nil), 0, 0)
	if log := s.logged(); strings.Contains(log, "local space gets low") {
		t.Errorf("the log warns although copies could leave:\n%s", tail(log))
	}
	readPattern(t, s.url(0), 24, 0x40)
	time.Sleep(3 * time.Second)
	if c := s.ask().Cache; c.Held > 20<<20 {
		t.Errorf("copies are kept where space is short: %+v", c)
	}
	s.stop()
}

// A byte of a copy that rots on the disk is not seen by anybody.
func TestRottenCopy(t *testing.T) {
	st := newFileStore(t)
	s := newServer(t, st, "volume: disk, image: pattern")
	s.cli("image", "import", patternImage(t, 8, 0x40), "pattern")
	s.start()
	readPattern(t, s.url(0), 8, 0x40)
	rot := func(off int64) {
		t.Helper()
		s.stop()
		files, err := filepath.Glob(filepath.Join(s.dir, "data", "local", "caches", "*[0-9]"))
		if err != nil || len(files) != 1 {
			t.Fatalf("caches %q, %v", files, err)
		}
		f, err := os.OpenFile(files[0], os.O_WRONLY, 0)
		if err == nil {
			_, err = f.WriteAt([]byte{0xff}, off)
			f.Close()
		}
		if err != nil {
			t.Fatal(err)
		}
		s.start()
	}
	rot(3<<20 + 77)
	readPattern(t, s.url(0), 8, 0x40)
	if c := s.ask().Caches[0]; c.Damaged != 1 || c.FetchedBytes != 4096 {
		t.Errorf("after one byte has rotted: %+v", c)
	}
	if log := s.logged(); strings.Count(log, "a local copy is damaged") != 1 {
		t.Errorf("the log does not tell it once:\n%s", tail(log))
	}
	rot(5<<20 + 77)
	st.leave()
	if key := senseOf(t, s.url(0), 5<<20); key != mediumError {
		t.Errorf("damaged, and the store is gone: sense key %s", key)
	}
	qemuIO(t, s.url(0), "read -P 0x45 5246976 4k", "read -P 0x43 3M 1M")
	st.comeBack()
	readPattern(t, s.url(0), 8, 0x40)
	s.stop()
	s.check()
}
