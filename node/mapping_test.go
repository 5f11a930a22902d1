package node

import (
	"context"
	"errors"
	"reflect"
	"strings"
	"testing"

	"skylun/test/initiator"
)

const mappingTarget = "iqn.2026-11.io.skylun:t"

// attach logs in to the only target.
func attach(t *testing.T, n *Node) *initiator.Conn {
	t.Helper()
	c, err := initiator.Dial(n.Portals()[0].String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if _, err := c.Login(initiator.Options{Initiator: "iqn.2026-11.com.example:client", Target: mappingTarget}); err != nil {
		t.Fatal(err)
	}
	return c
}

// ready returns the sense key and code of a TEST UNIT READY, 0 when all is
// well.
func ready(t *testing.T, c *initiator.Conn, lun byte) uint32 {
	t.Helper()
	r, err := c.Do(lun, make([]byte, 6), 0, nil)
	if err != nil {
		t.Fatal(err)
	}
	if r.Status == 0 {
		return 0
	}
	return uint32(r.Key())
}

func mustCreate(t *testing.T, n *Node, name string) {
	t.Helper()
	if _, err := n.CreateVolume(t.Context(), VolumeSpec{Name: name, Size: 1 << 20}); err != nil {
		t.Fatal(err)
	}
}

// A volume is mapped while the node runs, is there after a restart, and goes
// when it is taken away. Initiators that are logged in are told.
func TestMapLUN(t *testing.T) {
	cfg := testConfig(t)
	n := start(t, cfg)
	c := attach(t, n)
	ready(t, c, 0) // power on
	mustCreate(t, n, "w")
	const absent, changed = 0x052500, 0x063f0e
	if got := ready(t, c, 5); got != absent {
		t.Errorf("lun 5 before: %06x", got)
	}
	l, err := n.MapLUN(t.Context(), mappingTarget, 5, "w")
	if err != nil || l.IQN != mappingTarget || l.LUN != 5 || l.Volume != "w" || !l.Mapped || l.Size != 1<<20 {
		t.Fatalf("%+v, %v", l, err)
	}
	if got := ready(t, c, 0); got != changed {
		t.Errorf("lun 0 tells %06x, want REPORTED LUNS DATA HAS CHANGED", got)
	}
	ready(t, c, 5) // power on
	if got := ready(t, c, 5); got != 0 {
		t.Errorf("lun 5 after: %06x", got)
	}
	if r, err := c.Do(5, []byte{0x2a, 0, 0, 0, 0, 0, 0, 0, 1, 0}, 0, pattern(512, 9)); err != nil || r.Status != 0 {
		t.Fatalf("WRITE: %+v, %v", r, err)
	}
	if luns, err := n.LUNs(t.Context()); err != nil || len(luns) != 2 || !reflect.DeepEqual(luns[1], l) {
		t.Errorf("%+v, %v", luns, err)
	}
	c.Close()
	stop(t, n)

	n = start(t, cfg)
	c = attach(t, n)
	ready(t, c, 5)
	r, err := c.Do(5, []byte{0x28, 0, 0, 0, 0, 0, 0, 0, 1, 0}, 512, nil)
	if err != nil || r.Status != 0 || string(r.Data) != string(pattern(512, 9)) {
		t.Errorf("READ after a restart: %+v, %v", r, err)
	}
	wantKind(t, n.UnmapLUN(t.Context(), mappingTarget, 5, false), ErrInUse, "iqn.2026-11.com.example:client", "--force")
	wantKind(t, n.DeleteVolume(t.Context(), "w"), ErrInUse, "skylun lun unmap "+mappingTarget+" 5")
	if err := n.UnmapLUN(t.Context(), mappingTarget, 5, true); err != nil {
		t.Fatal(err)
	}
	for got := ready(t, c, 5); got != absent; got = ready(t, c, 5) {
		if got>>16 != 6 {
			t.Fatalf("lun 5 after it was taken away: %06x", got)
		}
	}
	if got := ready(t, c, 0); got != 0 && got>>16 != 6 {
		t.Errorf("lun 0: %06x", got)
	}
	if err := n.DeleteVolume(t.Context(), "w"); err != nil {
		t.Error(err)
	}
	c.Close()
	stop(t, n)
	n = start(t, cfg)
	if luns, err := n.LUNs(t.Context()); err != nil || len(luns) != 1 {
		t.Errorf("%+v, %v", luns, err)
	}
}

func wantKind(t *testing.T, err, kind error, words ...string) {
	t.Helper()
	if !errors.Is(err, kind) {
		t.Errorf("%v, want %v", err, kind)
		return
	}
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("%v lacks %q", err, w)
		}
	}
}

