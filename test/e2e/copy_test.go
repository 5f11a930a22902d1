//go:build e2e

package e2e

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"slices"
	"sync"
	"testing"

	"skylun/test/initiator"
)

// session logs in and fetches the unit attention of each of the first luns
// units.
func session(t *testing.T, s *server, name string, luns int) *initiator.Conn {
	t.Helper()
	c, err := initiator.Dial(s.portal)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if _, err := c.Login(initiator.Options{Initiator: "iqn.2026-11.io.skylun.test:" + name, Target: iqn}); err != nil {
		t.Fatal(err)
	}
	for lun := range luns {
		if _, err := c.Disk(uint8(lun)); err != nil {
			t.Fatal(err)
		}
	}
	return c
}

// cdb16 returns a 16 byte CDB with an LBA and what follows it.
func cdb16(opcode byte, lba uint64, length uint32) []byte {
	cdb := make([]byte, 16)
	cdb[0] = opcode
	binary.BigEndian.PutUint64(cdb[2:], lba)
	binary.BigEndian.PutUint32(cdb[10:], length)
	return cdb
}

// Many sessions count in one range, each as a cluster takes a lock: what it has
// read is replaced if it is still there. Others write the logical blocks beside
// it, in the same blocks of the volume. Nothing is lost.
func TestCompareAndWrite(t *testing.T) {
	const (
		sessions = 6
		rounds   = 100
		lba      = 11
		block    = 512
		length   = 100 // logical blocks: the longer it takes, the more likely two meet
	)
	s := newServer(t, newFileStore(t), "volume: shared, size: 64MiB")
	s.start()
	do := func(c *initiator.Conn, cdb []byte, in int, out []byte) (*initiator.Result, bool) {
		r, err := c.Do(0, cdb, in, out)
		if err != nil {
			t.Error(err)
			return nil, false
		}
		return r, true
	}
	var all sync.WaitGroup
	for i := range sessions {
		c := session(t, s, fmt.Sprint("counts", i), 1)
		all.Go(func() {
			for done := 0; done < rounds; {
				r, ok := do(c, cdb16(0x88, lba, length), length*block, nil)
				if !ok || r.Status != 0 {
					t.Errorf("READ: %+v", r)
					return
				}
				next := bytes.Clone(r.Data)
				count := next[(length-1)*block:]
				binary.BigEndian.PutUint32(count, binary.BigEndian.Uint32(count)+1)
				r, ok = do(c, cdb16(0x89, lba, length), 0, slices.Concat(r.Data, next)) // the number of blocks is where the lowest byte of a length is
				switch {
				case !ok:
					return
				case r.Status == 0:
					done++
				case r.Key() != 0x0e1d00:
					t.Errorf("COMPARE AND WRITE: status %02x, sense % x", r.Status, r.Sense)
					return
				}
			}
		})
	}
	for _, beside := range []uint64{lba - 1, lba + length} {
		c := session(t, s, fmt.Sprint("beside", beside), 1)
		all.Go(func() {
			for i := range 2 * rounds {
				if r, ok := do(c, cdb16(0x8a, beside, 1), 0, bytes.Repeat([]byte{byte(i)}, block)); !ok || r.Status != 0 {
					t.Errorf("WRITE: %+v", r)
					return
				}
			}
		})
	}
	all.Wait()
	c := session(t, s, "reads", 1)
	r, ok := do(c, cdb16(0x88, lba-1, length+2), (length+2)*block, nil)
	if !ok || r.Status != 0 {
		t.Fatalf("READ: %+v", r)
	}
	if got := binary.BigEndian.Uint32(r.Data[length*block:]); got != sessions*rounds {
		t.Errorf("counted to %d, want %d", got, sessions*rounds)
	}
	last := bytes.Repeat([]byte{(2*rounds - 1) & 0xff}, block)
	if !bytes.Equal(r.Data[:block], last) || !bytes.Equal(r.Data[(length+1)*block:], last) {
		t.Error("a write beside the counter is lost")
	}
	s.stop()
	s.check()
}

