package lun

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"

	"skylun/block"
)

// The CDBs of one extent, in all lengths that commands have.
func extentCDB(opcode byte, flags byte, lba uint64, blocks uint32) []byte {
	switch opcode >> 5 {
	case 0:
		return []byte{opcode, byte(lba >> 16 & 0x1f), byte(lba >> 8), byte(lba), byte(blocks), 0}
	case 4:
		return []byte{
			opcode, flags, byte(lba >> 56), byte(lba >> 48), byte(lba >> 40), byte(lba >> 32), byte(lba >> 24), byte(lba >> 16), byte(lba >> 8), byte(lba),
			byte(blocks >> 24), byte(blocks >> 16), byte(blocks >> 8), byte(blocks), 0, 0,
		}
	case 5:
		return []byte{opcode, flags, byte(lba >> 24), byte(lba >> 16), byte(lba >> 8), byte(lba), byte(blocks >> 24), byte(blocks >> 16), byte(blocks >> 8), byte(blocks), 0, 0}
	default:
		return []byte{opcode, flags, byte(lba >> 24), byte(lba >> 16), byte(lba >> 8), byte(lba), 0, byte(blocks >> 8), byte(blocks), 0}
	}
}

var (
	readCodes  = []byte{0x08, 0x28, 0xa8, 0x88}
	writeCodes = []byte{0x0a, 0x2a, 0xaa, 0x8a}
)

// eachDevice runs f on a disk whose device can be tried and on one that
// cannot.
func eachDevice(t *testing.T, size int, f func(t *testing.T, d *Disk, m *memory)) {
	for _, name := range []string{"quick", "reluctant", "slow"} {
		t.Run(name, func(t *testing.T) {
			m := newMemory(size)
			m.reluct = name == "reluctant"
			var dev block.Device = m
			if name != "slow" {
				dev = quick{m}
			}
			f(t, newTestDisk(dev), m)
			if len(m.wrong) > 0 {
				t.Errorf("calls beyond the end: %q", m.wrong)
			}
		})
	}
}

func TestReadWrite(t *testing.T) {
	eachDevice(t, 1<<20, func(t *testing.T, d *Disk, m *memory) {
		for i := range writeCodes {
			lba, blocks := uint64(3+i), uint32(5)
			out := make([]byte, blocks*logicalBlock)
			for j := range out {
				out[j] = byte(j/7 + i)
			}
			w := exec(t, d, &Command{CDB: extentCDB(writeCodes[i], 0, lba, blocks), Out: out})
			wantEnding(t, w, "00")
			if w.Transfer != int64(len(out)) {
				t.Errorf("%02x: Transfer %d, want %d", writeCodes[i], w.Transfer, len(out))
			}
			if !bytes.Equal(m.data[lba*logicalBlock:][:len(out)], out) {
				t.Errorf("%02x wrote something else", writeCodes[i])
			}
			r := exec(t, d, &Command{CDB: extentCDB(readCodes[i], 0x18, lba, blocks), InLimit: len(out)}) // DPO, FUA
			wantEnding(t, r, "00")
			if !bytes.Equal(r.In, out) || r.Transfer != int64(len(out)) {
				t.Errorf("%02x read %d bytes, Transfer %d: not what was written", readCodes[i], len(r.In), r.Transfer)
			}
		}
	})
}

