package lun

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"slices"
	"testing"

	"skylun/block"
)

// unmapList returns an UNMAP parameter list of ranges of LBA and length.
func unmapList(ranges ...[2]uint64) []byte {
	p := make([]byte, 8)
	binary.BigEndian.PutUint16(p, uint16(6+16*len(ranges)))
	binary.BigEndian.PutUint16(p[2:], uint16(16*len(ranges)))
	for _, r := range ranges {
		p = binary.BigEndian.AppendUint64(p, r[0])
		p = binary.BigEndian.AppendUint32(p, uint32(r[1]))
		p = append(p, 0, 0, 0, 0)
	}
	return p
}

func unmapCDB(length int) []byte {
	return []byte{0x42, 0, 0, 0, 0, 0, 0, byte(length >> 8), byte(length), 0}
}

// TestUnmap checks SBC-3 5.28.
func TestUnmap(t *testing.T) {
	const capacity = 4096
	many := make([][2]uint64, maxUnmapRanges)
	for i := range many {
		many[i] = [2]uint64{uint64(i) * 16, 8}
	}
	for _, c := range []struct {
		name  string
		list  []byte
		cut   int // of the parameter list length in the CDB
		want  string
		calls []string
	}{
		{name: "one", list: unmapList([2]uint64{1, 2}), want: "00", calls: []string{"discard 512+1024"}},
		{name: "none", list: unmapList(), want: "00"},
		{name: "several", list: unmapList([2]uint64{8, 8}, [2]uint64{4095, 1}, [2]uint64{0, 3}), want: "00",
			calls: []string{"discard 4096+4096", "discard 2096640+512", "discard 0+1536"}},
		{name: "empty range", list: unmapList([2]uint64{5, 0}, [2]uint64{capacity, 0}), want: "00"},
		{name: "last one beyond", list: unmapList([2]uint64{0, 8}, [2]uint64{4095, 2}), want: "02 5/21/00"},
		{name: "far beyond", list: unmapList([2]uint64{1 << 63, 1}), want: "02 5/21/00"},
		{name: "overflow", list: unmapList([2]uint64{1<<64 - 1, 1<<32 - 1}), want: "02 5/21/00"},
		{name: "empty beyond", list: unmapList([2]uint64{capacity + 1, 0}), want: "02 5/21/00"},
		{name: "as many as allowed", list: unmapList(many...), want: "00"},
		{name: "one more", list: unmapList(append(many, [2]uint64{0, 1})...), want: "02 5/26/00"},
		{name: "list cut in a descriptor", list: unmapList([2]uint64{0, 1}, [2]uint64{1, 1}), cut: 1, want: "00", calls: []string{"discard 0+512"}},
		{name: "list cut in the header", list: unmapList(), cut: 1, want: "02 5/1a/00"},
		{name: "zero length", list: unmapList(), cut: 8, want: "00"},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := newMemory(capacity * logicalBlock)
			d := newTestDisk(m)
			length := len(c.list) - c.cut
			cmd := exec(t, d, &Command{CDB: unmapCDB(length), Out: c.list[:length]})
			wantEnding(t, cmd, c.want)
			if c.want == "00" && cmd.Transfer != int64(length) {
				t.Errorf("Transfer %d, want %d", cmd.Transfer, length)
			}
			if c.want == "00" && c.calls == nil && length > 8 && c.name != "empty range" {
				if len(m.calls) != maxUnmapRanges {
					t.Errorf("%d calls", len(m.calls))
				}
			} else if !slices.Equal(m.calls, c.calls) {
				t.Errorf("calls %q, want %q", m.calls, c.calls)
			}
			if len(m.wrong) > 0 {
				t.Errorf("beyond the end: %q", m.wrong)
			}
		})
	}
	d := newTestDisk(sized{newMemory(0), 1 << 40})
	list := unmapList([2]uint64{0, maxUnmapBlocks}, [2]uint64{1 << 25, 1})
	c := exec(t, d, &Command{CDB: unmapCDB(len(list)), Out: list})
	if wantEnding(t, c, "02 5/26/00"); !bytes.Equal(c.Sense[15:18], []byte{0x8f, 0, 32}) {
		t.Errorf("field pointer % x", c.Sense[15:18])
	}
	wantEnding(t, send(t, d, nil, "42 01 00000000 00 0018 00", unmapList([2]uint64{0, 1})), "02 5/24/00") // ANCHOR

	// The descriptor data length ends the list as well.
	m := newMemory(1 << 20)
	list = unmapList([2]uint64{0, 1}, [2]uint64{1, 1}, [2]uint64{2, 1})
	binary.BigEndian.PutUint16(list[2:], 31)
	exec(t, newTestDisk(m), &Command{CDB: unmapCDB(len(list)), Out: list})
	if want := []string{"discard 0+512"}; !slices.Equal(m.calls, want) {
		t.Errorf("calls %q, want %q", m.calls, want)
	}
}

