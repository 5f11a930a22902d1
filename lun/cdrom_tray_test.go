package lun

import (
	"bytes"
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/gostor/gotgt/pkg/scsi"
)

// TestTray checks START STOP UNIT: the tray carries the disc out and in again,
// and all nexuses hear of it.
func TestTray(t *testing.T) {
	m := newPlastic(4096, 1)
	d := newTestDrive(m)
	n := nexuses(t, d, 2)
	for _, cdb := range []string{"1b 00 00 00 00 00", "1b 01 00 00 00 00", "1b 00 00 00 01 00", "1b 00 00 00 10 00", "1b 00 00 00 20 00", "1b 00 00 00 32 00", "1b 00 00 00 50 00", closeTray} {
		wantEnding(t, send(t, d, n[0], cdb, nil), "00")
		wantEnding(t, send(t, d, n[0], testUnitReady, nil), "00")
	}
	for _, cdb := range []string{"1b 00 00 00 40 00", "1b 00 00 00 f0 00", "1b 00 00 04 00 00"} {
		wantEnding(t, send(t, d, n[0], cdb, nil), "02 5/24/00")
	}
	wantEnding(t, send(t, d, n[0], openTray, nil), "00")
	wantEnding(t, send(t, d, n[0], openTray, nil), "00")
	for _, n := range n {
		wantEnding(t, send(t, d, n, testUnitReady, nil), "02 2/3a/02")
	}
	if s := d.State(); s.Medium != m || !s.Open || m.removed.Load() != 0 {
		t.Errorf("state %+v", s)
	}
	wantEnding(t, send(t, d, n[1], closeTray, nil), "00")
	for _, n := range n {
		wantEnding(t, send(t, d, n, "28 00 00000000 00 0001 00", nil), "02 6/28/00")
		wantEnding(t, send(t, d, n, "28 00 00000000 00 0001 00", nil), "00")
	}
	// A disc on the open tray can be taken, whoever locks the tray.
	wantEnding(t, send(t, d, n[0], openTray, nil), "00")
	wantEnding(t, send(t, d, n[0], prevent, nil), "00")
	if err := d.Eject(false); err != nil || m.removed.Load() != 1 {
		t.Errorf("eject ended with %v, given back %d times", err, m.removed.Load())
	}
	// The tray is out already, as the drive starts.
	d = NewCDROM(CDROMConfig{ID: testID, Medium: m, Open: true}, discardLog)
	wantEnding(t, send(t, d, nil, testUnitReady, nil), "02 2/3a/02")
	wantEnding(t, send(t, d, nil, closeTray, nil), "00")
	wantEnding(t, send(t, d, nil, testUnitReady, nil), "00")
}

// TestPrevent checks PREVENT ALLOW MEDIUM REMOVAL: each nexus for itself, of
// both kinds, gone with the nexus or a reset.
func TestPrevent(t *testing.T) {
	const (
		persist   = "1e 00 0000 03 00"
		unpersist = "1e 00 0000 02 00"
	)
	d := newTestDrive(newPlastic(4096, 1))
	n := nexuses(t, d, 2)
	a, b := n[0], n[1]
	locked := func(by ...*Nexus) {
		t.Helper()
		s := d.State()
		same := len(s.LockedBy) == len(by)
		for i := range by {
			same = same && s.LockedBy[i] == by[i].InitiatorName
		}
		if !same {
			t.Fatalf("locked by %q", s.LockedBy)
		}
		c := send(t, d, a, "5a 08 2a 00 000000 00ff 00", nil)
		if got := c.In[8+6]&0x02 != 0; got != (len(by) > 0) {
			t.Errorf("LOCK STATE %v", got)
		}
		for _, n := range n {
			want := "00"
			if len(by) > 0 {
				want = "02 5/53/02"
			}
			wantEnding(t, send(t, d, n, openTray, nil), want)
			send(t, d, n, closeTray, nil)
			d.clear(a, scsi.ASC_NOT_READY_TO_TRANSITION)
			d.clear(b, scsi.ASC_NOT_READY_TO_TRANSITION)
		}
	}
	locked()
	send(t, d, a, prevent, nil)
	locked(a)
	send(t, d, b, prevent, nil)
	locked(a, b)
	send(t, d, a, allow, nil)
	locked(b)
	d.Detach(b)
	locked()
	d.Attach(b)
	d.take(b)
	send(t, d, b, prevent, nil)
	d.Reset()
	d.take(a)
	d.take(b)
	locked()

	// The persistent kind is not ended by the other's end, and leaves the tray
	// to its own nexus.
	send(t, d, a, persist, nil)
	send(t, d, a, prevent, nil)
	locked(a)
	send(t, d, a, allow, nil)
	wantEnding(t, send(t, d, b, openTray, nil), "02 5/53/02")
	if err := d.Eject(false); !errors.Is(err, ErrTrayLocked) {
		t.Errorf("eject ended with %v", err)
	}
	wantEnding(t, send(t, d, a, openTray, nil), "00")
	send(t, d, a, closeTray, nil)
	send(t, d, a, testUnitReady, nil)
	send(t, d, b, testUnitReady, nil)
	send(t, d, a, unpersist, nil)
	locked()

	// A nexus that has gone leaves nothing behind.
	c := testNexus()
	wantEnding(t, send(t, d, c, prevent, nil), "40")
	locked()
}

