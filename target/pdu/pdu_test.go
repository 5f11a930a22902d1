package pdu

import (
	"bytes"
	"errors"
	"math"
	"strings"
	"testing"
)

// A captured Data-In with status, RFC 7143 11.7, field by field.
func TestHeaderFields(t *testing.T) {
	var h Header
	h.SetOpcode(DataIn)
	h.SetFlags(FlagFinal | FlagUnderflow | FlagStatus)
	h.SetSCSIStatus(0x18)
	h.SetDataLen(0x010203)
	h.SetLUN([8]byte{0, 5})
	h.SetITT(0x11121314)
	h.SetTTT(0x21222324)
	h.SetStatSN(0x31323334)
	h.SetExpCmdSN(0x41424344)
	h.SetMaxCmdSN(0x51525354)
	h.SetDataSN(0x61626364)
	h.SetOffset(0x71727374)
	h.SetResidual(0x81828384)
	want := Header{
		0x25, 0x83, 0, 0x18, 0, 1, 2, 3, 0, 5, 0, 0, 0, 0, 0, 0,
		0x11, 0x12, 0x13, 0x14, 0x21, 0x22, 0x23, 0x24, 0x31, 0x32, 0x33, 0x34, 0x41, 0x42, 0x43, 0x44,
		0x51, 0x52, 0x53, 0x54, 0x61, 0x62, 0x63, 0x64, 0x71, 0x72, 0x73, 0x74, 0x81, 0x82, 0x83, 0x84,
	}
	if h != want {
		t.Errorf("header\n%x, want\n%x", h, want)
	}
	if h.Opcode() != DataIn || h.Immediate() || !h.Final() || h.DataLen() != 0x010203 || h.Len() != 48+0x010204 ||
		h.ITT() != 0x11121314 || h.TTT() != 0x21222324 || h.StatSN() != 0x31323334 || h.MaxCmdSN() != 0x51525354 ||
		h.ExpCmdSN() != 0x41424344 || h.DataSN() != 0x61626364 || h.Offset() != 0x71727374 || h.Residual() != 0x81828384 {
		t.Errorf("a field reads back other than it was set: %x", h)
	}
}

// A login request as RFC 7143 11.12 draws it.
func TestLoginFields(t *testing.T) {
	h := FromBytes([]byte{
		0x43, 0x87, 2, 1, 0, 0, 0, 9, 0x80, 1, 2, 3, 4, 5, 0xab, 0xcd,
		0, 0, 0, 7, 0x12, 0x34, 0, 0, 0, 0, 0, 8, 0, 0, 0, 9,
		0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
	})
	if h.Opcode() != LoginReq || !h.Immediate() || !h.Final() || h.CSG() != Operational || h.NSG() != FullFeature ||
		h.VersionMax() != 2 || h.VersionMin() != 1 || h.ISID() != [6]byte{0x80, 1, 2, 3, 4, 5} || h.TSIH() != 0xabcd ||
		h.ITT() != 7 || h.CID() != 0x1234 || h.CmdSN() != 8 || h.ExpStatSN() != 9 || h.Len() != 48+12 {
		t.Errorf("login request is misread: %v %v %v", h.CSG(), h.NSG(), h)
	}
}

// RFC 1982 section 3.2, and RFC 7143 4.2.2.1.
func TestSerial(t *testing.T) {
	for _, c := range []struct {
		a, b   uint32
		before bool
	}{
		{0, 1, true}, {1, 0, false}, {5, 5, false}, {math.MaxUint32, 0, true}, {0, math.MaxUint32, false},
		{0xfffffff0, 0x10, true}, {0, 1<<31 - 1, true}, {0, 1 << 31, false}, {1 << 31, 0, false},
	} {
		if Before(c.a, c.b) != c.before || After(c.b, c.a) != c.before {
			t.Errorf("Before(%#x, %#x) is %t", c.a, c.b, !c.before)
		}
	}
	for _, c := range []struct {
		sn, first, last uint32
		in              bool
	}{
		{5, 5, 5, true}, {4, 5, 5, false}, {6, 5, 5, false}, {5, 5, 4, false}, {4, 5, 4, false},
		{0, 0xfffffff0, 0x10, true}, {0x11, 0xfffffff0, 0x10, false}, {0xffffffef, 0xfffffff0, 0x10, false},
	} {
		if Within(c.sn, c.first, c.last) != c.in {
			t.Errorf("Within(%#x, %#x, %#x) is %t", c.sn, c.first, c.last, !c.in)
		}
	}
}

// RFC 7143 6.1.
func TestText(t *testing.T) {
	for _, c := range []struct {
		in, want string
		err      error
	}{
		{"", "", nil},
		{"\x00\x00", "", nil},
		{"A=b\x00", "A:b ", nil},
		{"A=b\x00\x00\x00Cd=\x00", "A:b Cd: ", nil},
		{"A=b=c\x00D=e", "A:b=c D:e ", nil},
		{"A=b\x00novalue\x00", "A:b ", ErrTextSyntax},
		{"=b\x00", "", ErrTextSyntax},
		{strings.Repeat("k", MaxKey) + "=\x00", strings.Repeat("k", MaxKey) + ": ", nil},
		{strings.Repeat("k", MaxKey+1) + "=\x00", "", ErrTextLength},
		{"a=" + strings.Repeat("v", MaxValue+1) + "\x00", "", ErrTextLength},
	} {
		var got strings.Builder
		text := Text(c.in)
		key, value, err := text.Next()
		for ; key != nil; key, value, err = text.Next() {
			got.Write(key)
			got.WriteByte(':')
			got.Write(value)
			got.WriteByte(' ')
		}
		if got.String() != c.want || !errors.Is(err, c.err) {
			t.Errorf("%.40q: got %q, %v; want %q, %v", c.in, got.String(), err, c.want, c.err)
		}
	}
}

// RFC 7143 11.2.2.
func TestExtendedCDB(t *testing.T) {
	for _, c := range []struct {
		name string
		ahs  []byte
		more []byte
		ok   bool
	}{
		{"none", nil, nil, true},
		{"extended CDB of 5", []byte{0, 6, 1, 0, 1, 2, 3, 4, 5, 0, 0, 0}, []byte{1, 2, 3, 4, 5}, true},
		{"bidirectional length", []byte{0, 5, 2, 0, 0, 0, 16, 0}, nil, false},
		{"longer than there is", []byte{0, 200, 1, 0, 1, 2, 3, 4}, nil, false},
		{"length zero", []byte{0, 0, 1, 0}, nil, false},
		{"length one", []byte{0, 1, 1, 0}, nil, false},
		{"cut", []byte{0, 6}, nil, false},
		{"two", []byte{0, 2, 1, 0, 9, 0, 0, 0, 0, 2, 1, 0, 9, 0, 0, 0}, nil, false},
	} {
		more, ok := ExtendedCDB(c.ahs)
		if ok != c.ok || !bytes.Equal(more, c.more) {
			t.Errorf("%s: got %x, %t; want %x, %t", c.name, more, ok, c.more, c.ok)
		}
	}
}

func TestNoAllocation(t *testing.T) {
	buf := append(make([]byte, HeaderSize), "A=b\x00C=d\x00"...)
	if n := testing.AllocsPerRun(100, func() {
		h := FromBytes(buf)
		h.SetITT(h.ITT() + 1)
		text := Text(buf[HeaderSize:])
		for key, _, _ := text.Next(); key != nil; key, _, _ = text.Next() {
		}
	}); n != 0 {
		t.Errorf("parsing allocates %v times", n)
	}
}