// TestWriteSame checks SBC-3 5.43 and 5.44.
func TestWriteSame(t *testing.T) {
	const capacity = 8192
	zero, ones := make([]byte, logicalBlock), filled(logicalBlock, 1)
	for _, c := range []struct {
		name   string
		cdb    string
		out    []byte
		want   string
		calls  []string
		moved  int64
		filled [2]int // logical blocks that hold ones afterwards
	}{
		{name: "zeros", cdb: "41 00 00000003 00 0002 00", out: zero, want: "00", calls: []string{"discard 1536+1024"}, moved: 512},
		{name: "zeros, unmap", cdb: "41 08 00000003 00 0002 00", out: zero, want: "00", calls: []string{"discard 1536+1024"}, moved: 512},
		{name: "ones", cdb: "41 00 00000003 00 0002 00", out: ones, want: "00", calls: []string{"write 1536+1024"}, moved: 512, filled: [2]int{3, 5}},
		{name: "ones, unmap", cdb: "93 08 0000000000000003 00000002 00 00", out: ones, want: "00", calls: []string{"write 1536+1024"}, moved: 512, filled: [2]int{3, 5}},
		{name: "pieces", cdb: "93 00 0000000000000001 00001000 00 00", out: ones, want: "00", moved: 512, filled: [2]int{1, 4097},
			calls: []string{"write 512+1048064", "write 1048576+1048576", "write 2097152+512"}},
		{name: "the end", cdb: "41 00 00001ffe 00 0002 00", out: ones, want: "00", calls: []string{"write 4193280+1024"}, moved: 512, filled: [2]int{8190, 8192}},
		{name: "length zero", cdb: "93 08 0000000000000000 00000000 00 00", out: zero, want: "02 5/24/00"},
		{name: "NDOB", cdb: "93 09 0000000000000003 00000002 00 00", want: "00", calls: []string{"discard 1536+1024"}},
		{name: "NDOB without unmap", cdb: "93 01 0000000000000003 00000002 00 00", want: "00", calls: []string{"discard 1536+1024"}},
		{name: "NDOB in 10 bytes", cdb: "41 01 00000003 00 0002 00", want: "02 5/24/00"},
		{name: "anchor", cdb: "93 18 0000000000000003 00000002 00 00", out: zero, want: "02 5/24/00"},
		{name: "anchor alone", cdb: "41 10 00000003 00 0002 00", out: zero, want: "02 5/24/00"},
		{name: "LBDATA", cdb: "41 02 00000003 00 0002 00", out: zero, want: "02 5/24/00"},
		{name: "PBDATA", cdb: "41 04 00000003 00 0002 00", out: zero, want: "02 5/24/00"},
		{name: "half a block", cdb: "41 08 00000003 00 0002 00", out: zero[:256], want: "02 5/0e/03"},
		{name: "two blocks", cdb: "41 08 00000003 00 0002 00", out: make([]byte, 1024), want: "02 5/0e/03"},
		{name: "nothing", cdb: "41 08 00000003 00 0002 00", want: "02 5/0e/03"},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := newMemory(capacity * logicalBlock)
			cmd := send(t, newTestDisk(m), nil, c.cdb, c.out)
			if wantEnding(t, cmd, c.want); cmd.Transfer != c.moved {
				t.Errorf("Transfer %d, want %d", cmd.Transfer, c.moved)
			}
			if !slices.Equal(m.calls, c.calls) {
				t.Errorf("calls %q, want %q", m.calls, c.calls)
			}
			want := make([]byte, len(m.data))
			copy(want[c.filled[0]*logicalBlock:c.filled[1]*logicalBlock], filled(len(want), 1))
			if !bytes.Equal(m.data, want) {
				t.Error("the medium holds something else")
			}
		})
	}
	big := newTestDisk(sized{newMemory(0), 1 << 40})
	wantEnding(t, send(t, big, nil, "93 08 0000000000000000 00080001 00 00", zero), "02 5/24/00")
}

// TestGetLBAStatus checks SBC-3 5.4.
func TestGetLBAStatus(t *testing.T) {
	m := newMemory(64 << 10)
	m.data[4096], m.data[3*4096] = 1, 1
	d := newTestDisk(ranged{m})
	for _, c := range []struct {
		lba        uint64
		allocation uint32
		want       string
	}{
		{0, 4096, "0+8=1 8+8=0 16+8=1 24+8=0 32+96=1 "},
		{12, 4096, "12+4=0 16+8=1 24+8=0 32+96=1 "},
		{40, 4096, "40+88=1 "},
		{127, 4096, "127+1=1 "},
		{0, 8 + 2*16, "0+8=1 8+8=0 "},
		{8, 8 + 16, "8+8=0 "},
		{8, 8 + 31, "8+8=0 "},
	} {
		cmd := exec(t, d, &Command{CDB: unhex(t, fmt.Sprintf("9e 12 %016x %08x 00 00", c.lba, c.allocation)), InLimit: 8192})
		wantEnding(t, cmd, "00")
		got := ""
		for p := cmd.In[8:]; len(p) >= 16; p = p[16:] {
			got += fmt.Sprintf("%d+%d=%d ", binary.BigEndian.Uint64(p), binary.BigEndian.Uint32(p[8:]), p[12])
		}
		if got != c.want {
			t.Errorf("from %d: %q, want %q", c.lba, got, c.want)
		}
	}
	wantEnding(t, send(t, d, nil, "9e 12 0000000000000080 00001000 00 00", nil), "02 5/21/00")
	wantEnding(t, send(t, newTestDisk(m), nil, "9e 12 0000000000000000 00001000 00 00", nil), "02 5/24/00")
	// Nothing before the first one that is asked for is looked at.
	asked := &asking{ranged: ranged{m}}
	if send(t, newTestDisk(asked), nil, "9e 12 0000000000000028 00001000 00 00", nil); asked.r != (block.Range{Off: 40 * logicalBlock, End: 64 << 10}) {
		t.Errorf("asked the device for %v", asked.r)
	}
	if c := send(t, d, nil, "9e 12 0000000000000000 00000000 00 00", nil); c.Transfer != 0 || c.In != nil {
		t.Errorf("allocation length zero moved %d", c.Transfer)
	}
}

// asking notes of which range it is asked.
type asking struct {
	ranged
	r block.Range
}

func (a *asking) DataRanges(ctx context.Context, r block.Range, f func(block.Range) error) error {
	a.r = r
	return a.ranged.DataRanges(ctx, r, f)
}