// TestLockedTray checks what an operator meets, and how a guest learns of it.
func TestLockedTray(t *testing.T) {
	one, two := newPlastic(4096, 1), newPlastic(4096, 2)
	d := newTestDrive(one)
	n := nexuses(t, d, 2)
	send(t, d, n[0], prevent, nil)
	send(t, d, n[1], prevent, nil)
	var locked *LockedError
	for range 2 {
		if err := d.Eject(false); !errors.As(err, &locked) || len(locked.Initiators) != 2 {
			t.Fatalf("eject ended with %v", err)
		}
	}
	if err := d.Insert(two, false, nil); !errors.As(err, &locked) {
		t.Fatalf("insert ended with %v", err)
	}
	for _, n := range n {
		wantEvents(t, d, n, "0102", "0002") // asked to eject, once; then nothing
		wantEnding(t, send(t, d, n, testUnitReady, nil), "00")
	}
	if err := d.Insert(two, true, nil); err != nil {
		t.Fatal(err)
	}
	for _, n := range n {
		wantEvents(t, d, n, "0302", "0202", "0002")
		wantEnding(t, send(t, d, n, testUnitReady, nil), "02 6/28/00")
	}
	if err := d.Eject(true); err != nil {
		t.Fatal(err)
	}
	wantEvents(t, d, n[0], "0301", "0001")
	wantEnding(t, send(t, d, n[0], testUnitReady, nil), "02 2/3a/02")
	if one.removed.Load() != 1 || two.removed.Load() != 1 {
		t.Errorf("given back %d and %d times", one.removed.Load(), two.removed.Load())
	}
}

// TestFree waits for a tray that guests let go of, each in its way.
func TestFree(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newTestDrive(newPlastic(4096, 1))
		if !d.Free(t.Context()) {
			t.Error("waits for a tray that nobody has locked")
		}
		for what, let := range map[string]func(n *Nexus){
			"allows":      func(n *Nexus) { send(t, d, n, allow, nil) },
			"goes":        func(n *Nexus) { d.Detach(n) },
			"is reset":    func(*Nexus) { d.Reset() },
			"opens it":    func(n *Nexus) { send(t, d, n, "1e 00 0000 02 00", nil); send(t, d, n, "1e 00 0000 00 00", nil) },
			"has it open": func(n *Nexus) { d.Eject(true) },
		} {
			d.Insert(newPlastic(4096, 1), true, nil)
			n := nexuses(t, d, 1)[0]
			send(t, d, n, prevent, nil)
			ended, cancel := context.WithCancel(t.Context())
			cancel()
			if d.Free(ended) {
				t.Error("free while it is locked")
			}
			free := false
			go func() { free = d.Free(t.Context()) }()
			synctest.Wait()
			if free {
				t.Errorf("%s: free before", what)
			}
			let(n)
			synctest.Wait()
			if !free {
				t.Errorf("a nexus %s: still waits", what)
			}
			d.Detach(n)
		}
	})
}

// wantEvents polls media events: code and status of each.
func wantEvents(t testing.TB, d *CDROM, n *Nexus, events ...string) {
	t.Helper()
	for _, want := range events {
		c := send(t, d, n, mediaPoll, nil)
		if wantEnding(t, c, "00"); !bytes.Equal(c.In, append(unhex(t, "0006 04 56"), unhex(t, want+"0000")...)) {
			t.Errorf("event % x, want %s", c.In, want)
		}
	}
}

