package lun

import (
	"bytes"
	"context"
	"slices"
	"testing"

	"skylun/block"
)

// slow is a memory whose Flush waits, and with it FORMAT UNIT and SANITIZE.
type slow struct {
	*memory
	flushing chan struct{} // receives when a flush begins
	proceed  chan error    // what it ends with
}

func (m slow) Flush(context.Context) error {
	m.flushing <- struct{}{}
	return <-m.proceed
}

// TestFormat checks SBC-3 5.3.
func TestFormat(t *testing.T) {
	for _, c := range []struct {
		name, cdb, out, want string
		moved                int64
	}{
		{name: "plain", cdb: "04 00 00 0000 00", want: "00"},
		{name: "short list", cdb: "04 10 00 0000 00", out: "00 00 0000", want: "00", moved: 4},
		{name: "IMMED", cdb: "04 10 00 0000 00", out: "00 02 0000", want: "00", moved: 4},
		{name: "FOV with options", cdb: "04 18 00 0000 00", out: "00 f2 0000", want: "00", moved: 4},
		{name: "long list", cdb: "04 30 00 0000 00", out: "00 82 00 00 00000000", want: "00", moved: 8},
		{name: "options without FOV", cdb: "04 10 00 0000 00", out: "00 40 0000", want: "02 5/26/00", moved: 4},
		{name: "pattern", cdb: "04 10 00 0000 00", out: "00 88 0000 00000000", want: "02 5/26/00", moved: 4},
		{name: "defects", cdb: "04 10 00 0000 00", out: "00 00 0008 0000000000000000", want: "02 5/26/00", moved: 4},
		{name: "defects, long list", cdb: "04 30 00 0000 00", out: "00 00 00 00 00000008 0000000000000000", want: "02 5/26/00", moved: 8},
		{name: "protection", cdb: "04 80 00 0000 00", want: "02 5/24/00"},
		{name: "protection fields", cdb: "04 10 00 0000 00", out: "01 00 0000", want: "02 5/26/00", moved: 4},
		{name: "protection interval", cdb: "04 30 00 0000 00", out: "00 00 00 01 00000000", want: "02 5/26/00", moved: 8},
		{name: "cut list", cdb: "04 10 00 0000 00", out: "00 00 00", want: "02 5/1a/00", moved: 4},
		{name: "cut long list", cdb: "04 30 00 0000 00", out: "00 00 0000 000000", want: "02 5/1a/00", moved: 8},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := newMemory(16 << 10)
			copy(m.data, filled(len(m.data), 1))
			d := newTestDisk(m)
			cmd := send(t, d, nil, c.cdb, unhex(t, c.out))
			if wantEnding(t, cmd, c.want); cmd.Transfer != c.moved {
				t.Errorf("Transfer %d, want %d", cmd.Transfer, c.moved)
			}
			want, calls := filled(len(m.data), 1), []string(nil)
			if c.want == "00" {
				want, calls = make([]byte, len(m.data)), []string{"discard 0+16384", "flush"}
			}
			if !slices.Equal(m.calls, calls) || !bytes.Equal(m.data, want) {
				t.Errorf("calls %q, want %q", m.calls, calls)
			}
			wantEnding(t, send(t, d, nil, "00 00000000 00", nil), "00")
		})
	}
}

