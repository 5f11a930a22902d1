package lun

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"strings"
	"testing"
)

// TestReserveOutLists checks lengths and fields of PERSISTENT RESERVE OUT, SPC-4
// 6.16, and that what is refused changes nothing.
func TestReserveOutLists(t *testing.T) {
	port := appendTransportID(nil, nexusName{Initiator: "iqn.2026-11.io.skylun:x", ISID: isid{1, 2, 3, 4, 5, 6}})
	edit := func(b []byte, at int, v byte) []byte { b = bytes.Clone(b); b[at] = v; return b }
	long := nodeID("iqn." + strings.Repeat("x", 223))
	for _, c := range []struct {
		name   string
		action byte
		list   []byte
		length int // in the CDB, as far as it is not the list's
		want   string
		field  string // pointed at
	}{
		{name: "nothing", action: 0, want: "02 5/1a/00"},
		{name: "short", action: 0, list: basicList(0, 1, 0)[:23], want: "02 5/1a/00"},
		{name: "long", action: 0, list: append(basicList(0, 1, 0), 0), want: "02 5/1a/00"},
		{name: "less data than said", action: 0, list: basicList(0, 1, 0)[:20], length: 24, want: "02 5/1a/00"},
		{name: "less said than data", action: 0, list: basicList(0, 1, 0), length: 20, want: "02 5/1a/00"},
		{name: "length beyond all", action: 0, list: basicList(0, 1, 0), length: -1, want: "02 5/1a/00"},
		{name: "long clear", action: 3, list: append(basicList(0, 1, 0), make([]byte, 8)...), want: "02 5/1a/00"},
		{name: "specified and ignored", action: 6, list: specifyList(1, 0, port), want: "02 5/26/00", field: "8b0014"},
		{name: "specified and reserved", action: 1, list: specifyList(1, 0), want: "02 5/26/00", field: "8b0014"},
		{name: "specified without a length", action: 0, list: basicList(0, 1, 8), want: "02 5/1a/00"},
		{name: "specified, zero key", action: 0, list: specifyList(0, 0, port), want: "02 5/24/00", field: "cc0001"},
		{name: "specified length", action: 0, list: edit(specifyList(1, 0, port), 27, 3), want: "02 5/26/00", field: "800018"},
		{name: "specified, another protocol", action: 0, list: specifyList(1, 0, edit(port, 0, 0x46)), want: "02 5/26/00", field: "80001c"},
		{name: "specified, another format", action: 0, list: specifyList(1, 0, edit(port, 0, 0x85)), want: "02 5/26/00", field: "80001c"},
		{name: "specified, ID cut", action: 0, list: specifyList(1, 0, port, port[:len(port)-4]), want: "02 5/26/00", field: fmt.Sprintf("8000%02x", 28+len(port))},
		{name: "specified, unknown node", action: 0, list: specifyList(1, 0, nodeID("iqn.2026-11.io.skylun:x")), want: "02 5/26/00", field: "80001c"},
		{name: "specified, long name", action: 0, list: specifyList(1, 0, long), want: "02 5/26/00", field: "80001c"},
		{name: "move, short", action: 7, list: basicList(0, 1, 0), want: "02 5/26/00", field: "800012"},
		{name: "move, ID length", action: 7, list: edit(moveList(0, 1, 0, 1, port), 23, 1), want: "02 5/1a/00"},
		{name: "move to another port", action: 7, list: moveList(0, 1, 0, 2, port), want: "02 5/26/00", field: "800012"},
		{name: "move to a node", action: 7, list: moveList(0, 1, 0, 1, nodeID("iqn.2026-11.io.skylun:x")), want: "02 5/26/00", field: "800018"},
		{name: "move to two", action: 7, list: moveList(0, 1, 0, 1, append(bytes.Clone(port), port...)), want: "02 5/26/00", field: "800018"},
	} {
		p := newReserving(t)
		if c.length == 0 {
			c.length = len(c.list)
		}
		cdb := []byte{0x5f, c.action, 1, 0, 0, 0, 0, 0, 0, 0}
		binary.BigEndian.PutUint32(cdb[5:], uint32(c.length))
		got := exec(t, p.d, &Command{CDB: cdb, Nexus: p.nexus("a"), Out: c.list})
		if ending(got) != c.want {
			t.Errorf("%s: %s, want %s", c.name, ending(got), c.want)
		} else if field := fmt.Sprintf("%x", got.Sense[15:18]); c.field != "" && field != c.field {
			t.Errorf("%s: points at %s, want %s", c.name, field, c.field)
		}
		p.run("a full\na gen	0")
	}
}

