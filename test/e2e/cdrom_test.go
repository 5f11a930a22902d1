//go:build e2e

package e2e

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// newDrive is newServer with a drive as LUN 0, and a medium in it at first.
func newDrive(t *testing.T, st store, media string) *server {
	t.Helper()
	s := newServer(t, st, "DRIVE")
	s.edit("disk: {DRIVE}", "cdrom: {media: "+media+"}")
	return s
}

// discImage returns an ISO, as far as anybody can tell who does not look for
// files: a label, something in the first sector and in the last, and size bytes
// in all, which take no room.
func discImage(t *testing.T, label string, size int64) string {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), label+".iso"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	descriptor := make([]byte, 2048)
	copy(descriptor, "\x01CD001\x01")
	copy(descriptor[40:], fmt.Sprintf("%-32s", label))
	for off, p := range map[int64][]byte{0: bytes.Repeat([]byte{0x31}, 2048), 16 * 2048: descriptor, size - 2048: bytes.Repeat([]byte{0x39}, 2048)} {
		if _, err := f.WriteAt(p, off); err != nil {
			t.Fatal(err)
		}
	}
	return f.Name()
}

// readSectors reads from a drive with QEMU's initiator.
func readSectors(t *testing.T, url string, first, n int64) []byte {
	t.Helper()
	out := filepath.Join(t.TempDir(), "sectors")
	tool(t, "qemu-img", "dd", "-f", "raw", "-O", "raw", "bs=2048", fmt.Sprintf("skip=%d", first), fmt.Sprintf("count=%d", first+n), "if="+url, "of="+out)
	p, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// The first sector of a disc that nothing is known of locally costs one
// request to the store, however large the disc is.
func TestFirstSector(t *testing.T) {
	eachStore(t, func(t *testing.T, st store) {
		const size = 4<<30 + 2048
		s := newDrive(t, st, "large.iso")
		if out := s.cli("image", "import", discImage(t, "LARGE", size), "large.iso"); !strings.Contains(out, "iso, LARGE") {
			t.Errorf("image import: %s", out)
		}
		s.start()
		reads, before := st.reads(s, "large.iso"), s.ask()
		if got := readSectors(t, s.url(0), 0, 1); !bytes.Equal(got, bytes.Repeat([]byte{0x31}, 2048)) {
			t.Errorf("the first sector has %d bytes, % x...", len(got), got[:16])
		}
		after := s.ask()
		if n := st.reads(s, "large.iso") - reads; n != 1 {
			t.Errorf("%d requests for the first sector, want 1", n)
		}
		if len(after.Caches) != 1 || after.Caches[0].Fetches-before.Caches[0].Fetches != 1 || after.Caches[0].FetchedBytes > 1<<20 {
			t.Errorf("caches before %+v, after %+v", before.Caches, after.Caches)
		}
		// What is between the first sector and the volume descriptor is known to
		// be empty.
		if got := readSectors(t, s.url(0), 16, 1); !bytes.Equal(got[1:6], []byte("CD001")) {
			t.Errorf("no descriptor: % x", got[:8])
		}
		if n := st.reads(s, "large.iso") - reads; n != 2 {
			t.Errorf("%d requests for the first sector and the volume descriptor, want 2", n)
		}
		if got := readSectors(t, s.url(0), size/2048-1, 1); !bytes.Equal(got, bytes.Repeat([]byte{0x39}, 2048)) {
			t.Errorf("the last sector, behind 4 GiB: %d bytes", len(got))
		}
		s.stop()
		s.check()
	})
}

// What is in a drive is there again after the server was killed, by whomever
// it was put in or taken out.
func TestDriveKilled(t *testing.T) {
	s := newDrive(t, newFileStore(t), "one.iso")
	for _, label := range []string{"ONE", "TWO"} {
		s.cli("image", "import", discImage(t, label, 1<<20), strings.ToLower(label)+".iso")
	}
	s.start()
	shows := func(want string) {
		t.Helper()
		if out := s.cli("lun", "list"); !strings.Contains(out, want) {
			t.Errorf("lun list has no %q:\n%s", want, out)
		}
	}
	shows("one.iso (ONE)")
	s.cli("cdrom", "insert", iqn, "0", "two.iso")
	s.kill()
	s.start()
	shows("two.iso (TWO)")
	if got := readSectors(t, s.url(0), 16, 1); !bytes.Contains(got, []byte("TWO")) {
		t.Errorf("another disc is read: %q", got[:72])
	}
	s.refuse(1, []string{"two.iso", "skylun cdrom eject"}, "image", "rm", "two.iso")
	s.cli("cdrom", "eject", iqn, "0")
	s.kill()
	s.start()
	shows("empty, tray open")
	s.cli("image", "rm", "two.iso")
	s.stop()
	s.check()
}

// driveFamilies are the families of libiscsi's suite that have tests for any
// unit, or for reading.
var driveFamilies = []string{"Inquiry", "ModeSense6", "PreventAllow", "Read10", "Read12", "ReadCapacity10", "Reserve6", "StartStopUnit", "TestUnitReady"}

// The tests of these families pass on a drive, or are listed with the reason.
func TestConformanceDrive(t *testing.T) {
	const list = "testdata/iscsi-test-cu-drive.txt"
	listed := readNotSupported(t, list)
	s := newDrive(t, newFileStore(t), "disc.iso")
	s.cli("image", "import", discImage(t, "DISC", 8<<20), "disc.iso")
	s.start()
	if out := tool(t, "iscsi-inq", s.url(0)); !strings.Contains(out, "Peripheral Device Type:MMC") || !strings.Contains(out, "Removable:1") {
		t.Errorf("iscsi-inq:\n%s", out)
	}
	for _, page := range []string{"0", "128", "131"} {
		tool(t, "iscsi-inq", "-e", "1", "-c", page, s.url(0))
	}
	ran := map[string]bool{}
	for _, name := range suiteTests(t) {
		for _, family := range driveFamilies {
			if strings.HasPrefix(name, "SCSI."+family+".") {
				ran[name] = true
				t.Run(name, func(t *testing.T) { conforms(t, listed, name, s.url(0)) })
			}
		}
	}
	for name := range listed {
		if !ran[name] {
			t.Errorf("%s lists %s, which is not run", list, name)
		}
	}
	s.stop()
	s.check()
}
