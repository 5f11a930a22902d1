package lun

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"skylun/block"
)

// extents are ranges of LBA and number of blocks.
type extents [][2]uint64

func (e extents) descriptors() (b []byte) {
	for _, r := range e {
		b = binary.BigEndian.AppendUint64(b, r[0])
		b = binary.BigEndian.AppendUint32(b, uint32(r[1]))
		b = append(b, 0, 0, 0, 0)
	}
	return b
}

// of returns the bytes of data that e names.
func (e extents) of(data []byte) (b []byte) {
	for _, r := range e {
		b = append(b, data[r[0]*logicalBlock:][:r[1]*logicalBlock]...)
	}
	return b
}

func tokenCDB(action byte, id uint32, length int) []byte {
	cdb := make([]byte, 16)
	cdb[0], cdb[1] = byte(extendedCopyCode), action
	binary.BigEndian.PutUint32(cdb[6:], id)
	binary.BigEndian.PutUint32(cdb[10:], uint32(length))
	return cdb
}

func populateList(flags byte, idle, kind uint32, e extents) []byte {
	p := make([]byte, 16)
	d := e.descriptors()
	binary.BigEndian.PutUint16(p, uint16(14+len(d)))
	p[2] = flags
	binary.BigEndian.PutUint32(p[4:], idle)
	binary.BigEndian.PutUint32(p[8:], kind)
	binary.BigEndian.PutUint16(p[14:], uint16(len(d)))
	return append(p, d...)
}

func writeList(flags byte, offset uint64, token []byte, e extents) []byte {
	p := make([]byte, 536)
	d := e.descriptors()
	binary.BigEndian.PutUint16(p, uint16(534+len(d)))
	p[2] = flags
	binary.BigEndian.PutUint64(p[8:], offset)
	copy(p[16:], token)
	binary.BigEndian.PutUint16(p[534:], uint16(len(d)))
	return append(p, d...)
}

func tokenCommand(t testing.TB, d *Disk, n *Nexus, action byte, id uint32, list []byte) *Command {
	t.Helper()
	return exec(t, d, &Command{CDB: tokenCDB(action, id, len(list)), Nexus: n, Out: list})
}

// rodInfo returns the answer of RECEIVE ROD TOKEN INFORMATION.
func rodInfo(t testing.TB, d *Disk, n *Nexus, id uint32) []byte {
	t.Helper()
	c := send(t, d, n, fmt.Sprintf("84 07 %08x 00000000 00000400 00 00", id), nil)
	wantEnding(t, c, "00")
	if len(c.In) < 36 || int(binary.BigEndian.Uint32(c.In)) != len(c.In)-4 || c.In[15] != 0xf1 {
		t.Fatalf("ROD token information % x", c.In)
	}
	return c.In
}

// populate returns a token.
func populate(t testing.TB, d *Disk, n *Nexus, e extents) []byte {
	t.Helper()
	wantEnding(t, tokenCommand(t, d, n, 0x10, 1, populateList(0, 0, 0, e)), "00")
	info := rodInfo(t, d, n, 1)
	if len(info) != 32+4+2+512 || info[4] != 0x10 || info[5] != 0x01 || binary.BigEndian.Uint32(info[32:]) != 514 {
		t.Fatalf("ROD token information % x", info[:36])
	}
	return info[38:]
}

