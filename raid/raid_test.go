package raid

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"skylun/block"
)

func TestArrayFile(t *testing.T) {
	a, err := Open([]string{filepath.Join(t.TempDir(), "new", "member")})
	if err != nil {
		t.Fatal(err)
	}
	const size = 1 << 20
	if _, err := a.Open("layers/1", size); !errors.Is(err, ErrNotExist) {
		t.Errorf("open of a file never created: %v, want ErrNotExist", err)
	}
	f, err := a.Create("layers/1", size)
	if err != nil {
		t.Fatal(err)
	}
	data := bytes.Repeat([]byte("skylun"), 1000)
	if err := f.WriteAt(data, 4000); err != nil {
		t.Fatal(err)
	}
	if err := f.WriteAt(data, size-1); !errors.Is(err, block.ErrOutOfRange) {
		t.Errorf("write beyond the end: %v, want ErrOutOfRange", err)
	}
	if err := f.Sync(); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := a.Open("layers/1", size+1); err == nil {
		t.Error("a file of another size was opened")
	}
	f, err = a.Open("layers/1", size)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	got := make([]byte, len(data))
	if done, err := f.TryReadAt(got, 4000); err != nil || (done && !bytes.Equal(got, data)) {
		t.Errorf("TryReadAt: done %v, error %v, right bytes %v", done, err, bytes.Equal(got, data))
	}
	if err := f.ReadAt(got, 4000); err != nil || !bytes.Equal(got, data) {
		t.Errorf("ReadAt: error %v, right bytes %v", err, bytes.Equal(got, data))
	}
	if err := f.Punch(4096, 4096); err != nil {
		t.Fatal(err)
	}
	if err := f.ReadAt(got[:4096], 4096); err != nil || !bytes.Equal(got[:4096], make([]byte, 4096)) {
		t.Errorf("a punched block does not read as zeros (%v)", err)
	}
	if n, err := f.Allocated(); err != nil || n > 64<<10 {
		t.Errorf("Allocated: %d %v, want a few KiB: the file is not sparse", n, err)
	}
	var ranges []block.Range
	if err := f.DataRanges(func(r block.Range) error { ranges = append(ranges, r); return nil }); err != nil {
		t.Fatal(err)
	}
	if want := []block.Range{{Off: 0, End: 4096}, {Off: 8192, End: 12288}}; !slices.Equal(ranges, want) {
		t.Errorf("DataRanges: %v, want %v", ranges, want)
	}
	if err := f.Clear(); err != nil {
		t.Fatal(err)
	}
	if err := f.ReadAt(got, 0); err != nil || !bytes.Equal(got, make([]byte, len(got))) {
		t.Errorf("a cleared file does not read as zeros (%v)", err)
	}
	if err := f.DataRanges(func(r block.Range) error { return errors.New(r.String()) }); err != nil {
		t.Errorf("a cleared file has data: %v", err)
	}
	if err := a.Remove("layers/1"); err != nil {
		t.Error(err)
	}
	if err := a.Remove("layers/1"); err != nil {
		t.Errorf("removed twice: %v", err)
	}
}

func TestOpenRefuses(t *testing.T) {
	dir := t.TempDir()
	if _, err := Open([]string{dir, dir}); err == nil {
		t.Error("two members were accepted")
	}
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open([]string{file}); err == nil {
		t.Error("a plain file was accepted as member")
	}
}

func TestMemberError(t *testing.T) {
	for errno, want := range map[unix.Errno]error{
		unix.ENOSPC: block.ErrNoSpace, unix.EDQUOT: block.ErrNoSpace, unix.EIO: block.ErrMedium,
	} {
		err := memberError(&os.PathError{Op: "write", Path: "/m/x", Err: errno})
		if !errors.Is(err, want) || !errors.Is(err, errno) {
			t.Errorf("%v becomes %v, want %v", errno, err, want)
		}
	}
}

func BenchmarkTryReadAt4K(b *testing.B) {
	a, err := Open([]string{b.TempDir()})
	if err != nil {
		b.Fatal(err)
	}
	f, err := a.Create("f", 1<<20)
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	p := make([]byte, 4096)
	for off := int64(0); off < 1<<20; off += 4096 {
		if err := f.WriteAt(p, off); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		if done, err := f.TryReadAt(p, int64(i%256)*4096); !done || err != nil {
			b.Fatal(done, err)
		}
	}
}
