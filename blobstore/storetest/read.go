package storetest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"

	"skylun/blobstore"
	"skylun/block"
)

func testEmpty(t *testing.T, p Place) {
	s := open(t, p)
	if infos := list(t, s); len(infos) != 0 {
		t.Errorf("List = %v, want nothing", infos)
	}
	// A directory that is not there is perhaps not mounted, and says nothing
	// about its images; a container that is not there has none.
	want := blobstore.ErrNotFound
	if strings.HasPrefix(s.URL(), "file:") {
		want = blobstore.ErrUnavailable
	}
	for range 2 {
		if _, err := s.Stat(t.Context(), "a"); !errors.Is(err, want) {
			t.Errorf("Stat: %v, want %v", err, want)
		}
		if err := s.Delete(t.Context(), "a"); !errors.Is(err, want) {
			t.Errorf("Delete: %v, want %v", err, want)
		}
		p.Put(t, "b", Random(512, 1)) // makes directory and container
		want = blobstore.ErrNotFound
	}
	m := s.Image(blobstore.Info{Name: "a", Size: 512, BlobSize: 512, Identity: "0x1"})
	if err := m.ReadAt(t.Context(), make([]byte, 512), 0); !errors.Is(err, block.ErrMedium) {
		t.Errorf("ReadAt: %v, want ErrMedium", err)
	}
}

// Sizes that are no multiple of a sector are rounded up, with zeros.
func testSizes(t *testing.T, p Place) {
	s := open(t, p)
	rnd := rand.New(rand.NewPCG(1, 2))
	for i, size := range []int{1, 511, 512, 513, 1000, 4096, 32768, 33281, 33792, 33793, 34000, 1<<20 + 7} {
		name := fmt.Sprintf("disk%d.img", size)
		want := Random(size, uint64(i))
		p.Put(t, name, want)
		info := stat(t, s, name)
		rounded := block.Ceil(int64(size), 512)
		if info.Size != rounded || info.BlobSize != int64(size) || info.Format != blobstore.Raw || info.Name != name || info.Identity == "" || info.Modified.IsZero() {
			t.Errorf("size %d: Stat = %+v", size, info)
		}
		m := s.Image(info)
		if m.Size() != rounded || m.Info() != info {
			t.Errorf("size %d: Image has %d bytes, Info %+v", size, m.Size(), m.Info())
		}
		requireContent(t, s, info, want)
		want = append(want, make([]byte, rounded-int64(size))...)
		for range 8 {
			off := rnd.Int64N(rounded + 1)
			got := Random(int(rnd.Int64N(rounded-off+1)), 99)
			if err := m.ReadAt(t.Context(), got, off); err != nil || !bytes.Equal(got, want[off:off+int64(len(got))]) {
				t.Errorf("size %d: read %d+%d: wrong bytes, error %v", size, off, len(got), err)
			}
		}
		for _, r := range [][2]int64{{rounded, 1}, {0, rounded + 1}, {-1, 1}, {rounded + 1, 0}} {
			if err := m.ReadAt(t.Context(), make([]byte, r[1]), r[0]); !errors.Is(err, block.ErrOutOfRange) {
				t.Errorf("size %d: read %d+%d: %v, want ErrOutOfRange", size, r[0], r[1], err)
			}
		}
	}
}

