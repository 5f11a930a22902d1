package raid

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"skylun/block"
)

// chunks is a member that is a device of which pieces get space when they are
// written: a chunk at a time, and give it back when they are punched.
//
//	0        1 MiB
//	+--------+------------------------+---------+---------+----
//	| stamp  | notes: 4 KiB, then     | chunk 0 | chunk 1 | ...
//	|        | 8 bytes for each chunk |         |         |
//	+--------+------------------------+---------+---------+----
//
// Which chunk is where in a piece is in memory, and durably in the records:
//
//	piece/MEMBER/NAME         number of the piece, decimal; never used again
//	pieces/MEMBER             the last number given out, decimal
//	chunk/MEMBER/PIECE/LEAF   256 chunk numbers plus one, uint32, 0: none; PIECE and LEAF are
//	                          eight and sixteen hexadecimal digits
//
// The order of things, and what swapping two would lose:
//
//	zero, write, then show: a chunk is made zeros where the write that wants it does not
//	cover it, and written, before anybody can read it. Shown before, it would have
//	the bytes of an earlier owner.
//	sync the device, then store the leaves: stored before, a chunk would belong to
//	the piece after a power cut with bytes of an earlier owner.
//	store that a chunk is free, then give it to another: given before, it would be
//	in two pieces after a power cut.
//
// A process that is killed has stored no leaves for what was written since the last
// sync, and yet has answered. So each change of a chunk is noted on the device,
// by one plain write, before the call that made it returns. The notes count
// as long as the same system runs, which their first block tells.
type chunks struct {
	dev     Device
	records Records
	number  int
	where   string
	size    int64 // of a chunk
	data    int64 // where the first chunk is

	noting sync.Mutex // one note at a time; after every other lock

	mu     sync.Mutex
	pieces map[string]*chunkPiece // guarded by mu: all of them, open or not
	last   uint32                 // guarded by mu: number given to a piece
	free   []uint32               // guarded by mu: chunks, to be taken from the end
	total  int64                  // chunks
}

// ChunkSize is how much space of a device is handed out at a time.
const ChunkSize = 1 << 20

const (
	leafSize  = 256 // chunks in a record
	noteSize  = 8
	noteFreed = uint64(1) << 63
)

// place is where a chunk is.
type place struct {
	piece *chunkPiece
	index int
}

// chunkLayout returns where chunks begin on a device, and how many there are.
func chunkLayout(size, chunk int64) (data, total int64) {
	total = max(0, (size-headSize)/chunk)
	for total > 0 {
		data = headSize + block.Ceil(block.Size+total*noteSize, max(chunk, block.Size))
		if data+total*chunk <= size {
			break
		}
		total--
	}
	return data, total
}

func openChunks(dev Device, records Records, number int, where string, size int64, boot string) (*chunks, error) {
	m := &chunks{dev: dev, records: records, number: number, where: where, size: size, pieces: map[string]*chunkPiece{}}
	m.data, m.total = chunkLayout(dev.Size(), size)
	owner := make([]place, m.total)
	if err := errors.Join(m.loadPieces(), m.loadLeaves(owner)); err != nil {
		return nil, memberError(err)
	}
	if err := m.takeNotes(boot, owner); err != nil {
		return nil, err
	}
	for c := m.total - 1; c >= 0; c-- {
		if owner[c].piece == nil {
			m.free = append(m.free, uint32(c))
		}
	}
	return m, nil
}

func (m *chunks) key(kind string) string { return fmt.Sprintf("%s/%d/", kind, m.number) }

func (m *chunks) counter() string { return fmt.Sprintf("pieces/%d", m.number) }

func (m *chunks) loadPieces() error {
	prefix := m.key("piece")
	err := m.records.Load(prefix, func(key string, value []byte) error {
		p := &chunkPiece{m: m, name: strings.TrimPrefix(key, prefix), leaves: map[int]bool{}}
		if err := json.Unmarshal(value, &p.number); err != nil {
			return fmt.Errorf("%s: %w", key, err)
		}
		m.pieces[p.name], m.last = p, max(m.last, p.number)
		return nil
	})
	if err != nil {
		return err
	}
	return m.records.Load(m.counter(), func(key string, value []byte) error {
		if key != m.counter() {
			return nil
		}
		return json.Unmarshal(value, &m.last)
	})
}

func (m *chunks) loadLeaves(owner []place) error {
	byNumber := map[uint32]*chunkPiece{}
	for _, p := range m.pieces {
		byNumber[p.number] = p
	}
	prefix := m.key("chunk")
	return m.records.Load(prefix, func(key string, value []byte) error {
		var number, leaf uint64
		if _, err := fmt.Sscanf(strings.TrimPrefix(key, prefix), "%08x/%016x", &number, &leaf); err != nil || len(value) != 4*leafSize || leaf > 1<<24 {
			return fmt.Errorf("%s: no chunk numbers", key)
		}
		p := byNumber[uint32(number)]
		if p == nil {
			return fmt.Errorf("%s: no such piece", key)
		}
		for i := range leafSize {
			c := int64(binary.BigEndian.Uint32(value[4*i:]))
			if c == 0 {
				continue
			}
			if c > m.total || owner[c-1].piece != nil {
				return fmt.Errorf("%s: chunk %d of %d is another's already, or none", key, c-1, m.total)
			}
			owner[c-1] = place{p, int(leaf)*leafSize + i}
			p.reach(int(leaf)*leafSize + i + 1)
			p.tab[int(leaf)*leafSize+i].Store(uint32(c))
		}
		return nil
	})
}