// TestErasing looks at a disk while it is formatted and sanitized, and checks
// that the end of the command that asked for it does not end that.
func TestErasing(t *testing.T) {
	for _, c := range []struct{ cdb, want string }{
		{"04 00 00 0000 00", "02 2/04/04"},
		{"48 02 0000000000 0000 00", "02 2/04/1b"},
	} {
		m := slow{newMemory(4096), make(chan struct{}), make(chan error)}
		d := newTestDisk(m)
		n := testNexus()
		ctx, abort := context.WithCancel(t.Context())
		done := make(chan *Command)
		go func() {
			cmd := &Command{CDB: unhex(t, c.cdb), Nexus: n, Alloc: heap{}}
			d.Execute(ctx, cmd)
			done <- cmd
		}()
		<-m.flushing
		for _, cdb := range []string{"00 00000000 00", "28 00 00000000 00 0001 00", "2a 00 00000000 00 0001 00", "04 00 00 0000 00",
			"48 82 0000000000 0000 00", "48 9f 0000000000 0000 00", "1b 00 00 00 01 00"} {
			wantEnding(t, send(t, d, n, cdb, make([]byte, 512)), c.want)
		}
		for _, cdb := range []string{"12 00 00 00ff 00", "a0 00 00 000000 00000010 00 00"} {
			wantEnding(t, send(t, d, n, cdb, nil), "00")
		}
		sense := send(t, d, n, "03 00 0000 ff 00", nil).In
		if got := ending(&Command{Status: StatusCheckCondition, Sense: sense}); got != c.want || sense[15] != 0x80 {
			t.Errorf("REQUEST SENSE returned %s, % x", got, sense)
		}
		abort()
		m.proceed <- nil
		<-done
		wantEnding(t, send(t, d, n, "00 00000000 00", nil), "00")
		if d.gate.Load() != 0 {
			t.Error("the gate is not open")
		}
	}
}

// TestSanitizeFailure checks SBC-3 4.11.3: what a disk does after a sanitize
// that failed, and how it gets out of that.
func TestSanitizeFailure(t *testing.T) {
	m := newMemory(4096)
	d := newTestDisk(m)
	const failed = "02 3/31/03"
	fail := func(cdb string) {
		t.Helper()
		m.fault = block.ErrMedium
		wantEnding(t, send(t, d, nil, cdb, nil), failed)
		m.fault = nil
		wantEnding(t, send(t, d, nil, "28 00 00000000 00 0001 00", nil), failed)
		wantEnding(t, send(t, d, nil, "04 00 00 0000 00", nil), failed)
		wantEnding(t, send(t, d, nil, "12 00 00 00ff 00", nil), "00")
	}
	wantEnding(t, send(t, d, nil, "48 1f 0000000000 0000 00", nil), "00") // out of nothing
	fail("48 02 0000000000 0000 00")
	wantEnding(t, send(t, d, nil, "48 1f 0000000000 0000 00", nil), "02 5/24/00") // without AUSE
	wantEnding(t, send(t, d, nil, "28 00 00000000 00 0001 00", nil), failed)
	wantEnding(t, send(t, d, nil, "48 02 0000000000 0000 00", nil), "00")
	wantEnding(t, send(t, d, nil, "28 00 00000000 00 0001 00", nil), "00")
	fail("48 22 0000000000 0000 00")
	wantEnding(t, send(t, d, nil, "48 1f 0000000000 0000 00", nil), "00")
	wantEnding(t, send(t, d, nil, "28 00 00000000 00 0001 00", nil), "00")
	if d.gate.Load() != 0 {
		t.Error("the gate is not open")
	}

	for _, cdb := range []string{"48 02 0000000000 0008 00", "48 1f 0000000000 0008 00", "48 42 0000000000 0000 00", "48 02 0000000001 0000 00"} {
		wantEnding(t, send(t, d, nil, cdb, make([]byte, 8)), "02 5/24/00")
	}
	for _, cdb := range []string{"48 01 0000000000 0000 00", "48 03 0000000000 0000 00", "48 00 0000000000 0000 00"} { // OVERWRITE, CRYPTOGRAPHIC ERASE, none
		wantEnding(t, send(t, d, nil, cdb, nil), "02 5/24/00")
	}
	protected := NewDisk(m, DiskConfig{ReadOnly: true}, discardLog)
	wantEnding(t, send(t, protected, nil, "48 02 0000000000 0000 00", nil), "02 7/27/00")
	wantEnding(t, send(t, protected, nil, "04 00 00 0000 00", nil), "02 7/27/00")
}