func testFormats(t *testing.T, p Place) {
	s := open(t, p)
	disk := Random(1<<20, 3)
	iso := Random(64<<10+100, 4)
	copy(iso[32769:], "CD001")
	p.Put(t, "good.vhd", FixedVHD(disk))
	p.Put(t, "vhd-without-suffix", FixedVHD(disk))
	p.Put(t, "disc.iso", iso)
	for name, want := range map[string]blobstore.Info{
		"good.vhd":           {Format: blobstore.VHD, Size: 1 << 20, BlobSize: 1<<20 + 512},
		"vhd-without-suffix": {Format: blobstore.VHD, Size: 1 << 20, BlobSize: 1<<20 + 512},
		"disc.iso":           {Format: blobstore.ISO, Size: block.Ceil(int64(len(iso)), 512), BlobSize: int64(len(iso))},
	} {
		info := stat(t, s, name)
		if info.Format != want.Format || info.Size != want.Size || info.BlobSize != want.BlobSize {
			t.Errorf("%s: Stat = %+v, want %+v", name, info, want)
		}
	}
	requireContent(t, s, stat(t, s, "good.vhd"), disk)
	m := s.Image(stat(t, s, "good.vhd"))
	if err := m.ReadAt(t.Context(), make([]byte, 512), 1<<20); !errors.Is(err, block.ErrOutOfRange) {
		t.Errorf("reading the footer: %v, want ErrOutOfRange", err)
	}

	for _, bad := range []struct {
		name    string
		content []byte
		says    string
	}{
		{"empty.img", nil, "empty"},
		{"short.vhd", FixedVHD(disk)[:1<<20], "truncated"},
		{"shorter.vhd", FixedVHD(disk)[:1<<20+300], "truncated"},
		{"middle-missing.vhd", FixedVHD(disk)[512:], "truncated"},
		{"image.qcow2", append([]byte("QFI\xfb"), disk...), "qemu-img"},
		{"image.vhdx", append([]byte("vhdxfile"), disk...), "qemu-img"},
	} {
		p.Put(t, bad.name, bad.content)
		_, err := s.Stat(t.Context(), bad.name)
		if !errors.Is(err, blobstore.ErrFormat) || !strings.Contains(err.Error(), bad.says) || !strings.Contains(err.Error(), bad.name) {
			t.Errorf("%s: Stat: %v, want ErrFormat that says %q", bad.name, err, bad.says)
		}
	}
	var names []string
	for _, info := range list(t, s) {
		names = append(names, info.Name)
	}
	if got, want := strings.Join(names, " "), "disc.iso good.vhd vhd-without-suffix"; got != want {
		t.Errorf("List = %s, want %s", got, want)
	}
}

func testNames(t *testing.T, p Place) {
	s := open(t, p)
	for _, name := range []string{"a", "folder/a", "folder/deeper/a.img", "with space and+plus%20percent#hash&amp;=~@(1).img", "ünïcode/日本.img"} {
		want := Random(512, uint64(len(name)))
		p.Put(t, name, want)
		requireContent(t, s, stat(t, s, name), want)
	}
	before := len(list(t, s))
	p.Put(t, ".hidden", Random(512, 1))
	p.Put(t, "folder/.hidden/a", Random(512, 1))
	if n := len(list(t, s)); n != before {
		t.Errorf("%d images listed with hidden ones, %d before", n, before)
	}
	for _, name := range []string{"", ".", "..", "../a", "a/../b", "/a", "a/", "a//b", ".hidden", "folder/.hidden/a", "-a", "a\x00b", "a\nb", `a\b`, "a:b", "a ", strings.Repeat("x", 513), strings.Repeat("x", 201), "\xff"} {
		if _, err := s.Stat(t.Context(), name); !errors.Is(err, blobstore.ErrName) {
			t.Errorf("Stat(%q): %v, want ErrName", name, err)
		}
		if _, err := s.Create(t.Context(), name, 512, ""); !errors.Is(err, blobstore.ErrName) {
			t.Errorf("Create(%q): %v, want ErrName", name, err)
		}
		if err := s.Delete(t.Context(), name); !errors.Is(err, blobstore.ErrName) {
			t.Errorf("Delete(%q): %v, want ErrName", name, err)
		}
		m := s.Image(blobstore.Info{Name: name, Size: 512, BlobSize: 512, Identity: "0x1"})
		if err := m.ReadAt(t.Context(), make([]byte, 512), 0); !errors.Is(err, block.ErrMedium) {
			t.Errorf("ReadAt of %q: %v, want ErrMedium", name, err)
		}
	}
}

func testList(t *testing.T, p Place) {
	s := open(t, p)
	names := []string{"a", "a.img", "a1", "b/a", "b/b", "b.img", "c"}
	want := map[string]blobstore.Info{}
	for i, name := range names {
		if name == "a" && i > 0 {
			continue
		}
		p.Put(t, name, Random(1000*(i+1), uint64(i)))
		want[name] = stat(t, s, name)
	}
	for round := range 2 {
		infos := list(t, s)
		if len(infos) != len(want) {
			t.Errorf("%d images listed, want %d", len(infos), len(want))
		}
		for i, info := range infos {
			if !same(info, want[info.Name]) {
				t.Errorf("round %d: listed %+v, Stat says %+v", round, info, want[info.Name])
			}
			if i > 0 && infos[i-1].Name >= info.Name {
				t.Errorf("round %d: %q listed before %q", round, infos[i-1].Name, info.Name)
			}
		}
		p.Put(t, "c", Random(77, 77))
		want["c"] = stat(t, s, "c")
	}
}

// same compares what does not depend on how exactly time is told.
func same(a, b blobstore.Info) bool {
	return a.Name == b.Name && a.Size == b.Size && a.BlobSize == b.BlobSize && a.Format == b.Format && a.Identity == b.Identity &&
		a.Modified.Unix() == b.Modified.Unix()
}

