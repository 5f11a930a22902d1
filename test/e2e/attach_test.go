//go:build e2e

package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// A real file system goes in, is used, and comes out.
func TestAttach(t *testing.T) {
	eachStore(t, func(t *testing.T, st store) {
		image := ext4Image(t)
		s := newServer(t, st, "volume: disk, image: linux", "volume: blank, size: 64MiB")
		s.cli("image", "import", image, "linux")
		if list := s.cli("image", "list"); !strings.Contains(list, "linux") {
			t.Errorf("image list does not show the image:\n%s", list)
		}
		s.start()

		t.Run("seen by libiscsi", func(t *testing.T) {
			ls := tool(t, "iscsi-ls", "-s", "iscsi://"+s.portal+"/")
			for _, want := range []string{"Target:" + iqn, "Lun:0", "Lun:1"} {
				if !strings.Contains(ls, want) {
					t.Errorf("iscsi-ls shows no %q:\n%s", want, ls)
				}
			}
			if inq := tool(t, "iscsi-inq", s.url(0)); !strings.Contains(inq, "DIRECT_ACCESS") {
				t.Errorf("iscsi-inq:\n%s", inq)
			}
			if a, b := vpd(t, s.url(0), "128"), vpd(t, s.url(1), "128"); a == b {
				t.Errorf("two disks with one serial number:\n%s", a)
			}
			for _, page := range []string{"0", "131", "176", "177", "178"} {
				vpd(t, s.url(0), page)
			}
			for n, size := range []int64{imageSize, 64 << 20} {
				want := fmt.Sprintf("RETURNED LOGICAL BLOCK ADDRESS:%d\n", size/512-1)
				if out := tool(t, "iscsi-readcapacity16", s.url(n)); !strings.Contains(out, want) {
					t.Errorf("iscsi-readcapacity16 of LUN %d shows no %q:\n%s", n, want, out)
				}
			}
		})

		t.Run("the same bytes", func(t *testing.T) {
			tool(t, "qemu-img", "compare", "-f", "raw", "-F", "raw", image, s.url(0))
		})

		t.Run("odd offsets and sizes", func(t *testing.T) {
			qemuIO(t, s.url(1), patterns...)
			qemuIO(t, s.url(1), verified...)
			// The same on the overlay, whose neighbouring bytes come from
			// the image. It goes to where there are no files.
			out := filepath.Join(t.TempDir(), "expected.img")
			tool(t, "cp", "--sparse=always", image, out)
			qemuIO(t, out, patterns...)
			qemuIO(t, s.url(0), patterns...)
			qemuIO(t, s.url(0), verified...)
			tool(t, "qemu-img", "compare", "-f", "raw", "-F", "raw", out, s.url(0))
		})

		t.Run("copied out", func(t *testing.T) {
			// A volume of its own, as the patterns went over the files of
			// the first.
			fresh := newServer(t, st, "volume: fresh, image: linux")
			fresh.start()
			out := filepath.Join(t.TempDir(), "out.img")
			tool(t, "qemu-img", "convert", "-f", "raw", "-O", "raw", fresh.url(0), out)
			tool(t, "e2fsck", "-fn", out)
			if digest(t, out) != digest(t, image) {
				t.Error("qemu-img convert copied something else than the image")
			}
			exported := filepath.Join(t.TempDir(), "exported.img")
			fresh.cli("volume", "export", "fresh", exported)
			if digest(t, exported) != digest(t, image) {
				t.Error("volume export wrote something else than the image")
			}
			fresh.stop()
			fresh.check()
		})

		s.stop()
		s.check()
	})
}

// vpd returns a page of vital product data, by its decimal number, as
// iscsi-inq prints it.
func vpd(t *testing.T, url, page string) string {
	t.Helper()
	return tool(t, "iscsi-inq", "-e", "1", "-c", page, url)
}

// patterns are writes that begin and end anywhere but on the borders of
// blocks (4 KiB), within a block, over many, and over one another. qemu-io
// reads a sector before it changes a part of it.
var patterns = []string{
	"write -P 0x11 512 512",
	"write -P 0x12 3584 1024",
	"write -P 0x13 7777 1",
	"write -P 0x14 12345 4321",
	"write -P 0x15 1048575 2",
	"write -P 0x16 2097153 262143",
	"write -P 0x17 5000000 3000001",
	"write -P 0x18 5600000 17",
	"write -P 0x19 9437184 4096",
	"write -P 0x1a 9437696 1024",
	"write -z 20971520 131072",
	"write -z 22000000 100000",
	"write -P 0x1b 20975616 4096",
	"discard 25165824 1048576",
	"write -P 0x1c 25169920 512",
	"write -P 0x1d 67108352 512",
	"flush",
}

