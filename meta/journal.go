package meta

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"golang.org/x/sys/unix"
)

// The journal is a file of fixed size beside the database. What Append promises
// is there with one fdatasync: all of the file was written when it was made, so
// a record changes no metadata of the file system.
//
//	0        4096                   4096+half                4096+2*half
//	+--------+-----------------------+------------------------+
//	| header | record record ...     | record record ...      |
//	+--------+-----------------------+------------------------+
//
//	header   "skylun journal\n", 16 bytes that the database knows, CRC-32C
//	record   CRC-32C | bytes of extents, uint32 | sequence, uint64 | map, uint64 |
//	         { state, uvarint first block, uvarint blocks } ...
//
// Records are numbered one by one. They fill one half, then the other, from its
// beginning; a half is written again only when all that was in it is folded.
// The database knows up to which number records are folded, and changes that in
// the transaction which folds them.
//
// At open the records of both halves are read; of these count those that
// follow, one by one, the last folded one:
//
//	a record that a power cut has torn was not synced, so nobody was told of
//	it, nor of any later one, whichever half that is in
//	a half that is being written again has old records behind the new ones:
//	their numbers do not follow
//	old records behind a torn one, which others are written over later, could
//	follow by chance: so after an open numbers go on far behind all there are
type journal struct {
	file journalFile
	half int64

	mu      sync.Mutex
	current int       // guarded by mu: the half that is being filled
	end     int64     // guarded by mu: where the next record goes
	seq     uint64    // guarded by mu: of the last record
	last    [2]uint64 // guarded by mu: of the last record in each half
	folded  uint64    // guarded by mu: of the last record folded
	waiting []record  // guarded by mu: what is not folded, oldest first
	broken  error     // guarded by mu: why nothing can be appended any more, nil: it can

	syncing sync.Mutex // before mu
	synced  uint64     // guarded by syncing: the last record that is durable
}

// journalFile is what a journal needs of a file.
type journalFile interface {
	ReadAt(p []byte, off int64) (int, error)
	WriteAt(p []byte, off int64) (int, error)
	Sync() error
	Close() error
}

// record is what one Append has said.
type record struct {
	seq, id uint64
	extents []Extent
}

const (
	journalStart   = 4096
	journalDefault = journalStart + 8<<20 // bytes
	recordHeader   = 4 + 4 + 8 + 8

	// journalSkip is how far numbers go on behind those that are in the file.
	journalSkip = 1 << 32
)

// errRecordTooLong says that a record does not fit into half a journal.
var errRecordTooLong = errors.New("record is longer than the journal")

// plainFile syncs without what nobody needs to find the bytes again.
type plainFile struct{ *os.File }

func (f plainFile) Sync() error {
	if err := unix.Fdatasync(int(f.Fd())); err != nil {
		return &os.PathError{Op: "fdatasync", Path: f.Name(), Err: err}
	}
	return nil
}

func journalHeader(id [16]byte) []byte {
	h := make([]byte, journalStart)
	n := copy(h, "skylun journal\n")
	n += copy(h[n:], id[:])
	binary.BigEndian.PutUint32(h[n:], crc32.Checksum(h[:n], castagnoli))
	return h
}

