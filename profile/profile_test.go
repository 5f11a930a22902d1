package profile

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"

	"skylun/block"
)

const size = 64 << 20

// blocks returns the ranges of single blocks.
func blocks(numbers ...int64) (rs []block.Range) {
	for _, b := range numbers {
		rs = append(rs, block.Range{Off: b * block.Size, End: (b + 1) * block.Size})
	}
	return rs
}

// span returns the range of count blocks from first on.
func span(first, count int64) block.Range {
	return block.Range{Off: first * block.Size, End: (first + count) * block.Size}
}

func TestMerge(t *testing.T) {
	for _, c := range []struct {
		name string
		runs [][]block.Range
		want []block.Range
	}{
		{"nothing", nil, nil},
		{"one run, near each other: by place", [][]block.Range{blocks(7, 3, 5)}, blocks(3, 5, 7)},
		{"adjacent ones become one", [][]block.Range{blocks(7, 9, 8)}, []block.Range{span(7, 3)}},
		{"parts of blocks count whole, and once", [][]block.Range{{{Off: 4095, End: 4097}, {Off: 1, End: 2}}}, []block.Range{span(0, 2)}},
		{"order beyond the window", [][]block.Range{{span(5000, window), span(0, window)}}, []block.Range{span(5000, window), span(0, window)}},
		{"what lies outside does not count", [][]block.Range{{{Off: -block.Size, End: block.Size}, {Off: size - 1, End: size * 2}, {Off: size, End: size + 1}, {Off: 9, End: 3}}},
			[]block.Range{span(0, 1), span(size/block.Size-1, 1)}},
		{"often seen first", [][]block.Range{blocks(1, 2), blocks(3, 2)}, blocks(2, 1, 3)},
		{"three of four come before one of four", [][]block.Range{blocks(9), blocks(9, 1), blocks(9, 1), blocks(1)}, blocks(1, 9)},
	} {
		p := New("id", size)
		for _, run := range c.runs {
			p = p.Merge(run)
		}
		if got := p.Ranges(); !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
		if p.Runs() != len(c.runs) {
			t.Errorf("%s: %d runs", c.name, p.Runs())
		}
	}
}

// Positions are averaged: what is usually read early comes early, also when
// one run did otherwise.
func TestMergeOrdersByTypicalPosition(t *testing.T) {
	early, middle, late := span(9000, 16), span(2000, 4*window), span(1000, 16)
	p := New("id", size)
	for i := range 5 {
		run := []block.Range{early, middle, late}
		if i == 3 {
			slices.Reverse(run)
		}
		p = p.Merge(run)
	}
	got := p.Ranges()
	place := func(r block.Range) int { return slices.Index(got, r) }
	if place(early) < 0 || place(late) < place(early) {
		t.Errorf("%v", got)
	}
}

// What is not read any more is forgotten, but not at once.
func TestMergeForgets(t *testing.T) {
	p := New("id", size)
	for range 3 {
		p = p.Merge(blocks(1, 2))
	}
	has := func() bool { return slices.ContainsFunc(p.entries, func(e entry) bool { return e.first == 1 }) }
	runs := 0
	for ; has(); runs++ {
		if runs > 100 {
			t.Fatal("never forgotten")
		}
		p = p.Merge(blocks(5))
	}
	if runs < 5 {
		t.Errorf("forgotten after %d runs", runs)
	}
	// One run that read nothing of it does not displace what most read.
	p = New("id", size).Merge(blocks(1)).Merge(blocks(1)).Merge(blocks(1)).Merge(nil)
	if !has() {
		t.Error("one run made it forget all others")
	}
}

// The share of what every run reads stays whole, however they are rounded.
func TestShareOfEveryRun(t *testing.T) {
	p := New("id", size)
	for range 40 {
		p = p.Merge(blocks(1))
		if p.entries[0].share != whole {
			t.Fatalf("share %d after %d runs", p.entries[0].share, p.runs)
		}
	}
}

func TestBounds(t *testing.T) {
	const huge = 100 << 40
	p := New("id", huge).Merge([]block.Range{{Off: 0, End: huge}})
	if p.Bytes() != MaxBytes {
		t.Errorf("names %d bytes", p.Bytes())
	}
	rnd := rand.New(rand.NewPCG(1, 2))
	var run []block.Range
	for range 3 * maxEntries {
		run = append(run, blocks(rnd.Int64N(maxEnd/block.Size))...)
	}
	p = New("id", huge)
	for range 3 {
		p = p.Merge(run)
	}
	doc := p.Encode()
	if len(p.entries) != maxEntries || len(doc) > MaxEncoded {
		t.Errorf("%d entries, %d bytes", len(p.entries), len(doc))
	}
	if got, err := Decode(doc); err != nil || !reflect.DeepEqual(got, p) {
		t.Errorf("decoded: %v", err)
	}
}

// random returns a profile of some runs over much the same blocks.
func random(rnd *rand.Rand) *Profile {
	p := New("an identity", size)
	for range rnd.IntN(6) {
		var run []block.Range
		for range rnd.IntN(300) {
			off := rnd.Int64N(size)
			run = append(run, block.Range{Off: off, End: off + rnd.Int64N(256<<10)})
		}
		p = p.Merge(run)
	}
	return p
}

func TestEncode(t *testing.T) {
	rnd := rand.New(rand.NewPCG(3, 4))
	for range 50 {
		p := random(rnd)
		got, err := Decode(p.Encode())
		if err != nil {
			t.Fatal(err)
		}
		if !got.Of("an identity", size) || got.Of("an identity", size+512) || got.Of("another", size) {
			t.Error("of another content than before")
		}
		if !slices.Equal(got.Ranges(), p.Ranges()) || got.Runs() != p.Runs() {
			t.Fatal("decoded is not what was encoded")
		}
	}
}

