package lun

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
)

// TestModeSense checks MODE SENSE(6) and (10), SPC-4 6.13 and 6.14.
func TestModeSense(t *testing.T) {
	d := newTestDisk(newMemory(1 << 20))
	const (
		caching = "08 12 04 00000000000000000000000000000000 00"
		control = "0a 0a 02 10 0040000000000000"
		power   = "1a 26 0000000000000000000000000000000000000000000000000000000000000000000000000000"
		ie      = "1c 0a 08 000000000000000000"
		ext     = "4a 01 001c 00000000000000000000000000000000000000000000000000000000"
		zero    = "00 00"
	)
	for _, c := range []struct {
		cdb, want, ending string
	}{
		{"1a 08 08 00 ff 00", "17 00 10 00" + caching, "00"},
		{"1a 00 08 00 ff 00", "1f 00 10 08 00000800 00000200" + caching, "00"},
		{"1a 08 0a 00 ff 00", "0f 00 10 00" + control, "00"},
		{"1a 08 8a ff ff 00", "2f 00 10 00" + control + ext, "00"}, // defaults, all subpages
		{"1a 08 0a 01 ff 00", "23 00 10 00" + ext, "00"},
		{"1a 08 4a 00 ff 00", "0f 00 10 00 0a 0a 04 06 08 40 000000000000", "00"},
		{"1a 08 48 00 ff 00", "17 00 10 00 08 12 04 00000000000000000000000000000000 00", "00"},
		{"1a 08 5c 00 ff 00", "0f 00 10 00 1c 0a 00000000000000000000", "00"},
		{"1a 08 3f 00 ff 00", "59 00 10 00" + caching + control + power + ie + zero, "00"},
		{"1a 08 3f ff ff 00", "79 00 10 00" + caching + control + ext + power + ie + zero, "00"},
		{"5a 08 3f 00 000000 00ff 00", "005c 00 10 00 00 0000" + caching + control + power + ie + zero, "00"},
		{"5a 00 1c 00 000000 00ff 00", "001a 00 10 00 00 0008 00000800 00000200" + ie, "00"},
		{"5a 10 1c 00 000000 00ff 00", "0022 00 10 01 00 0010 0000000000000800 00000000 00000200" + ie, "00"},
		{"5a 18 1c 00 000000 00ff 00", "0012 00 10 01 00 0000" + ie, "00"},
		{"1a 10 1c 00 ff 00", "17 00 10 08 00000800 00000200" + ie, "00"}, // no LLBAA in six bytes
		{"1a 08 c8 00 ff 00", "", "02 5/39/00"},
		{"1a 08 ff ff ff 00", "", "02 5/39/00"},
		{"1a 08 00 00 ff 00", "05 00 10 00" + zero, "00"}, // Windows 2000
		{"1a 08 00 01 ff 00", "", "02 5/24/00"},
		{"1a 08 02 00 ff 00", "", "02 5/24/00"},
		{"1a 08 0a 02 ff 00", "", "02 5/24/00"},
		{"1a 08 08 01 ff 00", "", "02 5/24/00"},
		{"1a 08 3f 01 ff 00", "", "02 5/24/00"},
	} {
		cmd := send(t, d, nil, c.cdb, nil)
		wantEnding(t, cmd, c.ending)
		if want := unhex(t, c.want); !bytes.Equal(cmd.In, want) {
			t.Errorf("%s\n% x, want\n% x", c.cdb, cmd.In, want)
		}
	}
}

