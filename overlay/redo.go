package overlay

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"

	"skylun/block"
)

// A flush of little that was written is durable sooner in a file that has its
// place on the disk already: one sync, and the file system below has no
// metadata to write, while a sync of the layer's own file has it note where it
// put new blocks. So a small round appends what was written, bytes and states, to
// the redo log of the layer:
//
//	0        512    4096
//	+--------+------+------------------+------------------+-----
//	| header | 0    | record, padded   | record, padded   | ...
//	+--------+------+------------------+------------------+-----
//
//	header   "skylun redo 1\n" | layer, uint64 | epoch, uint64 | distrusted, byte |
//	         CRC-32C
//	record   CRC-32C | bytes behind these, uint32 | epoch, uint64 | number, uint64 |
//	         states, uint32 | writes, uint32 |
//	         { first byte, uint64 | end, uint64 | state, byte } ... |
//	         { first byte, uint64 | bytes, uint32 } ... | bytes of all writes
//
// All of the file was written when it was made. Numbers are big-endian. The
// header is within a sector, which a disk writes as a whole. Records begin on
// multiples of 4096, so that none shares a sector with one that was promised
// before. They are numbered from 0 in each epoch.
//
// The bytes are in the layer's file, too, only not durably. A large round makes
// them so, appends to the map what the log says of states, and then begins
// another epoch, in which the records mean nothing. It does so before it answers:
// what it has made durable may be newer than what the records say of the same
// blocks. A large round comes when the redo log is full, or after a while.
//
// At open what the records of the epoch say is done again (replay), in their
// order, up to the first that is not there or torn: that one was never answered.

// RedoFile is the file of a redo log. It has its place on the disk: writing within it
// and syncing it takes no metadata of whoever allocates it.
type RedoFile interface {
	ReadAt(p []byte, off int64) error
	WriteAt(p []byte, off int64) error
	Sync() error
	Size() int64
	Close() error
}

// RedoStore is where the file of one layer's redo log is.
type RedoStore interface {
	// Open opens the file. It is nil when there is none.
	Open() (RedoFile, error)
	// Create makes a file of size bytes, all of them zeros, in the place of
	// any other, and makes that durable.
	Create(size int64) (RedoFile, error)
	// Remove removes the file, if there is one.
	Remove() error
}

const (
	redoMagic  = "skylun redo 1\n"
	redoStart  = 4096
	redoHeader = 512

	// A log that becomes full soon is made again, of twice the size.
	redoFirst   = 1 << 20
	redoLargest = 8 << 20

	// smallMost is how much a small round writes at most. A larger one writes
	// for long enough that a second time would cost more than metadata does.
	smallMost = 256 << 10

	redoRecord = 4 + 4 + 8 + 8 + 4 + 4
	redoState  = 8 + 8 + 1
	redoPlace  = 8 + 4
)

// redoLog is the redo log of a layer.
type redoLog struct {
	file       RedoFile
	layer      uint64
	epoch      uint64
	distrusted bool  // the file of the layer does not hold what was written to it
	next       int64 // where the next record goes
	number     uint64
	torn       bool // there may be a record at next, which nobody was told of
	buf        []byte
}

// newRedo returns the redo log of a layer in a file that was just made.
func newRedo(f RedoFile, layer uint64) *redoLog {
	return &redoLog{file: f, layer: layer, epoch: 1, next: redoStart}
}

// openRedo reads the header of a redo log, and makes durable what it reads: a
// process that was killed may have written a header and not synced it, and a
// power cut bring back an older one.
func openRedo(f RedoFile, layer uint64) (*redoLog, error) {
	l := newRedo(f, layer)
	p := make([]byte, redoHeader)
	if f.Size() < redoStart { // it was just being made
		return l, nil
	}
	if err := f.ReadAt(p, 0); err != nil {
		return nil, localError(err)
	}
	if !allZeros(p) { // else there was one epoch only
		n := len(redoMagic)
		l.epoch, l.distrusted = binary.BigEndian.Uint64(p[n+8:]), p[n+16] != 0
		if string(l.header()) != string(p) {
			return nil, fmt.Errorf("%w: the redo log is damaged, or that of another layer", block.ErrMedium)
		}
	}
	return l, l.writeHeader()
}

func allZeros(p []byte) bool {
	for _, b := range p {
		if b != 0 {
			return false
		}
	}
	return true
}

func (l *redoLog) header() []byte {
	p := make([]byte, redoHeader)
	n := copy(p, redoMagic)
	binary.BigEndian.PutUint64(p[n:], l.layer)
	binary.BigEndian.PutUint64(p[n+8:], l.epoch)
	if n += 16; l.distrusted {
		p[n] = 1
	}
	binary.BigEndian.PutUint32(p[n+1:], crc32.Checksum(p[:n+1], castagnoli))
	return p
}

