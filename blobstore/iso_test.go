package blobstore

import (
	"context"
	"encoding/binary"
	"errors"
	"testing"
	"unicode/utf16"
)

// udfDescriptor makes the sector of disc a descriptor with an intact tag.
func udfDescriptor(disc []byte, sector int, tag uint16) []byte {
	d := disc[sector*discSector:][:discSector]
	binary.LittleEndian.PutUint16(d, tag)
	binary.LittleEndian.PutUint16(d[2:], 2)
	for i, b := range d[:16] {
		if i != 4 {
			d[4] += b
		}
	}
	return d
}

// dstring fills d with s in characters of 8 or 16 bits.
func dstring(d []byte, s string, bits byte) {
	d[0] = bits
	n := 1
	if bits == 8 {
		n += copy(d[1:], s)
	} else {
		for _, u := range utf16.Encode([]rune(s)) {
			binary.BigEndian.PutUint16(d[n:], u)
			n += 2
		}
	}
	d[len(d)-1] = byte(n)
}

// udfDisc returns a disc that has UDF only, with its volume descriptors at
// sector 32.
func udfDisc(label string, bits byte) []byte {
	disc := make([]byte, 300*discSector)
	copy(disc[isoMagicAt:], "BEA01")
	a := udfDescriptor(disc, 256, udfAnchor)
	binary.LittleEndian.PutUint32(a[16:], 16*discSector)
	binary.LittleEndian.PutUint32(a[20:], 32)
	udfDescriptor(disc, 32, 1)
	dstring(udfDescriptor(disc, 33, udfVolume)[udfLabelAt:][:udfLabelSize], label, bits)
	udfDescriptor(disc, 34, udfEnd)
	return disc
}

func TestDiscLabel(t *testing.T) {
	iso := func(label string) []byte {
		disc := make([]byte, 20*discSector)
		disc[isoAt] = 1
		copy(disc[isoMagicAt:], "CD001")
		copy(disc[isoLabelAt:], label+"                                "[:isoLabelSize-len(label)])
		return disc
	}
	edit := func(disc []byte, f func([]byte)) []byte { f(disc); return disc }
	for _, c := range []struct {
		what string
		disc []byte
		want string
	}{
		{"ISO 9660", iso("Debian 12.1.0 amd64 n"), "Debian 12.1.0 amd64 n"},
		{"full length", iso("0123456789abcdef0123456789abcdef"), "0123456789abcdef0123456789abcdef"},
		{"no label", iso(""), ""},
		{"zeros behind it", iso("A\x00\x00\x00"), "A"},
		{"what a terminal would obey", iso("A\x1b[31mB\x07\xff"), "A[31mB"},
		{"ISO 9660 cut off", iso("A")[:isoMagicAt+5], ""},
		{"UDF", udfDisc("CCCOMA_X64FRE", 8), "CCCOMA_X64FRE"},
		{"UDF, wide characters", udfDisc("диск 漢", 16), "диск 漢"},
		{"UDF, another encoding", udfDisc("A", 9), ""},
		{"UDF, no anchor", edit(udfDisc("A", 8), func(d []byte) { d[256*discSector+4]++ }), ""},
		{"UDF, volume descriptor damaged", edit(udfDisc("A", 8), func(d []byte) { d[33*discSector+1]++ }), ""},
		{"UDF, descriptors beyond the end", edit(udfDisc("A", 8), func(d []byte) { binary.LittleEndian.PutUint32(d[256*discSector+20:], 1<<31) }), ""},
		{"UDF, no descriptors", edit(udfDisc("A", 8), func(d []byte) { binary.LittleEndian.PutUint32(d[256*discSector+16:], 0) }), ""},
		{"UDF, label too long", edit(udfDisc("A", 8), func(d []byte) { d[33*discSector+udfLabelAt+udfLabelSize-1] = 200 }), ""},
		{"UDF cut off", udfDisc("A", 8)[:200*discSector], ""},
	} {
		info := Info{Name: "x", BlobSize: int64(len(c.disc))}
		err := probe(t.Context(), &info, func(_ context.Context, p []byte, off int64) error {
			if off < 0 || off+int64(len(p)) > int64(len(c.disc)) {
				t.Errorf("%s: read %d+%d of %d", c.what, off, len(p), len(c.disc))
				return nil
			}
			copy(p, c.disc[off:])
			return nil
		})
		if err != nil || info.Format != ISO || info.Label != c.want {
			t.Errorf("%s: %s %q %v, want %q", c.what, info.Format, info.Label, err, c.want)
		}
	}
	fail := errors.New("away")
	disc := udfDisc("A", 8)
	info := Info{Name: "x", BlobSize: int64(len(disc))}
	if err := probe(t.Context(), &info, func(_ context.Context, p []byte, off int64) error {
		copy(p, disc[off:])
		if off == udfAnchorAt {
			return fail
		}
		return nil
	}); !errors.Is(err, fail) {
		t.Errorf("the store fails: %v", err)
	}
}
