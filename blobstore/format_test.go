package blobstore

import (
	"encoding/binary"
	"errors"
	"strings"
	"testing"
)

// footer returns a VHD footer for a disk of size bytes, changed by edit before
// it gets its checksum.
func footer(size uint64, edit func(f []byte)) []byte {
	f := make([]byte, vhdFooterSize)
	copy(f, vhdCookie)
	binary.BigEndian.PutUint32(f[vhdVersionAt:], 0x00010000)
	binary.BigEndian.PutUint64(f[16:], ^uint64(0))
	binary.BigEndian.PutUint64(f[vhdSizeAt:], size)
	binary.BigEndian.PutUint32(f[vhdTypeAt:], vhdFixed)
	if edit != nil {
		edit(f)
	}
	binary.BigEndian.PutUint32(f[vhdChecksumAt:], vhdChecksum(f))
	return f
}

func TestVHDFooter(t *testing.T) {
	const size = 1 << 20
	for _, c := range []struct {
		what   string
		footer []byte
		blob   int64
		size   int64  // 0: none
		says   string // in the error; empty: no footer
	}{
		{what: "good", footer: footer(size, nil), blob: size + 512, size: size},
		{what: "one sector", footer: footer(512, nil), blob: 1024, size: 512},
		{what: "version 1.5", footer: footer(size, func(f []byte) { f[15] = 5 }), blob: size + 512, size: size},
		{what: "cookie", footer: footer(size, func(f []byte) { f[0] = 'C' }), blob: size + 512},
		{what: "nothing", footer: make([]byte, 512), blob: size + 512},
		{what: "less than a footer", footer: footer(size, nil)[:511], blob: 511},
		{what: "checksum", footer: func() []byte { f := footer(size, nil); f[vhdChecksumAt]++; return f }(), blob: size + 512},
		{what: "a bit anywhere", footer: func() []byte { f := footer(size, nil); f[500] ^= 1; return f }(), blob: size + 512},
		{what: "dynamic", footer: footer(size, func(f []byte) { f[63] = vhdDynamic }), blob: size + 512, says: "qemu-img"},
		{what: "differencing", footer: footer(size, func(f []byte) { f[63] = vhdDifferencing }), blob: size + 512, says: "qemu-img"},
		{what: "type 0", footer: footer(size, func(f []byte) { f[63] = 0 }), blob: size + 512, says: "type 0"},
		{what: "type 2 in the wrong byte", footer: footer(size, func(f []byte) { f[60], f[63] = 2, 0 }), blob: size + 512, says: "type"},
		{what: "version 2", footer: footer(size, func(f []byte) { f[13] = 2 }), blob: size + 512, says: "version 2.0"},
		{what: "beginning is missing", footer: footer(size, nil), blob: size, says: "truncated"},
		{what: "something in front", footer: footer(size, nil), blob: size + 1024, says: "damaged"},
		{what: "footer alone", footer: footer(0, nil), blob: 512, says: "disk of 0 bytes"},
		{what: "half a sector", footer: footer(700, nil), blob: 700 + 512, says: "multiple of 512"},
		{what: "size beyond int64", footer: footer(1<<63+size, nil), blob: size + 512, says: "truncated"},
	} {
		got, err := vhdSize(c.blob, c.footer)
		switch {
		case c.size != 0 && (err != nil || got != c.size):
			t.Errorf("%s: %d, %v, want %d", c.what, got, err, c.size)
		case c.size == 0 && c.says == "" && err != errNoFooter:
			t.Errorf("%s: %d, %v, want no footer", c.what, got, err)
		case c.says != "" && (err == nil || !strings.Contains(err.Error(), c.says)):
			t.Errorf("%s: %d, %v, want an error with %q", c.what, got, err, c.says)
		}
	}
}

func TestDetect(t *testing.T) {
	head := func(at int, magic string) []byte {
		h := make([]byte, headSize)
		copy(h[at:], magic)
		return h
	}
	const size = 1 << 20
	none := make([]byte, tailSize)
	for _, c := range []struct {
		name string
		size int64
		head []byte
		tail []byte
		want Format
		disk int64
		says string
	}{
		{"disk", size, head(0, ""), none, Raw, size, ""},
		{"disk", size + 1, head(0, ""), none, Raw, size + 512, ""},
		{"disk", 1, []byte{0}, []byte{0}, Raw, 512, ""},
		{"disk.vhd", size + 512, head(0, ""), footer(size, nil), VHD, size, ""},
		{"disk.img", size + 512, head(0, ""), footer(size, nil), VHD, size, ""},
		{"disc", size, head(isoMagicAt, "CD001"), none, ISO, size, ""},
		{"disc", size, head(isoMagicAt, "BEA01"), none, ISO, size, ""},
		{"disc.iso", isoMagicAt + 3, head(isoMagicAt, "CD0")[:isoMagicAt+3], none, Raw, 33280, ""},
		{"disk.VHD", size, head(0, ""), none, "", 0, "truncated"},
		{"disc.vhd", size, head(isoMagicAt, "CD001"), none, "", 0, "truncated"},
		{"disk.img", size + 1024, head(0, ""), footer(size, nil), "", 0, "damaged"},
		{"disk.img", size + 512, head(0, ""), footer(size, func(f []byte) { f[63] = vhdDynamic }), "", 0, "dynamic"},
		{"disk", 0, nil, nil, "", 0, "empty"},
		{"disk", size, head(0, "QFI\xfb\x00\x00\x00\x03"), none, "", 0, "qcow2 image, which cannot be served: convert it with qemu-img"},
		{"disk", size, head(0, "vhdxfile"), none, "", 0, "VHDX"},
		{"disk.vhd", size, head(0, "conectix"), footer(size-512, func(f []byte) { f[63] = vhdDynamic }), "", 0, "dynamic VHD"},
		{"disk", size, head(0, "KDMV"), none, "", 0, "VMDK"},
		{"disk", size, head(64, "\x7f\x10\xda\xbe"), none, "", 0, "VDI"},
		{"disk.xz", size, head(0, "\xfd7zXZ\x00"), none, "", 0, "unpack"},
	} {
		got, disk, err := detect(c.name, c.size, c.head, c.tail)
		if c.says == "" && (err != nil || got != c.want || disk != c.disk) {
			t.Errorf("%s of %d bytes: %q, %d, %v, want %q, %d", c.name, c.size, got, disk, err, c.want, c.disk)
		}
		if c.says != "" && (!errors.Is(err, ErrFormat) || !strings.Contains(err.Error(), c.says) || !strings.Contains(err.Error(), c.name)) {
			t.Errorf("%s of %d bytes: %q, %v, want ErrFormat with %q", c.name, c.size, got, err, c.says)
		}
	}
}

func FuzzDetect(f *testing.F) {
	f.Add("a.vhd", int64(1<<20+512), []byte("conectix"), footer(1<<20, nil))
	f.Add("a", int64(600), []byte("QFI\xfb"), make([]byte, 512))
	f.Fuzz(func(t *testing.T, name string, size int64, head, tail []byte) {
		if size < 0 || len(head) > headSize || len(tail) > tailSize {
			return
		}
		format, n, err := detect(name, size, head, tail)
		if (err == nil) != (format != "") || err == nil && (n <= 0 || n%sector != 0 || n > size+sector-1) {
			t.Errorf("detect = %q, %d, %v", format, n, err)
		}
	})
}
