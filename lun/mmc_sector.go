package lun

import "encoding/binary"

// A sector of a CD in mode 1, ECMA-130 14:
//
//	   0  sync, 12 bytes: 00, ten times FF, 00
//	  12  header, 4 bytes: minute, second, frame in BCD, mode 1
//	  16  user data, 2048 bytes
//	2064  EDC, 4 bytes, over all before
//	2068  zeros, 8 bytes
//	2076  P parity, 172 bytes   \  ECC, over all from the
//	2248  Q parity, 104 bytes   /  header on
//	2352
const (
	rawSize    = 2352
	rawHeader  = 12
	rawData    = 16
	rawEDC     = rawData + sectorSize
	rawParityP = rawEDC + 12
	rawParityQ = rawParityP + 172
)

// fillSector makes p, of rawSize bytes with the user data in its place, the
// sector lba.
func fillSector(p []byte, lba uint32) {
	for i := range p[:rawHeader] {
		p[i] = 0xff
	}
	p[0], p[rawHeader-1] = 0, 0
	frames := lba + msfOffset
	p[12], p[13], p[14] = bcd(frames/(60*framesPerS)), bcd(frames/framesPerS%60), bcd(frames%framesPerS)
	p[15] = 1
	binary.LittleEndian.PutUint32(p[rawEDC:], edc(p[:rawEDC]))
	clear(p[rawEDC+4 : rawParityP])
	// The bytes from the header on are two interleaved matrices, of even and
	// of odd bytes. P is over their 43 columns of 24, Q over the 26 diagonals
	// of 43 in what with P are 26 rows.
	parity(p[rawHeader:], p[rawParityP:], 86, 24, 2, 86)
	parity(p[rawHeader:], p[rawParityQ:], 52, 43, 86, 88)
}

func bcd(n uint32) byte { return byte(n/10<<4 | n%10) }

// edc returns the error detection code of ECMA-130 14.3: the CRC with
// P(x) = (x^16 + x^15 + x^2 + 1)(x^16 + x^2 + x + 1), least significant bit
// first.
func edc(p []byte) (crc uint32) {
	for _, b := range p {
		crc = crc>>8 ^ edcTable[byte(crc)^b]
	}
	return crc
}

var edcTable = func() (t [256]uint32) {
	const polynomial = 0xd8018001 // reversed
	for i := range t {
		v := uint32(i)
		for range 8 {
			if v&1 != 0 {
				v = v>>1 ^ polynomial
			} else {
				v >>= 1
			}
		}
		t[i] = v
	}
	return t
}()

// parity computes two parity bytes for each of vectors code words of size
// bytes, ECMA-130 annex A: with them a word is a multiple of (x + 1)(x + a) over
// GF(2^8). Neighbouring words begin step bytes apart for each two of them, and
// a word takes every stride-th byte, around the end of the data for Q.
//
// The parity bytes of word i are at out[i] and out[vectors+i].
func parity(data, out []byte, vectors, size, step, stride int) {
	total := vectors * size
	for word := range vectors {
		at := word/2*step + word%2
		var a, b byte
		for range size {
			v := data[at]
			if at += stride; at >= total {
				at -= total
			}
			a = gfDouble[a^v]
			b ^= v
		}
		a = gfDivide3[gfDouble[a]^b]
		out[word], out[vectors+word] = a, a^b
	}
}

// gfDouble multiplies by a, the root of x^8 + x^4 + x^3 + x^2 + 1 in GF(2^8),
// and gfDivide3 divides by a + 1.
var gfDouble, gfDivide3 = func() (double, divide3 [256]byte) {
	for i := range double {
		double[i] = byte(i << 1)
		if i&0x80 != 0 {
			double[i] ^= 0x1d
		}
		divide3[byte(i)^double[i]] = byte(i)
	}
	return double, divide3
}()
