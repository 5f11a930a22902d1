package lun

import (
	"bytes"
	"context"
	"encoding/hex"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"

	"skylun/block"
)

// memory is the simplest device there can be. It notes calls that a unit must
// never make.
type memory struct {
	mu      sync.Mutex
	data    []byte
	calls   []string // "write 0+512" and so on, reads excepted
	wrong   []string // calls beyond the end
	fault   error    // what every call ends with, when not nil
	reluct  bool     // Try methods would have to wait
	blocked chan struct{}
}

func newMemory(size int) *memory { return &memory{data: make([]byte, size)} }

func (m *memory) enter(verb string, off, n int64) error {
	if err := block.CheckRange(off, n, int64(len(m.data))); err != nil {
		m.wrong = append(m.wrong, fmt.Sprintf("%s %d+%d", verb, off, n))
		return err
	}
	if verb != "read" {
		m.calls = append(m.calls, strings.TrimSuffix(fmt.Sprintf("%s %d+%d", verb, off, n), " 0+0"))
	}
	return m.fault
}

func (m *memory) Size() int64 { return int64(len(m.data)) }

func (m *memory) ReadAt(ctx context.Context, p []byte, off int64) error {
	if m.blocked != nil {
		select {
		case <-m.blocked:
		case <-ctx.Done():
			return fmt.Errorf("fetch: %w: %w", block.ErrMedium, ctx.Err())
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.enter("read", off, int64(len(p))); err != nil {
		return err
	}
	copy(p, m.data[off:])
	return nil
}

func (m *memory) WriteAt(_ context.Context, p []byte, off int64) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.enter("write", off, int64(len(p))); err != nil {
		return err
	}
	copy(m.data[off:], p)
	return nil
}

func (m *memory) Discard(_ context.Context, off, n int64) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.enter("discard", off, n); err != nil {
		return err
	}
	clear(m.data[off : off+n])
	return nil
}

func (m *memory) Flush(context.Context) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.enter("flush", 0, 0)
}

// quick is a memory that answers without waiting, unless it is reluctant.
type quick struct{ *memory }

func (m quick) TryReadAt(p []byte, off int64) (bool, error) {
	if m.reluct {
		clear(p)
		return false, nil
	}
	if m.fault != nil || off < 0 || off+int64(len(p)) > int64(len(m.data)) {
		return true, m.ReadAt(context.Background(), p, off)
	}
	copy(p, m.data[off:])
	return true, nil
}

func (m quick) TryWriteAt(p []byte, off int64) (bool, error) {
	if m.reluct {
		return false, nil
	}
	if m.fault != nil || off < 0 || off+int64(len(p)) > int64(len(m.data)) {
		return true, m.WriteAt(context.Background(), p, off)
	}
	copy(m.data[off:], p)
	return true, nil
}

// ranged is a memory that knows its zeros, in pieces of 4 KiB.
type ranged struct{ *memory }

func (m ranged) DataRanges(_ context.Context, in block.Range, f func(block.Range) error) error {
	if err := block.CheckRange(in.Off, in.Len(), int64(len(m.data))); err != nil {
		return err
	}
	for off := block.Floor(in.Off, block.Size); off < in.End; off += block.Size {
		r := block.Range{Off: off, End: min(off+block.Size, int64(len(m.data)))}
		if !allZero(m.data[r.Off:r.End]) {
			if err := f(r.Intersect(in)); err != nil {
				return err
			}
		}
	}
	return nil
}

var (
	_ block.Device     = (*memory)(nil)
	_ block.TryReader  = quick{}
	_ block.TryWriter  = quick{}
	_ block.DataRanger = ranged{}
)

// heap is a BufferPool that hands out dirty buffers.
type heap struct{}

func (heap) Get(n int) []byte { return bytes.Repeat([]byte{0xee}, n) }

var discardLog = slog.New(slog.DiscardHandler)

var testID = [16]byte{0x5c, 0x1e, 0x0f, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16}

func newTestDisk(dev block.Device) *Disk {
	return NewDisk(dev, DiskConfig{Name: "vol", ID: testID}, discardLog)
}

// unhex turns "12 00 0000 ff 00" into bytes.
func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		t.Fatalf("%q: %v", s, err)
	}
	return b
}

// exec runs one command as a transport does, and checks what holds for all.
func exec(t testing.TB, u Unit, c *Command) *Command {
	t.Helper()
	return execContext(t, t.Context(), u, c)
}

func execContext(t testing.TB, ctx context.Context, u Unit, c *Command) *Command {
	t.Helper()
	if c.Alloc == nil {
		c.Alloc = heap{}
	}
	if !u.Try(c) {
		u.Execute(ctx, c)
	}
	if (c.Status == StatusCheckCondition) != (c.Sense != nil) {
		t.Fatalf("% x: status %02x with sense % x", c.CDB, c.Status, c.Sense)
	}
	if c.Status != StatusGood && c.In != nil {
		t.Fatalf("% x: status %02x with Data-In", c.CDB, c.Status)
	}
	if len(c.In) > c.InLimit || int64(len(c.In)) > c.Transfer || c.Transfer < 0 {
		t.Fatalf("% x: %d bytes of Data-In, %d asked for, limit %d", c.CDB, len(c.In), c.Transfer, c.InLimit)
	}
	return c
}

// send is exec for a command in hexadecimal with a generous Data-In limit.
func send(t testing.TB, u Unit, n *Nexus, cdb string, out []byte) *Command {
	t.Helper()
	return exec(t, u, &Command{CDB: unhex(t, cdb), Nexus: n, Out: out, InLimit: 16 << 20})
}

// ending tells how c ended: "00", or "02 5/24/00" with its sense.
func ending(c *Command) string {
	s := fmt.Sprintf("%02x", byte(c.Status))
	switch {
	case len(c.Sense) == 0:
	case c.Sense[0]&0x7f == 0x70:
		s += fmt.Sprintf(" %x/%02x/%02x", c.Sense[2], c.Sense[12], c.Sense[13])
	default:
		s += fmt.Sprintf(" %x/%02x/%02x", c.Sense[1], c.Sense[2], c.Sense[3])
	}
	return s
}

// wantEnding fails the test unless c ended so.
func wantEnding(t testing.TB, c *Command, want string) {
	t.Helper()
	if got := ending(c); got != want {
		t.Errorf("% x ended with %s, want %s", c.CDB, got, want)
	}
}

// fixedInfo returns the INFORMATION field of fixed format sense data.
func fixedInfo(t testing.TB, sense []byte) uint32 {
	t.Helper()
	if len(sense) != 18 || sense[0] != 0xf0 {
		t.Fatalf("sense % x has no INFORMATION field", sense)
	}
	return uint32(sense[3])<<24 | uint32(sense[4])<<16 | uint32(sense[5])<<8 | uint32(sense[6])
}

func filled(n int, b byte) []byte { return bytes.Repeat([]byte{b}, n) }