// TestModeSelect checks MODE SELECT(6) and (10), SPC-4 6.11 and 6.12.
func TestModeSelect(t *testing.T) {
	const (
		noCache  = "08 12 00 00000000000000000000000000000000 00"
		cache    = "08 12 04 00000000000000000000000000000000 00"
		dsense   = "0a 0a 06 10 0040000000000000"
		protect  = "0a 0a 02 10 08 40000000000000"
		defaults = "0a 0a 02 10 0040000000000000"
	)
	for _, c := range []struct {
		name, cdb, list, want      string
		through, desc, swp, silent bool
	}{
		{name: "nothing", cdb: "15 10 0000 00 00", want: "00"},
		{name: "header alone", cdb: "15 10 0000 04 00", list: "00000000", want: "00"},
		{name: "cache off", cdb: "15 10 0000 18 00", list: "00000000" + noCache, want: "00", through: true},
		{name: "PS is ignored", cdb: "15 10 0000 18 00", list: "00000000 88" + noCache[2:], want: "00", through: true},
		{name: "two pages", cdb: "15 10 0000 24 00", list: "00000000" + noCache + dsense, want: "00", through: true, desc: true},
		{name: "aborts not reported", cdb: "15 10 0000 10 00", list: "00000000 0a 0a 02 10 00 00 000000000000", want: "00", silent: true},
		{name: "extension and zero", cdb: "15 10 0000 26 00", list: "00000000 4a 01 001c" + strings.Repeat("00", 28) + "0000", want: "00"},
		{name: "extension not to be changed", cdb: "15 10 0000 24 00", list: "00000000 4a 01 001c 04" + strings.Repeat("00", 27), want: "02 5/26/00"},
		{name: "extension of another length", cdb: "15 10 0000 24 00", list: "00000000 4a 01 001d" + strings.Repeat("00", 28), want: "02 5/26/00"},
		{name: "extension header cut", cdb: "15 10 0000 07 00", list: "00000000 4a 01 00", want: "02 5/1a/00"},
		{name: "protect", cdb: "55 10 0000000000 0014 00", list: "0000000000000000" + protect, want: "00", swp: true},
		{name: "with block descriptor", cdb: "15 10 0000 18 00", list: "00000008 00000800 00000200" + dsense, want: "00", desc: true},
		{name: "blocks left alone", cdb: "15 10 0000 18 00", list: "00000008 00000000 00000200" + dsense, want: "00", desc: true},
		{name: "long descriptor", cdb: "55 10 0000000000 0024 00", list: "00000000 01000010 0000000000000800 00000000 00000200" + dsense, want: "00", desc: true},
		{name: "other capacity", cdb: "15 10 0000 18 00", list: "00000008 00000801 00000200" + dsense, want: "02 5/26/00"},
		{name: "other length", cdb: "15 10 0000 18 00", list: "00000008 00000800 00001000" + dsense, want: "02 5/26/00"},
		{name: "odd descriptor", cdb: "15 10 0000 17 00", list: "00000007 000800 00000200" + dsense, want: "02 5/26/00"},
		{name: "second page wrong", cdb: "15 10 0000 24 00", list: "00000000" + noCache + "0a 0a 02 20 0000000000000000", want: "02 5/26/00"},
		{name: "unknown page", cdb: "15 10 0000 08 00", list: "00000000 02 02 0000", want: "02 5/26/00"},
		{name: "subpage", cdb: "15 10 0000 08 00", list: "00000000 48 01 0000", want: "02 5/26/00"},
		{name: "wrong page length", cdb: "15 10 0000 18 00", list: "00000000 08 11" + noCache[5:], want: "02 5/26/00"},
		{name: "page cut", cdb: "15 10 0000 17 00", list: "00000000" + noCache, want: "02 5/1a/00"},
		{name: "page header cut", cdb: "15 10 0000 05 00", list: "00000000 08", want: "02 5/1a/00"},
		{name: "header cut", cdb: "15 10 0000 03 00", list: "000000", want: "02 5/1a/00"},
		{name: "descriptor cut", cdb: "15 10 0000 08 00", list: "00000008 00000800", want: "02 5/1a/00"},
		{name: "less than the CDB says", cdb: "15 10 0000 18 00", list: "00000000 08", want: "02 5/1a/00"},
		{name: "save", cdb: "15 11 0000 18 00", list: "00000000" + noCache, want: "02 5/24/00"},
		{name: "no page format", cdb: "15 00 0000 18 00", list: "00000000" + noCache, want: "02 5/24/00"},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := newMemory(1 << 20)
			d := newTestDisk(quick{m})
			wantEnding(t, send(t, d, nil, c.cdb, unhex(t, c.list)), c.want)
			if d.writeThrough.Load() != c.through || d.descriptorSense.Load() != c.desc || d.protected.Load() != c.swp || d.ReportsAborts() == c.silent {
				t.Errorf("write through %v, descriptor sense %v, protected %v", d.writeThrough.Load(), d.descriptorSense.Load(), d.protected.Load())
			}
		})
	}

	m := newMemory(1 << 20)
	d := newTestDisk(quick{m})
	a, b := testNexus(), testNexus()
	d.Attach(a)
	d.Attach(b)
	for _, n := range []*Nexus{a, b} {
		wantEnding(t, send(t, d, n, "00 00000000 00", nil), "02 6/29/00")
	}

	// With the write cache off every write is durable when it ends, and what
	// the cache held became so before.
	wantEnding(t, send(t, d, a, "15 10 0000 18 00", unhex(t, "00000000"+noCache)), "00")
	wantEnding(t, send(t, d, a, "2a 00 00000000 00 0001 00", filled(512, 1)), "00")
	wantEnding(t, send(t, d, a, "41 08 00000000 00 0001 00", make([]byte, 512)), "00")
	wantEnding(t, send(t, d, a, "41 08 00000000 00 0001 00", filled(512, 1)), "00")
	if want := []string{"flush", "write 0+512", "flush", "discard 0+512", "flush", "write 0+512", "flush"}; !slices.Equal(m.calls, want) {
		t.Errorf("calls %q, want %q", m.calls, want)
	}
	wantEnding(t, send(t, d, b, "00 00000000 00", nil), "02 6/2a/01") // the others are told
	wantEnding(t, send(t, d, a, "00 00000000 00", nil), "00")
	wantEnding(t, send(t, d, a, "15 10 0000 18 00", unhex(t, "00000000"+noCache)), "00") // no change, no news
	wantEnding(t, send(t, d, b, "00 00000000 00", nil), "00")
	wantEnding(t, send(t, d, a, "15 10 0000 18 00", unhex(t, "00000000"+cache)), "00")

	wantEnding(t, send(t, d, a, "15 10 0000 10 00", unhex(t, "00000000"+dsense)), "00")
	if c := send(t, d, a, "28 00 ffffffff 00 0001 00", nil); ending(c) != "02 5/21/00" || c.Sense[0] != 0x72 {
		t.Errorf("sense % x, want descriptor format", c.Sense)
	}
	wantEnding(t, send(t, d, a, "15 10 0000 10 00", unhex(t, "00000000"+protect)), "00")
	wantEnding(t, send(t, d, a, "2a 00 00000000 00 0001 00", filled(512, 1)), "02 7/27/02")
	wantEnding(t, send(t, d, a, "15 10 0000 10 00", unhex(t, "00000000"+defaults)), "00")
	wantEnding(t, send(t, d, a, "2a 00 00000000 00 0001 00", filled(512, 1)), "00")

	// What is configured read-only stays so.
	ro := NewDisk(quick{m}, DiskConfig{ReadOnly: true}, discardLog)
	wantEnding(t, send(t, ro, a, "15 10 0000 10 00", unhex(t, "00000000"+protect)), "00")
	if c := send(t, ro, a, "1a 08 0a 00 ff 00", nil); c.In[4+4] != swp {
		t.Errorf("SWP is not told: % x", c.In)
	}
	wantEnding(t, send(t, ro, a, "15 10 0000 10 00", unhex(t, "00000000"+defaults)), "00")
	wantEnding(t, send(t, ro, a, "2a 00 00000000 00 0001 00", filled(512, 1)), "02 7/27/00")
}