// A boot of some hundred MiB in thousands of pieces stays small.
func TestEncodedIsSmall(t *testing.T) {
	rnd := rand.New(rand.NewPCG(5, 6))
	var run []block.Range
	for range 5000 {
		run = append(run, span(rnd.Int64N(10<<30/block.Size), 1+rnd.Int64N(16)))
	}
	p := New("id", 10<<30).Merge(run).Merge(run[100:])
	if n := len(p.Encode()); n > 64<<10 {
		t.Errorf("%d bytes for %d entries", n, len(p.entries))
	}
}

func TestDecodeRefuses(t *testing.T) {
	p := New("id", size).Merge(blocks(1, 2, 3, 9, 11)).Merge(blocks(9, 2))
	good := p.Encode()
	for i := range good {
		bad := bytes.Clone(good)
		bad[i] ^= 0x10
		if _, err := Decode(bad); !errors.Is(err, ErrDamaged) && !errors.Is(err, ErrVersion) {
			t.Errorf("byte %d changed: %v", i, err)
		}
		if _, err := Decode(good[:i]); err == nil {
			t.Errorf("cut after %d bytes: no error", i)
		}
	}
	if _, err := Decode(seal(append(bytes.Clone(good[:len(good)-4]), 0))); !errors.Is(err, ErrDamaged) {
		t.Errorf("a byte too many: %v", err)
	}
	next := bytes.Clone(good)
	next[len(magic)]++
	if _, err := Decode(next); !errors.Is(err, ErrVersion) {
		t.Errorf("next version: %v", err)
	}
	// With a checksum that is right.
	for _, c := range []struct {
		name  string
		bytes int64
		e     []entry
	}{
		{"behind the end", size, []entry{{first: size / block.Size, count: 1, share: 1}}},
		{"over the end", size, []entry{{first: size/block.Size - 1, count: 2, share: 1}}},
		{"negative", size, []entry{{first: -1, count: 1, share: 1}}},
		{"share of none", size, []entry{{first: 1, count: 1}}},
		{"overlap", size, []entry{{first: 1, count: 3, share: 1}, {first: 7, count: 1, share: 1}, {first: 3, count: 1, share: 1}}},
		{"too much", 8 << 30, []entry{{first: 0, count: maxBlocks, share: 1}, {first: maxBlocks, count: 1, share: 1}}},
		{"position", size, []entry{{first: 1, count: 1, share: 1, pos: -1}}},
	} {
		bad := &Profile{identity: "id", size: c.bytes, runs: 1, entries: c.e}
		if _, err := Decode(bad.Encode()); !errors.Is(err, ErrDamaged) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

// seal gives a document the checksum it should have.
func seal(b []byte) []byte {
	return binary.LittleEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
}

func FuzzDecode(f *testing.F) {
	f.Add(New("id", size).Encode())
	f.Add(New("id", size).Merge(blocks(1, 2, 3, 900)).Merge(blocks(2, 7)).Encode())
	f.Add(random(rand.New(rand.NewPCG(7, 8))).Encode())
	f.Fuzz(func(t *testing.T, doc []byte) {
		if len(doc) > 4 {
			doc = seal(doc[:len(doc)-4]) // else nothing gets past the checksum
		}
		p, err := Decode(doc)
		if err != nil {
			if !errors.Is(err, ErrDamaged) && !errors.Is(err, ErrVersion) {
				t.Errorf("%v", err)
			}
			return
		}
		check(t, p)
		p = p.Merge(blocks(0, 5, 7))
		check(t, p)
		again, err := Decode(p.Encode())
		if err != nil || !slices.Equal(again.Ranges(), p.Ranges()) {
			t.Errorf("what was merged cannot be read: %v", err)
		}
	})
}

func FuzzMerge(f *testing.F) {
	f.Add([]byte{1, 0, 0, 1, 2, 0, 0, 3}, uint8(2))
	f.Fuzz(func(t *testing.T, reads []byte, runs uint8) {
		p := New("id", 16<<20)
		for i := range int(runs%5) + 1 {
			var run []block.Range
			for r := range slices.Chunk(reads, 4) {
				if len(r) == 4 && (i == 0 || int(r[3])%(i+1) != 0) {
					off := int64(binary.LittleEndian.Uint16(r)) << 9
					run = append(run, block.Range{Off: off, End: off + int64(r[2])<<10})
				}
			}
			before := p
			p = p.Merge(run)
			check(t, p)
			// Everything of the run is there.
			for _, r := range run {
				for b := r.Off / block.Size; b*block.Size < min(r.End, p.size); b++ {
					if r.Empty() {
						break
					}
					if !slices.ContainsFunc(p.entries, func(e entry) bool { return e.first <= b && b < e.first+e.count }) {
						t.Fatalf("block %d of the run is missing in %v, before %v", b, p.entries, before.entries)
					}
				}
			}
		}
	})
}

// check tells whether what p names is within bounds and without overlaps.
func check(t *testing.T, p *Profile) {
	t.Helper()
	rs := p.Ranges()
	slices.SortFunc(rs, func(a, b block.Range) int { return int(a.Off/block.Size - b.Off/block.Size) })
	total, end := int64(0), int64(0)
	for _, r := range rs {
		if r.Empty() || r.Off < end || r.End > block.Ceil(p.size, block.Size) || r.Off%block.Size != 0 || r.End%block.Size != 0 {
			t.Fatalf("range %v of an image of %d bytes", r, p.size)
		}
		end = r.End
		total += r.Len()
	}
	if total > MaxBytes || total != p.Bytes() || len(p.entries) > maxEntries {
		t.Fatalf("%d bytes in %d entries", total, len(p.entries))
	}
}
