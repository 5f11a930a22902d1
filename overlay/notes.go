package overlay

import (
	"bytes"
	"fmt"

	"skylun/block"
)

// Bytes that were written are in the system's memory, and outlive a process
// that is killed. What says that they are there must outlive it too, although
// nobody has flushed: an initiator does not send again what was answered. So
// every state change is noted, before it is answered, by one plain write into a
// file beside the layer:
//
//	0        4096
//	+--------+---------------------------------
//	| boot   | a byte for each block: its state, 0 where nothing was noted,
//	|        | 3 where it is absent again
//	+--------+---------------------------------
//
// A layer that is opened while the same system runs, which the first bytes
// tell, takes the notes over as changes that nobody has flushed. After the
// system itself has gone down the notes are void: which of the bytes they
// speak of reached the disk is not known, and only what was flushed counts.
//
// The notes are never synced. They always hold the latest change of a block;
// where it has become durable since, taking it over again changes nothing.
// They are written under the same region lock as the state itself, so notes
// and states change in the same order.

// Notes is the file of the notes: NotesSize(size) bytes for a layer of size
// bytes, zeros where nothing was written. *raid.File is one.
type Notes interface {
	ReadAt(p []byte, off int64) error
	WriteAt(p []byte, off int64) error
	// DataRanges calls f for each range that may hold something else than
	// zeros.
	DataRanges(f func(block.Range) error) error
	// Clear makes all of it zeros.
	Clear() error
	Resize(size int64) error // as that of a File
	Close() error
}

// notesHeader is where the bytes of the blocks begin.
const notesHeader = 4096

// NotesSize returns the length of the notes of a layer of size bytes.
func NotesSize(size int64) int64 { return notesHeader + block.Ceil(size, block.Size)/block.Size }

// notedAbsent stands for absent, because zeros are what nobody wrote.
const notedAbsent = byte(states)

// noted are what is written for blocks that change to a state.
var noted = [states][]byte{
	absent:  bytes.Repeat([]byte{notedAbsent}, 4096),
	present: bytes.Repeat([]byte{byte(present)}, 4096),
	zero:    bytes.Repeat([]byte{byte(zero)}, 4096),
}

// note writes down that the blocks of r, which is aligned, change to state st.
func (s *sparse) note(r block.Range, st state) error {
	if s.notes == nil {
		return nil
	}
	for b, end := r.Off/block.Size, r.End/block.Size; b < end; {
		p := noted[st]
		p = p[:min(int64(len(p)), end-b)]
		if err := s.notes.WriteAt(p, notesHeader+b); err != nil {
			return fmt.Errorf("note a change: %w", localError(err))
		}
		b += int64(len(p))
	}
	return nil
}

// notedWithin tells whether the notes were made while the system of that name
// runs.
func notedWithin(notes Notes, boot string) (bool, error) {
	if notes == nil {
		return false, nil
	}
	was := make([]byte, notesHeader)
	if err := notes.ReadAt(was, 0); err != nil {
		return false, localError(err)
	}
	header, err := bootHeader(boot)
	return bytes.Equal(was, header), err
}

func bootHeader(boot string) ([]byte, error) {
	header := make([]byte, notesHeader)
	if len(boot) > len(header) {
		return nil, fmt.Errorf("name of the running system with %d bytes", len(boot))
	}
	copy(header, boot)
	return header, nil
}

// voidNotes has notes count for nothing.
func voidNotes(notes Notes) error { return localError(notes.WriteAt(make([]byte, notesHeader), 0)) }

// takeNotes takes over the notes if they were made within the system that runs,
// and begins new ones if not.
func (s *sparse) takeNotes(notes Notes, boot string, within bool) error {
	s.notes = notes
	if !within {
		header, err := bootHeader(boot)
		if err == nil {
			err = notes.Clear()
		}
		if err == nil {
			err = notes.WriteAt(header, 0)
		}
		return localError(err)
	}
	p := make([]byte, 64<<10)
	err := notes.DataRanges(func(r block.Range) error {
		r = r.Intersect(block.Range{Off: notesHeader, End: notesHeader + s.index.blocks})
		for off := r.Off; off < r.End; off += int64(len(p)) {
			p := p[:min(int64(len(p)), r.End-off)]
			if err := notes.ReadAt(p, off); err != nil {
				return err
			}
			s.takeOver(p, off-notesHeader)
		}
		return nil
	})
	return localError(err)
}

// takeOver marks the blocks from first on as p says.
func (s *sparse) takeOver(p []byte, first int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := 0; i < len(p); {
		end := i + 1
		for end < len(p) && p[end] == p[i] {
			end++
		}
		r := block.Range{Off: (first + int64(i)) * block.Size, End: (first + int64(end)) * block.Size}
		switch p[i] {
		case byte(present), byte(zero):
			s.markLocked(r, state(p[i]))
		case notedAbsent:
			s.markLocked(r, absent)
		}
		i = end
	}
}