// Two disks of one image, and copies between them on behalf of an initiator as
// ESXi asks for them: what both have of the image needs neither the store nor
// local space.
func TestCopyOffload(t *testing.T) {
	const (
		block = 512
		piece = 8192 // logical blocks, 4 MiB
	)
	s := newServer(t, newFileStore(t), "volume: a, image: linux", "volume: b, image: linux")
	image := ext4Image(t)
	content, err := os.ReadFile(image)
	if err != nil {
		t.Fatal(err)
	}
	s.cli("image", "import", image, "linux")
	s.start()
	c := session(t, s, "copies", 2)
	do := func(lun uint8, cdb []byte, in int, out []byte) *initiator.Result {
		t.Helper()
		r, err := c.Do(lun, cdb, in, out)
		if err != nil {
			t.Fatal(err)
		}
		if r.Status != 0 {
			t.Fatalf("command %02x: status %02x, sense % x", cdb[0], r.Status, r.Sense)
		}
		return r
	}
	parameters := do(0, []byte{0x84, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0}, 256, nil).Data
	if n := binary.BigEndian.Uint32(parameters[16:]); n < piece*block {
		t.Errorf("MAXIMUM SEGMENT LENGTH %d", n)
	}
	list := make([]byte, 16+64+28)
	list[0], list[3], list[11] = 1, 64, 28
	for i := range 2 {
		page := do(uint8(i), []byte{0x12, 1, 0x83, 1, 0, 0}, 256, nil).Data
		d := list[16+32*i:]
		d[0], d[4], d[5], d[7] = 0xe4, page[4], page[5], page[7]
		copy(d[8:], page[8:24])
		d[30] = block >> 8
	}
	copyBlocks := func(from, to uint64) {
		t.Helper()
		segment := list[80:]
		copy(segment, []byte{0x02, 0, 0, 24, 0, 0, 0, 1})
		binary.BigEndian.PutUint16(segment[10:], piece)
		binary.BigEndian.PutUint64(segment[12:], from)
		binary.BigEndian.PutUint64(segment[20:], to)
		do(1, append([]byte{0x83, 0}, cdb16(0, 0, uint32(len(list)))[2:]...), 0, list)
	}
	written := func() int64 {
		for _, v := range s.ask().Volumes {
			if v.Name == "b" {
				return v.Written
			}
		}
		return -1
	}

	// The destination holds something else than the image; then what the
	// source has of it, which is in no cache yet.
	do(1, cdb16(0x8a, 0, piece/8), 0, bytes.Repeat([]byte{0xee}, piece/8*block))
	before := s.ask()
	copyBlocks(0, 0)
	after := s.ask()
	if got := after.Store.BytesIn - before.Store.BytesIn; got != 0 {
		t.Errorf("the copy fetched %d bytes from the store", got)
	}
	if got := do(1, cdb16(0x88, 0, 2048), 2048*block, nil).Data; !bytes.Equal(got, content[:2048*block]) {
		t.Error("the destination does not hold what the image has")
	}
	if n := written(); n != 0 {
		t.Errorf("%d bytes are local to a disk that is all image again", n)
	}

	// What was written to the source, and elsewhere.
	data := bytes.Repeat([]byte("skylun! "), 2048*block/8)
	do(0, cdb16(0x8a, 0, 2048), 0, data)
	copyBlocks(0, 16)
	if got := do(1, cdb16(0x88, 16, 2048), 2048*block, nil).Data; !bytes.Equal(got, data) {
		t.Error("the destination does not hold what was written to the source")
	}
	copyBlocks(0, 3) // not at the same place of a block
	if got := do(1, cdb16(0x88, 3, 2048), 2048*block, nil).Data; !bytes.Equal(got, data) {
		t.Error("the destination does not hold what was written to the source")
	}

	// The same with a token, as Windows does it.
	populate := make([]byte, 32)
	populate[1], populate[15] = 30, 16
	binary.BigEndian.PutUint32(populate[24:], 2048)
	token := func(action byte, list []byte) {
		t.Helper()
		cdb := cdb16(0x83, 0, uint32(len(list)))
		cdb[1], cdb[9] = action, 5
		lun := uint8(0)
		if action == 0x11 {
			lun = 1
		}
		do(lun, cdb, 0, list)
	}
	token(0x10, populate)
	info := do(0, []byte{0x84, 7, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0}, 1024, nil).Data
	use := make([]byte, 552)
	binary.BigEndian.PutUint16(use, 550)
	copy(use[16:528], info[38:])
	use[535] = 16
	binary.BigEndian.PutUint64(use[536:], 8192)
	binary.BigEndian.PutUint32(use[544:], 2048)
	token(0x11, use)
	if got := do(1, cdb16(0x88, 8192, 2048), 2048*block, nil).Data; !bytes.Equal(got, data) {
		t.Error("the destination does not hold what the token stands for")
	}
	info = do(1, []byte{0x84, 7, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0}, 1024, nil).Data
	if info[5] != 0x01 || binary.BigEndian.Uint64(info[16:]) != 2048 {
		t.Errorf("ROD token information % x", info)
	}
	s.stop()
	s.check()
}