// createJournal makes the file and makes it durable.
func createJournal(path string, id [16]byte, size int64) (err error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	defer func() {
		if err = errors.Join(err, f.Close()); err != nil {
			os.Remove(path)
		}
	}()
	if _, err := f.Write(journalHeader(id)); err != nil {
		return err
	}
	zeros := make([]byte, 1<<20)
	for off := int64(journalStart); off < size; off += int64(len(zeros)) {
		if _, err := f.Write(zeros[:min(int64(len(zeros)), size-off)]); err != nil {
			return err
		}
	}
	if err := f.Sync(); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

// openJournal reads the journal of that identity, of which the records up to
// folded are folded.
func openJournal(path string, id [16]byte, folded uint64, readOnly bool) (*journal, error) {
	flag := os.O_RDWR
	if readOnly {
		flag = os.O_RDONLY
	}
	f, err := os.OpenFile(path, flag, 0)
	if err != nil {
		return nil, err
	}
	st, err := f.Stat()
	header := make([]byte, journalStart)
	if err == nil {
		_, err = f.ReadAt(header, 0)
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	if want := journalHeader(id); string(header) != string(want) {
		f.Close()
		return nil, fmt.Errorf("%w: not the journal of this database", ErrCorrupt)
	}
	j := &journal{file: plainFile{f}, half: (st.Size() - journalStart) / 2, folded: folded, seq: folded, end: journalStart}
	if err := j.read(); err != nil {
		f.Close()
		return nil, err
	}
	return j, nil
}

func (j *journal) start(half int) int64 { return journalStart + int64(half)*j.half }

// read finds the records that are not folded.
func (j *journal) read() error {
	var all []record
	for half := range 2 {
		p := make([]byte, j.half)
		if _, err := j.file.ReadAt(p, j.start(half)); err != nil {
			return err
		}
		for r, n, ok := decodeJournal(p); ok; r, n, ok = decodeJournal(p) {
			all, p = append(all, r), p[n:]
		}
	}
	slices.SortFunc(all, func(a, b record) int { return cmp.Compare(a.seq, b.seq) })
	for _, r := range all {
		if r.seq == j.seq+1 {
			j.waiting = append(j.waiting, r)
			j.seq = r.seq
		}
	}
	return nil
}

// restart has the next record begin the first half, with a number far behind
// all that are there. Everything is folded.
func (j *journal) restart() {
	j.seq += journalSkip
	j.folded, j.synced, j.last = j.seq, j.seq, [2]uint64{}
}

// append writes a record and returns when it is durable. fold is called when
// there is no room; it folds everything. After an error none or all of it may
// be durable.
func (j *journal) append(id uint64, extents []Extent, fold func() error) error {
	for {
		seq, full, err := j.write(id, extents)
		if err != nil {
			return err
		}
		if !full {
			return j.sync(seq)
		}
		if err := fold(); err != nil {
			return err
		}
	}
}

// write writes a record where the next one goes, unless both halves are full.
func (j *journal) write(id uint64, extents []Extent) (seq uint64, full bool, err error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.broken != nil {
		return 0, false, j.broken
	}
	p := encodeJournal(record{j.seq + 1, id, extents})
	n := int64(len(p))
	if n > j.half {
		return 0, false, errRecordTooLong
	}
	if j.end+n > j.start(j.current)+j.half {
		other := 1 - j.current
		if j.last[other] > j.folded {
			return 0, true, nil
		}
		j.current, j.end = other, j.start(other)
	}
	if _, err := j.file.WriteAt(p, j.end); err != nil {
		if !errors.Is(err, unix.ENOSPC) && !errors.Is(err, unix.EDQUOT) { // then the next record takes its place
			j.broken = err
		}
		return 0, false, err
	}
	j.seq++
	j.end += n
	j.last[j.current] = j.seq
	j.waiting = append(j.waiting, record{j.seq, id, slices.Clone(extents)})
	return j.seq, false, nil
}

// sync makes the record of that number durable, together with all that are
// written when it begins.
func (j *journal) sync(seq uint64) error {
	j.syncing.Lock()
	defer j.syncing.Unlock()
	j.mu.Lock()
	written, err := j.seq, j.broken
	j.mu.Unlock()
	if err != nil || j.synced >= seq {
		return err
	}
	if err := j.file.Sync(); err != nil {
		// What is on disk is not known, and a later sync would not tell.
		j.mu.Lock()
		j.broken = err
		j.mu.Unlock()
		return err
	}
	j.synced = written
	return nil
}

// oldest returns the oldest records that are not folded, of about most extents.
func (j *journal) oldest(most int) []record {
	j.mu.Lock()
	defer j.mu.Unlock()
	n := 0
	for i, r := range j.waiting {
		if n += len(r.extents); n >= most {
			return slices.Clip(j.waiting[:i+1])
		}
	}
	return slices.Clip(j.waiting)
}

// drop forgets the oldest n records, which are folded.
func (j *journal) drop(n int) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.folded = j.waiting[n-1].seq
	j.waiting = slices.Clone(j.waiting[n:]) // and gives their memory back
}

func encodeJournal(r record) []byte {
	p := make([]byte, recordHeader, recordHeader+8*len(r.extents))
	p = appendExtents(p, r.extents)
	binary.BigEndian.PutUint32(p[4:], uint32(len(p)-recordHeader))
	binary.BigEndian.PutUint64(p[8:], r.seq)
	binary.BigEndian.PutUint64(p[16:], r.id)
	binary.BigEndian.PutUint32(p, crc32.Checksum(p[4:], castagnoli))
	return p
}

// decodeJournal returns the record that p begins with and its length; ok is
// false when there is none.
func decodeJournal(p []byte) (r record, n int, ok bool) {
	if len(p) < recordHeader {
		return r, 0, false
	}
	n = recordHeader + int(binary.BigEndian.Uint32(p[4:]))
	if n > len(p) || binary.BigEndian.Uint32(p) != crc32.Checksum(p[4:n], castagnoli) {
		return r, 0, false
	}
	r.seq, r.id = binary.BigEndian.Uint64(p[8:]), binary.BigEndian.Uint64(p[16:])
	err := decodeExtents(p[recordHeader:n], func(e Extent) error {
		r.extents = append(r.extents, e)
		return nil
	})
	return r, n, err == nil && r.seq != 0
}