// TestExtents checks the rules that all commands with an extent share, SBC-3
// 5.11: reads, writes, verifies, SYNCHRONIZE CACHE and WRITE SAME.
func TestExtents(t *testing.T) {
	const capacity = 4096
	codes := slices.Concat(readCodes[1:], writeCodes[1:], []byte{0x2e, 0xae, 0x8e, 0x2f, 0xaf, 0x8f, 0x35, 0x91, 0x41, 0x93})
	eachDevice(t, capacity*logicalBlock, func(t *testing.T, d *Disk, m *memory) {
		for _, code := range codes {
			for _, c := range []struct {
				lba    uint64
				blocks uint32
				want   string
				info   uint32
			}{
				{0, 1, "00", 0},
				{capacity - 1, 1, "00", 0},
				{capacity - 1, 0, "00", 0},
				{0, 0, "00", 0},
				{0, capacity, "00", 0},
				{capacity - 1, 2, "02 5/21/00", capacity},
				{capacity, 0, "02 5/21/00", capacity},
				{capacity, 1, "02 5/21/00", capacity},
				{0xffffffff, 1, "02 5/21/00", 0xffffffff},
				{1, 0xffff, "02 5/21/00", capacity},
			} {
				cmd := &Command{CDB: extentCDB(code, 0, c.lba, c.blocks), InLimit: 4 << 20, Out: make([]byte, c.blocks*logicalBlock)}
				if code == 0x41 || code == 0x93 {
					cmd.Out = cmd.Out[:min(logicalBlock, len(cmd.Out))]
					if c.blocks == 0 && c.want == "00" {
						continue // WSNZ
					}
				}
				wantEnding(t, exec(t, d, cmd), c.want)
				if c.want != "00" {
					if got := fixedInfo(t, cmd.Sense); got != c.info {
						t.Errorf("% x: information %d, want %d", cmd.CDB, got, c.info)
					}
				}
			}
			if code>>5 == 4 {
				for _, lba := range []uint64{1 << 32, 1 << 55, 1<<55 - 1, 1<<64 - 1} {
					for _, blocks := range []uint32{0, 1, 0xffffffff} {
						c := exec(t, d, &Command{CDB: extentCDB(code, 0, lba, blocks), InLimit: 512, Out: make([]byte, 512)})
						wantEnding(t, c, "02 5/21/00")
					}
				}
			}
			if code != 0x35 && code != 0x91 { // those have no protection field
				for _, protect := range []byte{0x20, 0x80, 0xe0} {
					c := exec(t, d, &Command{CDB: extentCDB(code, protect, 0, 1), InLimit: 512, Out: make([]byte, 512)})
					wantEnding(t, c, "02 5/24/00")
					if want := []byte{0xcf, 0, 1}; !bytes.Equal(c.Sense[15:18], want) {
						t.Errorf("field pointer % x, want % x", c.Sense[15:18], want)
					}
				}
			}
		}
	})
}

// TestSixByteLength checks that a length of zero is 256 in READ(6) and
// WRITE(6), and that the LBA has 21 bits.
func TestSixByteLength(t *testing.T) {
	eachDevice(t, 1<<20, func(t *testing.T, d *Disk, m *memory) {
		c := exec(t, d, &Command{CDB: []byte{0x08, 0, 0, 0, 0, 0}, InLimit: 1 << 20})
		if wantEnding(t, c, "00"); len(c.In) != 256*logicalBlock {
			t.Errorf("READ(6) of length zero read %d bytes", len(c.In))
		}
		c = exec(t, d, &Command{CDB: []byte{0x0a, 0, 0, 1, 0, 0}, Out: filled(256*logicalBlock, 'x')})
		if wantEnding(t, c, "00"); m.data[logicalBlock-1] != 0 || m.data[257*logicalBlock-1] != 'x' {
			t.Error("WRITE(6) of length zero did not write 256 logical blocks")
		}
		c = exec(t, d, &Command{CDB: []byte{0x08, 0xff, 0, 0, 1, 0}, InLimit: 512}) // SCSI-2 had the LUN in those bits
		wantEnding(t, c, "02 5/21/00")
		if got := fixedInfo(t, c.Sense); got != 0x1f0000 {
			t.Errorf("information %#x, want %#x", got, 0x1f0000)
		}
	})
}

func TestMaximumTransfer(t *testing.T) {
	d := newTestDisk(quick{newMemory(16 << 20)})
	for _, code := range slices.Concat(readCodes[1:], writeCodes[1:], []byte{0x8e}) {
		c := exec(t, d, &Command{CDB: extentCDB(code, 0, 0, maxTransferBlocks+1), InLimit: 16 << 20, Out: make([]byte, MaxTransfer)})
		wantEnding(t, c, "02 5/24/00")
		c = exec(t, d, &Command{CDB: extentCDB(code, 0, 0, maxTransferBlocks), InLimit: 16 << 20, Out: make([]byte, MaxTransfer)})
		wantEnding(t, c, "00")
	}
	c := exec(t, d, &Command{CDB: extentCDB(0x8f, 0, 0, maxTransferBlocks+1)}) // VERIFY moves nothing
	wantEnding(t, c, "00")
}

