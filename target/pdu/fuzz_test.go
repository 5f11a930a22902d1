package pdu

import (
	"bytes"
	"testing"
)

// FuzzHeader reads every field of arbitrary bytes and checks that lengths are
// what the format can express.
func FuzzHeader(f *testing.F) {
	f.Add(make([]byte, HeaderSize))
	f.Add(bytes.Repeat([]byte{0xff}, HeaderSize+MaxAHS))
	f.Add(append(append(make([]byte, 4), 3), make([]byte, HeaderSize)...))
	f.Fuzz(func(t *testing.T, p []byte) {
		if len(p) < HeaderSize {
			return
		}
		h := FromBytes(p)
		if n := h.AHSLen(); n < 0 || n > MaxAHS || n%4 != 0 {
			t.Errorf("AHS length %d", n)
		}
		if n := h.DataLen(); n < 0 || n >= 1<<24 || h.Len() < HeaderSize+h.AHSLen()+n || h.Len()%4 != 0 {
			t.Errorf("data length %d, PDU length %d", n, h.Len())
		}
		_ = h.Opcode().String() + h.CSG().String() + h.NSG().String()
		ahs := p[HeaderSize:]
		if n := h.AHSLen(); n < len(ahs) {
			ahs = ahs[:n]
		}
		if more, ok := ExtendedCDB(ahs); len(more) > len(ahs) || (!ok && more != nil) {
			t.Errorf("extended CDB of %d bytes in %d", len(more), len(ahs))
		}
		c := *h
		c.SetOpcode(h.Opcode())
		if h.Immediate() {
			c.SetImmediate()
		}
		c.SetFlags(h.Flags())
		c.SetAHSLen(h.AHSLen())
		c.SetDataLen(h.DataLen())
		c[0] |= h[0] & 0x80
		if c != *h {
			t.Errorf("set what was read: %x, read from %x", c, *h)
		}
	})
}

// FuzzText splits arbitrary text and joins it again.
func FuzzText(f *testing.F) {
	f.Add([]byte("InitiatorName=iqn.2026-11.io.skylun:a\x00SessionType=Discovery\x00"))
	f.Add([]byte("\x00\x00=\x00a\x00b="))
	f.Add([]byte("a=b\x00c=d"))
	f.Fuzz(func(t *testing.T, p []byte) {
		var joined []byte
		text := Text(p)
		for {
			before := len(text)
			key, value, err := text.Next()
			if err != nil || key == nil {
				if err == nil && len(text) != 0 {
					t.Errorf("stopped with %d bytes left", len(text))
				}
				break
			}
			if len(text) >= before {
				t.Fatal("no progress")
			}
			if bytes.IndexByte(key, '=') >= 0 || bytes.IndexByte(key, 0) >= 0 || bytes.IndexByte(value, 0) >= 0 {
				t.Errorf("key %q, value %q", key, value)
			}
			joined = AppendPair(joined, string(key), string(value))
		}
		again := Text(joined)
		n := 0
		for key, _, err := again.Next(); key != nil; key, _, err = again.Next() {
			if err != nil {
				t.Errorf("%q does not parse again: %v", joined, err)
			}
			n++
		}
		if n != bytes.Count(joined, []byte{0}) {
			t.Errorf("%d pairs in %q", n, joined)
		}
	})
}
