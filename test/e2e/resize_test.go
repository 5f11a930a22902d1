//go:build e2e

package e2e

import (
	"bytes"
	"encoding/binary"
	"strings"
	"testing"
)

// TestResize resizes a disk that is in use: the initiator hears of it, uses
// what is new, and finds it after a crash.
func TestResize(t *testing.T) {
	const mib = 1 << 20
	s := newServer(t, newFileStore(t), "volume: disk, size: 16MiB")
	s.start()
	m := join(t, s, "host", 0)
	blocks := func() uint64 {
		t.Helper()
		return binary.BigEndian.Uint64(m.do([]byte{0: 0x9e, 1: 0x10, 13: 32, 15: 0}, 32, nil).Data) + 1
	}
	at := func(opcode byte, lba uint32) []byte {
		cdb := []byte{0: opcode, 8: 1, 9: 0}
		binary.BigEndian.PutUint32(cdb[2:], lba)
		return cdb
	}
	last := bytes.Repeat([]byte("the last one "), 40)[:512]
	m.ends("write beyond the end", m.do(at(0x2a, 24*mib/512-1), 0, last), 2, 0x052100)
	if out := s.cli("volume", "resize", "disk", "24MiB"); !strings.Contains(out, "volume disk has 24 MiB (25165824 bytes)") {
		t.Errorf("resize prints %q", out)
	}
	m.ends("first command", m.do(at(0x2a, 24*mib/512-1), 0, last), 2, 0x062a09) // CAPACITY DATA HAS CHANGED
	if n := blocks(); n != 24*mib/512 {
		t.Errorf("%d blocks, want %d", n, 24*mib/512)
	}
	m.ends("write at the new end", m.do(at(0x2a, 24*mib/512-1), 0, last), 0, 0)
	m.ends("flush", m.do(make10(0x35), 0, nil), 0, 0)
	s.kill()
	s.check()
	s.start() // the configuration has the old size
	m.login(s)
	if r := m.do(at(0x28, 24*mib/512-1), 512, nil); r.Status != 0 || !bytes.Equal(r.Data, last) {
		t.Errorf("the last block after a crash: status %#x, %q", r.Status, r.Data)
	}

	if o := s.try("volume", "resize", "disk", "20MiB"); o.status != 1 || !strings.Contains(o.stderr, "make the file system on it smaller first") {
		t.Errorf("smaller: exit status %d, %s", o.status, o.stderr)
	}
	s.cli("volume", "resize", "disk", "20MiB", "--force")
	m.ends("first command", m.do(make([]byte, 6), 0, nil), 2, 0x062a09)
	if n := blocks(); n != 20*mib/512 {
		t.Errorf("%d blocks, want %d", n, 20*mib/512)
	}
	m.ends("read beyond the end", m.do(at(0x28, 24*mib/512-1), 512, nil), 2, 0x052100)
	s.cli("volume", "resize", "disk", "24MiB")
	m.ends("first command", m.do(make([]byte, 6), 0, nil), 2, 0x062a09)
	if r := m.do(at(0x28, 24*mib/512-1), 512, nil); r.Status != 0 || !bytes.Equal(r.Data, make([]byte, 512)) {
		t.Errorf("what was cut off is there again: %q", r.Data)
	}
	s.stop()
	s.check()
}

// make10 returns a CDB of ten bytes without fields.
func make10(opcode byte) []byte { return append([]byte{opcode}, make([]byte, 9)...) }
