package lun

import (
	"context"
	"slices"
	"testing"

	"github.com/gostor/gotgt/pkg/scsi"
)

// clearer is the transport of a nexus that notes what it is to abort.
type clearer struct {
	name  string
	d     *Disk
	n     *Nexus
	calls *[]string
}

func (a *clearer) AbortTasks(_ context.Context, u Unit, but *Command) error {
	if u != a.d || but == nil || but.Status != StatusCheckCondition {
		*a.calls = append(*a.calls, "wrong")
	}
	*a.calls = append(*a.calls, a.name)
	a.d.raise(a.n, scsi.ASC_CMDS_CLEARED_BY_ANOTHER_INI) // as a transport does without TAS
	return nil
}

func (a *clearer) InventoryChanged() {}

// TestQERR checks whose commands are aborted when one ends with CHECK
// CONDITION, SPC-4 7.5.8.
func TestQERR(t *testing.T) {
	for _, c := range []struct {
		value string
		want  string
		calls []string // when a's command fails
	}{
		{"10", "00", nil},
		{"12", "00", []string{"a", "b"}},
		{"14", "02 5/26/00", nil},
		{"16", "00", []string{"a"}},
	} {
		var calls []string
		d := newTestDisk(quick{newMemory(1 << 20)})
		transport := func(name string) *Nexus {
			n := testNexus()
			n.Transport = &clearer{name: name, d: d, n: n, calls: &calls}
			d.Attach(n)
			d.take(n)
			return n
		}
		a, b := transport("a"), transport("b")
		wantEnding(t, send(t, d, a, "15 10 0000 10 00", unhex(t, "00000000 0a 0a 02"+c.value+"0000000000000000")), c.want)
		d.take(b) // MODE PARAMETERS CHANGED
		calls = nil
		wantEnding(t, send(t, d, a, "28 00 00000000 00 0001 00", nil), "00")
		if len(calls) > 0 {
			t.Errorf("QERR %s: aborted those of %q after a success", c.value, calls)
		}
		wantEnding(t, send(t, d, a, "28 00 ffffffff 00 0001 00", nil), "02 5/21/00")
		if slices.Sort(calls); !slices.Equal(calls, c.calls) {
			t.Errorf("QERR %s: aborted those of %q, want %q", c.value, calls, c.calls)
		}
		wantEnding(t, send(t, d, a, testUnitReady, nil), "00") // its own doing is no news
		cleared := "00"
		if slices.Contains(c.calls, "b") {
			cleared = "02 6/2f/00"
		}
		wantEnding(t, send(t, d, b, testUnitReady, nil), cleared)

		d.Reset()
		d.Detach(a)
		d.Detach(b)
		if g := d.gate.Load(); g != 0 {
			t.Errorf("QERR %s: gate %d with nothing pending", c.value, g)
		}
	}

	// A command that may have to wait for others does so in Execute.
	d := newTestDisk(quick{newMemory(1 << 20)})
	wantEnding(t, send(t, d, nil, "15 10 0000 10 00", unhex(t, "00000000 0a 0a 02 12 0000000000000000")), "00")
	if d.Try(&Command{CDB: unhex(t, testUnitReady)}) {
		t.Error("Try ended a command that can abort others")
	}
}