// TestOffloadedTransfer makes tokens and writes with them, as Windows copies a
// file.
func TestOffloadedTransfer(t *testing.T) {
	const capacity = 4096
	content := randomBytes(capacity * logicalBlock)
	clear(content[100*logicalBlock : 300*logicalBlock])
	for _, c := range []struct {
		name     string
		from, to extents
		offset   uint64
		same     bool // disk
	}{
		{name: "a range", from: extents{{0, 2048}}, to: extents{{2048, 2048}}},
		{name: "in the same disk", from: extents{{0, 2048}}, to: extents{{2048, 2048}}, same: true},
		{name: "fragments", from: extents{{7, 3}, {1000, 500}, {90, 50}}, to: extents{{0, 1}, {3000, 552}}},
		{name: "the middle", from: extents{{7, 3}, {1000, 500}, {90, 50}}, to: extents{{20, 100}, {500, 400}}, offset: 3},
		{name: "the end", from: extents{{7, 3}, {1000, 500}}, to: extents{{4095, 1}}, offset: 502},
		{name: "nothing", from: extents{{7, 3}}, to: extents{{0, 0}}, offset: 3},
		{name: "with empty ranges", from: extents{{7, 0}, {9, 2}, {9, 0}, {20, 2}}, to: extents{{0, 0}, {1, 3}, {8, 0}, {8, 1}}},
	} {
		for device, wrap := range map[string]func(*memory) block.Device{
			"bytes": func(m *memory) block.Device { return m }, "ranges": func(m *memory) block.Device { return ranged{m} },
		} {
			t.Run(c.name+" "+device, func(t *testing.T) {
				a, b := newMemory(len(content)), newMemory(len(content))
				copy(a.data, content)
				copy(b.data, randomBytes(len(content)-1))
				p := newPair(t, wrap(a), wrap(b))
				token := populate(t, p.disks[0], p.nexus, c.from)
				dst, mem := p.disks[1], b
				if c.same {
					dst, mem = p.disks[0], a
				}
				want := bytes.Clone(mem.data)
				data := c.from.of(content)[c.offset*logicalBlock:]
				blocks := uint64(0)
				for _, r := range c.to {
					n := copy(want[r[0]*logicalBlock:][:r[1]*logicalBlock], data)
					data = data[n:]
					blocks += r[1]
				}
				for range 2 { // a token can be used more than once
					wantEnding(t, tokenCommand(t, dst, p.nexus, 0x11, 2, writeList(0, c.offset, token, c.to)), "00")
				}
				if !bytes.Equal(mem.data, want) {
					t.Error("the destination holds something else")
				}
				info := rodInfo(t, dst, p.nexus, 2)
				if info[4] != 0x11 || info[5] != 0x01 || binary.BigEndian.Uint64(info[16:]) != blocks || len(info) != 36 {
					t.Errorf("information % x, want %d blocks", info, blocks)
				}
				if len(a.wrong)+len(b.wrong) > 0 {
					t.Errorf("beyond the end: %q %q", a.wrong, b.wrong)
				}
			})
		}
	}
}

// TestZeroToken writes what the token stands for that all know.
func TestZeroToken(t *testing.T) {
	m := newMemory(64 << 10)
	copy(m.data, filled(len(m.data), 1))
	d := newTestDisk(m)
	zero := make([]byte, 512)
	copy(zero, []byte{0xff, 0xff, 0, 1, 0, 0, 1, 0xf8})
	wantEnding(t, tokenCommand(t, d, nil, 0x11, 2, writeList(0, 12345, zero, extents{{1, 2}, {100, 28}})), "00")
	if want := []string{"discard 512+1024", "discard 51200+14336"}; !slices.Equal(m.calls, want) {
		t.Errorf("calls %q, want %q", m.calls, want)
	}
	if info := rodInfo(t, d, nil, 2); binary.BigEndian.Uint64(info[16:]) != 30 || binary.BigEndian.Uint16(info[24:]) != 2 {
		t.Errorf("information % x", info)
	}
}

