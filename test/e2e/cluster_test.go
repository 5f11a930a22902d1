//go:build e2e

package e2e

import (
	"encoding/binary"
	"fmt"
	"sync"
	"testing"
	"time"

	"skylun/test/initiator"
)

// Service actions and the type of persistent reservation that clusters use,
// SPC-4 6.15 and 6.16.
const (
	prRegister        = 0
	prReserve         = 1
	prRelease         = 2
	prClear           = 3
	prPreempt         = 4
	prPreemptAndAbort = 5
	prIgnore          = 6 // REGISTER AND IGNORE EXISTING KEY

	writeExclusiveRegistrants = 5

	reservationConflict = 0x18
)

// member is a machine of a cluster, logged in to the server.
type member struct {
	t    *testing.T
	name string
	key  uint64
	conn *initiator.Conn
}

// join logs a machine in. It has the same ISID each time, as Windows has.
func join(t *testing.T, s *server, name string, key uint64) *member {
	t.Helper()
	m := &member{t: t, name: name, key: key}
	m.login(s)
	return m
}

func (m *member) login(s *server) {
	m.t.Helper()
	c, err := initiator.Dial(s.portal)
	if err != nil {
		m.t.Fatal(err)
	}
	m.t.Cleanup(func() { c.Close() })
	c.Timeout = time.Minute
	if _, err := c.Login(initiator.Options{Initiator: "iqn.1991-05.com.microsoft:" + m.name, Target: iqn}); err != nil {
		m.t.Fatal(err)
	}
	m.conn = c
	m.ends("first command", m.do(make([]byte, 6), 0, nil), 2, 0x062900)
}

func (m *member) do(cdb []byte, in int, out []byte) *initiator.Result {
	m.t.Helper()
	r, err := m.conn.Do(0, cdb, in, out)
	if err != nil {
		m.t.Fatalf("%s: opcode %02x: %v", m.name, cdb[0], err)
	}
	return r
}

// out sends PERSISTENT RESERVE OUT for type 5 and returns the status.
func (m *member) out(action byte, key, actionKey uint64, flags byte) byte {
	m.t.Helper()
	list := make([]byte, 24)
	binary.BigEndian.PutUint64(list, key)
	binary.BigEndian.PutUint64(list[8:], actionKey)
	list[20] = flags
	return m.do([]byte{0x5f, action, writeExclusiveRegistrants, 8: 24, 9: 0}, 0, list).Status
}

// good is out that must succeed.
func (m *member) good(action byte, key, actionKey uint64, flags byte) {
	m.t.Helper()
	if status := m.out(action, key, actionKey, flags); status != 0 {
		m.t.Fatalf("%s: PERSISTENT RESERVE OUT, action %d: status %#x", m.name, action, status)
	}
}

// ends requires a status and, when it is not zero, sense data.
func (m *member) ends(what string, r *initiator.Result, status byte, sense int) {
	m.t.Helper()
	if r.Status != status || r.Key() != sense {
		m.t.Errorf("%s: %s: status %#x, sense %06x, want %#x and %06x", m.name, what, r.Status, r.Key(), status, sense)
	}
}

func (m *member) write() *initiator.Result {
	m.t.Helper()
	return m.do([]byte{0: 0x2a, 8: 1, 9: 0}, 0, make([]byte, 512))
}

func (m *member) read() *initiator.Result {
	m.t.Helper()
	return m.do([]byte{0: 0x28, 8: 1, 9: 0}, 512, nil)
}

// state returns the keys that are registered, and that of the holder: zero when
// there is no reservation.
func (m *member) state() (keys []uint64, holder uint64, generation uint32) {
	m.t.Helper()
	r := m.do([]byte{0: 0x5e, 7: 0x20, 9: 0}, 8192, nil)
	for p := r.Data[8:]; len(p) > 0; p = p[8:] {
		keys = append(keys, binary.BigEndian.Uint64(p))
	}
	if q := m.do([]byte{0: 0x5e, 1: 1, 7: 0x20, 9: 0}, 8192, nil); len(q.Data) == 24 {
		if q.Data[21] != writeExclusiveRegistrants {
			m.t.Errorf("%s: reservation of type %d", m.name, q.Data[21])
		}
		holder = binary.BigEndian.Uint64(q.Data[8:])
	}
	return keys, holder, binary.BigEndian.Uint32(r.Data)
}