// shelf is a Store in memory.
type shelf struct {
	mu    sync.Mutex
	value map[string][]byte
	fault error
}

func (s *shelf) Load(name string) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return bytes.Clone(s.value[name]), s.fault
}

func (s *shelf) Save(name string, value []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fault != nil {
		return s.fault
	}
	if s.value == nil {
		s.value = map[string][]byte{}
	}
	s.value[name] = bytes.Clone(value)
	return nil
}

// TestSavedModes checks that what MODE SELECT saves is what holds after a
// reset and after a restart, SPC-4 5.10.
func TestSavedModes(t *testing.T) {
	const (
		noCache = "00000000 08 12 00 00000000000000000000000000000000 00"
		silent  = "00000000 0a 0a 02 10 00 00 000000000000" // TAS is zero
		dsense  = "00000000 0a 0a 06 10 00 00 000000000000"
	)
	store := &shelf{}
	open := func() *Disk {
		return NewDisk(quick{newMemory(1 << 20)}, DiskConfig{Name: "vol", ID: testID, Store: store}, discardLog)
	}
	holds := func(d *Disk, through, silent, desc bool) {
		t.Helper()
		if d.writeThrough.Load() != through || d.ReportsAborts() == silent || d.descriptorSense.Load() != desc {
			t.Errorf("write through %v, aborts reported %v, descriptor sense %v", d.writeThrough.Load(), d.ReportsAborts(), d.descriptorSense.Load())
		}
	}
	d := open()
	if c := send(t, d, nil, "1a 08 c8 00 ff 00", nil); ending(c) != "00" || c.In[4] != 0x88 || c.In[6] != wce {
		t.Errorf("saved caching page %s % x", ending(c), c.In)
	}
	wantEnding(t, send(t, d, nil, "15 11 0000 18 00", unhex(t, noCache)), "00")
	wantEnding(t, send(t, d, nil, "55 11 0000000000 0014 00", unhex(t, "00000000"+silent)), "00")
	wantEnding(t, send(t, d, nil, "15 10 0000 10 00", unhex(t, dsense)), "00") // not saved
	holds(d, true, true, true)
	if c := send(t, d, nil, "1a 08 ca 00 ff 00", nil); ending(c) != "00" || c.In[6] != 0x02 || c.In[9] != 0 {
		t.Errorf("saved control page %s % x", ending(c), c.In)
	}
	if c := send(t, d, nil, "1a 08 8a 00 ff 00", nil); ending(c) != "00" || c.In[9] != tas {
		t.Errorf("default control page %s % x", ending(c), c.In)
	}
	d.Reset()
	holds(d, true, true, false)
	holds(open(), true, true, false)

	// What cannot be saved does not become current either.
	store.fault = errors.New("no room")
	wantEnding(t, send(t, d, nil, "15 11 0000 10 00", unhex(t, dsense)), "02 4/44/00")
	holds(d, true, true, false)
	store.fault = nil

	store.fault = errors.New("unreadable")
	d = open()
	wantEnding(t, send(t, d, nil, testUnitReady, nil), "02 2/04/03")
	wantEnding(t, send(t, d, nil, "2a 00 00000000 00 0001 00", make([]byte, 512)), "02 2/04/03")
	wantEnding(t, send(t, d, nil, "12 00 00 00ff 00", nil), "00")
	store.fault = nil

	// Pages of another version: those that fit hold, with what may change.
	store.value[savedModes] = unhex(t, "3e 02 ffff 08 01 00 7f ff 0001 00 0a 0a ff ff f7 ff ffffffffffff 88 12 fb ffffffffffffffffffffffffffffffff ff 0a")
	d = open()
	holds(d, true, false, true)
	if c := send(t, d, nil, "1a 08 0a 00 ff 00", nil); !bytes.Equal(c.In[4:], unhex(t, "8a 0a 06 16 00 40 000000000000")) {
		t.Errorf("control page % x", c.In[4:])
	}
}
