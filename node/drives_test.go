package node

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"skylun/lun"
)

const testTarget = "iqn.2026-11.io.skylun:t"

// iso returns an image with an ISO 9660 label and size bytes in all.
func iso(label string, size int) []byte {
	p := pattern(size, label[0])
	const at = 16 * 2048
	copy(p[at:], "\x01CD001\x01")
	copy(p[at+40:at+72], label+strings.Repeat(" ", 32))
	return p
}

// drives replaces the units of the only target by drives from LUN 1 on.
func drives(cfg *Config, drives ...CDROMConfig) {
	cfg.Targets[0].LUNs = nil
	for i, d := range drives {
		cfg.Targets[0].LUNs = append(cfg.Targets[0].LUNs, LUNConfig{LUN: 1 + i, CDROM: &d})
	}
}

type buffers struct{}

func (buffers) Get(n int) []byte { return make([]byte, n) }

// command runs a command on a drive and returns its Data-In and sense data as
// "key/code".
func command(t *testing.T, n *Node, iqn string, number int, nexus *lun.Nexus, cdb ...byte) ([]byte, string) {
	t.Helper()
	d, err := n.driveAt(iqn, number)
	if err != nil {
		t.Fatal(err)
	}
	c := &lun.Command{CDB: cdb, Nexus: nexus, InLimit: 1 << 20, Alloc: buffers{}}
	if !d.dev.Try(c) {
		d.dev.Execute(t.Context(), c)
	}
	if c.Status != lun.StatusGood {
		const digits = "0123456789abcdef"
		s := c.Sense
		return nil, string([]byte{digits[s[2]&15], '/', digits[s[12]>>4], digits[s[12]&15], digits[s[13]>>4], digits[s[13]&15]})
	}
	return c.In, ""
}

var (
	unitReady = []byte{0, 0, 0, 0, 0, 0}
	trayOpen  = []byte{0x1b, 0, 0, 0, 2, 0}
	trayClose = []byte{0x1b, 0, 0, 0, 3, 0}
	lockTray  = []byte{0x1e, 0, 0, 0, 1, 0}
)