func (m *member) wantState(keys []uint64, holder uint64) {
	m.t.Helper()
	if k, h, _ := m.state(); fmt.Sprint(k) != fmt.Sprint(keys) || h != holder {
		m.t.Errorf("%s: keys %x, holder %x, want %x and %x", m.name, k, h, keys, holder)
	}
}

// TestFailoverCluster does what the validation of a Windows failover cluster
// and its arbitration do with a disk: its members register and one reserves,
// another challenges it and takes the disk over, reservations stay when members
// log out, and those who lost find out.
func TestFailoverCluster(t *testing.T) {
	s := newServer(t, newFileStore(t), "volume: disk, size: 16MiB")
	s.start()
	a, b, c := join(t, s, "a", 0xa), join(t, s, "b", 0xb), join(t, s, "c", 0xc)

	// Registering and reserving.
	a.wantState(nil, 0)
	for _, m := range []*member{a, b} {
		m.good(prIgnore, 0, m.key, 0)
	}
	a.good(prReserve, a.key, 0, 0)
	a.good(prReserve, a.key, 0, 0)
	if status := b.out(prReserve, b.key, 0, 0); status != reservationConflict {
		t.Errorf("second reservation: status %#x", status)
	}
	a.wantState([]uint64{0xa, 0xb}, 0xa)
	a.ends("write of the holder", a.write(), 0, 0)
	b.ends("write of who is registered", b.write(), 0, 0)
	c.ends("write of a stranger", c.write(), reservationConflict, 0)
	c.ends("read of a stranger", c.read(), 0, 0)
	if status := c.out(prPreempt, 0, a.key, 0); status != reservationConflict {
		t.Errorf("preempted by who is not registered: status %#x", status)
	}

	// Logging out and in changes nothing.
	for _, m := range []*member{a, b} {
		m.conn.Close()
	}
	c.ends("write of a stranger while the holder is away", c.write(), reservationConflict, 0)
	a.login(s)
	b.login(s)
	a.wantState([]uint64{0xa, 0xb}, 0xa)
	a.ends("write after a login", a.write(), 0, 0)

	// Challenge and defence: the challenger registers and looks whether the
	// holder is alive, that is, whether its key is still there.
	c.good(prIgnore, 0, c.key, 0)
	a.good(prRegister, a.key, 0xaa, 0) // the holder's sign of life
	if status := c.out(prPreempt, c.key, 0xa, 0); status != reservationConflict {
		t.Errorf("preempted by a key that is not current: status %#x", status)
	}
	c.good(prPreempt, c.key, 0xaa, 0)
	c.wantState([]uint64{0xb, 0xc}, 0xc)
	a.ends("first command of who lost", a.write(), 2, 0x062a05)
	a.ends("write of who lost", a.write(), reservationConflict, 0)
	if status := a.out(prRegister, 0xaa, 0xa, 0); status != reservationConflict {
		t.Errorf("sign of life of who lost: status %#x", status)
	}
	b.ends("write of who is still registered", b.write(), 0, 0)
	c.good(prRelease, c.key, 0, 0)
	b.ends("after the release", b.write(), 2, 0x062a04)
	c.good(prClear, c.key, 0, 0)
	b.ends("after the clear", b.write(), 2, 0x062a03)
	c.wantState(nil, 0)

	// When two take a disk from each other at the same time, one has it.
	for round := range 20 {
		a.good(prIgnore, 0, a.key, 0)
		b.good(prIgnore, 0, b.key, 0)
		c.good(prIgnore, 0, c.key, 0)
		c.good(prReserve, c.key, 0, 0)
		a.good(prPreempt, a.key, c.key, 0)
		var both sync.WaitGroup
		var statuses [2]byte
		for i, m := range []*member{a, b} {
			both.Go(func() {
				other := []*member{b, a}[i]
				list := make([]byte, 24)
				binary.BigEndian.PutUint64(list, m.key)
				binary.BigEndian.PutUint64(list[8:], other.key)
				if r, err := m.conn.Do(0, []byte{0x5f, prPreempt, writeExclusiveRegistrants, 8: 24, 9: 0}, 0, list); err != nil {
					t.Error(err)
				} else {
					statuses[i] = r.Status
				}
			})
		}
		both.Wait()
		c.do(make([]byte, 6), 0, nil) // it hears that it was preempted
		keys, holder, _ := c.state()
		if len(keys) != 1 || keys[0] != holder || (statuses[0] == 0) == (statuses[1] == 0) {
			t.Fatalf("round %d: statuses %x, keys %x, holder %x", round, statuses, keys, holder)
		}
		for _, m := range []*member{a, b, c} { // what each has to hear
			for m.do(make([]byte, 6), 0, nil).Status == 2 {
			}
		}
		winner := a
		if holder == b.key {
			winner = b
		}
		winner.good(prClear, holder, 0, 0)
	}
	s.stop()
}