// verified are the reads that find what patterns left.
var verified = []string{
	"read -P 0x11 512 512",
	"read -P 0x12 3584 1024",
	"read -P 0x13 7777 1",
	"read -P 0x14 12345 4321",
	"read -P 0x15 1048575 2",
	"read -P 0x16 2097153 262143",
	"read -P 0x17 5000000 600000",
	"read -P 0x18 5600000 17",
	"read -P 0x17 5600017 2399984",
	"read -P 0x19 9437184 512",
	"read -P 0x1a 9437696 1024",
	"read -P 0x19 9438720 2560",
	"read -P 0 20971520 4096",
	"read -P 0x1b 20975616 4096",
	"read -P 0 20979712 122880",
	"read -P 0 22000000 100000",
	"read -P 0 25165824 4096",
	"read -P 0x1c 25169920 512",
	"read -P 0 25170432 1043968",
	"read -P 0x1d 67108352 512",
}

// The base is what it was, whatever is done to volumes over it; volumes do not
// see each other's writes; and a block that one has read is fetched for none
// of them again.
func TestBaseIsShared(t *testing.T) {
	eachStore(t, func(t *testing.T, st store) {
		image := ext4Image(t)
		s := newServer(t, st, "volume: one, image: linux", "volume: two, image: linux")
		s.cli("image", "import", image, "linux")
		s.start()

		tool(t, "qemu-img", "compare", "-f", "raw", "-F", "raw", image, s.url(0))
		eventually(t, 20*time.Second, func() string { // copies are stored behind the answers
			if c := s.ask().Caches; len(c) != 1 || c[0].Absent > 0 {
				return fmt.Sprintf("not all of the image is cached: %+v", c)
			}
			return ""
		})
		before := st.reads(s, "linux")
		if before == 0 {
			t.Fatal("nothing was fetched: the counter does not count")
		}

		qemuIO(t, s.url(0), "write -P 0x77 0 160M", "flush")
		tool(t, "qemu-img", "compare", "-f", "raw", "-F", "raw", image, s.url(1))
		if after := st.reads(s, "linux"); after != before {
			t.Errorf("reading through the second volume fetched again: %d requests, then %d", before, after)
		}
		qemuIO(t, s.url(0), "read -P 0x77 0 160M")

		s.stop()
		s.start()
		qemuIO(t, s.url(0), "read -P 0x77 0 160M")
		before = st.reads(s, "linux")
		tool(t, "qemu-img", "compare", "-f", "raw", "-F", "raw", image, s.url(1))
		if after := st.reads(s, "linux"); after != before {
			t.Errorf("after a restart, what was cached is fetched again: %d requests, then %d", before, after)
		}
		s.stop()
		s.check()

		got := filepath.Join(t.TempDir(), "base.img")
		f, err := os.Create(got)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		st.get("linux", f)
		if digest(t, got) != digest(t, image) {
			t.Error("the blob has changed")
		}
	})
}

// What was written is there after a stop and a start, and disks keep their
// identity.
func TestRestart(t *testing.T) {
	eachStore(t, func(t *testing.T, st store) {
		s := newServer(t, st, "volume: disk, image: linux", "volume: blank, size: 64MiB")
		s.cli("image", "import", ext4Image(t), "linux")
		s.start()
		identity := func() (all string) {
			for n := range 2 {
				all += vpd(t, s.url(n), "128") + vpd(t, s.url(n), "131")
			}
			return all
		}
		before := identity()
		for n := range 2 {
			qemuIO(t, s.url(n), patterns[:len(patterns)-1]...) // no flush: stopping is one
		}
		s.stop()
		s.check()
		s.start()
		for n := range 2 {
			qemuIO(t, s.url(n), verified...)
		}
		if after := identity(); after != before {
			t.Errorf("the disks' identity has changed:\n%s\n%s", before, after)
		}
		s.stop()
		s.check()
	})
}
