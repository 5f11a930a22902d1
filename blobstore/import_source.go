package blobstore

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"

	"skylun/block"
)

// source is a file or block device that is being imported.
type source struct {
	f        *os.File
	path     string
	size     int64 // bytes to copy, the footer of a VHD included
	id       string
	identity identity // of a file; zero for a block device
}

// openSource opens what is to become the image name and makes sure that it can.
func openSource(ctx context.Context, path, name string, want Format) (*source, error) {
	if strings.HasPrefix(path, "http://") || strings.HasPrefix(path, "https://") {
		return nil, fmt.Errorf("import %s: only files and block devices can be imported: download it first", path)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("import: %w", err)
	}
	s := &source{f: f, path: path}
	if err := s.examine(ctx, name, want); err != nil {
		f.Close()
		return nil, fmt.Errorf("import %s: %w", path, err)
	}
	return s, nil
}

func (s *source) examine(ctx context.Context, name string, want Format) error {
	fi, err := s.f.Stat()
	if err != nil {
		return err
	}
	var nonce string
	switch mode := fi.Mode(); {
	case mode.IsRegular():
		if s.identity, err = settledIdentity(ctx, s.f); err != nil {
			return err
		}
		s.size = s.identity.size
	case mode&fs.ModeDevice != 0 && mode&fs.ModeCharDevice == 0:
		if s.size, err = s.f.Seek(0, io.SeekEnd); err != nil {
			return err
		}
		// Nothing tells whether its content is still the same next time.
		nonce = rand.Text()
	default:
		return &fault{ErrFormat, "is neither a file nor a block device"}
	}
	sum := sha256.Sum256(fmt.Appendf(nil, "%v %d %s", s.identity, s.size, nonce))
	s.id = hex.EncodeToString(sum[:])
	info := Info{Name: name, BlobSize: s.size}
	err = probe(ctx, &info, func(_ context.Context, p []byte, off int64) error {
		_, err := s.f.ReadAt(p, off)
		return err
	})
	if err != nil {
		return err
	}
	if info.Format == Raw && want != Raw && strings.HasSuffix(strings.ToLower(s.path), ".vhd") {
		want = VHD // by its name it should be one
	}
	return checkFormat(info.Format, want)
}

// checkFormat tells whether content of the format found may be imported as
// want.
func checkFormat(found, want Format) error {
	switch {
	case want == "" || want == "auto" || want == found:
		return nil
	case want == Raw && found == ISO: // also the bytes of a disk
		return nil
	case want == Raw:
		return &fault{ErrFormat, "ends in a VHD footer and would be served as a VHD: import it as vhd, or cut off the last 512 bytes"}
	case want == VHD:
		return &fault{ErrFormat, "has no valid VHD footer: it is truncated or damaged, or not a VHD; copy it again, or import it as raw"}
	case want == ISO:
		return &fault{ErrFormat, fmt.Sprintf("is %s, not %s", found, want)}
	}
	return &fault{ErrFormat, fmt.Sprintf("cannot be imported as %q: the formats are %s, %s and %s", want, Raw, VHD, ISO)}
}

// chunks calls f for the ranges that may hold data from off on, in ascending
// order, cut at multiples of importChunk.
func (s *source) chunks(off int64, f func(block.Range) error) error {
	for {
		data, err := nextData(s.f, off, s.size)
		if err != nil {
			return err
		}
		if data.Empty() {
			return nil
		}
		// In whole blocks, so that no block is written in two parts.
		data = data.Outward(block.Size).Intersect(block.Range{Off: block.Floor(off, block.Size), End: s.size})
		for data.Off < data.End {
			end := min(data.End, block.Floor(data.Off, importChunk)+importChunk)
			if err := f(block.Range{Off: data.Off, End: end}); err != nil {
				return err
			}
			data.Off = end
		}
		off = data.End
	}
}

// read fills p with r and zeros.
func (s *source) read(p []byte, r block.Range) error {
	n, err := s.f.ReadAt(p[:r.Len()], r.Off)
	if errors.Is(err, io.EOF) && int64(n) < r.Len() {
		return s.changed()
	}
	clear(p[n:])
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return err
}

// unchanged tells whether the file is still what it was in the beginning.
func (s *source) unchanged() error {
	if s.identity == (identity{}) {
		return nil
	}
	now, err := identityOf(s.f)
	if err == nil && now != s.identity {
		err = s.changed()
	}
	return err
}

func (s *source) changed() error {
	return &fault{ErrChanged, s.path + " was written to while it was imported: stop what writes to it and import it again"}
}