// read calls f with the records of this epoch, in their order.
func (l *redoLog) read(f func(changes []Extent, written captured) error) error {
	for off, number := int64(redoStart), uint64(0); ; number++ {
		p, err := l.record(off, number)
		if err != nil || p == nil {
			return err
		}
		off += block.Ceil(int64(len(p)), block.Size)
		changes, written, err := decodeRedo(p)
		if err == nil {
			err = f(changes, written)
		}
		if err != nil {
			return err
		}
		l.next, l.number = off, number+1
	}
}

// record returns the record at off; nil when none of that number is there.
func (l *redoLog) record(off int64, number uint64) ([]byte, error) {
	if off+redoRecord > l.file.Size() {
		return nil, nil
	}
	head := make([]byte, redoRecord)
	if err := l.file.ReadAt(head, off); err != nil {
		return nil, localError(err)
	}
	n := redoRecord + int64(binary.BigEndian.Uint32(head[4:]))
	if binary.BigEndian.Uint64(head[8:]) != l.epoch || binary.BigEndian.Uint64(head[16:]) != number || off+n > l.file.Size() {
		return nil, nil
	}
	p := make([]byte, n)
	if err := l.file.ReadAt(p, off); err != nil {
		return nil, localError(err)
	}
	if binary.BigEndian.Uint32(p) != crc32.Checksum(p[4:], castagnoli) {
		return nil, nil
	}
	return p, nil
}

// decodeRedo returns what a record says, whose checksum is right.
func decodeRedo(p []byte) (changes []Extent, written captured, err error) {
	states, places := int64(binary.BigEndian.Uint32(p[24:])), int64(binary.BigEndian.Uint32(p[28:]))
	p = p[redoRecord:]
	left := int64(len(p)) - states*redoState - places*redoPlace
	for ; left >= 0 && states > 0; states-- {
		changes = append(changes, Extent{int64(binary.BigEndian.Uint64(p)), int64(binary.BigEndian.Uint64(p[8:])), p[16]})
		p = p[redoState:]
	}
	for ; left >= 0 && places > 0; places-- {
		n := int64(binary.BigEndian.Uint32(p[8:]))
		written.writes = append(written.writes, write{int64(binary.BigEndian.Uint64(p)), int(n)})
		p, left = p[redoPlace:], left-n
	}
	if left != 0 {
		return nil, captured{}, fmt.Errorf("%w: a record of the redo log makes no sense", block.ErrMedium)
	}
	written.bytes = p
	return changes, written, nil
}

// empty tells whether the epoch has no records.
func (l *redoLog) empty() bool { return l.number == 0 && !l.torn }

// errRedoFull says that a record finds no room any more.
var errRedoFull = errors.New("the redo log is full")

// append makes a record durable. With errRedoFull nothing was done; after any other
// error it is there or not.
func (l *redoLog) append(changes []Extent, written captured) error {
	p := append(l.buf[:0], make([]byte, redoRecord)...)
	for _, e := range changes {
		p = binary.BigEndian.AppendUint64(p, uint64(e.Off))
		p = binary.BigEndian.AppendUint64(p, uint64(e.End))
		p = append(p, e.State)
	}
	for _, w := range written.writes {
		p = binary.BigEndian.AppendUint64(p, uint64(w.off))
		p = binary.BigEndian.AppendUint32(p, uint32(w.n))
	}
	p = append(p, written.bytes...)
	l.buf = p
	if l.next+int64(len(p)) > l.file.Size() {
		return errRedoFull
	}
	binary.BigEndian.PutUint32(p[4:], uint32(len(p)-redoRecord))
	binary.BigEndian.PutUint64(p[8:], l.epoch)
	binary.BigEndian.PutUint64(p[16:], l.number)
	binary.BigEndian.PutUint32(p[24:], uint32(len(changes)))
	binary.BigEndian.PutUint32(p[28:], uint32(len(written.writes)))
	binary.BigEndian.PutUint32(p, crc32.Checksum(p[4:], castagnoli))
	l.torn = true
	if err := l.file.WriteAt(p, l.next); err != nil {
		return localError(err)
	}
	if err := l.file.Sync(); err != nil {
		return localError(err)
	}
	l.torn = false
	l.next += block.Ceil(int64(len(p)), block.Size)
	l.number++
	return nil
}

// clear begins another epoch, durably.
func (l *redoLog) clear() error {
	l.epoch++
	l.distrusted = false
	if err := l.writeHeader(); err != nil {
		return err
	}
	l.next, l.number, l.torn = redoStart, 0, false
	return nil
}

// distrust has the next open do again what the records say even if the system
// was running all the time: its memory has lost some of it.
func (l *redoLog) distrust() error {
	l.distrusted = true
	return l.writeHeader()
}

func (l *redoLog) writeHeader() error {
	if err := l.file.WriteAt(l.header(), 0); err != nil {
		return localError(err)
	}
	return localError(l.file.Sync())
}