// What cannot be mapped, and what cannot be taken away.
func TestMapLUNRefused(t *testing.T) {
	cfg := testConfig(t)
	cfg.Targets[0].LUNs = append(cfg.Targets[0].LUNs, LUNConfig{LUN: 3, CDROM: &CDROMConfig{}})
	for _, running := range []bool{true, false} {
		var n *Node
		var err error
		if running {
			n = start(t, cfg)
			mustCreate(t, n, "w")
			mustCreate(t, n, "x")
		} else if n, err = Open(t.Context(), cfg, false, quiet); err != nil {
			t.Fatal(err)
		}
		ctx := t.Context()
		mapLUN := func(iqn string, lun int, volume string) error {
			_, err := n.MapLUN(ctx, iqn, lun, volume)
			return err
		}
		wantKind(t, mapLUN("iqn.2026-11.io.skylun:other", 1, "w"), ErrNotFound, "iqn.2026-11.io.skylun:other", mappingTarget)
		wantKind(t, mapLUN(mappingTarget, 256, "w"), ErrInvalid, "256")
		wantKind(t, mapLUN(mappingTarget, -1, "w"), ErrInvalid, "-1")
		wantKind(t, mapLUN(mappingTarget, 1, "nothing"), ErrNotFound, "nothing")
		wantKind(t, mapLUN(mappingTarget, 0, "w"), ErrExists, "volume v")
		wantKind(t, mapLUN(mappingTarget, 3, "w"), ErrExists, "CD-ROM")
		wantKind(t, mapLUN(mappingTarget, 9, "v"), ErrInUse, "lun 0 of target")
		if running {
			if err := mapLUN(mappingTarget, 1, "w"); err != nil {
				t.Fatal(err)
			}
		}
		wantKind(t, mapLUN(mappingTarget, 1, "x"), ErrExists, "volume w")
		wantKind(t, mapLUN(mappingTarget, 2, "w"), ErrInUse, "lun 1 of target")
		wantKind(t, n.UnmapLUN(ctx, mappingTarget, 0, true), ErrInvalid, "volume v", "configuration")
		wantKind(t, n.UnmapLUN(ctx, mappingTarget, 3, true), ErrInvalid, "CD-ROM", "configuration")
		wantKind(t, n.UnmapLUN(ctx, mappingTarget, 7, true), ErrNotFound, "7")
		stop(t, n)
	}
}

// A configuration that contradicts what was mapped is refused, and says what
// to do; that can be done without a node.
func TestMappingConflict(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(cfg *Config)
		words  []string // nil: the node starts
	}{
		{"the same volume elsewhere", func(cfg *Config) {
			cfg.Targets[0].LUNs = append(cfg.Targets[0].LUNs, LUNConfig{LUN: 2, Disk: &DiskConfig{Volume: "w", Size: 1 << 20}})
		}, []string{"volume w is declared as lun 2", "lun unmap " + mappingTarget + " 5"}},
		{"another volume there", func(cfg *Config) {
			cfg.Targets[0].LUNs = append(cfg.Targets[0].LUNs, LUNConfig{LUN: 5, Disk: &DiskConfig{Volume: "z", Size: 1 << 20}})
		}, []string{"volume w was mapped as lun 5", "volume z"}},
		{"a drive there", func(cfg *Config) {
			cfg.Targets[0].LUNs = append(cfg.Targets[0].LUNs, LUNConfig{LUN: 5, CDROM: &CDROMConfig{}})
		}, []string{"volume w was mapped as lun 5", "CD-ROM"}},
		{"the same", func(cfg *Config) {
			cfg.Targets[0].LUNs = append(cfg.Targets[0].LUNs, LUNConfig{LUN: 5, Disk: &DiskConfig{Volume: "w", Size: 1 << 20}})
		}, nil},
		{"no such target", func(cfg *Config) { cfg.Targets[0].IQN += "2" }, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			cfg := testConfig(t)
			n, err := Open(t.Context(), cfg, true, quiet)
			if err != nil {
				t.Fatal(err)
			}
			mustCreate(t, n, "w")
			if _, err := n.MapLUN(t.Context(), mappingTarget, 5, "w"); err != nil {
				t.Fatal(err)
			}
			stop(t, n)
			c.change(&cfg)
			n, err = Start(t.Context(), cfg, quiet)
			if c.words == nil {
				if err != nil {
					t.Fatal(err)
				}
				stop(t, n)
				return
			}
			if err == nil {
				n.Close(context.Background())
				t.Fatal("the node starts")
			}
			for _, w := range c.words {
				if !strings.Contains(err.Error(), w) {
					t.Errorf("%v lacks %q", err, w)
				}
			}
			if n, err = Open(t.Context(), cfg, false, quiet); err != nil {
				t.Fatal(err)
			}
			if err := n.UnmapLUN(t.Context(), mappingTarget, 5, false); err != nil {
				t.Error(err)
			}
			stop(t, n)
			stop(t, start(t, cfg))
		})
	}
}
