package target

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
	"testing"

	"skylun/lun"
	"skylun/target/pdu"
	"skylun/test/initiator"
	"skylun/test/memdev"
)

// memory is a unit that reads nothing and writes nowhere, without waiting.
var memory = &fakeUnit{try: func(c *lun.Command) bool {
	if c.InLimit > 0 {
		c.In = c.Alloc.Get(c.InLimit)
	}
	c.Transfer = int64(c.InLimit + len(c.Out))
	return true
}}

// load is a client so cheap that it is the server that is measured: it sends a
// number of commands in one write and reads all their answers.
type load struct {
	conn    *initiator.Conn
	request []byte
	answer  []byte
	depth   int
}

func newLoad(t testing.TB, s *server, depth, in, out int, keys ...string) *load {
	l := &load{conn: s.login(t, keys...), depth: depth}
	for range 4 { // the unit attentions of a new nexus
		if r, err := l.conn.Do(0, make([]byte, 6), 0, nil); err != nil || r.Status == 0 {
			break
		}
	}
	digest := 0 // bytes behind a header, and behind data
	if l.conn.HeaderDigest {
		digest = pdu.DigestSize
	}
	for range depth {
		p := l.conn.NewCommand(0, []byte{0: 0x28, 7: byte(in / 512 >> 8), 8: byte(in / 512), 9: 0})
		answer := pdu.HeaderSize + digest
		switch {
		case in > 0:
			p.SetFlags(pdu.FlagFinal | pdu.FlagRead)
			p.SetExpectedLen(uint32(in))
			for left := in; left > 0; left -= 262144 {
				answer += min(left, 262144) + digest
				if left > 262144 {
					answer += pdu.HeaderSize + digest
				}
			}
		case out > 0:
			p.CDB()[0], p.CDB()[7], p.CDB()[8] = 0x2a, byte(out/512>>8), byte(out/512)
			p.SetFlags(pdu.FlagFinal | pdu.FlagWrite)
			p.SetExpectedLen(uint32(out))
			p.Data = make([]byte, out)
		}
		l.request = append(l.request, l.conn.Wire(p)...)
		l.answer = append(l.answer, make([]byte, answer)...)
	}
	return l
}

// run has all commands executed once.
func (l *load) run(t testing.TB) {
	if _, err := l.conn.Conn.Write(l.request); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(l.conn.Conn, l.answer); err != nil {
		t.Fatal(err)
	}
	size := len(l.request) / l.depth
	for i := range l.depth {
		h := pdu.FromBytes(l.request[i*size:])
		h.SetCmdSN(h.CmdSN() + uint32(l.depth))
		if l.conn.HeaderDigest {
			binary.LittleEndian.PutUint32(l.request[i*size+pdu.HeaderSize:], crc32.Checksum(h[:], castagnoli))
		}
	}
}

// bothDigests are keys of an initiator that wants digests and takes what helps.
var bothDigests = append(initiator.Keys{"HeaderDigest", "CRC32C", "DataDigest", "CRC32C"}, initiator.Friendly[4:]...)

func benchmark(b *testing.B, depth, in, out int, keys ...string) {
	benchmarkUnit(b, memory, depth, in, out, keys...)
}

func benchmarkUnit(b *testing.B, unit lun.Unit, depth, in, out int, keys ...string) {
	l := newLoad(b, start(b, Config{}, unit), depth, in, out, keys...)
	b.SetBytes(int64(in + out))
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		if i%depth == 0 { // an iteration is a command
			l.run(b)
		}
	}
}

func BenchmarkRead4K(b *testing.B) {
	for _, depth := range []int{1, 32} {
		b.Run(fmt.Sprintf("depth=%d", depth), func(b *testing.B) { benchmark(b, depth, 4096, 0) })
	}
}

func BenchmarkWrite4K(b *testing.B) {
	for _, depth := range []int{1, 32} {
		b.Run(fmt.Sprintf("depth=%d", depth), func(b *testing.B) { benchmark(b, depth, 0, 4096) })
	}
}

func BenchmarkDigests(b *testing.B) {
	b.Run("read4K", func(b *testing.B) { benchmark(b, 32, 4096, 0, bothDigests...) })
	b.Run("write4K", func(b *testing.B) { benchmark(b, 32, 0, 4096, bothDigests...) })
	b.Run("read256K", func(b *testing.B) { benchmark(b, 8, 256<<10, 0, bothDigests...) })
}

// The whole of it: transport, disk and a device that answers at once.
func BenchmarkDisk(b *testing.B) {
	for _, c := range []struct {
		name    string
		in, out int
		keys    []string
	}{{"read4K", 4096, 0, nil}, {"read4Kdigests", 4096, 0, bothDigests}, {"write4K", 0, 4096, nil}, {"write4Kdigests", 0, 4096, bothDigests}} {
		b.Run(c.name, func(b *testing.B) {
			benchmarkUnit(b, disk(b, tryDevice{memdev.New(1 << 20)}), 32, c.in, c.out, c.keys...)
		})
	}
}

func BenchmarkRead256K(b *testing.B) { benchmark(b, 8, 256<<10, 0) }
func BenchmarkWrite64K(b *testing.B) { benchmark(b, 16, 0, 64<<10) }