// TestResiduals checks what happens when CDB and expected transfer length do
// not agree, RFC 7143 11.4.5.1.
func TestResiduals(t *testing.T) {
	eachDevice(t, 1<<20, func(t *testing.T, d *Disk, m *memory) {
		for _, c := range []struct {
			blocks   uint32
			announce int
		}{{1, 0}, {1, 200}, {1, 10000}, {2, 512}, {2, 700}, {1, 1024}, {0, 512}} {
			asked := int64(c.blocks) * logicalBlock
			for i := range m.data {
				m.data[i] = byte(i)
			}
			r := exec(t, d, &Command{CDB: extentCDB(0x28, 0, 0, c.blocks), InLimit: c.announce})
			wantEnding(t, r, "00")
			n := min(int(asked), c.announce)
			if r.Transfer != asked || !bytes.Equal(r.In, m.data[:n]) {
				t.Errorf("read %d of %d: Transfer %d, Data-In %d", asked, c.announce, r.Transfer, len(r.In))
			}
			for _, code := range []byte{0x2a, 0x8a, 0x2e} {
				copy(m.data, filled(4096, 'a'))
				w := exec(t, d, &Command{CDB: extentCDB(code, 0, 0, c.blocks), Out: filled(c.announce, 'b')})
				wantEnding(t, w, "00")
				whole := n / logicalBlock * logicalBlock
				if got := bytes.Count(m.data[:4096], []byte{'b'}); w.Transfer != asked || got != whole {
					t.Errorf("%02x of %d with %d: Transfer %d, wrote %d, want %d", code, asked, c.announce, w.Transfer, got, whole)
				}
			}
		}
	})
}

func TestForceUnitAccess(t *testing.T) {
	eachDevice(t, 1<<20, func(t *testing.T, d *Disk, m *memory) {
		for _, code := range writeCodes[1:] {
			m.calls = nil
			wantEnding(t, exec(t, d, &Command{CDB: extentCDB(code, fua, 1, 1), Out: filled(512, 1)}), "00")
			if want := []string{"write 512+512", "flush"}; !slices.Equal(m.calls, want) {
				t.Errorf("%02x with FUA made calls %q, want %q", code, m.calls, want)
			}
		}
		m.calls = nil
		wantEnding(t, send(t, d, nil, "0a 08 0000 01 00", filled(512, 1)), "02 5/21/00") // there it is a bit of the LBA
		wantEnding(t, send(t, d, nil, "35 02 00000000 00 0000 00", nil), "00")           // IMMED
		if want := []string{"flush"}; !slices.Equal(m.calls, want) {
			t.Errorf("SYNCHRONIZE CACHE made calls %q", m.calls)
		}
	})
}

// TestDeviceErrors checks status, sense and INFORMATION when the device fails.
func TestDeviceErrors(t *testing.T) {
	eachDevice(t, 1<<20, func(t *testing.T, d *Disk, m *memory) {
		for _, c := range []struct {
			cdb  []byte
			err  error
			want string
		}{
			{extentCDB(0x28, 0, 9, 2), block.ErrMedium, "02 3/11/00"},
			{extentCDB(0x2f, 0x02, 9, 2), block.ErrMedium, "02 3/11/00"},
			{extentCDB(0x2a, 0, 9, 2), block.ErrMedium, "02 3/0c/00"},
			{extentCDB(0x2a, 0, 9, 2), block.ErrNoSpace, "02 7/27/07"},
			{extentCDB(0x41, 0, 9, 2), block.ErrNoSpace, "02 7/27/07"},
			{extentCDB(0x35, 0, 9, 2), block.ErrMedium, "02 3/0c/00"},
			{extentCDB(0x28, 0, 9, 2), block.ErrNotReady, "02 2/04/01"},
			{extentCDB(0x28, 0, 9, 2), block.ErrClosed, "02 2/04/00"},
			{extentCDB(0x2a, 0, 9, 2), block.ErrReadOnly, "02 7/27/00"},
			{extentCDB(0x28, 0, 9, 2), errors.New("odd"), "02 4/44/00"},
		} {
			m.fault = fmt.Errorf("volume vol: %w", c.err)
			cmd := &Command{CDB: c.cdb, InLimit: 4096, Out: make([]byte, 1024)}
			if c.cdb[0] == 0x41 {
				cmd.Out = cmd.Out[:512]
			}
			wantEnding(t, exec(t, d, cmd), c.want)
			if cmd.Sense[0] == 0xf0 && fixedInfo(t, cmd.Sense) != 9 {
				t.Errorf("% x: information % x", c.cdb, cmd.Sense)
			}
		}
		m.fault = nil
	})
}

// TestAborted checks that a command whose context ends, ends as TASK ABORTED,
// whatever the device calls it.
func TestAborted(t *testing.T) {
	m := newMemory(1 << 20)
	m.blocked = make(chan struct{})
	d := newTestDisk(m)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan *Command)
	go func() {
		c := &Command{CDB: extentCDB(0x28, 0, 0, 1), InLimit: 512, Alloc: heap{}}
		d.Execute(ctx, c)
		done <- c
	}()
	cancel()
	wantEnding(t, <-done, "40")
}

