package admin

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// The content of a volume travels as a sequence of chunks, so that holes cost
// nothing and a stream that was cut off is noticed:
//
//	chunk   offset uint64, length uint32 (big-endian), length bytes
//	end     all ones, 0
//
// Lengths are at most maxChunk.
const (
	contentType = "application/x-skylun-content"
	chunkHeader = 12
	maxChunk    = 4 << 20
	endOffset   = ^uint64(0)
)

func writeChunk(w io.Writer, p []byte, off int64) error {
	for len(p) > 0 {
		n := min(len(p), maxChunk)
		if err := writeChunkHeader(w, uint64(off), n); err != nil {
			return err
		}
		if _, err := w.Write(p[:n]); err != nil {
			return err
		}
		p, off = p[n:], off+int64(n)
	}
	return nil
}

func writeContentEnd(w io.Writer) error { return writeChunkHeader(w, endOffset, 0) }

func writeChunkHeader(w io.Writer, off uint64, n int) error {
	h := binary.BigEndian.AppendUint64(make([]byte, 0, chunkHeader), off)
	_, err := w.Write(binary.BigEndian.AppendUint32(h, uint32(n)))
	return err
}

// readContent calls f for each chunk of r up to the end.
func readContent(r io.Reader, f func(p []byte, off int64) error) error {
	in := bufio.NewReaderSize(r, 1<<20)
	var header [chunkHeader]byte
	buf := make([]byte, maxChunk)
	for {
		if _, err := io.ReadFull(in, header[:]); err != nil {
			return cutOff(err)
		}
		off, n := binary.BigEndian.Uint64(header[:]), binary.BigEndian.Uint32(header[8:])
		if off == endOffset && n == 0 {
			return nil
		}
		if n > maxChunk || off > 1<<62 {
			return fmt.Errorf("chunk of %d bytes at %d", n, off)
		}
		if _, err := io.ReadFull(in, buf[:n]); err != nil {
			return cutOff(err)
		}
		if err := f(buf[:n], int64(off)); err != nil {
			return err
		}
	}
}

func cutOff(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return errors.New("the node ended the transfer early; its log says why")
	}
	return err
}