// An image is pinned: other content of the same name and size is an error.
func testChanged(t *testing.T, p Place) {
	s := open(t, p)
	p.Put(t, "a", Random(8192, 1))
	before := stat(t, s, "a")
	m := s.Image(before)
	p.Put(t, "a", Random(8192, 2))
	err := m.ReadAt(t.Context(), make([]byte, 512), 0)
	if !errors.Is(err, blobstore.ErrChanged) || !errors.Is(err, block.ErrMedium) {
		t.Errorf("ReadAt of changed content: %v, want ErrChanged and ErrMedium", err)
	}
	err = m.DataRanges(t.Context(), all(m), func(block.Range) error { return nil })
	if !errors.Is(err, blobstore.ErrChanged) || !errors.Is(err, block.ErrMedium) {
		t.Errorf("DataRanges of changed content: %v, want ErrChanged and ErrMedium", err)
	}
	after := stat(t, s, "a")
	if after.Identity == before.Identity {
		t.Errorf("identity %q is that of the content before", after.Identity)
	}
	requireContent(t, s, after, Random(8192, 2))
	p.Put(t, "a", Random(4096, 3)) // shorter
	if err := s.Image(after).ReadAt(t.Context(), make([]byte, 512), 7000); !errors.Is(err, blobstore.ErrChanged) {
		t.Errorf("ReadAt beyond shorter content: %v, want ErrChanged", err)
	}
}

func testDeleted(t *testing.T, p Place) {
	s := open(t, p)
	p.Put(t, "folder/a", Random(512, 1))
	m := s.Image(stat(t, s, "folder/a"))
	must(t, s.Delete(t.Context(), "folder/a"))
	requireInvisible(t, p, "folder/a")
	// A condition that cannot hold may be answered before it is said that there
	// is nothing to hold it against.
	err := m.ReadAt(t.Context(), make([]byte, 512), 0)
	if !errors.Is(err, blobstore.ErrNotFound) && !errors.Is(err, blobstore.ErrChanged) || !errors.Is(err, block.ErrMedium) {
		t.Errorf("ReadAt of a deleted image: %v, want ErrNotFound or ErrChanged, and ErrMedium", err)
	}
	if err := s.Delete(t.Context(), "folder/a"); !errors.Is(err, blobstore.ErrNotFound) {
		t.Errorf("Delete again: %v, want ErrNotFound", err)
	}
	p.Put(t, "folder", Random(512, 2)) // the folder is gone with its last image
	requireContent(t, s, stat(t, s, "folder"), Random(512, 2))
}

// An Info outlives the process.
func testRemembered(t *testing.T, p Place) {
	want := FixedVHD(Random(4096, 1))
	p.Put(t, "a.vhd", want)
	saved, err := json.Marshal(stat(t, open(t, p), "a.vhd"))
	must(t, err)
	var info blobstore.Info
	must(t, json.Unmarshal(saved, &info))
	s := open(t, p)
	requireContent(t, s, info, want[:4096])
	if st := s.Stats(); st.Gets != 1 || st.Others != 0 {
		t.Errorf("%+v, want one read and nothing else", st)
	}
	for _, foreign := range []string{"", "0x123-4", "1-2-3", "0x8DFFFFFFFFFFFFF", "x"} {
		info.Identity = foreign
		if err := s.Image(info).ReadAt(t.Context(), make([]byte, 512), 0); !errors.Is(err, blobstore.ErrChanged) {
			t.Errorf("ReadAt with the identity %q: %v, want ErrChanged", foreign, err)
		}
	}
}

