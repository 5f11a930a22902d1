package image

import (
	"bufio"
	"fmt"
	"io"
)

// File types and permissions as in the mode field of a cpio header.
const (
	modeDir  = 0o040000
	modeChar = 0o020000
	modeFile = 0o100000
	modeLink = 0o120000
)

// archive writes a cpio archive in the format that kernels unpack ("newc"):
// every entry is a header of hexadecimal fields, the name with a zero byte,
// and the content, each filled up to a multiple of four bytes. Everything
// belongs to root.
//
// See the kernel's Documentation/driver-api/early-userspace/buffer-format.rst.
type archive struct {
	w     *bufio.Writer
	off   int64
	inode int
	err   error
}

func newArchive(w io.Writer) *archive { return &archive{w: bufio.NewWriterSize(w, 1<<20)} }

// entry adds one file. Size bytes of content are read, which may be nil when
// there are none.
func (a *archive) entry(name string, mode uint32, major, minor int, size int64, content io.Reader) error {
	a.inode++
	a.printf("070701%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X",
		a.inode, mode, 0, 0, 1, 0, size, 0, 0, major, minor, len(name)+1, 0)
	a.printf("%s\x00", name)
	a.pad()
	if a.err == nil && size > 0 {
		n, err := io.CopyN(a.w, content, size)
		a.off += n
		if err != nil {
			a.err = fmt.Errorf("%s: %w", name, err)
		}
	}
	a.pad()
	return a.err
}

// close ends the archive.
func (a *archive) close() error {
	a.inode = -1
	if err := a.entry("TRAILER!!!", 0, 0, 0, 0, nil); err != nil {
		return err
	}
	return a.w.Flush()
}

func (a *archive) pad() { a.printf("%s", "\x00\x00\x00"[:-a.off&3]) }

func (a *archive) printf(format string, args ...any) {
	if a.err != nil {
		return
	}
	n, err := fmt.Fprintf(a.w, format, args...)
	a.off += int64(n)
	a.err = err
}
