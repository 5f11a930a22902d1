package storetest

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"skylun/blobstore"
	"skylun/block"
)

func testImport(t *testing.T, p Place) {
	s := open(t, p)
	const size = 20<<20 + 1000
	want := make([]byte, size)
	data := []block.Range{{Off: 0, End: 4096}, {Off: 1 << 20, End: 7 << 20}, {Off: 12<<20 + 8192, End: 12<<20 + 12288}, {Off: 20 << 20, End: size}}
	src := filepath.Join(t.TempDir(), "disk.img")
	f, err := os.Create(src)
	must(t, err)
	for i, r := range data {
		copy(want[r.Off:], Random(int(r.Len()), uint64(i)))
		_, err := f.WriteAt(want[r.Off:r.End], r.Off)
		must(t, err)
	}
	_, err = f.WriteAt(make([]byte, 1<<20), 8<<20) // zeros that are no hole
	must(t, err)
	must(t, f.Close())

	last, calls := int64(-1), 0
	info := mustImport(t, s, src, "a", blobstore.ImportOptions{Parallel: 2, Progress: func(done, total int64) {
		calls++
		if done < last || done > total || total != size {
			t.Errorf("progress %d of %d after %d", done, total, last)
		}
		last = done
	}})
	if last != size || calls < 4 {
		t.Errorf("progress ends at %d of %d after %d calls", last, size, calls)
	}
	if info.Format != blobstore.Raw || info.Size != block.Ceil(size, 512) {
		t.Errorf("Import = %+v", info)
	}
	requireContent(t, s, info, want)
	var sent int64
	for _, r := range data {
		sent += block.Ceil(r.Len(), 512)
	}
	if st := s.Stats(); st.PutBytes != sent {
		t.Errorf("%d bytes sent, want %d", st.PutBytes, sent)
	}
	got := dataRanges(t, s.Image(info), all(s.Image(info)))
	data[3].End = info.Size
	if fmt.Sprint(got) != fmt.Sprint(data) {
		t.Errorf("data in %v, want %v", got, data)
	}
	if _, err := blobstore.Import(t.Context(), s, src, "a", blobstore.ImportOptions{}); !errors.Is(err, blobstore.ErrExists) {
		t.Errorf("second import: %v, want ErrExists", err)
	}
	odd := Random(4<<20+1000, 7) // its last sector comes from a buffer that was used before
	info = mustImport(t, s, writeFile(t, "odd", odd), "odd", blobstore.ImportOptions{Parallel: 1})
	requireContent(t, s, info, odd)
	empty := writeFile(t, "zeros", make([]byte, 10<<20))
	info = mustImport(t, s, empty, "zeros", blobstore.ImportOptions{})
	if rs := dataRanges(t, s.Image(info), all(s.Image(info))); len(rs) != 0 {
		t.Errorf("data in %v of an image of zeros", rs)
	}
}

func testImportFormats(t *testing.T, p Place) {
	s := open(t, p)
	disk := Random(1<<20, 1)
	iso := Random(100<<10, 2)
	copy(iso[32769:], "CD001")
	vhdFile, rawFile, isoFile := writeFile(t, "a.vhd", FixedVHD(disk)), writeFile(t, "a.raw", disk), writeFile(t, "a.iso", iso)
	for _, c := range []struct {
		src, name string
		format    blobstore.Format
		want      blobstore.Format
	}{
		{vhdFile, "1.vhd", "", blobstore.VHD},
		{vhdFile, "2", "auto", blobstore.VHD},
		{vhdFile, "3", blobstore.VHD, blobstore.VHD},
		{rawFile, "4", "", blobstore.Raw},
		{rawFile, "5", blobstore.Raw, blobstore.Raw},
		{isoFile, "6", "", blobstore.ISO},
		{isoFile, "7", blobstore.ISO, blobstore.ISO},
		{isoFile, "8", blobstore.Raw, blobstore.ISO},
	} {
		info := mustImport(t, s, c.src, c.name, blobstore.ImportOptions{Format: c.format})
		if info.Format != c.want {
			t.Errorf("%s imported as %q is %q, want %q", c.src, c.format, info.Format, c.want)
		}
		content := disk
		if c.want == blobstore.ISO {
			content = iso
		}
		requireContent(t, s, info, content)
	}
}