// wantDrive checks how a drive is shown: image, label, size and tray.
func wantDrive(t *testing.T, n *Node, number int, want LUNStatus) {
	t.Helper()
	all, err := n.LUNs(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(all, func(l LUNStatus) bool { return l.IQN == testTarget && l.LUN == number })
	if i < 0 {
		t.Fatalf("no lun %d in %+v", number, all)
	}
	got := all[i]
	if got.Type != "cdrom" || got.Image != want.Image || got.Label != want.Label || got.Size != want.Size || got.Tray != want.Tray || !slices.Equal(got.LockedBy, want.LockedBy) {
		t.Errorf("%+v, want %+v", got, want)
	}
}

// TestDriveKeepsMedium checks that the configuration says what a drive begins
// with, and that after that everything stays as it was left, by guests too.
func TestDriveKeepsMedium(t *testing.T) {
	noLeaks(t)
	cfg := testConfig(t)
	one, two := iso("ONE", 100<<10), iso("TWO", 90<<10+512)
	putImage(t, cfg, "one.iso", one)
	putImage(t, cfg, "two.iso", two)
	drives(&cfg, CDROMConfig{Media: "one.iso"}, CDROMConfig{})
	first := LUNStatus{Image: "one.iso", Label: "ONE", Size: 100 << 10, Tray: "closed"}
	none := LUNStatus{Tray: "closed"}

	n := start(t, cfg)
	wantDrive(t, n, 1, first)
	wantDrive(t, n, 2, none)
	got, sense := command(t, n, testTarget, 1, nil, 0x28, 0, 0, 0, 0, 16, 0, 0, 34, 0)
	if sense != "" || !bytes.Equal(got, one[16*2048:]) {
		t.Errorf("read %d bytes, sense %s", len(got), sense)
	}
	identity, _ := command(t, n, testTarget, 1, nil, 0x12, 1, 0x83, 0, 0xff, 0)
	if s, err := n.Status(t.Context()); err != nil || len(s.Caches) != 1 || len(s.Caches[0].Drives) != 1 || len(s.Caches[0].Volumes) != 0 {
		t.Errorf("caches %+v, %v", s.Caches, err)
	}
	if l, err := n.InsertMedia(t.Context(), testTarget, 2, MediaSpec{Image: "two.iso"}); err != nil || l.Image != "two.iso" {
		t.Fatalf("%+v, %v", l, err)
	}
	stop(t, n)

	// The medium of the second one stays, and the first one's line is history.
	cfg.Targets[0].LUNs[0].CDROM.Media = "gone.iso"
	second := LUNStatus{Image: "two.iso", Label: "TWO", Size: 90<<10 + 512, Tray: "closed"}
	n = start(t, cfg)
	wantDrive(t, n, 1, first)
	wantDrive(t, n, 2, second)
	if again, _ := command(t, n, testTarget, 1, nil, 0x12, 1, 0x83, 0, 0xff, 0); !bytes.Equal(again, identity) {
		t.Error("another identity after a restart")
	}
	got, sense = command(t, n, testTarget, 2, nil, 0x28, 0, 0, 0, 0, 44, 0, 0, 2, 0) // the last sectors
	if want := append(slices.Clone(two[44*2048:]), make([]byte, 1536)...); sense != "" || !bytes.Equal(got, want) {
		t.Errorf("read %d bytes, sense %s", len(got), sense)
	}
	if _, sense := command(t, n, testTarget, 2, nil, trayOpen...); sense != "" {
		t.Errorf("a guest's eject ended with %s", sense)
	}
	second.Tray = "open"
	wantDrive(t, n, 2, second)
	stop(t, n)

	n = start(t, cfg)
	wantDrive(t, n, 2, second)
	if _, sense := command(t, n, testTarget, 2, nil, unitReady...); sense != "2/3a02" {
		t.Errorf("a tray that was left open: %s", sense)
	}
	command(t, n, testTarget, 2, nil, trayClose...)
	if _, sense := command(t, n, testTarget, 2, nil, unitReady...); sense != "" {
		t.Errorf("closed again: %s", sense)
	}
	for range 2 { // that it is empty is no error
		if l, err := n.EjectMedia(t.Context(), testTarget, 1, false); err != nil || l.Image != "" || l.Tray != "open" {
			t.Errorf("%+v, %v", l, err)
		}
	}
	stop(t, n)

	n = start(t, cfg)
	wantDrive(t, n, 1, LUNStatus{Tray: "open"})
	stop(t, n)
}

// TestMediaRefused checks what cannot be put into a drive, and by whom.
func TestMediaRefused(t *testing.T) {
	noLeaks(t)
	cfg := testConfig(t)
	putImage(t, cfg, "disk.img", pattern(64<<10, 1))
	putImage(t, cfg, "one.iso", iso("ONE", 64<<10))
	drives(&cfg, CDROMConfig{})
	n := start(t, cfg)
	ctx := t.Context()
	insert := func(iqn string, number int, s MediaSpec) error { return second(n.InsertMedia(ctx, iqn, number, s)) }
	for _, c := range []struct {
		err, kind error
		text      string
	}{
		{insert(testTarget, 1, MediaSpec{Image: "none.iso"}), ErrInvalid, "import it with"},
		{insert(testTarget, 1, MediaSpec{Image: "disk.img"}), ErrInvalid, "image disk.img is no ISO but raw: "},
		{insert(testTarget, 2, MediaSpec{Image: "one.iso"}), ErrNotFound, "the drives are: " + testTarget + " lun 1"},
		{insert("iqn.x:y", 1, MediaSpec{Image: "one.iso"}), ErrNotFound, "target iqn.x:y has no CD-ROM drive"},
		{second(n.EjectMedia(ctx, testTarget, 0, true)), ErrNotFound, "has no CD-ROM drive at lun 0"},
	} {
		if !errors.Is(c.err, c.kind) || !strings.Contains(c.err.Error(), c.text) {
			t.Errorf("%v, want %q", c.err, c.text)
		}
	}
	wantDrive(t, n, 1, LUNStatus{Tray: "closed"})
	if err := insert(testTarget, 1, MediaSpec{Image: "disk.img", Any: true}); err != nil {
		t.Error(err)
	}
	wantDrive(t, n, 1, LUNStatus{Image: "disk.img", Size: 64 << 10, Tray: "closed"})

	guest := &lun.Nexus{InitiatorName: "iqn.1994-05.com.example:guest"}
	d, _ := n.driveAt(testTarget, 1)
	d.dev.Attach(guest)
	command(t, n, testTarget, 1, guest, unitReady...)
	command(t, n, testTarget, 1, guest, lockTray...)
	wantDrive(t, n, 1, LUNStatus{Image: "disk.img", Size: 64 << 10, Tray: "closed", LockedBy: []string{guest.InitiatorName}})
	for _, move := range []func(context.Context) error{
		func(ctx context.Context) error {
			return second(n.InsertMedia(ctx, testTarget, 1, MediaSpec{Image: "one.iso"}))
		},
		func(ctx context.Context) error { return second(n.EjectMedia(ctx, testTarget, 1, false)) },
	} {
		waiting, giveUp := context.WithCancel(ctx)
		moved := make(chan error, 1)
		go func() { moved <- move(waiting) }()
		eventually(t, func() string {
			if event, _ := command(t, n, testTarget, 1, guest, 0x4a, 1, 0, 0, 0x10, 0, 0, 0, 8, 0); event[4] != 1 {
				return fmt.Sprintf("event % x, want that the guest is asked to eject", event)
			}
			return ""
		})
		giveUp()
		if err := <-moved; !errors.Is(err, ErrInUse) || !strings.Contains(err.Error(), "the tray is locked by "+guest.InitiatorName) || !strings.Contains(err.Error(), "--force") {
			t.Errorf("locked: %v", err)
		}
	}
	if err := insert(testTarget, 1, MediaSpec{Image: "one.iso", Force: true}); err != nil {
		t.Error(err)
	}
	if _, sense := command(t, n, testTarget, 1, guest, unitReady...); sense != "6/2800" {
		t.Errorf("the guest is told %s", sense)
	}

	// A guest that is asked and ejects lets the operator go on.
	command(t, n, testTarget, 1, guest, lockTray...)
	inserted := make(chan error)
	go func() { inserted <- insert(testTarget, 1, MediaSpec{Image: "disk.img", Any: true}) }()
	for asked := false; !asked; runtime.Gosched() {
		event, _ := command(t, n, testTarget, 1, guest, 0x4a, 1, 0, 0, 0x10, 0, 0, 0, 8, 0)
		asked = event[4] == 1
	}
	command(t, n, testTarget, 1, guest, 0x1e, 0, 0, 0, 0, 0)
	command(t, n, testTarget, 1, guest, trayOpen...)
	if err := <-inserted; err != nil {
		t.Error(err)
	}
	wantDrive(t, n, 1, LUNStatus{Image: "disk.img", Size: 64 << 10, Tray: "closed"})
	stop(t, n)
	if n.images != nil || len(n.removed) > 0 {
		t.Errorf("left: %v, %v", n.images, n.removed)
	}
}

// TestImageInDrive checks that an image stays in the store while it is in a
// drive, also one with an open tray, and goes with its local copies afterwards.
func TestImageInDrive(t *testing.T) {
	noLeaks(t)
	cfg := testConfig(t)
	putImage(t, cfg, "one.iso", iso("ONE", 64<<10))
	putImage(t, cfg, "two.iso", iso("TWO", 64<<10))
	drives(&cfg, CDROMConfig{Media: "one.iso"})
	n := start(t, cfg)
	command(t, n, testTarget, 1, nil, 0x28, 0, 0, 0, 0, 0, 0, 0, 8, 0)
	for range 2 {
		err := n.DeleteImage(t.Context(), "one.iso")
		if !errors.Is(err, ErrInUse) || !strings.Contains(err.Error(), "skylun cdrom eject "+testTarget+" 1") {
			t.Errorf("in the drive: %v", err)
		}
		command(t, n, testTarget, 1, nil, trayOpen...)
	}
	if _, err := n.InsertMedia(t.Context(), testTarget, 1, MediaSpec{Image: "two.iso"}); err != nil {
		t.Fatal(err)
	}
	if err := n.DeleteImage(t.Context(), "one.iso"); err != nil {
		t.Error(err)
	}
	caches, err := n.db.Caches()
	if err != nil || len(caches) != 1 || caches[0].Image != "two.iso" {
		t.Errorf("caches %+v, %v", caches, err)
	}
	if problems, err := n.Check(t.Context()); err != nil || len(problems) > 0 {
		t.Errorf("check: %q, %v", problems, err)
	}
	stop(t, n)
}

// TestSharedDrive has one drive at two targets.
func TestSharedDrive(t *testing.T) {
	noLeaks(t)
	const other = "iqn.2026-11.io.skylun:u"
	cfg := testConfig(t)
	putImage(t, cfg, "one.iso", iso("ONE", 64<<10))
	cfg.Targets = []TargetConfig{
		{IQN: testTarget, LUNs: []LUNConfig{{LUN: 1, CDROM: &CDROMConfig{Name: "dvd0"}}, {LUN: 2, CDROM: &CDROMConfig{}}}},
		{IQN: other, LUNs: []LUNConfig{{LUN: 9, CDROM: &CDROMConfig{Name: "dvd0", Media: "one.iso"}}}},
	}
	if err := cfg.Validate(); err != nil {
		t.Fatal(err)
	}
	n := start(t, cfg)
	wantDrive(t, n, 1, LUNStatus{Image: "one.iso", Label: "ONE", Size: 64 << 10, Tray: "closed"})
	wantDrive(t, n, 2, LUNStatus{Tray: "closed"})
	a, _ := command(t, n, testTarget, 1, nil, 0x12, 1, 0x80, 0, 0xff, 0)
	b, _ := command(t, n, other, 9, nil, 0x12, 1, 0x80, 0, 0xff, 0)
	c, _ := command(t, n, testTarget, 2, nil, 0x12, 1, 0x80, 0, 0xff, 0)
	if !bytes.Equal(a, b) || bytes.Equal(a, c) {
		t.Errorf("serial numbers %q, %q, %q", a, b, c)
	}
	if _, err := n.EjectMedia(t.Context(), other, 9, false); err != nil {
		t.Error(err)
	}
	wantDrive(t, n, 1, LUNStatus{Tray: "open"})
	stop(t, n)
}

// TestDriveWithoutServer changes what is in a drive while no node runs.
func TestDriveWithoutServer(t *testing.T) {
	noLeaks(t)
	cfg := testConfig(t)
	putImage(t, cfg, "one.iso", iso("ONE", 64<<10))
	putImage(t, cfg, "two.iso", iso("TWO", 64<<10))
	drives(&cfg, CDROMConfig{Media: "one.iso"})
	offline := func(f func(n *Node)) {
		t.Helper()
		n, err := Open(t.Context(), cfg, true, quiet)
		if err != nil {
			t.Fatal(err)
		}
		f(n)
		stop(t, n)
	}
	offline(func(n *Node) {
		if _, err := n.InsertMedia(t.Context(), testTarget, 1, MediaSpec{Image: "two.iso"}); err != nil {
			t.Error(err)
		}
	})
	n := start(t, cfg) // what was put in counts, not what the configuration begins with
	wantDrive(t, n, 1, LUNStatus{Image: "two.iso", Label: "TWO", Size: 64 << 10, Tray: "closed"})
	stop(t, n)
	offline(func(n *Node) {
		if err := n.DeleteImage(t.Context(), "two.iso"); !errors.Is(err, ErrInUse) {
			t.Errorf("in the drive: %v", err)
		}
		if _, err := n.EjectMedia(t.Context(), testTarget, 1, false); err != nil {
			t.Error(err)
		}
		if err := n.DeleteImage(t.Context(), "two.iso"); err != nil {
			t.Error(err)
		}
	})
	n = start(t, cfg)
	wantDrive(t, n, 1, LUNStatus{Tray: "open"})
	stop(t, n)
}

// TestKnownMedium checks that a guest which knows the medium is not told of it
// again after a restart, unless it is another one then.
func TestKnownMedium(t *testing.T) {
	noLeaks(t)
	cfg := testConfig(t)
	putImage(t, cfg, "one.iso", iso("ONE", 64<<10))
	drives(&cfg, CDROMConfig{Media: "one.iso"})
	told := func(want ...string) {
		t.Helper()
		n := start(t, cfg)
		guest := &lun.Nexus{InitiatorName: "iqn.1994-05.com.example:guest"}
		d, _ := n.driveAt(testTarget, 1)
		d.dev.Attach(guest)
		for _, want := range append(want, "") {
			if _, sense := command(t, n, testTarget, 1, guest, unitReady...); sense != want {
				t.Errorf("told %q, want %q", sense, want)
			}
		}
		stop(t, n)
	}
	told("6/2900")
	told()
	told()
	n, err := Open(t.Context(), cfg, false, quiet)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := n.InsertMedia(t.Context(), testTarget, 1, MediaSpec{Image: "one.iso"}); err != nil {
		t.Error(err)
	}
	stop(t, n)
	told("6/2900")
	told()
}

// TestStartWithMedia checks what the start makes of media that it cannot have.
func TestStartWithMedia(t *testing.T) {
	noLeaks(t)
	cfg := testConfig(t)
	putImage(t, cfg, "disk.img", pattern(64<<10, 1))
	drives(&cfg, CDROMConfig{Media: "none.iso"}, CDROMConfig{Media: "disk.img"})
	_, err := Start(t.Context(), cfg, quiet)
	var ps Problems
	if !errors.As(err, &ps) || len(ps) != 2 || ps[0].Key != "targets[0].luns[0].cdrom.media" || !strings.Contains(ps[0].Text, "import it with") ||
		ps[1].Key != "targets[0].luns[1].cdrom.media" || !strings.Contains(ps[1].Text, "is no ISO") {
		t.Fatalf("%v", err)
	}

	// A drive that was known is no reason not to start. What is local of its
	// disc can be read, and nothing else.
	one := iso("ONE", 512<<10)
	putImage(t, cfg, "one.iso", one)
	drives(&cfg, CDROMConfig{Media: "one.iso"})
	n := start(t, cfg)
	command(t, n, testTarget, 1, nil, 0x28, 0, 0, 0, 0, 0, 0, 0, 8, 0)
	stop(t, n)
	for what, change := range map[string]func(){
		"changed":          func() { putImage(t, cfg, "one.iso", iso("NEW", 512<<10)) },
		"not in the store": func() { os.Remove(filepath.Join(cfg.DataDir, "blobs", "one.iso")) },
	} {
		change()
		n := start(t, cfg)
		all, err := n.LUNs(t.Context())
		if err != nil || len(all) != 1 || all[0].Image != "one.iso" || !strings.Contains(all[0].Problem, what) {
			t.Errorf("%s: %+v, %v", what, all, err)
		}
		got, sense := command(t, n, testTarget, 1, nil, 0x28, 0, 0, 0, 0, 0, 0, 0, 8, 0)
		if sense != "" || !bytes.Equal(got, one[:8*2048]) {
			t.Errorf("%s: read of what is local: %s", what, sense)
		}
		if _, sense := command(t, n, testTarget, 1, nil, 0x28, 0, 0, 0, 0, 200, 0, 0, 8, 0); sense != "3/1100" {
			t.Errorf("%s: read of what is not local: %s", what, sense)
		}
		stop(t, n)
	}
}
