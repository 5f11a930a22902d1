package raid_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"skylun/raid"
	"skylun/raid/raidtest"
)

// benchSize is what benchmarks read and write, in memory after they have filled
// it.
const benchSize = 16 << 20

// fill writes all of it in small pieces: pages that a large write has filled are
// slower to write to.
func fill(b *testing.B, write func(p []byte, off int64) error) {
	p := make([]byte, 4096)
	for off := int64(0); off < benchSize; off += 4096 {
		if err := write(p, off); err != nil {
			b.Fatal(err)
		}
	}
}

func benchDir(b *testing.B) string {
	dir, err := os.MkdirTemp("/dev/shm", "skylun-bench-")
	if err != nil {
		return b.TempDir()
	}
	b.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// BenchmarkFile compares files of arrays with the bare file.
func BenchmarkFile(b *testing.B) {
	type file interface {
		TryReadAt(p []byte, off int64) (bool, error)
		ReadAt(p []byte, off int64) error
		WriteAt(p []byte, off int64) error
	}
	shapes := []struct {
		name string
		make func(b *testing.B, dir string) file
	}{{"bare", func(b *testing.B, dir string) file {
		f, err := os.Create(filepath.Join(dir, "bare"))
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { f.Close() })
		return bareFile{f, int(f.Fd())}
	}}}
	for name, members := range map[string]func(dir string) []raid.MemberConfig{
		"dir": func(dir string) []raid.MemberConfig { return []raid.MemberConfig{directory(dir, "a")} },
		"dir4": func(dir string) []raid.MemberConfig {
			return []raid.MemberConfig{directory(dir, "a"), directory(dir, "b"), directory(dir, "c"), directory(dir, "d")}
		},
		"identical": func(dir string) []raid.MemberConfig {
			return []raid.MemberConfig{{Path: filepath.Join(dir, "i")}}
		},
		"chunks": func(dir string) []raid.MemberConfig {
			return []raid.MemberConfig{{Path: filepath.Join(dir, "i"), Allocate: raid.Chunks}}
		},
	} {
		shapes = append(shapes, struct {
			name string
			make func(b *testing.B, dir string) file
		}{name, func(b *testing.B, dir string) file {
			if err := os.WriteFile(filepath.Join(dir, "i"), nil, 0o600); err != nil {
				b.Fatal(err)
			}
			if err := os.Truncate(filepath.Join(dir, "i"), 64<<20); err != nil {
				b.Fatal(err)
			}
			a, err := raid.OpenArray(raid.Config{Members: members(dir), Records: raidtest.NewRecords(nil), Boot: "a boot"})
			if err != nil {
				b.Fatal(err)
			}
			f, err := a.Create("layers/1", benchSize)
			if err != nil {
				b.Fatal(err)
			}
			b.Cleanup(func() { f.Close(); a.Close() })
			return f
		}})
	}
	for _, s := range shapes {
		for _, op := range []struct {
			name string
			size int
			do   func(f file, p []byte, off int64) error
		}{
			{"TryRead4K", 4 << 10, func(f file, p []byte, off int64) error { _, err := f.TryReadAt(p, off); return err }},
			{"Read4K", 4 << 10, file.ReadAt},
			{"Write4K", 4 << 10, file.WriteAt},
			{"Read1M", 1 << 20, file.ReadAt},
			{"Write1M", 1 << 20, file.WriteAt},
		} {
			b.Run(op.name+"/"+s.name, func(b *testing.B) {
				f := s.make(b, benchDir(b))
				fill(b, f.WriteAt)
				p := make([]byte, op.size)
				b.SetBytes(int64(op.size))
				b.ReportAllocs()
				for i := int64(0); b.Loop(); i++ {
					if err := op.do(f, p, i*7919*int64(op.size)%benchSize); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}

// bareFile does what a member that is a directory did before there were arrays.
type bareFile struct {
	f  *os.File
	fd int
}

func (f bareFile) TryReadAt(p []byte, off int64) (bool, error) {
	n, err := unix.Preadv2(f.fd, [][]byte{p}, off, unix.RWF_NOWAIT)
	if errors.Is(err, unix.EOPNOTSUPP) {
		return true, f.ReadAt(p, off)
	}
	return n == len(p), err
}

func (f bareFile) ReadAt(p []byte, off int64) error {
	_, err := f.f.ReadAt(p, off)
	return err
}

func (f bareFile) WriteAt(p []byte, off int64) error {
	_, err := f.f.WriteAt(p, off)
	return err
}