// TestFencing does what Pacemaker's fence_scsi does with sg_persist: members
// unfence themselves when they start, and one of them fences another that has
// failed.
func TestFencing(t *testing.T) {
	const aptpl = 1
	s := newServer(t, newFileStore(t), "volume: disk, size: 16MiB")
	s.start()
	a, b := join(t, s, "a", 0xe1a0001), join(t, s, "b", 0xe1a0002)
	for _, m := range []*member{a, b} { // unfence: sg_persist -o -I -S KEY -Z, then -o -R -T 5 -K KEY if nobody has
		m.good(prIgnore, 0, m.key, aptpl)
		if _, holder, _ := m.state(); holder == 0 {
			m.good(prReserve, m.key, 0, 0)
		}
	}
	b.wantState([]uint64{a.key, b.key}, a.key)
	a.ends("write", a.write(), 0, 0)
	b.ends("write", b.write(), 0, 0)

	b.good(prPreemptAndAbort, b.key, a.key, 0) // fence: sg_persist -o -A -T 5 -K MINE -S ITS
	b.wantState([]uint64{b.key}, b.key)
	a.ends("first command of who was fenced", a.write(), 2, 0x062a05)
	a.ends("write of who was fenced", a.write(), reservationConflict, 0)

	// The server's end does not let it back in.
	s.kill()
	s.start()
	a.login(s)
	a.ends("write of who was fenced, after a crash", a.write(), reservationConflict, 0)
	b.login(s)
	b.wantState([]uint64{b.key}, b.key)
	b.ends("write of the other, after a crash", b.write(), 0, 0)
	a.good(prIgnore, 0, a.key, aptpl) // it was repaired, and comes back
	a.ends("write after unfencing", a.write(), 0, 0)
	b.wantState([]uint64{b.key, a.key}, b.key)
	s.stop()
	s.check()
}

// TestReservationsAfterKill ends the server without a warning: what persists
// is there again, and nothing else.
func TestReservationsAfterKill(t *testing.T) {
	s := newServer(t, newFileStore(t), "volume: disk, size: 16MiB")
	for _, aptpl := range []byte{1, 0} {
		s.start()
		a, b := join(t, s, "a", 0xa), join(t, s, "b", 0xb)
		a.good(prRegister, 0, a.key, aptpl)
		a.good(prReserve, a.key, 0, 0)
		s.kill()
		s.check()
		s.start()
		a.login(s)
		b.login(s)
		keys, holder, generation := b.state()
		if generation != 0 {
			t.Errorf("APTPL %d: generation %d after a restart", aptpl, generation)
		}
		if aptpl == 1 {
			a.wantState([]uint64{a.key}, a.key)
			b.ends("write of a stranger", b.write(), reservationConflict, 0)
			a.ends("write of the holder", a.write(), 0, 0)
			a.good(prClear, a.key, 0, 0)
		} else if len(keys) != 0 || holder != 0 {
			t.Errorf("keys %x, holder %x without APTPL", keys, holder)
		}
		s.stop()
	}
}
