package lun

import (
	"bytes"
	"fmt"
	"testing"
)

// TestReadCD checks READ CD and READ CD MSF with every selection of the main
// channel: which are refused, and that the parts are those of the sector.
func TestReadCD(t *testing.T) {
	const sectors, lba = 200, 100
	m := newPlastic(sectors*sectorSize, 0x5a)
	d := newTestDrive(m)
	var whole []byte // sectors 100 to 169
	for i := lba; i < lba+70; i++ {
		raw := make([]byte, rawSize)
		copy(raw[rawData:], m.data[i*sectorSize:][:sectorSize])
		fillSector(raw, uint32(i))
		whole = append(whole, raw...)
	}
	if !bytes.Equal(whole[:16], unhex(t, "00ffffffffffffffffffff00 00032501")) {
		t.Errorf("sync and header of sector 100: % x", whole[:16])
	}
	// What the standard allows of a mode 1 sector: offset and length.
	allowed := map[byte][2]int{
		0x00: {0, 0}, 0x40: {0, 0}, 0x10: {16, 2048}, 0x50: {16, 2048}, 0x18: {16, 2336}, 0x58: {16, 2336},
		0x20: {12, 4}, 0x60: {12, 4}, 0x30: {12, 2052}, 0x70: {12, 2052}, 0x38: {12, 2340}, 0x78: {12, 2340},
		0x80: {0, 12}, 0xc0: {0, 12}, 0xa0: {0, 16}, 0xe0: {0, 16}, 0xb0: {0, 2064}, 0xf0: {0, 2064}, 0xb8: {0, 2352}, 0xf8: {0, 2352},
	}
	for selection := range 256 {
		for _, n := range []int{1, 70} {
			commands := []string{
				fmt.Sprintf("be 00 00000064 %06x %02x 00 00", n, selection),
				fmt.Sprintf("be 08 00000064 %06x %02x 00 00", n, selection), // mode 1 expected
				fmt.Sprintf("b9 00 00 000319 %02x%02x%02x %02x 00 00", (250+n)/75/60, (250+n)/75%60, (250+n)%75, selection),
			}
			for _, cdb := range commands {
				c := send(t, d, nil, cdb, nil)
				part, ok := allowed[byte(selection)&^0x01]
				if !ok {
					wantEnding(t, c, "02 5/24/00")
					continue
				}
				var want []byte
				for i := range n {
					want = append(want, whole[i*rawSize+part[0]:][:part[1]]...)
				}
				if wantEnding(t, c, "00"); !bytes.Equal(c.In, want) || c.Transfer != int64(len(want)) {
					t.Errorf("%s: %d bytes, want %d", cdb, len(c.In), len(want))
				}
			}
		}
	}
	for limit := 0; limit <= 2*rawSize; limit += 7 {
		c := exec(t, d, &Command{CDB: unhex(t, "be 00 00000064 000002 f8 00 00"), InLimit: limit})
		if wantEnding(t, c, "00"); !bytes.Equal(c.In, whole[:limit]) || c.Transfer != 2*rawSize {
			t.Errorf("with room for %d: %d of %d bytes", limit, len(c.In), c.Transfer)
		}
	}
	for _, c := range []struct{ cdb, ending string }{
		{"be 00 000000c7 000001 10 00 00", "00"},
		{"be 00 000000c7 000002 10 00 00", "02 5/21/00"},
		{"be 00 000000c8 000001 f8 00 00", "02 5/21/00"},
		{"be 00 ffffff6a 000001 f8 00 00", "02 5/21/00"}, // before sector zero
		{"be 00 ffffffff 000000 10 00 00", "00"},
		{"be 04 00000000 000001 10 00 00", "02 5/64/00"}, // audio
		{"be 0c 00000000 000001 10 00 00", "02 5/64/00"}, // mode 2
		{"be 10 00000000 000001 10 00 00", "02 5/64/00"},
		{"be 14 00000000 000001 10 00 00", "02 5/64/00"},
		{"be 00 00000000 000001 12 00 00", "02 5/24/00"}, // errors
		{"be 00 00000000 000001 10 01 00", "02 5/24/00"}, // sub-channels
		{"be 00 00000000 000001 10 02 00", "02 5/24/00"},
		{"b9 00 00 000200 000200 10 00 00", "00"},
		{"b9 00 00 000201 000200 10 00 00", "02 5/24/00"},
		{"b9 00 00 000000 000201 10 00 00", "02 5/21/00"},
		{"b9 00 00 000060 000301 10 00 00", "00"},
		{"b9 00 00 00004b 000201 10 00 00", "02 5/24/00"}, // 75 frames
		{"b9 00 00 003c00 010201 10 00 00", "02 5/24/00"}, // 60 seconds
		{"b9 00 00 000200 ffffff 10 00 00", "02 5/24/00"},
		{"b9 00 00 000200 ff3b4a 10 00 00", "02 5/21/00"},
	} {
		if c.cdb == "b9 00 00 000060 000301 10 00 00" {
			c.ending = "02 5/24/00" // 96 frames
		}
		wantEnding(t, send(t, d, nil, c.cdb, nil), c.ending)
	}
	dvd := discOf(1 << 20)
	for selection, want := range map[string]string{"00": "00", "10": "00", "50": "00", "18": "02 5/30/02", "20": "02 5/30/02", "f8": "02 5/30/02", "80": "02 5/30/02"} {
		wantEnding(t, send(t, dvd, nil, "be 00 00000000 000001 "+selection+" 00 00", nil), want)
	}
	wantEnding(t, send(t, dvd, nil, "be 00 00000000 001001 10 00 00", nil), "02 5/24/00") // more than MaxTransfer
	if len(m.wrong) > 0 {
		t.Errorf("calls beyond the end %q", m.wrong)
	}
}