// note writes down that a chunk belongs to a place of a piece, or is free.
func (m *chunks) note(c uint32, v uint64) error {
	m.noting.Lock()
	defer m.noting.Unlock()
	var b [noteSize]byte
	binary.BigEndian.PutUint64(b[:], v)
	return m.dev.WriteAt(b[:], headSize+block.Size+int64(c)*noteSize)
}

func owned(piece uint32, index int) uint64 { return uint64(piece)<<32 | uint64(index+1) }

// takeNotes takes over the notes if they were made while the system of that
// name runs, and begins new ones if not.
func (m *chunks) takeNotes(boot string, owner []place) error {
	header, was := make([]byte, block.Size), make([]byte, block.Size)
	if len(boot) > len(header) {
		return fmt.Errorf("name of the running system with %d bytes", len(boot))
	}
	copy(header, boot)
	if err := m.dev.ReadAt(was, headSize); err != nil {
		return err
	}
	size := block.Ceil(m.total*noteSize, block.Size)
	if string(was) != string(header) || boot == "" {
		if err := m.dev.Zero(headSize+block.Size, size); err != nil {
			return err
		}
		return m.dev.WriteAt(header, headSize)
	}
	table := make([]byte, size)
	if err := m.dev.ReadAt(table, headSize+block.Size); err != nil {
		return err
	}
	byNumber := map[uint32]*chunkPiece{}
	for _, p := range m.pieces {
		byNumber[p.number] = p
	}
	at := func(c int64) uint64 { return binary.BigEndian.Uint64(table[c*noteSize:]) }
	for c := range m.total {
		o := owner[c]
		if v := at(c); v == 0 || o.piece == nil || v == owned(o.piece.number, o.index) {
			continue
		}
		o.piece.tab[o.index].Store(0) // it is free, and nobody has stored that
		o.piece.leaves[o.index/leafSize] = true
		o.piece.freed = append(o.piece.freed, uint32(c))
	}
	for c := range m.total {
		v := at(c)
		p := byNumber[uint32(v>>32)]
		if v == 0 || v&noteFreed != 0 || p == nil || owner[c].piece != nil {
			continue
		}
		i := int(uint32(v)) - 1
		p.reach(i + 1)
		p.tab[i].Store(uint32(c + 1))
		p.leaves[i/leafSize] = true
		owner[c] = place{p, i}
	}
	return nil
}

// take returns a chunk that is free.
func (m *chunks) take() (c uint32, ok bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	n := len(m.free)
	if n == 0 {
		return 0, false
	}
	c = m.free[n-1]
	m.free = m.free[:n-1]
	return c, true
}

func (m *chunks) give(list ...uint32) {
	m.mu.Lock()
	m.free = append(m.free, list...)
	m.mu.Unlock()
}

// reclaim makes it durable that chunks are free, and so has them to give.
func (m *chunks) reclaim() error {
	m.mu.Lock()
	all := slices.Collect(maps.Values(m.pieces))
	m.mu.Unlock()
	var errs []error
	for _, p := range all {
		p.alloc.Lock()
		has := len(p.freed) > 0
		p.alloc.Unlock()
		if has {
			errs = append(errs, p.Sync())
		}
	}
	return errors.Join(errs...)
}

func (m *chunks) Create(name string, size int64) (Piece, error) {
	if err := m.Remove(name); err != nil {
		return nil, err
	}
	m.mu.Lock()
	m.last++
	p := &chunkPiece{m: m, name: name, number: m.last, leaves: map[int]bool{}}
	m.mu.Unlock()
	p.reach(int(block.Ceil(size, m.size) / m.size))
	number := fmt.Append(nil, p.number)
	if err := m.records.Store(map[string][]byte{m.key("piece") + name: number, m.counter(): number}); err != nil {
		return nil, memberError(err)
	}
	m.mu.Lock()
	m.pieces[name] = p
	m.mu.Unlock()
	return p, nil
}

func (m *chunks) Open(name string, size int64) (Piece, error) {
	m.mu.Lock()
	p := m.pieces[name]
	m.mu.Unlock()
	if p == nil {
		return nil, fmt.Errorf("member %s: %s: %w", m.where, name, ErrNotExist)
	}
	p.mu.Lock()
	p.reach(int(block.Ceil(size, m.size) / m.size))
	p.mu.Unlock()
	return p, nil
}

func (m *chunks) Remove(name string) error {
	m.mu.Lock()
	p := m.pieces[name]
	m.mu.Unlock()
	if p == nil {
		return nil
	}
	p.syncing.Lock()
	defer p.syncing.Unlock()
	if p.removed {
		return nil
	}
	changes := map[string][]byte{m.key("piece") + name: nil}
	var had []uint32
	p.mu.RLock()
	for i := range p.tab {
		if i%leafSize == 0 {
			changes[p.leafKey(i/leafSize)] = nil
		}
		if c := p.tab[i].Load(); c > 0 {
			had = append(had, c-1)
		}
	}
	p.mu.RUnlock()
	if err := m.records.Store(changes); err != nil {
		return memberError(err)
	}
	p.removed = true
	p.alloc.Lock()
	had = append(had, p.freed...)
	p.freed = nil
	p.alloc.Unlock()
	m.mu.Lock()
	delete(m.pieces, name)
	m.mu.Unlock()
	slices.Sort(had)
	slices.Reverse(had) // the first of them is given first
	m.give(had...)
	return nil
}

func (m *chunks) Space() (total, free int64, err error) {
	m.mu.Lock()
	free = int64(len(m.free))
	all := slices.Collect(maps.Values(m.pieces))
	m.mu.Unlock()
	for _, p := range all {
		p.alloc.Lock()
		free += int64(len(p.freed))
		p.alloc.Unlock()
	}
	return m.total * m.size, free * m.size, nil
}

func (m *chunks) Close() error {
	return errors.Join(m.reclaim(), m.dev.Close())
}