// TestSpecifyInitiatorPorts checks SPEC_I_PT, SPC-4 5.13.7.
func TestSpecifyInitiatorPorts(t *testing.T) {
	p := newReserving(t)
	id := func(name string) []byte { return appendTransportID(nil, p.nexus(name).name()) }
	wantEnding(t, p.out(p.nexus("a"), 0, 0, specifyList(5, 0, id("b"), id("c"), id("a"))), "00")
	p.run(`
		a full		a/61:5 b/62:5 c/63:5
		a gen		1`)
	wantEnding(t, p.out(p.nexus("a"), 0, 0, append(basicList(5, 6, 8), 0, 0, 0, 0)), "02 5/24/00") // is registered
	p.run("d register 0 7	00")
	wantEnding(t, p.out(p.nexus("e"), 0, 0, specifyList(8, 0, id("d"), id("f"))), "00")
	p.run("a full	a/61:5 b/62:5 c/63:5 d/64:7 e/65:8 f/66:8") // who has a key keeps it

	// A node is all its ports that are known: of sessions and registrations.
	p = newReserving(t)
	b := p.nexus("b")
	other := *b
	other.ISID = isid{0x80, 0x11}
	p.d.Attach(&other)
	wantEnding(t, p.out(p.nexus("a"), 0, 0, specifyList(5, 0, nodeID(strings.ToUpper(b.InitiatorName)))), "00")
	if got := p.step(p.nexus("a"), "full", nil); len(strings.Fields(got)) != 3 || !strings.Contains(got, "b/62:5") || !strings.Contains(got, "b/11:5") {
		t.Errorf("registered %s", got)
	}
}

// TestRegistrationLimit checks that one registration too many is refused, and
// that nothing of the command has happened then.
func TestRegistrationLimit(t *testing.T) {
	p := newReserving(t)
	var ids [][]byte
	for i := range maxRegistrations {
		ids = append(ids, appendTransportID(nil, nexusName{Initiator: "iqn.2026-11.io.skylun:x", ISID: isid{1, 1, 1, 1, byte(i >> 8), byte(i)}}))
	}
	wantEnding(t, p.out(p.nexus("a"), 0, 0, specifyList(1, 0, ids...)), "02 5/55/04")
	p.run("a keys\na gen	0")
	wantEnding(t, p.out(p.nexus("a"), 0, 0, specifyList(1, 0, ids[1:]...)), "00")
	p.run(`
		b register 0 1	02 5/55/04
		b ignore 1	02 5/55/04
		a reserve 5 1	00
		a move 1 2 b	02 5/55/04
		a state		5 1
		a register 1 2	00`)
	if n := len(p.d.persistent.list); n != maxRegistrations {
		t.Errorf("%d registrations, want %d", n, maxRegistrations)
	}
}

// TestAllTargetPorts checks ALL_TG_PT for a target with two portal groups.
func TestAllTargetPorts(t *testing.T) {
	p := newReserving(t)
	m := NewMap()
	if err := m.Add(0, p.d); err != nil {
		t.Fatal(err)
	}
	if err := m.SetPortGroups(PortGroup{Tag: 1}, PortGroup{Tag: 2}); err != nil {
		t.Fatal(err)
	}
	nexus := func(group uint16) *Nexus {
		n := *p.nexus("a")
		n.PortalGroup = group
		m.AttachNexus(&n)
		send(t, p.d, &n, testUnitReady, nil)
		return &n
	}
	one, two := nexus(1), nexus(2)
	wantEnding(t, p.out(one, 0, 0, basicList(0, 5, 0)), "00")
	wantEnding(t, p.out(two, 1, 1, basicList(5, 0, 0)), "18")
	wantEnding(t, p.out(one, 0, 0, basicList(5, 0, 0)), "00")
	wantEnding(t, p.out(one, 0, 0, basicList(0, 5, 4)), "00")
	wantEnding(t, p.out(one, 0, 0, basicList(0, 5, 4)), "18")
	wantEnding(t, p.out(two, 1, 5, basicList(5, 0, 0)), "00")
	c := send(t, p.d, one, "5e 03 0000000000 ffff 00", nil)
	n := 24 + int(binary.BigEndian.Uint32(c.In[28:]))
	if first, second := c.In[8:8+n], c.In[8+n:]; first[19] != 1 || first[12] != 0 || second[19] != 2 || second[12] != 1 || len(first) != len(second) {
		t.Errorf("full status % x", c.In)
	}
	wantEnding(t, p.out(two, 6, 0, basicList(0, 0, 4)), "00")
	p.run("b keys\nb state	none")
	wantEnding(t, p.out(one, 0, 0, basicList(0, 5, 0)), "00")
	wantEnding(t, p.out(one, 1, 1, basicList(5, 0, 0)), "00")
	wantEnding(t, send(t, p.d, two, "2a 00 00000000 00 0001 00", make([]byte, 512)), "18")
	wantEnding(t, p.out(one, 7, 0, moveList(5, 6, 2, 2, appendTransportID(nil, one.name()))), "00") // from port to port
	wantEnding(t, send(t, p.d, two, "2a 00 00000000 00 0001 00", make([]byte, 512)), "00")
}

