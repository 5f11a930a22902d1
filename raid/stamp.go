package raid

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
)

// Every member carries a stamp that tells which one it is: in a directory the
// file stampFile, on a device the first stampSize bytes, followed by zeros.
//
//	skylun member\n
//	{"format":1,"array":"...","member":"...","position":0,"count":2,"kind":"directory"}\n
//	crc32c 01234567\n
//
// The sum is that of the line before it. What counts is in the records; position
// and count are for people, and for a later version that has lost them.
type stamp struct {
	Format   int    `json:"format"`
	Array    string `json:"array"`
	Member   string `json:"member"`
	Position int    `json:"position"` // among the members, from 0
	Count    int    `json:"count"`    // of members
	Kind     string `json:"kind"`
}

const (
	stampFile   = ".skylun-member"
	stampFormat = 1
	stampSize   = 4096
	stampHead   = "skylun member\n"
)

var errStamp = errors.New("its stamp is damaged")

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func (s stamp) encode() []byte {
	line, err := json.Marshal(s)
	if err != nil {
		panic(err) // it has no types that cannot be encoded
	}
	return fmt.Appendf(nil, "%s%s\ncrc32c %08x\n", stampHead, line, crc32.Checksum(line, castagnoli))
}

// decodeStamp reads a stamp; nil is none.
func decodeStamp(b []byte) (*stamp, error) {
	rest, ok := bytes.CutPrefix(b, []byte(stampHead))
	if !ok {
		return nil, nil
	}
	line, rest, _ := bytes.Cut(rest, []byte("\n"))
	sum, _, _ := bytes.Cut(rest, []byte("\n"))
	if string(sum) != fmt.Sprintf("crc32c %08x", crc32.Checksum(line, castagnoli)) {
		return nil, errStamp
	}
	s := &stamp{}
	if err := json.Unmarshal(line, s); err != nil {
		return nil, fmt.Errorf("%w: %v", errStamp, err)
	}
	if s.Format != stampFormat {
		return nil, fmt.Errorf("its stamp has format %d, this version knows %d", s.Format, stampFormat)
	}
	return s, nil
}

// newID returns a name that nothing else has.
func newID() string {
	b := make([]byte, 16)
	rand.Read(b)
	return hex.EncodeToString(b)
}

// stamped is what can carry a stamp.
type stamped interface {
	readStamp() (*stamp, error) // nil: none
	writeStamp(stamp) error     // durably
	blank() (bool, error)       // nothing is there that would be lost
}

func (d *dir) readStamp() (*stamp, error) {
	b, err := os.ReadFile(filepath.Join(d.path, stampFile))
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	s, err := decodeStamp(b)
	if s == nil && err == nil {
		err = errStamp
	}
	return s, err
}

func (d *dir) writeStamp(s stamp) error {
	path := filepath.Join(d.path, stampFile)
	f, err := os.OpenFile(path+".new", os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(s.encode())
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(path+".new", path)
	}
	if err == nil {
		err = syncDir(d.path)
	}
	return err
}

// blank: what else is in the directory does not disturb, and is not touched.
func (d *dir) blank() (bool, error) { return true, nil }

// has tells whether there are files below a name.
func (d *dir) has(name string) bool {
	entries, err := os.ReadDir(d.file(name))
	return err == nil && len(entries) > 0
}

// deviceStamp is a Device as something that is stamped.
type deviceStamp struct{ Device }

func (d deviceStamp) readStamp() (*stamp, error) {
	b := make([]byte, stampSize)
	if err := d.ReadAt(b, 0); err != nil {
		return nil, err
	}
	return decodeStamp(b)
}

func (d deviceStamp) writeStamp(s stamp) error {
	b := make([]byte, stampSize)
	copy(b, s.encode())
	return errors.Join(d.WriteAt(b, 0), d.Sync())
}

// blank looks where partition tables, file systems and other arrays begin, and
// where they keep copies.
func (d deviceStamp) blank() (bool, error) {
	head := make([]byte, min(headSize, d.Size()))
	tail := make([]byte, min(64<<10, d.Size()))
	if err := errors.Join(d.ReadAt(head, 0), d.ReadAt(tail, d.Size()-int64(len(tail)))); err != nil {
		return false, err
	}
	return allZero(head) && allZero(tail), nil
}

func allZero(b []byte) bool {
	for len(b) > 0 {
		n := min(len(b), len(zeros))
		if !bytes.Equal(b[:n], zeros[:n]) {
			return false
		}
		b = b[n:]
	}
	return true
}
