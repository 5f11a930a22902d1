package lun

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// reserving runs scripts against a disk with reservations: a line for each
// command, with who sends it, what, and behind the last tab how it ends.
//
//	register KEY NEW [aptpl] [all]     PERSISTENT RESERVE OUT
//	ignore NEW [aptpl] [all]           REGISTER AND IGNORE EXISTING KEY
//	reserve TYPE KEY, release TYPE KEY, clear KEY
//	preempt TYPE KEY NEW, abort TYPE KEY NEW
//	move KEY NEW WHO [unreg] [aptpl]
//	reserve6, release6, read, write, ready
//	keys       the keys, in the order of registration
//	state      the type and the key of the reservation
//	full       who, key and type of all registrations
//	gen        PRGENERATION
//	lose, come                          the session ends; it comes back
//	reset                               the unit is reset
type reserving struct {
	t     *testing.T
	d     *Disk
	store memoryStore
	all   map[string]*Nexus
	trans map[string]*aborter
}

// memoryStore is a Store that forgets.
type memoryStore struct {
	mu     *sync.Mutex
	values map[string][]byte
	fail   *error // of Save
}

func newMemoryStore() memoryStore { return memoryStore{&sync.Mutex{}, map[string][]byte{}, new(error)} }

func (s memoryStore) Load(name string) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.values[name]), nil
}

func (s memoryStore) Save(name string, value []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if *s.fail != nil {
		return *s.fail
	}
	if value == nil {
		delete(s.values, name)
		return nil
	}
	s.values[name] = slices.Clone(value)
	return nil
}

// aborter is a Transport that notes what it was asked to abort.
type aborter struct {
	unit Unit
	but  *Command
	n    int
	then func()
	fail error
}

func (a *aborter) AbortTasks(_ context.Context, u Unit, but *Command) error {
	a.unit, a.but, a.n = u, but, a.n+1
	if a.then != nil {
		a.then()
	}
	return a.fail
}

func (a *aborter) InventoryChanged() {}

func newReserving(t *testing.T) *reserving {
	p := &reserving{t: t, store: newMemoryStore()}
	p.restart()
	return p
}

// restart begins with the unit as it is after a loss of power.
func (p *reserving) restart() {
	p.all, p.trans = map[string]*Nexus{}, map[string]*aborter{}
	p.d = NewDisk(able{quick{newMemory(1 << 20)}}, DiskConfig{Name: "vol", ID: testID, Store: p.store}, discardLog)
}

// nexus returns the nexus of that name, which has heard of the power on. Its
// ISID is made of the name's first letter.
func (p *reserving) nexus(name string) *Nexus {
	if n := p.all[name]; n != nil {
		return n
	}
	p.trans[name] = &aborter{}
	n := &Nexus{InitiatorName: "iqn.2026-11.io.skylun:" + name, ISID: isid{0x80, name[0]}, TargetName: "iqn.2026-11.io.skylun:t", PortalGroup: 1, Transport: p.trans[name]}
	p.all[name] = n
	p.d.Attach(n)
	wantEnding(p.t, send(p.t, p.d, n, testUnitReady, nil), "02 6/29/00")
	return n
}

func (p *reserving) run(script string) {
	p.t.Helper()
	for line := range strings.Lines(strings.TrimSpace(script)) {
		line = strings.TrimSpace(line)
		if line == "" {
			continue
		}
		at := strings.LastIndexByte(line, '\t')
		if at < 0 {
			at = len(line)
		}
		do, want := strings.TrimSpace(line[:at]), strings.TrimSpace(line[at:])
		f := strings.Fields(do)
		if got := p.step(p.nexus(f[0]), f[1], f[2:]); got != want {
			p.t.Errorf("%s: %q, want %q", do, got, want)
		}
	}
}