func TestVerify(t *testing.T) {
	eachDevice(t, 4<<20, func(t *testing.T, d *Disk, m *memory) {
		for i := range m.data {
			m.data[i] = byte(i / logicalBlock)
		}
		const blocks = 1300 // more than a piece of a comparison
		same := bytes.Clone(m.data[512:][:blocks*logicalBlock])
		other := bytes.Clone(same)
		other[1200*logicalBlock+511]++
		for _, code := range []byte{0x2f, 0xaf, 0x8f} {
			wantEnding(t, exec(t, d, &Command{CDB: extentCDB(code, 0, 1, blocks)}), "00")
			c := exec(t, d, &Command{CDB: extentCDB(code, 0x02, 1, blocks), Out: same})
			if wantEnding(t, c, "00"); c.Transfer != int64(len(same)) {
				t.Errorf("Transfer %d", c.Transfer)
			}
			c = exec(t, d, &Command{CDB: extentCDB(code, 0x02, 1, blocks), Out: other})
			if wantEnding(t, c, "02 e/1d/00"); fixedInfo(t, c.Sense) != 1201 {
				t.Errorf("information %d, want 1201", fixedInfo(t, c.Sense))
			}
			wantEnding(t, exec(t, d, &Command{CDB: extentCDB(code, 0x04, 1, 1)}), "02 5/24/00")

			c = exec(t, d, &Command{CDB: extentCDB(code, 0x06, 1, 1), Out: filled(512, 1)})
			if wantEnding(t, c, "00"); c.Transfer != logicalBlock {
				t.Errorf("Transfer %d", c.Transfer)
			}
			c = exec(t, d, &Command{CDB: extentCDB(code, 0x06, 1, 2), Out: filled(512, 1)})
			if wantEnding(t, c, "02 e/1d/00"); fixedInfo(t, c.Sense) != 2 {
				t.Errorf("information %d, want 2", fixedInfo(t, c.Sense))
			}
			wantEnding(t, exec(t, d, &Command{CDB: extentCDB(code, 0x06, 1, 2), Out: filled(511, 1)}), "02 5/0e/03")
			wantEnding(t, exec(t, d, &Command{CDB: extentCDB(code, 0x06, 1, 0)}), "00")
		}
		for _, code := range []byte{0x2e, 0xae, 0x8e} {
			m.calls = nil
			c := exec(t, d, &Command{CDB: extentCDB(code, 0x02, 7, 2), Out: filled(1024, 'w')})
			if wantEnding(t, c, "00"); c.Transfer != 1024 || !bytes.Equal(m.data[7*512:][:1024], filled(1024, 'w')) {
				t.Errorf("WRITE AND VERIFY did not write")
			}
			if want := []string{"write 3584+1024", "flush"}; !slices.Equal(m.calls, want) {
				t.Errorf("calls %q, want %q", m.calls, want)
			}
			wantEnding(t, exec(t, d, &Command{CDB: extentCDB(code, 0x06, 7, 2), Out: filled(1024, 'w')}), "02 5/24/00")
		}
	})
}

// TestReadOnly checks that every command that changes the medium is refused
// before it does, SBC-3 4.17, and that everything else is not.
func TestReadOnly(t *testing.T) {
	m := newMemory(1 << 20)
	d := NewDisk(quick{m}, DiskConfig{Name: "ro", ReadOnly: true}, discardLog)
	for i := range d.ops.rows {
		op := &d.ops.rows[i]
		c := &Command{CDB: make([]byte, len(op.usage)), InLimit: 4096, Out: make([]byte, 4096)}
		c.CDB[0] = op.usage[0]
		if op.action {
			c.CDB[1] = op.usage[1]
		}
		exec(t, d, c)
		if op.flags&writes != 0 {
			wantEnding(t, c, "02 7/27/00")
		} else if ending(c) == "02 7/27/00" {
			t.Errorf("%s is refused", op.name)
		}
	}
	if slices.ContainsFunc(m.calls, func(s string) bool { return s != "flush" }) {
		t.Errorf("calls %q", m.calls)
	}
	if c := send(t, d, nil, "1a 08 08 00 ff 00", nil); c.In[2]&0x80 == 0 {
		t.Error("MODE SENSE does not tell that it is write protected")
	}
}
