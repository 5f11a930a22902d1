package dmlog

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// What dm-log-writes records, as its source (drivers/md/dm-log-writes.c) has it,
// all numbers little endian:
//
//	sector 0     magic, uint64 | version, uint64 | entries, uint64 | sector size, uint32
//	then each    sector, uint64 | sectors, uint64 | flags, uint64 | length of a mark, uint64 | the mark
//	             and from the next sector on the data, but of a discard

const (
	recordMagic   = 0x6a736677736872
	recordVersion = 1

	flagFlush   = 1 << 0 // what was written before is durable
	flagFUA     = 1 << 1
	flagDiscard = 1 << 2
	flagMark    = 1 << 3
)

// Entry is what happened to the device: a write, a discard, a flush, or a mark.
type Entry struct {
	Off, N int64  // the range of the device, bytes
	Mark   string // of a mark

	flags uint64
	data  int64 // where in the record the data is
}

// Flush tells whether what was recorded before the entry is durable. The entry
// may have data of its own.
func (e Entry) Flush() bool { return e.flags&flagFlush != 0 }

// FUA tells whether the entry is a write that is durable when it has ended.
func (e Entry) FUA() bool { return e.flags&flagFUA != 0 }

// Discard tells whether the entry is a discard.
func (e Entry) Discard() bool { return e.flags&flagDiscard != 0 }

// Durable tells whether the entry is there as soon as it has ended.
func (e Entry) Durable() bool { return e.flags&(flagFlush|flagFUA|flagMark) != 0 }

// Read returns all entries of a record.
func Read(r io.ReaderAt) ([]Entry, error) {
	var super [28]byte
	if _, err := r.ReadAt(super[:], 0); err != nil {
		return nil, fmt.Errorf("read the record: %w", err)
	}
	word := func(p []byte, i int) uint64 { return binary.LittleEndian.Uint64(p[8*i:]) }
	if word(super[:], 0) != recordMagic || word(super[:], 1) != recordVersion {
		return nil, errors.New("no record of dm-log-writes, or of another version")
	}
	count, sector := word(super[:], 2), int64(binary.LittleEndian.Uint32(super[24:]))
	if sector < 512 || sector > 1<<16 {
		return nil, fmt.Errorf("sectors of %d bytes in a record", sector)
	}
	var entries []Entry
	at, head := sector, make([]byte, sector)
	for range count {
		if _, err := r.ReadAt(head, at); err != nil {
			return nil, fmt.Errorf("entry %d of %d: %w", len(entries), count, err)
		}
		at += sector
		e := Entry{Off: int64(word(head, 0)) * sector, N: int64(word(head, 1)) * sector, flags: word(head, 2), data: at}
		if e.Off < 0 || e.N < 0 || e.flags >= 1<<8 {
			return nil, fmt.Errorf("entry %d of %d: range %d+%d, flags %#x", len(entries), count, e.Off, e.N, e.flags)
		}
		if e.flags&flagMark != 0 {
			text := head[32:]
			e.Mark = string(bytes.TrimRight(text[:min(word(head, 3), uint64(len(text)))], "\x00"))
		}
		if e.flags&flagDiscard == 0 {
			at += e.N
		}
		entries = append(entries, e)
	}
	return entries, nil
}

// ReadAt fills p with the data of the entry from off on, counted from the
// entry's beginning: that of a discard is zeros.
func (e Entry) ReadAt(record io.ReaderAt, p []byte, off int64) error {
	if e.Discard() {
		clear(p)
		return nil
	}
	_, err := record.ReadAt(p, e.data+off)
	return err
}