// TestReservationOverTargets checks that a unit has one state whichever target
// shows it.
func TestReservationOverTargets(t *testing.T) {
	p := newReserving(t)
	maps := [2]*Map{NewMap(), NewMap()}
	var nexuses [2]*Nexus
	for i, m := range maps {
		if err := m.Add(uint16(i), p.d); err != nil {
			t.Fatal(err)
		}
		n := *p.nexus("a")
		n.TargetName += fmt.Sprint(i)
		m.AttachNexus(&n)
		send(t, p.d, &n, testUnitReady, nil)
		nexuses[i] = &n
	}
	wantEnding(t, p.out(nexuses[0], 0, 0, basicList(0, 5, 0)), "00")
	wantEnding(t, p.out(nexuses[0], 1, 1, basicList(5, 0, 0)), "00")
	wantEnding(t, send(t, p.d, nexuses[1], "2a 00 00000000 00 0001 00", make([]byte, 512)), "18")
	wantEnding(t, p.out(nexuses[1], 0, 0, basicList(0, 6, 0)), "00")
	wantEnding(t, p.out(nexuses[1], 4, 1, basicList(6, 5, 0)), "00")
	wantEnding(t, send(t, p.d, nexuses[0], "2a 00 00000000 00 0001 00", make([]byte, 512)), "02 6/2a/05")
	wantEnding(t, send(t, p.d, nexuses[0], "2a 00 00000000 00 0001 00", make([]byte, 512)), "18")
	wantEnding(t, send(t, p.d, nexuses[1], "2a 00 00000000 00 0001 00", make([]byte, 512)), "00")
}

// TestReserveIn checks the parameter data of PERSISTENT RESERVE IN, SPC-4 6.15,
// byte for byte and with short allocation lengths.
func TestReserveIn(t *testing.T) {
	p := newReserving(t)
	p.run("a register 0 123456789abcdef0	00\nb register 0 b aptpl	00\na reserve 5 123456789abcdef0	00")
	full := "00000002 00000090" +
		"123456789abcdef0 00000000 01 05 00000000 0001 00000030" +
		"4500 002c 69716e2e323032362d31312e696f2e736b796c756e3a612c692c3078 383036313030303030303030 00000000" +
		"000000000000000b 00000000 00 00 00000000 0001 00000030" +
		"4500 002c 69716e2e323032362d31312e696f2e736b796c756e3a622c692c3078 383036323030303030303030 00000000"
	for action, want := range map[string]string{
		"00": "00000002 00000010 123456789abcdef0 000000000000000b",
		"01": "00000002 00000010 123456789abcdef0 00000000 00 05 0000",
		"02": "0008 1d b1 ea01 0000",
		"03": full,
	} {
		whole := unhex(t, want)
		for _, n := range []int{0, 1, 4, 7, 8, 12, len(whole) - 1, len(whole), 0xffff} {
			c := send(t, p.d, p.nexus("c"), fmt.Sprintf("5e %s 0000000000 %04x 00", action, n), nil)
			if wantEnding(t, c, "00"); !bytes.Equal(c.In, whole[:min(n, len(whole))]) {
				t.Errorf("action %s, %d bytes: % x, want % x", action, n, c.In, whole[:min(n, len(whole))])
			}
		}
	}
	for _, cdb := range []string{"5e 04 0000000000 ffff 00", "5e 1f 0000000000 ffff 00", "5f 08 00 0000 00000018 00", "5f 1f 00 0000 00000018 00"} {
		wantEnding(t, send(t, p.d, p.nexus("c"), cdb, make([]byte, 24)), "02 5/24/00")
	}
	// Without a store nothing persists, and nobody may believe that it does.
	d := newTestDisk(newMemory(4096))
	if c := send(t, d, nil, "5e 02 0000000000 0008 00", nil); c.In[2] != 0x1c || c.In[3] != 0xb0 {
		t.Errorf("capabilities % x", c.In)
	}
	wantEnding(t, send(t, d, nil, "5f 00 00 0000 00000018 00", basicList(0, 1, 1)), "02 5/26/00")
	wantEnding(t, send(t, d, nil, "5f 00 00 0000 00000018 00", basicList(0, 1, 0)), "00")
}