// TestTokenChecks checks the parameter lists, SBC-3 5.7 and 5.46.
func TestTokenChecks(t *testing.T) {
	const capacity = 2048
	p := newPair(t, newMemory(capacity*logicalBlock), newMemory(capacity*logicalBlock))
	good := extents{{0, 8}, {16, 8}}
	many := make(extents, maxTokenRanges+1)
	for i := range many {
		many[i] = [2]uint64{uint64(i), 1}
	}
	edit := func(b []byte, at int, to ...byte) []byte {
		b = bytes.Clone(b)
		copy(b[at:], to)
		return b
	}
	for _, c := range []struct {
		name string
		list []byte
		want string
	}{
		{"good", populateList(0, 0, 0, good), "00"},
		{"good with type", populateList(2, maxTokenTime, rodVulnerable, good), "00"},
		{"good with any type of point in time", populateList(3, 1, rodPointInTime, good), "00"},
		{"good, as many as there may be", populateList(0, 0, 0, many[1:]), "00"},
		{"no list", nil, "00"},
		{"type", populateList(2, 0, 0x00010000, good), "02 5/26/00"},
		{"time", populateList(0, maxTokenTime+1, 0, good), "02 5/26/00"},
		{"cut", populateList(0, 0, 0, good)[:15], "02 5/1a/00"},
		{"descriptor cut", populateList(0, 0, 0, good)[:47], "02 5/1a/00"},
		{"no descriptors", populateList(0, 0, 0, nil), "02 5/26/00"},
		{"length of descriptors", edit(populateList(0, 0, 0, good), 14, 0xff, 0xff), "02 5/26/00"},
		{"length of data", edit(populateList(0, 0, 0, good), 0, 0, 16), "02 5/26/00"},
		{"too many", populateList(0, 0, 0, many), "02 5/26/08"},
		{"overlap", populateList(0, 0, 0, extents{{0, 8}, {7, 1}}), "02 5/26/00"},
		{"beyond the end", populateList(0, 0, 0, extents{{capacity - 1, 2}}), "02 5/21/00"},
		{"wraps", populateList(0, 0, 0, extents{{1<<64 - 1, 1<<32 - 1}}), "02 5/21/00"},
	} {
		t.Run("populate "+c.name, func(t *testing.T) {
			wantEnding(t, tokenCommand(t, p.disks[0], p.nexus, 0x10, 9, c.list), c.want)
		})
	}
	token := populate(t, p.disks[0], p.nexus, good)
	for _, c := range []struct {
		name string
		list []byte
		want string
	}{
		{"good", writeList(0, 0, token, good), "00"},
		{"good with IMMED", writeList(1, 0, token, good), "00"},
		{"no list", nil, "00"},
		{"cut", writeList(0, 0, token, good)[:535], "02 5/1a/00"},
		{"descriptor cut", writeList(0, 0, token, good)[:536+31], "02 5/1a/00"},
		{"no descriptors", writeList(0, 0, token, nil), "02 5/26/00"},
		{"too many", writeList(0, 0, token, many), "02 5/26/08"},
		{"overlap", writeList(0, 0, token, extents{{0, 2}, {1, 1}}), "02 5/26/00"},
		{"beyond the end", writeList(0, 0, token, extents{{capacity, 1}}), "02 5/21/00"},
		{"more than there is", writeList(0, 0, token, extents{{0, 17}}), "02 5/26/00"},
		{"from beyond", writeList(0, 17, token, extents{{0, 0}}), "02 5/26/00"},
		{"from far beyond", writeList(0, 1<<63, token, extents{{0, 1}}), "02 5/26/00"},
		{"from where it wraps", writeList(0, 1<<64-1, token, extents{{0, 1}}), "02 5/26/00"},
		{"other type", writeList(0, 0, edit(token, 0, 0, 1, 0, 0), good), "02 5/23/01"},
		{"other disk", writeList(0, 0, edit(token, 25, 0xff), good), "02 5/23/04"},
		{"forged", writeList(0, 0, edit(token, 511, token[511]+1), good), "02 5/23/04"},
		{"all zero", writeList(0, 0, make([]byte, 512), good), "02 5/23/01"},
	} {
		t.Run("write "+c.name, func(t *testing.T) {
			wantEnding(t, tokenCommand(t, p.disks[1], p.nexus, 0x11, 8, c.list), c.want)
		})
	}
	// What would change what it is made of.
	wantEnding(t, tokenCommand(t, p.disks[0], p.nexus, 0x11, 8, writeList(0, 0, token, extents{{20, 8}})), "02 5/26/00")
	// Larger than one command may move.
	huge := newTestDisk(sized{newMemory(0), 1 << 40})
	wantEnding(t, tokenCommand(t, huge, nil, 0x10, 1, populateList(0, 0, 0, extents{{0, maxTokenBlocks}})), "00")
	wantEnding(t, tokenCommand(t, huge, nil, 0x10, 1, populateList(0, 0, 0, extents{{0, maxTokenBlocks}, {1 << 24, 1}})), "02 5/26/00")

	// Nobody else is told of it, and what is not there is not told.
	wantEnding(t, send(t, p.disks[1], nil, "84 07 00000008 00000000 00000400 00 00", nil), "02 5/24/00")
	wantEnding(t, send(t, p.disks[1], p.nexus, "84 07 01000008 00000000 00000400 00 00", nil), "02 5/24/00")
	wantEnding(t, send(t, p.disks[1], p.nexus, "84 00 08 00000000000000 00000400 00 00", nil), "02 5/24/00") // another kind of identifier
	for length := range 40 {
		c := send(t, p.disks[1], p.nexus, fmt.Sprintf("84 07 00000008 00000000 %08x 00 00", length), nil)
		if wantEnding(t, c, "00"); len(c.In) > length {
			t.Errorf("%d bytes, asked for %d", len(c.In), length)
		}
	}
}

