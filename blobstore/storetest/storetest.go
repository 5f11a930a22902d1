// Package storetest is the contract of blobstore.Store in code. Every backend
// runs it.
package storetest

import (
	"bytes"
	"context"
	"encoding/binary"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"skylun/blobstore"
	"skylun/block"
)

// Place is somewhere to keep images, empty in the beginning. Not even the
// container exists.
type Place interface {
	// Config returns what opens a store there.
	Config() blobstore.Config

	// Put makes an object by other means than a Store, or replaces it.
	Put(t *testing.T, name string, content []byte)
}

// StripedPlace is a Place whose images are striped.
type StripedPlace interface {
	Place
	Striping() blobstore.Striping
}

// striped is a store whose uploads are striped.
type striped struct {
	blobstore.Store
	striping blobstore.Striping
}

func (s striped) Create(ctx context.Context, name string, size int64, source string) (blobstore.Upload, error) {
	return s.CreateStriped(ctx, name, size, source, s.striping)
}

func (s striped) CreateStriped(ctx context.Context, name string, size int64, source string, st blobstore.Striping) (blobstore.Upload, error) {
	if st == (blobstore.Striping{}) {
		st = s.striping
	}
	return s.Store.CreateStriped(ctx, name, size, source, st)
}

// Run runs the suite. Each test gets a new place.
func Run(t *testing.T, newPlace func(t *testing.T) Place) {
	for _, c := range []struct {
		name string
		f    func(t *testing.T, p Place)
	}{
		{"Empty", testEmpty},
		{"Sizes", testSizes},
		{"Formats", testFormats},
		{"Names", testNames},
		{"List", testList},
		{"Changed", testChanged},
		{"Deleted", testDeleted},
		{"Remembered", testRemembered},
		{"DataRanges", testDataRanges},
		{"ParallelReads", testParallelReads},
		{"Cancelled", testCancelled},
		{"Stats", testStats},
		{"Documents", testDocuments},
		{"DocumentsInParallel", testDocumentsInParallel},
		{"Upload", testUpload},
		{"UploadArguments", testUploadArguments},
		{"UploadResumes", testUploadResumes},
		{"UploadOfOtherSource", testUploadOfOtherSource},
		{"UploadAborted", testUploadAborted},
		{"UploadDeleted", testUploadDeleted},
		{"UploadTwice", testUploadTwice},
		{"UploadOfTakenName", testUploadOfTakenName},
		{"UploadsInParallel", testUploadsInParallel},
		{"Import", testImport},
		{"ImportFormats", testImportFormats},
		{"ImportRefused", testImportRefused},
		{"ImportCancelled", testImportCancelled},
		{"ImportKilled", testImportKilled},
		{"ImportOfChangingFile", testImportOfChangingFile},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			c.f(t, newPlace(t))
		})
	}
}

// open returns a store at p, as another process would have it.
func open(t *testing.T, p Place) blobstore.Store {
	t.Helper()
	s, err := blobstore.Open(t.Context(), p.Config(), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		if n := s.Stats().InFlight; n != 0 {
			t.Errorf("%d requests still in flight", n)
		}
	})
	if p, ok := p.(StripedPlace); ok {
		return striped{s, p.Striping()}
	}
	return s
}

// Random returns n bytes without a block of zeros.
func Random(n int, seed uint64) []byte {
	p := make([]byte, n)
	var key [32]byte
	binary.LittleEndian.PutUint64(key[:], seed)
	rand.NewChaCha8(key).Read(p)
	return p
}

// FixedVHD returns the disk followed by a footer that says so.
func FixedVHD(disk []byte) []byte {
	f := make([]byte, 512)
	copy(f, "conectix")
	be := binary.BigEndian
	be.PutUint32(f[8:], 2)
	be.PutUint32(f[12:], 0x00010000)
	be.PutUint64(f[16:], ^uint64(0))
	be.PutUint64(f[40:], uint64(len(disk)))
	be.PutUint64(f[48:], uint64(len(disk)))
	be.PutUint32(f[60:], 2)
	var sum uint32
	for _, b := range f {
		sum += uint32(b)
	}
	be.PutUint32(f[64:], ^sum)
	return append(bytes.Clone(disk), f...)
}

// stat is Stat that must succeed.
func stat(t *testing.T, s blobstore.Store, name string) blobstore.Info {
	t.Helper()
	info, err := s.Stat(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	return info
}

// content reads all of an image.
func content(t *testing.T, s blobstore.Store, info blobstore.Info) []byte {
	t.Helper()
	p := make([]byte, info.Size)
	if err := s.Image(info).ReadAt(t.Context(), p, 0); err != nil {
		t.Fatal(err)
	}
	return p
}

// requireContent compares an image with what it should hold.
func requireContent(t *testing.T, s blobstore.Store, info blobstore.Info, want []byte) {
	t.Helper()
	want = append(bytes.Clone(want), make([]byte, block.Ceil(int64(len(want)), 512)-int64(len(want)))...)
	if got := content(t, s, info); !bytes.Equal(got, want) {
		t.Fatalf("image of %d bytes differs from the %d bytes it should hold, at %d", len(got), len(want), firstDifference(got, want))
	}
}

func firstDifference(a, b []byte) int {
	for i := range min(len(a), len(b)) {
		if a[i] != b[i] {
			return i
		}
	}
	return min(len(a), len(b))
}

// requireInvisible makes sure that nobody sees an image of that name.
func requireInvisible(t *testing.T, p Place, name string) {
	t.Helper()
	s := open(t, p)
	if info, err := s.Stat(t.Context(), name); err == nil {
		t.Errorf("Stat(%q) = %+v, want it not to be found", name, info)
	}
	for _, info := range list(t, s) {
		if info.Name == name {
			t.Errorf("%q is listed", name)
		}
	}
}

func list(t *testing.T, s blobstore.Store) []blobstore.Info {
	t.Helper()
	infos, err := s.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return infos
}

// all returns all of an image.
func all(m *blobstore.Image) block.Range { return block.Range{Off: 0, End: m.Size()} }

// dataRanges returns where an image may hold data within in.
func dataRanges(t *testing.T, m *blobstore.Image, in block.Range) []block.Range {
	t.Helper()
	var rs []block.Range
	err := m.DataRanges(t.Context(), in, func(r block.Range) error {
		if r.Empty() || len(rs) > 0 && r.Off < rs[len(rs)-1].End || r.Intersect(in) != r {
			t.Errorf("range %v after %v of %v", r, rs, in)
		}
		rs = append(rs, r)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return rs
}

// writeFile makes a file to import.
func writeFile(t *testing.T, name string, p []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, p, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func mustImport(t *testing.T, s blobstore.Store, src, name string, opts blobstore.ImportOptions) blobstore.Info {
	t.Helper()
	info, err := blobstore.Import(t.Context(), s, src, name, opts)
	if err != nil {
		t.Fatal(err)
	}
	return info
}

// create is Create that must succeed.
func create(t *testing.T, s blobstore.Store, name string, size int64, source string) blobstore.Upload {
	t.Helper()
	u, err := s.Create(t.Context(), name, size, source)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { u.Close() })
	return u
}

func write(t *testing.T, u blobstore.Upload, p []byte, off int64) {
	t.Helper()
	if err := u.WriteAt(t.Context(), p, off); err != nil {
		t.Fatal(err)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// stopAfter returns a context and a progress function that cancels it once n
// bytes are done.
func stopAfter(t *testing.T, n int64) (context.Context, func(done, total int64)) {
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(cancel)
	return ctx, func(done, _ int64) {
		if done >= n {
			cancel()
		}
	}
}