func testImportRefused(t *testing.T, p Place) {
	s := open(t, p)
	disk := Random(1<<20, 1)
	vhd := FixedVHD(disk)
	for _, c := range []struct {
		file    string
		content []byte
		name    string
		format  blobstore.Format
		is      error
		says    string
	}{
		{"a.raw", disk, "a.vhd", "", blobstore.ErrFormat, "truncated"},
		{"a.raw", disk, "a", blobstore.VHD, blobstore.ErrFormat, "truncated"},
		{"a.raw", disk, "a", blobstore.ISO, blobstore.ErrFormat, "raw, not iso"},
		{"a.raw", disk, "a", "qcow2", blobstore.ErrFormat, "qcow2"},
		{"short.vhd", vhd[:1<<20], "a", "", blobstore.ErrFormat, "truncated"},
		{"a.vhd", vhd, "a", blobstore.Raw, blobstore.ErrFormat, "vhd"},
		{"a.qcow2", append([]byte("QFI\xfb"), disk...), "a", "", blobstore.ErrFormat, "qemu-img convert"},
		{"a.raw.gz", append([]byte("\x1f\x8b\x08"), disk...), "a", "", blobstore.ErrFormat, "unpack"},
		{"empty", nil, "a", "", blobstore.ErrFormat, "empty"},
		{"a.raw", disk, "../a", "", blobstore.ErrName, "../a"},
	} {
		_, err := blobstore.Import(t.Context(), s, writeFile(t, c.file, c.content), c.name, blobstore.ImportOptions{Format: c.format})
		if !errors.Is(err, c.is) || !strings.Contains(err.Error(), c.says) || strings.Contains(err.Error(), "\n") {
			t.Errorf("import of %s as %q, format %q: %v, want %v that says %q in one line", c.file, c.name, c.format, err, c.is, c.says)
		}
	}
	if _, err := blobstore.Import(t.Context(), s, filepath.Join(t.TempDir(), "none"), "a", blobstore.ImportOptions{}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("import of no file: %v", err)
	}
	if _, err := blobstore.Import(t.Context(), s, t.TempDir(), "a", blobstore.ImportOptions{}); !errors.Is(err, blobstore.ErrFormat) {
		t.Errorf("import of a directory: %v, want ErrFormat", err)
	}
	if _, err := blobstore.Import(t.Context(), s, "https://example.com/a.img", "a", blobstore.ImportOptions{}); err == nil || !strings.Contains(err.Error(), "download") {
		t.Errorf("import of a URL: %v", err)
	}
	if infos := list(t, s); len(infos) != 0 {
		t.Errorf("List = %v, want nothing", infos)
	}
}

// An import that was cancelled goes on where it stopped.
func testImportCancelled(t *testing.T, p Place) {
	const size = 24 << 20
	want := Random(size, 1)
	src := writeFile(t, "a.raw", want)
	ctx, progress := stopAfter(t, size/2)
	_, err := blobstore.Import(ctx, open(t, p), src, "a", blobstore.ImportOptions{Parallel: 1, Progress: progress})
	if !errors.Is(err, context.Canceled) {
		t.Fatalf("Import: %v, want context.Canceled", err)
	}
	requireInvisible(t, p, "a")
	s := open(t, p)
	first := int64(-1)
	info := mustImport(t, s, src, "a", blobstore.ImportOptions{Progress: func(done, _ int64) {
		if first < 0 {
			first = done
		}
	}})
	requireContent(t, s, info, want)
	if st := s.Stats(); first != size/2 || st.PutBytes != size-first {
		t.Errorf("went on at %d and sent %d bytes of %d", first, st.PutBytes, int64(size))
	}
}