// TestEventStatus checks the rest of GET EVENT STATUS NOTIFICATION.
func TestEventStatus(t *testing.T) {
	d := newTestDrive(nil)
	n := testNexus()
	d.Attach(n) // its unit attention stays where it is
	poll := func(cdb, want string) {
		t.Helper()
		c := send(t, d, n, cdb, nil)
		if wantEnding(t, c, "00"); !bytes.Equal(c.In, unhex(t, want)) {
			t.Errorf("%s: % x, want %s", cdb, c.In, want)
		}
	}
	poll(mediaPoll, "0006 04 56 00000000")
	poll("4a 01 0000 04 0000 0008 00", "0006 02 56 00010000")
	poll("4a 01 0000 40 0000 0008 00", "0006 06 56 00000000")
	poll("4a 01 0000 02 0000 0008 00", "0006 01 56 00000000")
	poll("4a 01 0000 00 0000 0008 00", "0002 80 56")
	poll("4a 01 0000 08 0000 0008 00", "0002 80 56")
	wantEnding(t, send(t, d, n, "4a 00 0000 10 0000 0008 00", nil), "02 5/24/00")
	wantEnding(t, send(t, d, n, testUnitReady, nil), "02 6/29/00")

	if err := d.Insert(newPlastic(4096, 1), false, nil); err != nil {
		t.Fatal(err)
	}
	poll("4a 01 0000 10 0000 0004 00", "0006 04 56") // not read, so not lost
	poll("4a 01 0000 ff 0000 0008 00", "0006 01 56 02000001")
	poll("4a 01 0000 ff 0000 0008 00", "0006 04 56 02020000")
	poll("4a 01 0000 ff 0000 0008 00", "0006 01 56 00000000")
	send(t, d, n, testUnitReady, nil)
	send(t, d, n, openTray, nil)
	poll(mediaPoll, "0006 04 56 03010000")
	send(t, d, n, closeTray, nil)
	send(t, d, n, testUnitReady, nil)
	send(t, d, n, openTray, nil)
	send(t, d, n, closeTray, nil)
	poll(mediaPoll, "0006 04 56 03020000") // the latest of each, in their order
	poll(mediaPoll, "0006 04 56 02020000")
	poll(mediaPoll, "0006 04 56 00020000")
	send(t, d, n, testUnitReady, nil)

	c := send(t, d, n, "bd 00 000000000000 0008 00 00", nil)
	if !bytes.Equal(c.In, make([]byte, 8)) {
		t.Errorf("MECHANISM STATUS % x", c.In)
	}
	send(t, d, n, openTray, nil)
	send(t, d, n, testUnitReady, nil)
	c = send(t, d, n, "bd 00 000000000000 0004 00 00", nil)
	if !bytes.Equal(c.In, []byte{0, 0x10, 0, 0}) {
		t.Errorf("MECHANISM STATUS with an open tray % x", c.In)
	}
}

// TestSwapUnderReaders swaps discs while nexuses read. Every command sees one
// disc only, a nexus reads from a disc only after it heard of it, and a disc is
// given back when its last reader is done.
func TestSwapUnderReaders(t *testing.T) {
	const sectors = 16
	one := newPlastic(sectors*sectorSize, 0)
	d := newTestDrive(quickPlastic{one})
	readers := nexuses(t, d, 4)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for i, n := range readers {
		wg.Go(func() {
			last := byte(0)
			for {
				select {
				case <-stop:
					return
				default:
				}
				c := &Command{CDB: extentCDB(0x28, 0, 0, sectors), Nexus: n, InLimit: sectors * sectorSize, Alloc: heap{}}
				if i%2 == 0 || !d.Try(c) {
					d.Execute(t.Context(), c)
				}
				switch ending(c) {
				case "00":
					now := c.In[8]
					for j := range sectors {
						if c.In[j*sectorSize+8] != now {
							t.Errorf("bytes of discs %d and %d", now, c.In[j*sectorSize+8])
							return
						}
					}
					if now != last {
						t.Errorf("disc %d, and nobody said so after %d", now, last)
						return
					}
				case "02 6/28/00":
					// Which one it is now is told by what is read next.
					c := &Command{CDB: extentCDB(0x28, 0, 0, 1), Nexus: n, InLimit: sectorSize, Alloc: heap{}}
					for {
						d.Execute(t.Context(), c)
						if ending(c) == "00" {
							last = c.In[8]
							break
						}
					}
				case "02 2/04/01", "02 2/3a/01", "02 2/3a/02":
				default:
					t.Errorf("a read ended with %s", ending(c))
					return
				}
			}
		})
	}
	discs := []*plastic{one}
	for i := 1; i < 200; i++ {
		m := newPlastic(sectors*sectorSize, byte(i))
		discs = append(discs, m)
		if err := d.Insert(quickPlastic{m}, false, nil); err != nil {
			t.Error(err)
		}
	}
	close(stop)
	wg.Wait()
	for i, m := range discs {
		want := int32(1)
		if i == len(discs)-1 {
			want = 0
		}
		if got := m.removed.Load(); got != want {
			t.Errorf("disc %d was given back %d times", i, got)
		}
	}
}

// TestReadOutlivesEject ejects a disc while a read of it waits.
func TestReadOutlivesEject(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newPlastic(4096, 7)
		m.blocked = make(chan struct{})
		d := newTestDrive(m)
		c := &Command{CDB: extentCDB(0x28, 0, 0, 2), InLimit: 4096, Alloc: heap{}}
		go d.Execute(t.Context(), c)
		synctest.Wait() // it reads
		if err := d.Eject(false); err != nil {
			t.Fatal(err)
		}
		if m.removed.Load() != 0 {
			t.Error("given back under a reader")
		}
		close(m.blocked)
		synctest.Wait()
		if wantEnding(t, c, "00"); len(c.In) != 4096 || c.In[4095] != 7 {
			t.Error("the read has not ended on the old disc")
		}
		if m.removed.Load() != 1 {
			t.Error("not given back after the last reader")
		}
	})
}
