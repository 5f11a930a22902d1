package lun

import (
	"bytes"
	"context"
	"testing"

	"skylun/block"
)

// TestSendDiagnostic checks SEND DIAGNOSTIC and RECEIVE DIAGNOSTIC RESULTS,
// SPC-4 6.42 and 6.29.
func TestSendDiagnostic(t *testing.T) {
	const selfTestPage = "4d 00 50 00 00 0001 0018 00" // its first parameter
	for _, c := range []struct {
		name, cdb, list, want string
		fault                 error
		result                string // what the log page has first, empty: nothing
	}{
		{name: "nothing", cdb: "1d 00 00 0000 00", want: "00"},
		{name: "default test", cdb: "1d 04 00 0000 00", want: "00"},
		{name: "default test fails", cdb: "1d 04 00 0000 00", fault: block.ErrMedium, want: "02 4/3e/03"},
		{name: "foreground short", cdb: "1d a0 00 0000 00", want: "00", result: "a0 00 0000 ffffffffffffffff 00 00 00 00"},
		{name: "foreground extended", cdb: "1d c0 00 0000 00", want: "00", result: "c0 00 0000 ffffffffffffffff 00 00 00 00"},
		{name: "background short", cdb: "1d 20 00 0000 00", want: "00", result: "20 00 0000 ffffffffffffffff 00 00 00 00"},
		{name: "background extended", cdb: "1d 40 00 0000 00", want: "00", result: "40 00 0000 ffffffffffffffff 00 00 00 00"},
		{name: "foreground fails", cdb: "1d a0 00 0000 00", fault: block.ErrMedium, want: "02 4/3e/03", result: "a4 00 0000 0000000000000000 03 11 00 00"},
		{name: "background fails", cdb: "1d 20 00 0000 00", fault: block.ErrMedium, want: "00", result: "24 00 0000 0000000000000000 03 11 00 00"},
		{name: "abort", cdb: "1d 80 00 0000 00", want: "00"},
		{name: "no such test", cdb: "1d 60 00 0000 00", want: "02 5/24/00"},
		{name: "no such test", cdb: "1d e0 00 0000 00", want: "02 5/24/00"},
		{name: "two tests", cdb: "1d 24 00 0000 00", want: "02 5/24/00"},
		{name: "test with a page", cdb: "1d 14 00 0004 00", list: "00000000", want: "02 5/24/00"},
		{name: "supported pages", cdb: "1d 10 00 0004 00", list: "00000000", want: "00"},
		{name: "no page format", cdb: "1d 00 00 0004 00", list: "00000000", want: "02 5/24/00"},
		{name: "other page", cdb: "1d 10 00 0004 00", list: "01000000", want: "02 5/26/00"},
		{name: "wrong length", cdb: "1d 10 00 0004 00", list: "00000001", want: "02 5/26/00"},
		{name: "too long", cdb: "1d 10 00 0005 00", list: "0000000000", want: "02 5/26/00"},
		{name: "cut", cdb: "1d 10 00 0003 00", list: "000000", want: "02 5/1a/00"},
		{name: "less than the CDB says", cdb: "1d 10 00 0004 00", list: "0000", want: "02 5/1a/00"},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := newMemory(1 << 20)
			d := newTestDisk(m)
			m.fault = c.fault
			wantEnding(t, send(t, d, nil, c.cdb, unhex(t, c.list)), c.want)
			want := make([]byte, 16)
			if c.result != "" {
				want = unhex(t, c.result)
			}
			got := send(t, d, nil, selfTestPage, nil)
			if wantEnding(t, got, "00"); len(got.In) != 24 || !bytes.Equal(got.In[8:24], want) {
				t.Errorf("result % x, want % x", got.In, want)
			}
			if len(m.wrong) > 0 {
				t.Errorf("calls beyond the end %q", m.wrong)
			}
		})
	}

	m := newMemory(1 << 20)
	d := newTestDisk(m)
	for range maxSelfTests + 5 {
		wantEnding(t, send(t, d, nil, "1d a0 00 0000 00", nil), "00")
	}
	if c := send(t, d, nil, "4d 00 50 00 00 0000 1000 00", nil); len(c.In) != 4+maxSelfTests*20 || c.In[4+19*20+1] != 20 || c.In[4+19*20+4] != 0xa0 {
		t.Errorf("%d bytes of results % x", len(c.In), c.In)
	}

	m.blocked = make(chan struct{})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	c := execContext(t, ctx, d, &Command{CDB: unhex(t, "1d 20 00 0000 00")})
	wantEnding(t, c, "40")
	if c := send(t, d, nil, selfTestPage, nil); c.In[8] != 0x22 {
		t.Errorf("aborted self-test % x", c.In)
	}

	if c := send(t, d, nil, "1c 01 00 00ff 00", nil); ending(c) != "00" || !bytes.Equal(c.In, []byte{0, 0, 0, 1, 0}) {
		t.Errorf("supported diagnostic pages %s % x", ending(c), c.In)
	}
	wantEnding(t, send(t, d, nil, "1c 01 40 00ff 00", nil), "02 5/24/00")
}