// A source that changes is noticed, and never mixed with what it was.
func testImportOfChangingFile(t *testing.T, p Place) {
	s := open(t, p)
	const size = 12 << 20
	src := writeFile(t, "a.raw", Random(size, 1))
	changed := false
	_, err := blobstore.Import(t.Context(), s, src, "a", blobstore.ImportOptions{Progress: func(done, _ int64) {
		if done > size/2 && !changed {
			changed = true
			must(t, os.WriteFile(src, Random(size, 2), 0o600))
		}
	}})
	if !errors.Is(err, blobstore.ErrChanged) {
		t.Errorf("Import of a file that is written to: %v, want ErrChanged", err)
	}
	requireInvisible(t, p, "a")

	ctx, progress := stopAfter(t, size/2)
	if _, err := blobstore.Import(ctx, s, src, "a", blobstore.ImportOptions{Parallel: 1, Progress: progress}); !errors.Is(err, context.Canceled) {
		t.Fatalf("Import: %v, want context.Canceled", err)
	}
	want := Random(size, 3)
	clear(want[:1<<20]) // where the one before had data
	must(t, os.WriteFile(src, want, 0o600))
	info := mustImport(t, s, src, "a", blobstore.ImportOptions{Progress: func(done, _ int64) {}})
	requireContent(t, s, info, want)
}

// A killed process leaves nothing visible, and the next import goes on at its
// last checkpoint.
func testImportKilled(t *testing.T, p Place) {
	const size = 24 << 20
	want := Random(size, 1)
	src := writeFile(t, "a.raw", want)
	todo := childJob{Config: p.Config(), Source: src, Name: "a", Until: size / 2}
	if p, ok := p.(StripedPlace); ok {
		todo.Striping = p.Striping()
	}
	job, err := json.Marshal(todo)
	must(t, err)
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childEnv+"="+string(job))
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	line, _ := bufio.NewReader(out).ReadString('\n')
	must(t, cmd.Process.Kill())
	if err := cmd.Wait(); line != childReady || err == nil {
		t.Fatalf("the process said %q and ended with %v", line, err)
	}
	requireInvisible(t, p, "a")

	s := open(t, p)
	first := int64(-1)
	start := time.Now()
	info := mustImport(t, s, src, "a", blobstore.ImportOptions{Progress: func(done, _ int64) {
		if first < 0 {
			first = done
			t.Logf("went on after %v at %d of %d", time.Since(start), done, int64(size))
		}
	}})
	requireContent(t, s, info, want)
	if st := s.Stats(); first != size/2 || st.PutBytes != size-first {
		t.Errorf("went on at %d and sent %d bytes of %d", first, st.PutBytes, int64(size))
	}
}

const (
	childEnv   = "SKYLUN_STORETEST_IMPORT"
	childReady = "half way\n"
)

type childJob struct {
	Config       blobstore.Config
	Source, Name string
	Until        int64
	Striping     blobstore.Striping
}

// Child is to be called by TestMain: in a process that the suite has started
// to be killed, it does not return.
func Child() {
	job := childJob{}
	if s := os.Getenv(childEnv); s == "" {
		return
	} else if err := json.Unmarshal([]byte(s), &job); err != nil {
		panic(err)
	}
	ctx := context.Background()
	s, err := blobstore.Open(ctx, job.Config, slog.New(slog.DiscardHandler))
	if err == nil {
		_, err = blobstore.Import(ctx, s, job.Source, job.Name, blobstore.ImportOptions{Parallel: 1, Checkpoint: 1, Striping: job.Striping, Progress: func(done, _ int64) {
			if done >= job.Until {
				fmt.Print(childReady)
				select {} // until killed
			}
		}})
	}
	fmt.Fprintln(os.Stderr, "import ended:", err)
	os.Exit(1)
}