// TestTokenRevoked changes what a token stands for, by every command that can:
// the token is of no more use, and only then.
func TestTokenRevoked(t *testing.T) {
	data := filled(logicalBlock, 7)
	segments := func(p *pair, lba uint64) []byte {
		return copyParameterList(1, 0, names(p.disks[1], p.disks[0]), segment(0, 1, 1, 0, lba))
	}
	zero := make([]byte, 512)
	copy(zero, []byte{0xff, 0xff, 0, 1})
	for name, change := range map[string]func(p *pair, lba uint64) *Command{
		"WRITE(6)": func(p *pair, lba uint64) *Command {
			return &Command{CDB: []byte{0x0a, 0, 0, byte(lba), 1, 0}, Out: data}
		},
		"WRITE(10)":        func(p *pair, lba uint64) *Command { return &Command{CDB: extentCDB(0x2a, 0, lba, 1), Out: data} },
		"WRITE(12)":        func(p *pair, lba uint64) *Command { return &Command{CDB: extentCDB(0xaa, 0, lba, 1), Out: data} },
		"WRITE(16)":        func(p *pair, lba uint64) *Command { return &Command{CDB: extentCDB(0x8a, 0, lba, 1), Out: data} },
		"WRITE AND VERIFY": func(p *pair, lba uint64) *Command { return &Command{CDB: extentCDB(0x2e, 0, lba, 1), Out: data} },
		"WRITE SAME(10)":   func(p *pair, lba uint64) *Command { return &Command{CDB: extentCDB(0x41, 0, lba, 1), Out: data} },
		"WRITE SAME(16)":   func(p *pair, lba uint64) *Command { return &Command{CDB: extentCDB(0x93, 9, lba, 1)} },
		"ORWRITE(16)":      func(p *pair, lba uint64) *Command { return &Command{CDB: extentCDB(0x8b, 0, lba, 1), Out: data} },
		"COMPARE AND WRITE": func(p *pair, lba uint64) *Command {
			return &Command{CDB: compareCDB(0, lba, 1), Out: make([]byte, 1024)}
		},
		"UNMAP": func(p *pair, lba uint64) *Command {
			return &Command{CDB: unmapCDB(24), Out: unmapList([2]uint64{lba, 1})}
		},
		"EXTENDED COPY(LID1)": func(p *pair, lba uint64) *Command {
			l := segments(p, lba)
			return &Command{CDB: []byte{0x83, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, byte(len(l)), 0, 0}, Out: l}
		},
		"WRITE USING TOKEN": func(p *pair, lba uint64) *Command {
			l := writeList(0, 0, zero, extents{{lba, 1}})
			return &Command{CDB: tokenCDB(0x11, 77, len(l)), Out: l}
		},
		"FORMAT UNIT":          func(*pair, uint64) *Command { return &Command{CDB: []byte{4, 0, 0, 0, 0, 0}} },
		"SANITIZE BLOCK ERASE": func(*pair, uint64) *Command { return &Command{CDB: []byte{0x48, 2, 0, 0, 0, 0, 0, 0, 0, 0}} },
	} {
		t.Run(name, func(t *testing.T) {
			whole := name == "FORMAT UNIT" || strings.HasPrefix(name, "SANITIZE")
			for _, reluctant := range []bool{false, true} {
				m := newMemory(64 << 10)
				m.reluct = reluctant
				p := newPair(t, able{quick{m}}, able{quick{newMemory(64 << 10)}})
				token := populate(t, p.disks[0], p.nexus, extents{{8, 4}, {20, 4}})
				use := func(want string) {
					t.Helper()
					wantEnding(t, tokenCommand(t, p.disks[1], p.nexus, 0x11, 3, writeList(0, 0, token, extents{{0, 8}})), want)
				}
				for _, lba := range []uint64{7, 12, 19, 24, 21} {
					want := "00"
					if lba == 21 {
						want = "02 5/23/06"
					}
					c := change(p, lba)
					c.Nexus = p.nexus
					if lba == 21 || !whole {
						wantEnding(t, exec(t, p.disks[0], c), "00")
					}
					use(want)
				}
				if g := p.disks[0].gate.Load(); g != 0 {
					t.Errorf("%d reasons to look at the gate after the token was revoked", g)
				}
			}
		})
	}
}