// TestSectorCodes checks the codes of a sector as a drive does that reads it,
// ECMA-130 14.3 and annex A: with its EDC the CRC of what it covers is zero,
// and each word of P and of Q has the roots 1 and a.
func TestSectorCodes(t *testing.T) {
	raw := make([]byte, rawSize)
	for i := range raw {
		raw[i] = byte(i * i >> 3)
	}
	fillSector(raw, 1234567%maxCDSectors)
	if crc := edc(raw[:rawEDC+4]); crc != 0 {
		t.Errorf("EDC: remainder %08x", crc)
	}
	times := func(a, b byte) (p byte) { // in GF(2^8)
		for ; b != 0; b >>= 1 {
			if b&1 != 0 {
				p ^= a
			}
			a = gfDouble[a]
		}
		return p
	}
	check := func(name string, word []byte) {
		var sum, at byte
		for _, v := range word {
			sum ^= v
			at = times(at, 2) ^ v
		}
		if sum != 0 || at != 0 {
			t.Fatalf("%s: syndromes %02x %02x", name, sum, at)
		}
	}
	body := raw[rawHeader:] // the annex counts 16-bit words from here, low bytes first
	for odd := range 2 {
		for column := range 43 {
			var word []byte
			for row := range 26 {
				word = append(word, body[2*(43*row+column)+odd])
			}
			check(fmt.Sprintf("P %d %d", odd, column), word)
		}
		for diagonal := range 26 {
			var word []byte
			for i := range 43 {
				word = append(word, body[2*((44*i+43*diagonal)%1118)+odd])
			}
			word = append(word, body[2*(1118+diagonal)+odd], body[2*(1118+26+diagonal)+odd])
			check(fmt.Sprintf("Q %d %d", odd, diagonal), word)
		}
	}
	for i, want := range []byte{0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0} {
		if raw[i] != want {
			t.Errorf("sync byte %d is %02x", i, raw[i])
		}
	}
}