func testDataRanges(t *testing.T, p Place) {
	s := open(t, p)
	const size = 4 << 20
	u := create(t, s, "sparse", size, "")
	for _, off := range []int64{64 << 10, 1 << 20, size - 4096} {
		write(t, u, Random(4096, uint64(off)), off)
	}
	write(t, u, make([]byte, 1<<20), 2<<20)
	info, err := u.Commit(t.Context())
	must(t, err)
	m := s.Image(info)
	got := dataRanges(t, m, all(m))
	want := []block.Range{{Off: 64 << 10, End: 68 << 10}, {Off: 1 << 20, End: 1<<20 + 4096}, {Off: size - 4096, End: size}}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("data in %v, want %v", got, want)
	}
	for _, c := range []struct {
		in   block.Range
		want []block.Range
	}{
		{block.Range{Off: 65 << 10, End: 67 << 10}, []block.Range{{Off: 65 << 10, End: 67 << 10}}}, // within one
		{block.Range{Off: 66 << 10, End: 1<<20 + 512}, []block.Range{{Off: 66 << 10, End: 68 << 10}, {Off: 1 << 20, End: 1<<20 + 512}}},
		{block.Range{Off: 2 << 20, End: 3 << 20}, nil},
		{block.Range{Off: size - 512, End: size}, []block.Range{{Off: size - 512, End: size}}},
		{block.Range{Off: 64 << 10, End: 64 << 10}, nil},
		{block.Range{Off: size, End: size}, nil},
	} {
		if got := dataRanges(t, m, c.in); fmt.Sprint(got) != fmt.Sprint(c.want) {
			t.Errorf("data of %v in %v, want %v", c.in, got, c.want)
		}
	}
	err = m.DataRanges(t.Context(), block.Range{Off: 0, End: size + 1}, func(block.Range) error { return nil })
	if !errors.Is(err, block.ErrOutOfRange) {
		t.Errorf("DataRanges beyond the end: %v, want ErrOutOfRange", err)
	}
	stop := errors.New("stop")
	calls := 0
	err = m.DataRanges(t.Context(), all(m), func(block.Range) error { calls++; return stop })
	if err != stop || calls != 1 {
		t.Errorf("DataRanges: %v after %d calls, want the error of the first call", err, calls)
	}
	// An object made by others: what holds data is named, perhaps more.
	p.Put(t, "plain", Random(5000, 1))
	m = s.Image(stat(t, s, "plain"))
	got = dataRanges(t, m, all(m))
	if len(got) != 1 || got[0] != (block.Range{Off: 0, End: 5000}) {
		t.Errorf("data of a plain object in %v, want all of it", got)
	}
}

func testParallelReads(t *testing.T, p Place) {
	s := open(t, p)
	want := Random(1<<20, 1)
	p.Put(t, "a", want)
	m := s.Image(stat(t, s, "a"))
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			rnd := rand.New(rand.NewPCG(uint64(i), 0))
			for range 10 {
				off := rnd.Int64N(1 << 20)
				got := make([]byte, rnd.Int64N(1<<20-off)+1)
				if err := m.ReadAt(t.Context(), got, off); err != nil || !bytes.Equal(got, want[off:off+int64(len(got))]) {
					t.Errorf("read %d+%d: wrong bytes, error %v", off, len(got), err)
				}
			}
		})
	}
	wg.Wait()
}

// The end of a context is no fault of the medium.
func testCancelled(t *testing.T, p Place) {
	s := open(t, p)
	p.Put(t, "a", Random(512, 1))
	m := s.Image(stat(t, s, "a"))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for name, err := range map[string]error{
		"ReadAt":     m.ReadAt(ctx, make([]byte, 512), 0),
		"DataRanges": m.DataRanges(ctx, all(m), func(block.Range) error { return nil }),
		"Delete":     s.Delete(ctx, "a"),
		"Stat":       second(s.Stat(ctx, "a")),
		"List":       second(s.List(ctx)),
		"Create":     second(s.Create(ctx, "b", 512, "")),
	} {
		if !errors.Is(err, context.Canceled) || errors.Is(err, block.ErrMedium) {
			t.Errorf("%s: %v, want context.Canceled", name, err)
		}
	}
	requireContent(t, s, stat(t, s, "a"), Random(512, 1))
	requireInvisible(t, p, "b")
}

func second[T any](_ T, err error) error { return err }

// One read is one request, and looking is not reading.
func testStats(t *testing.T, p Place) {
	s := open(t, p)
	p.Put(t, "a", Random(1<<20, 1))
	m := s.Image(stat(t, s, "a"))
	want := int64(3)
	if p, ok := p.(StripedPlace); ok { // one for each part
		want = 0
		for i := range int64(3) {
			want += (i*100_000+99_999)/p.Striping().Size - i*100_000/p.Striping().Size + 1
		}
	}
	list(t, s)
	if _, err := s.Stat(t.Context(), "nothing.img"); !errors.Is(err, blobstore.ErrNotFound) {
		t.Errorf("Stat of nothing: %v", err)
	}
	if st := s.Stats(); st.Gets != 0 || st.GetBytes != 0 || st.Others == 0 || st.Errors != 0 {
		t.Errorf("after Stat and List: %+v", st)
	}
	for i := range int64(3) {
		must(t, m.ReadAt(t.Context(), make([]byte, 100_000), i*100_000))
	}
	must(t, m.ReadAt(t.Context(), nil, 0))
	if st := s.Stats(); st.Gets != want || st.GetBytes != 300_000 || st.Errors != 0 || st.Retries != 0 || st.InFlight != 0 {
		t.Errorf("after three reads: %+v", st)
	}
}
