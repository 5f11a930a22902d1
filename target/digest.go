package target

import (
	"encoding/binary"
	"errors"
	"hash/crc32"

	"skylun/target/pdu"
)

// Digests, RFC 7143 11.2.3: four bytes behind the header segments and four
// behind the data segment with its padding, if there is one.
//
// What arrives is checked where it passes: a header in the input buffer, data
// in place or piece by piece while it is read into the buffer of its task. What
// leaves is summed up by whoever writes the batch, just before, without the
// connection's mutex; headers are still being filled in when they are appended.
//
// A bad header digest ends the connection, because nobody can tell then where
// the next PDU begins. A PDU with a bad data digest is rejected. If it was a
// command, or data for one, that ends with senseCRC when all the data that is
// on its way has arrived, 7.8.

var (
	errHeaderDigest = errors.New("header digest error")
	errDataDigest   = errors.New("data digest error") // the PDU has been taken off the input
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// headerSum is a header that a digest is to be put behind.
type headerSum struct {
	header []byte
	digest []byte
}

// dataSum is a data segment that a digest is to be put behind.
type dataSum struct {
	data []byte
	tail []byte // padding and digest
}

// sum fills in the digests of the batch.
func (b *batch) sum() {
	for _, s := range b.headerSums {
		binary.LittleEndian.PutUint32(s.digest, crc32.Checksum(s.header, castagnoli))
	}
	for _, s := range b.dataSums {
		putDigest(s.tail, crc32.Checksum(s.data, castagnoli))
	}
}

// putDigest completes tail, padding and the room for a digest, with that of the
// padding and the data before it, which has the checksum crc.
func putDigest(tail []byte, crc uint32) {
	pad := tail[:len(tail)-pdu.DigestSize]
	binary.LittleEndian.PutUint32(tail[len(pad):], crc32.Update(crc, castagnoli, pad))
}

// goodDigest tells whether tail, padding and digest, is right for data with
// the checksum crc.
func goodDigest(tail []byte, crc uint32) bool {
	pad := tail[:len(tail)-pdu.DigestSize]
	return binary.LittleEndian.Uint32(tail[len(pad):]) == crc32.Update(crc, castagnoli, pad)
}
