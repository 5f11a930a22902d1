package lun

import (
	"encoding/binary"
	"testing"
)

// TestPreemptedCopy has a nexus preempted from a disk while another disk copies
// to it on its behalf: when PREEMPT AND ABORT has ended, so has that, and it can
// start no other one.
func TestPreemptedCopy(t *testing.T) {
	a, b := newMemory(4096), newMemory(4096)
	a.blocked = make(chan struct{})
	p := newPair(t, a, b)
	p.nexus.Transport = &aborter{}
	other := &Nexus{InitiatorName: "iqn.2026-11.io.skylun:other", TargetName: p.nexus.TargetName, PortalGroup: 1, Transport: &aborter{}}
	p.units.AttachNexus(other)
	wantEnding(t, send(t, p.disks[1], other, testUnitReady, nil), "02 6/29/00")
	out := func(n *Nexus, action, kind byte, key, serviceKey uint64) *Command {
		list := make([]byte, 24)
		binary.BigEndian.PutUint64(list, key)
		binary.BigEndian.PutUint64(list[8:], serviceKey)
		return exec(t, p.disks[1], &Command{CDB: []byte{0x5f, action, kind, 0, 0, 0, 0, 0, 24, 0}, Nexus: n, Out: list})
	}
	wantEnding(t, out(p.nexus, 0, 0, 0, 0xa), "00")
	wantEnding(t, out(other, 0, 0, 0, 0xb), "00")
	wantEnding(t, out(other, 1, 5, 0xb, 0), "00") // RESERVE, write exclusive for registrants

	list := copyParameterList(3, 0, names(p.disks[:]...), segment(0, 1, 1, 0, 0))
	done := make(chan *Command, 1)
	go func() {
		c := &Command{CDB: []byte{0x83, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, byte(len(list)), 0, 0}, Nexus: p.nexus, Out: list, Alloc: heap{}}
		p.disks[0].Execute(t.Context(), c)
		done <- c
	}()
	for visiting := false; !visiting; {
		p.disks[1].mu.Lock()
		visiting = len(p.disks[1].visits) > 0
		p.disks[1].mu.Unlock()
	}
	wantEnding(t, out(other, 0x05, 5, 0xb, 0xa), "00") // PREEMPT AND ABORT
	p.disks[1].mu.Lock()
	visits := len(p.disks[1].visits)
	p.disks[1].mu.Unlock()
	if visits > 0 {
		t.Error("the copy goes on after its initiator was preempted")
	}
	wantEnding(t, <-done, "02 a/0d/01")
	close(a.blocked)
	wantEnding(t, xcopy(t, p.disks[0], p.nexus, list), "02 a/0d/01")
	if len(b.calls) > 0 {
		t.Errorf("calls %q of who was preempted", b.calls)
	}
	wantEnding(t, xcopy(t, p.disks[0], other, list), "02 6/29/00")
	wantEnding(t, xcopy(t, p.disks[0], other, list), "00") // who preempted may copy
}