// TestPersistThroughPowerLoss checks APTPL, SPC-4 5.13.5, and PRGENERATION,
// 6.15.2.
func TestPersistThroughPowerLoss(t *testing.T) {
	p := newReserving(t)
	p.run("a register 0 a	00\na reserve 5 a	00")
	p.restart()
	p.run("a keys\na state	none")

	p.run(`
		a register 0 a aptpl	00
		b register 0 b aptpl	00
		b reserve 5 b		00
		a gen			2`)
	p.restart()
	p.run(`
		c write			18
		a write			00
		a full			a/61:a b/62:b=5
		a gen			0
		a ignore c aptpl	00
		a gen			1
		a preempt 8 c b		00`)
	p.restart()
	p.run(`
		c read			18
		a full			a/61:c=8
		a register c d		00
		a full			a/61:d=8`)
	p.restart() // the last APTPL was zero
	p.run("a full\na state	none\nc write	00")
	if len(p.store.values) != 0 {
		t.Errorf("still in the store: %q", p.store.values)
	}

	// What cannot be saved does not happen.
	p.run("a register 0 a aptpl	00")
	*p.store.fail = errFull
	p.run(`
		a reserve 1 a		02 4/44/00
		a state			none
		b register 0 b aptpl	02 4/44/00
		a keys			a
		a gen			1
		a register a 0		02 4/44/00`)
	*p.store.fail = nil
	p.run("a clear a	00\na keys")
	p.restart()
	p.run("a keys")
}

// TestDamagedReservations loads what was never saved.
func TestDamagedReservations(t *testing.T) {
	for _, value := range []string{
		"", "{", `{"version":2}`, `{"version":1}`, `{"version":1,"type":5,"registrations":[]}`,
		`{"version":1,"type":5,"registrations":[{"nexus":{"initiator":"i","isid":"000000000000"},"key":1}]}`,
		`{"version":1,"type":9,"registrations":[{"nexus":{"initiator":"i","isid":"000000000000"},"key":1}]}`,
		`{"version":1,"registrations":[{"nexus":{"initiator":"i","isid":"000000000000"},"key":0}]}`,
		`{"version":1,"registrations":[{"nexus":{"initiator":"i","isid":"0000"},"key":1}]}`,
		`{"version":1,"type":1,"holder":{"initiator":"j","isid":"000000000000"},"registrations":[{"nexus":{"initiator":"i","isid":"000000000000"},"key":1}]}`,
	} {
		if r, err := decodeRegistrations([]byte(value)); err == nil {
			t.Errorf("%s is %+v", value, r)
		}
		p := newReserving(t)
		p.store.values[savedReservations] = []byte(value)
		p.restart()
		p.run("a state	none\na write	00")
	}
}

// TestReservationTurns checks that a command that waits for its turn ends when
// it is aborted.
func TestReservationTurns(t *testing.T) {
	p := newReserving(t)
	n := p.nexus("a")
	done, err := p.d.takeTurn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, cdb := range []string{"5f 00 00 0000 00000018 00", "16 0000 0000 00"} {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		wantEnding(t, execContext(t, ctx, p.d, &Command{CDB: unhex(t, cdb), Nexus: n, Out: basicList(0, 1, 0)}), "40")
	}
	done()
	p.run("a keys\na register 0 1	00")
	p.trans["a"].fail = context.Canceled
	wantEnding(t, p.out(n, 5, 1, basicList(1, 1, 0)), "40")
}

func FuzzTransportID(f *testing.F) {
	f.Add(appendTransportID(nil, nexusName{Initiator: "iqn.2026-11.io.skylun:x", ISID: isid{1, 2, 3, 4, 5, 6}}))
	f.Add(nodeID("iqn.2026-11.io.skylun:x"))
	f.Fuzz(func(t *testing.T, b []byte) {
		id, rest, ok := cutTransportID(b)
		if !ok {
			return
		}
		if len(rest) > len(b)-24 || id.initiator == "" || len(id.initiator) > 2*longestName {
			t.Fatalf("% x: %+v, % x", b, id, rest)
		}
		if id.port {
			again, rest, ok := cutTransportID(appendTransportID(nil, nexusName{Initiator: id.initiator, ISID: id.isid}))
			if again != id && len(id.initiator) <= longestName || !ok && len(id.initiator) <= longestName || len(rest) > 0 {
				t.Fatalf("% x: %+v, again %+v", b, id, again)
			}
		}
	})
}