func (p *reserving) step(n *Nexus, verb string, args []string) string {
	p.t.Helper()
	arg := func(i int) uint64 {
		v, err := strconv.ParseUint(args[i], 16, 64)
		if err != nil {
			p.t.Fatal(err)
		}
		return v
	}
	flags := func(args []string) (b byte) {
		for _, a := range args {
			b |= map[string]byte{"aptpl": 1, "unreg": 2, "all": 4, "specify": 8}[a]
		}
		return b
	}
	cmd := func(cdb string) string { return ending(send(p.t, p.d, n, cdb, make([]byte, 512))) }
	switch verb {
	case "register":
		return ending(p.out(n, 0, 0, basicList(arg(0), arg(1), flags(args[2:]))))
	case "ignore":
		return ending(p.out(n, 6, 0, basicList(0xdead, arg(0), flags(args[1:]))))
	case "reserve":
		return ending(p.out(n, 1, byte(arg(0)), basicList(arg(1), 0, 0)))
	case "release":
		return ending(p.out(n, 2, byte(arg(0)), basicList(arg(1), 0, 0)))
	case "clear":
		return ending(p.out(n, 3, 0, basicList(arg(0), 0, 0)))
	case "preempt":
		return ending(p.out(n, 4, byte(arg(0)), basicList(arg(1), arg(2), 0)))
	case "abort":
		return ending(p.out(n, 5, byte(arg(0)), basicList(arg(1), arg(2), 0)))
	case "move":
		return ending(p.out(n, 7, 0, moveList(arg(0), arg(1), flags(args[3:]), 1, appendTransportID(nil, p.nexus(args[2]).name()))))
	case "reserve6":
		return cmd("16 0000 0000 00")
	case "release6":
		return cmd("17 0000 0000 00")
	case "read":
		return cmd("28 00 00000000 00 0001 00")
	case "write":
		return cmd("2a 00 00000000 00 0001 00")
	case "ready":
		return cmd(testUnitReady)
	case "lose":
		p.d.Detach(n)
		return ""
	case "come":
		p.d.Attach(n)
		return ""
	case "reset":
		p.d.Reset()
		return ""
	}
	action := map[string]string{"keys": "00", "gen": "00", "state": "01", "full": "03"}[verb]
	if action == "" {
		p.t.Fatalf("no such step: %s", verb)
	}
	c := send(p.t, p.d, n, "5e "+action+" 0000000000 ffff 00", nil)
	if c.Status != StatusGood {
		return ending(c)
	}
	data := c.In[8:]
	if int(binary.BigEndian.Uint32(c.In[4:])) != len(data) {
		p.t.Errorf("%s: length % x of %d bytes", verb, c.In[4:8], len(data))
	}
	switch verb {
	case "gen":
		return fmt.Sprint(binary.BigEndian.Uint32(c.In))
	case "keys":
		var keys []string
		for ; len(data) > 0; data = data[8:] {
			keys = append(keys, fmt.Sprintf("%x", binary.BigEndian.Uint64(data)))
		}
		return strings.Join(keys, " ")
	case "state":
		if len(data) == 0 {
			return "none"
		}
		return fmt.Sprintf("%x %x", data[13], binary.BigEndian.Uint64(data))
	}
	var all []string
	for len(data) > 0 {
		end := 24 + int(binary.BigEndian.Uint32(data[20:]))
		id, rest, ok := cutTransportID(data[24:end])
		if !ok || len(rest) > 0 || !id.port {
			p.t.Fatalf("TransportID % x", data[24:end])
		}
		s := fmt.Sprintf("%s/%02x:%x", id.initiator[strings.LastIndexByte(id.initiator, ':')+1:], id.isid[1], binary.BigEndian.Uint64(data))
		if data[12] == 1 {
			s += fmt.Sprintf("=%x", data[13])
		}
		all, data = append(all, s), data[end:]
	}
	return strings.Join(all, " ")
}

// out sends PERSISTENT RESERVE OUT with a parameter list.
func (p *reserving) out(n *Nexus, action, kind byte, list []byte) *Command {
	p.t.Helper()
	cdb := []byte{0x5f, action, kind, 0, 0, 0, 0, 0, 0, 0}
	binary.BigEndian.PutUint32(cdb[5:], uint32(len(list)))
	return exec(p.t, p.d, &Command{CDB: cdb, Nexus: n, Out: list, InLimit: 512})
}

func basicList(key, action uint64, flags byte) []byte {
	b := binary.BigEndian.AppendUint64(nil, key)
	b = binary.BigEndian.AppendUint64(b, action)
	return append(b, 0, 0, 0, 0, flags, 0, 0, 0)
}

func specifyList(action uint64, flags byte, ids ...[]byte) []byte {
	list := slices.Concat(ids...)
	return append(binary.BigEndian.AppendUint32(basicList(0, action, 8|flags), uint32(len(list))), list...)
}

func moveList(key, action uint64, flags byte, port uint16, id []byte) []byte {
	b := binary.BigEndian.AppendUint64(nil, key)
	b = binary.BigEndian.AppendUint64(b, action)
	b = append(b, 0, flags, byte(port>>8), byte(port))
	return append(binary.BigEndian.AppendUint32(b, uint32(len(id))), id...)
}

// nodeID returns a TransportID of format 00b.
func nodeID(name string) []byte {
	n := max(20, (len(name)+4)&^3)
	return append(append([]byte{5, 0, byte(n >> 8), byte(n)}, name...), make([]byte, n-len(name))...)
}

var errFull = errors.New("the disk is full")

// aborted returns whose commands were aborted.
func (p *reserving) aborted() string {
	var names []string
	for name, a := range p.trans {
		if a.n > 0 {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return strings.Join(names, " ")
}
