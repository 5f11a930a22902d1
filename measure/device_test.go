package measure

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

const deviceSize = 40<<20 + 512

// loopDevice returns a block device that is empty, and the file that it is.
func loopDevice(t *testing.T) (path, file string) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("making block devices takes root")
	}
	file = filepath.Join(t.TempDir(), "disk")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(file, deviceSize); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("losetup", "--find", "--show", "--direct-io=on", file).CombinedOutput()
	if err != nil {
		t.Fatalf("no block device: %v: %s", err, out)
	}
	path = strings.TrimSpace(string(out))
	t.Cleanup(func() { exec.Command("losetup", "--detach", path).Run() })
	return path, file
}

// A block device is measured past the page cache, and empty again.
func TestBlockDevice(t *testing.T) {
	path, file := loopDevice(t)
	r, err := Path(t.Context(), path, Options{Time: short, Space: minSpace})
	if err != nil {
		t.Fatal(err)
	}
	requireSense(t, r)
	if r.Size != deviceSize || r.Cached {
		t.Errorf("size %d, through the page cache: %v; want %d, false", r.Size, r.Cached, deviceSize)
	}
	requireZeros(t, path, deviceSize)
	requireZeros(t, file, deviceSize)
}

// Of a block device that holds something nothing is touched.
func TestBlockDeviceNotEmpty(t *testing.T) {
	path, _ := loopDevice(t)
	for _, at := range []int64{512, deviceSize / 2, deviceSize - 512} {
		f, err := os.OpenFile(path, os.O_RDWR|unix.O_SYNC, 0)
		if err != nil {
			t.Fatal(err)
		}
		want := make([]byte, deviceSize)
		want[at] = 1
		if _, err := f.WriteAt(want, 0); err != nil {
			t.Fatal(err)
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
		if _, err := Path(t.Context(), path, Options{Time: short, Space: minSpace}); !errors.Is(err, ErrNotEmpty) || !strings.Contains(err.Error(), path) {
			t.Errorf("something at %d: %v, want ErrNotEmpty", at, err)
		}
		if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, want) {
			t.Errorf("something at %d: the device was changed, error %v", at, err)
		}
	}
}

// What somebody else uses is refused, by force, too.
func TestInUse(t *testing.T) {
	device, _ := loopDevice(t)
	mounted, err := os.OpenFile(device, os.O_RDONLY|os.O_EXCL, 0) // the claim of a mount
	if err != nil {
		t.Fatal(err)
	}
	defer mounted.Close()
	file := filepath.Join(t.TempDir(), "member")
	if err := os.WriteFile(file, bytes.Repeat([]byte{7}, deviceSize), 0o600); err != nil {
		t.Fatal(err)
	}
	member, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer member.Close()
	if err := unix.Flock(int(member.Fd()), unix.LOCK_EX); err != nil { // as a node does with its members
		t.Fatal(err)
	}
	for _, path := range []string{device, file} {
		want, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := Path(t.Context(), path, Options{Time: short, Space: minSpace, Force: true}); err == nil || !strings.Contains(err.Error(), "is in use") {
			t.Errorf("%s: %v, want that it is in use", path, err)
		}
		if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s was changed, error %v", path, err)
		}
	}
}