// TestTokenExpiry lets the time pass that a token lives without use.
func TestTokenExpiry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t, newMemory(4096), newMemory(4096))
		use := func(token []byte, flags byte, want string) {
			t.Helper()
			wantEnding(t, tokenCommand(t, p.disks[1], p.nexus, 0x11, 3, writeList(flags, 0, token, extents{{0, 1}})), want)
		}
		token := populate(t, p.disks[0], p.nexus, extents{{0, 1}})
		for range 5 { // it is used, and lives on
			time.Sleep((defaultTokenTime - 1) * time.Second)
			use(token, 0, "00")
		}
		time.Sleep((defaultTokenTime + 1) * time.Second)
		use(token, 0, "02 5/23/04")

		wantEnding(t, tokenCommand(t, p.disks[0], p.nexus, 0x10, 1, populateList(0, 3, 0, extents{{0, 1}})), "00")
		token = rodInfo(t, p.disks[0], p.nexus, 1)[38:]
		time.Sleep(2 * time.Second)
		use(token, 2, "00") // DEL_TKN
		use(token, 0, "02 5/23/09")
		if g := p.disks[0].gate.Load(); g != 0 {
			t.Errorf("%d reasons to look at the gate", g)
		}
		time.Sleep(4 * time.Second)
		use(token, 0, "02 5/23/04")

		// Their number is bounded. What is of no use any more makes room.
		for i := range maxTokens {
			wantEnding(t, tokenCommand(t, p.disks[0], p.nexus, 0x10, uint32(i), populateList(0, 0, 0, extents{{uint64(i % 2), 1}})), "00")
		}
		wantEnding(t, tokenCommand(t, p.disks[0], p.nexus, 0x10, 1, populateList(0, 0, 0, extents{{0, 1}})), "02 5/55/0d")
		if info := rodInfo(t, p.disks[0], p.nexus, 1); info[5] != 2 || info[14] != 18 || info[32+2] != 5 || info[32+12] != 0x55 {
			t.Errorf("information % x", info)
		}
		wantEnding(t, send(t, p.disks[0], p.nexus, "2a 00 00000001 00 0001 00", filled(512, 1)), "00")
		populate(t, p.disks[0], p.nexus, extents{{0, 1}})
		time.Sleep((defaultTokenTime + 1) * time.Second)
		synctest.Wait() // the timers have run
		if n, g := len(p.disks[0].tokens.all), p.disks[0].gate.Load(); n != 0 || g != 0 {
			t.Errorf("%d tokens, %d reasons to look at the gate after all have expired", n, g)
		}
	})
}

// TestTokenMoment writes to the source while a token of it is used: what is
// written is all of the moment when the token was made, or the command fails.
func TestTokenMoment(t *testing.T) {
	const blocks = 64
	a, b := newMemory(blocks*logicalBlock), newMemory(blocks*logicalBlock)
	p := newPair(t, a, b)
	good, revoked := 0, 0
	for round := range 300 {
		old := filled(blocks*logicalBlock, byte(round))
		c := &Command{CDB: extentCDB(0x2a, 0, 0, blocks), Nexus: p.nexus, Out: old, Alloc: heap{}}
		p.disks[0].Execute(t.Context(), c)
		token := populate(t, p.disks[0], p.nexus, extents{{0, blocks}})
		var both sync.WaitGroup
		begun := make(chan struct{}, 8)
		both.Go(func() {
			for i := range round % 8 {
				c := &Command{CDB: extentCDB(0x2a, 0, uint64(i), 1), Nexus: p.nexus, Out: filled(logicalBlock, 0xff), Alloc: heap{}}
				p.disks[0].Execute(context.Background(), c)
				begun <- struct{}{}
			}
		})
		if round%8 == 7 { // not always at once: on a busy machine one may be over before the other begins
			<-begun
		}
		list := writeList(0, 0, token, extents{{0, blocks}})
		use := &Command{CDB: tokenCDB(0x11, 2, len(list)), Nexus: p.nexus, Out: list, Alloc: heap{}}
		p.disks[1].Execute(t.Context(), use)
		both.Wait()
		switch got := ending(use); got {
		case "00":
			good++
			if !bytes.Equal(b.data, old) {
				t.Fatalf("round %d: the command is GOOD, and the data are those of another moment", round)
			}
		case "02 5/23/06":
			revoked++
		default:
			t.Fatalf("round %d: %s", round, got)
		}
	}
	if good == 0 || revoked == 0 {
		t.Errorf("%d good, %d revoked: the test shows nothing", good, revoked)
	}
}
