package blobstore

import (
	"bytes"
	"context"
	"fmt"
	"strings"

	"golang.org/x/sync/errgroup"

	"skylun/block"
)

// What an image is follows from its first and its last bytes and, so that a
// truncated VHD is not taken for a raw disk, from its name.
const (
	sector   = 512
	tailSize = vhdFooterSize
	headSize = isoMagicAt + 512

	isoMagicAt = 32769 // ECMA-119 8.1: sector 16, after the type
)

// foreign are formats that have a table of their own, or none of a disk at all.
var foreign = []struct {
	at    int
	magic string
	what  string
	todo  string
}{
	{0, "QFI\xfb", "a qcow2 image", convert},
	{0, "QED\x00", "a QED image", convert},
	{0, "vhdxfile", "a VHDX image", convert},
	{0, vhdCookie, "a dynamic VHD", convert},
	{0, "KDMV", "a VMDK image", convert},
	{0, "COWD", "a VMDK image", convert},
	{0, "# Disk DescriptorFile", "the descriptor of a VMDK image", convert},
	{64, "\x7f\x10\xda\xbe", "a VDI image", convert},
	{0, "WithoutFreeSpace", "a Parallels image", convert},
	{0, "WithouFreSpacExt", "a Parallels image", convert},
	{0, "\x1f\x8b\x08", "compressed with gzip", "unpack it first"},
	{0, "\xfd7zXZ\x00", "compressed with xz", "unpack it first"},
	{0, "\x28\xb5\x2f\xfd", "compressed with zstd", "unpack it first"},
}

const convert = "convert it with qemu-img convert -O raw"

// detect tells the format and the size of the disk of a blob of size bytes that
// starts with head and ends with tail, which are headSize and tailSize bytes,
// or all there is.
func detect(name string, size int64, head, tail []byte) (Format, int64, error) {
	bad := func(format string, args ...any) (Format, int64, error) {
		return "", 0, &fault{ErrFormat, fmt.Sprintf("image %s ", name) + fmt.Sprintf(format, args...)}
	}
	if size == 0 {
		return bad("is empty")
	}
	if bytes.HasPrefix(head, []byte(manifestMagic)) {
		return "", 0, errManifest
	}
	for _, f := range foreign {
		if len(head) >= f.at && bytes.HasPrefix(head[f.at:], []byte(f.magic)) {
			return bad("is %s, which cannot be served: %s", f.what, f.todo)
		}
	}
	switch n, err := vhdSize(size, tail); {
	case err == nil:
		return VHD, n, nil
	case err != errNoFooter:
		return bad("%v", err)
	case strings.HasSuffix(strings.ToLower(name), ".vhd"):
		return bad("has no valid VHD footer: it is truncated or damaged; upload it again, or name it otherwise if it is a raw disk")
	}
	if isDisc(head) {
		return ISO, block.Ceil(size, sector), nil
	}
	return Raw, block.Ceil(size, sector), nil
}

// probe detects the format of what readAt reads, size bytes, and completes
// info with it.
func probe(ctx context.Context, info *Info, readAt func(ctx context.Context, p []byte, off int64) error) error {
	size := info.BlobSize
	head := make([]byte, min(size, headSize))
	tail := make([]byte, min(size, tailSize))
	if size <= headSize+tailSize { // one read will do
		all := make([]byte, size)
		if err := readAt(ctx, all, 0); err != nil {
			return err
		}
		copy(head, all)
		copy(tail, all[size-int64(len(tail)):])
	} else {
		g, ctx := errgroup.WithContext(ctx)
		g.Go(func() error { return readAt(ctx, head, 0) })
		g.Go(func() error { return readAt(ctx, tail, size-tailSize) })
		if err := g.Wait(); err != nil {
			return err
		}
	}
	var err error
	info.Format, info.Size, err = detect(info.Name, size, head, tail)
	if err == nil && info.Format == ISO {
		info.Label, err = discLabel(ctx, head, size, readAt)
	}
	return err
}
