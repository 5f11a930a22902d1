package profile

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"slices"

	"skylun/block"
)

const (
	magic   = "skylprof"
	version = 1

	maxIdentity = 1 << 10

	// MaxEncoded bounds the length of what Encode returns and Decode takes:
	// an entry is four numbers, of which one is a byte.
	MaxEncoded = 2<<10 + maxEntries*(3*binary.MaxVarintLen32+1)
)

// What Decode cannot use.
var (
	ErrVersion = errors.New("profile of another version") // written by another version, perhaps a later one
	ErrDamaged = errors.New("damaged profile")            // no profile, or not as it was written
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Encode returns the profile as a document.
func (p *Profile) Encode() []byte {
	b := append([]byte(magic), version)
	b = binary.AppendUvarint(b, uint64(p.size))
	b = binary.AppendUvarint(b, uint64(len(p.identity)))
	b = append(b, p.identity...)
	b = binary.AppendUvarint(b, uint64(p.runs))
	b = binary.AppendUvarint(b, uint64(len(p.entries)))
	next, pos := int64(0), int64(0) // behind the entry before
	for _, e := range p.entries {
		b = binary.AppendVarint(b, e.first-next)
		b = binary.AppendUvarint(b, uint64(e.count-1))
		b = append(b, e.share)
		b = binary.AppendVarint(b, e.pos-pos)
		next, pos = e.first+e.count, e.pos+e.count
	}
	return binary.LittleEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
}

// Decode reads a document. An error is ErrVersion or ErrDamaged.
func Decode(doc []byte) (*Profile, error) {
	if len(doc) > MaxEncoded || len(doc) < len(magic)+1+crc32.Size || string(doc[:len(magic)]) != magic {
		return nil, ErrDamaged
	}
	if v := doc[len(magic)]; v != version {
		return nil, fmt.Errorf("%w: %d", ErrVersion, v)
	}
	body := doc[:len(doc)-crc32.Size]
	if crc32.Checksum(body, castagnoli) != binary.LittleEndian.Uint32(doc[len(body):]) {
		return nil, ErrDamaged
	}
	d := decoder{b: body[len(magic)+1:]}
	p := &Profile{size: d.number(1<<62 - 1)}
	p.identity = string(d.take(d.number(maxIdentity)))
	p.runs = int(d.number(maxRuns))
	blocks := block.Ceil(min(p.size, maxEnd), block.Size) / block.Size
	total := int64(0)
	p.entries = make([]entry, 0, d.number(min(maxEntries, int64(len(d.b))/4)))
	next, pos := int64(0), int64(0)
	for range cap(p.entries) {
		first, count := next+d.signed(), d.number(maxBlocks-1)+1
		var share uint8
		if s := d.take(1); len(s) == 1 {
			share = s[0]
		}
		at := pos + d.signed()
		total += count
		if d.bad || share == 0 || first < 0 || first > blocks-count || at < 0 || at > maxPos || total > maxBlocks {
			return nil, ErrDamaged
		}
		p.entries = append(p.entries, entry{first, count, share, at})
		next, pos = first+count, at+count
	}
	if d.bad || len(d.b) > 0 || p.runs == 0 && len(p.entries) > 0 || overlap(p.entries) {
		return nil, ErrDamaged
	}
	return p, nil
}

func overlap(entries []entry) bool {
	entries = slices.Clone(entries)
	slices.SortFunc(entries, func(a, b entry) int { return cmp.Compare(a.first, b.first) })
	for i := 1; i < len(entries); i++ {
		if entries[i].first < entries[i-1].first+entries[i-1].count {
			return true
		}
	}
	return false
}

// maxPos is more than any position can become.
const maxPos = 1 << 31

// decoder takes numbers from b; bad is set when that does not work, and then
// all further ones are zero.
type decoder struct {
	b   []byte
	bad bool
}

func (d *decoder) fail() { d.b, d.bad = nil, true }

// number takes a number of at most limit.
func (d *decoder) number(limit int64) int64 {
	v, n := binary.Uvarint(d.b)
	if n <= 0 || v > uint64(limit) {
		d.fail()
		return 0
	}
	d.b = d.b[n:]
	return int64(v)
}

// signed takes a difference of two blocks, or of two positions.
func (d *decoder) signed() int64 {
	v, n := binary.Varint(d.b)
	if n <= 0 || v > maxEnd/block.Size || v < -maxEnd/block.Size {
		d.fail()
		return 0
	}
	d.b = d.b[n:]
	return v
}

func (d *decoder) take(n int64) []byte {
	if n > int64(len(d.b)) {
		d.fail()
		return nil
	}
	p := d.b[:n]
	d.b = d.b[n:]
	return p
}
