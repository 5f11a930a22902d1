package lun

import (
	"fmt"
	"strings"
	"testing"
)

// TestReservationScripts checks SPC-4 5.13 and 6.16 by the ways registrations
// and reservations go. Each script begins with a new unit.
func TestReservationScripts(t *testing.T) {
	for _, c := range []struct{ name, script string }{
		{"register, table 47", `
			a register 0 0		00
			a keys
			a gen		1
			a register 1 2		18
			a register 0 a		00
			a register 0 b		18
			a register 1 b		18
			a register a b		00
			b register 0 b		00
			a keys		b b
			a full		a/61:b b/62:b
			a register b 0		00
			a register b 0		18
			a keys		b
			a gen		5`},
		{"register and ignore existing key", `
			a ignore 0		00
			a keys
			a ignore a		00
			a ignore b		00
			a keys		b
			a ignore 0		00
			a keys
			a gen		4`},
		{"registered by names", `
			a register 0 a		00
			a reserve 1 a		00
			a lose
			b write		18
			b full		a/61:a=1
			a come
			a read		02 6/29/00
			a write		00
			a full		a/61:a=1`},
		{"reserve, 5.13.9", `
			a reserve 1 a		18
			a register 0 a		00
			b register 0 b		00
			a reserve 1 b		18
			a reserve 2 a		02 5/24/00
			a reserve 0 a		02 5/24/00
			a reserve 9 a		02 5/24/00
			a reserve 11 a		02 5/24/00
			a state		none
			a reserve 1 a		00
			a reserve 1 a		00
			a reserve 3 a		18
			b reserve 1 b		18
			b state		1 a
			a gen		2`},
		{"all registrants reserve", `
			a register 0 a		00
			b register 0 b		00
			a reserve 7 a		00
			b reserve 7 b		00
			b reserve 8 b		18
			c state		7 0
			c full		a/61:a=7 b/62:b=7`},
		{"release, 5.13.11.2", `
			a register 0 a		00
			b register 0 b		00
			a release 1 a		00
			a reserve 1 a		00
			a release 1 b		18
			c release 1 0		18
			b release 1 b		00
			a release 3 a		02 5/26/04
			a release 1 a		00
			a state		none
			b ready		00
			a gen		2`},
		{"release tells registrants", `
			a register 0 a		00
			b register 0 b		00
			c ready		00
			a reserve 5 a		00
			a release 5 a		00
			b ready		02 6/2a/04
			b ready		00
			c ready		00
			a ready		00
			b reserve 8 b		00
			a release 8 a		00
			b ready		02 6/2a/04
			b state		none`},
		{"the holder unregisters, 5.13.11.3", `
			a register 0 a		00
			b register 0 b		00
			a reserve 6 a		00
			a register a 0		00
			b ready		02 6/2a/04
			b state		none
			b reserve 3 b		00
			a register 0 a		00
			b register b 0		00
			a ready		00
			a state		none
			a reserve 7 a		00
			b register 0 b		00
			a register a 0		00
			b ready		00
			b state		7 0
			b register b 0		00
			b state		none`},
		{"clear, 5.13.11.6", `
			a register 0 a		00
			b register 0 b		00
			c register 0 c		00
			d ready		00
			a reserve 1 a		00
			d clear 0		18
			b clear a		18
			b clear b		00
			b ready		00
			a ready		02 6/2a/03
			c ready		02 6/2a/03
			d ready		00
			a keys
			a state		none
			a gen		4`},
		{"preempt a registration, 5.13.11.4", `
			a register 0 a		00
			b register 0 b		00
			c register 0 b		00
			a preempt 1 a 0		02 5/26/00
			a preempt 1 a d		18
			a preempt 1 b b		18
			d preempt 1 0 b		18
			a preempt 1 a b		00
			b ready		02 6/2a/05
			c ready		02 6/2a/05
			a state		none
			a keys		a
			a gen		4
			a preempt 1 a a		00
			a keys`},
		{"preempt beside a reservation", `
			a register 0 a		00
			b register 0 b		00
			c register 0 c		00
			a reserve 5 a		00
			c preempt 6 c b		00
			b ready		02 6/2a/05
			a ready		00
			a state		5 a
			a keys		a c`},
		{"preempt a reservation", `
			a register 0 a		00
			b register 0 b		00
			c register 0 c		00
			a reserve 5 a		00
			b preempt 5 b a		00
			a ready		02 6/2a/05
			c ready		00
			b ready		00
			b state		5 b
			a keys		b c
			a write		18
			b preempt 1 b b		00
			c ready		02 6/2a/04
			b state		1 b
			b keys		b c
			c preempt 9 c b		02 5/24/00
			c preempt 11 c b		02 5/24/00
			c preempt 6 c b		00
			b ready		02 6/2a/05
			c full		c/63:c=6`},
		{"preempt one of several with the holder's key", `
			a register 0 f		00
			b register 0 f		00
			c register 0 f		00
			a reserve 3 f		00
			b preempt 3 f f		00
			a ready		02 6/2a/05
			c ready		02 6/2a/05
			b full		b/62:f=3`},
		{"preempt all registrants", `
			a register 0 a		00
			b register 0 b		00
			c register 0 c		00
			a reserve 7 a		00
			b preempt 7 b a		00
			a ready		02 6/2a/05
			c ready		00
			b full		b/62:b=7 c/63:c=7
			c preempt 5 c 0		00
			b ready		02 6/2a/05
			c full		c/63:c=5
			c release 5 c		00
			c reserve 8 c		00
			c preempt 8 c 0		00
			c full		c/63:c=8
			c preempt 8 c c		00
			c full
			c state		none`},
		{"register and move, 5.13.8", `
			a register 0 a		00
			a move a b b		02 5/24/00
			a reserve 5 a		00
			c register 0 c		00
			c move c b b		18
			a move b b b		18
			a move a 0 b		02 5/26/00
			a move a b a		02 5/26/00
			a move a b b		00
			b full		a/61:a c/63:c b/62:b=5
			b gen		3
			b move b d c unreg		00
			b full		a/61:a c/63:d=5
			b write		18
			c release 5 d		00
			a ready		02 6/2a/04
			a reserve 8 a		00
			a move a b b		18`},
		{"reset", `
			a register 0 a		00
			a reserve 3 a		00
			b read		18
			a reset
			a ready		02 6/29/03
			b read		02 6/29/03
			b read		18
			a state		3 a
			a read		00`},
		{"reserve6", `
			a reserve6		00
			a register 0 a		18
			b register 0 b		18
			a keys		18
			b state		18
			a reset
			a ready		02 6/29/03
			a keys
			a reserve6		00
			a release6		00
			b ready		02 6/29/03
			b reserve6		00
			b lose
			a register 0 a		00
			a reserve6		18
			a release6		18
			c reserve6		18
			c release6		18`},
		{"compatible reservation handling, 5.13.3", `
			a register 0 a		00
			b register 0 b		00
			a reserve 1 a		00
			a reserve6		00
			a release6		00
			b reserve6		18
			b release6		18
			c reserve6		18
			c read		00
			a state		1 a
			a preempt 5 a a		00
			b ready		02 6/2a/04
			b reserve6		00
			b release6		00
			c reserve6		18
			c release6		18
			a state		5 a
			a write		00`},
		{"all registrants and RESERVE(6)", `
			a register 0 a		00
			b register 0 b		00
			a reserve 8 a		00
			b reserve6		00
			b release6		00
			c release6		18
			a state		8 0`},
		{"who was preempted comes back", `
			a register 0 a		00
			a reserve 6 a		00
			b register 0 b		00
			b preempt 6 b a		00
			a read		02 6/2a/05
			a read		18
			a register 0 a		00
			a read		00`},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := newReserving(t)
			p.run(c.script)
			reasons := int32(0)
			for _, st := range p.d.nexuses {
				reasons += int32(len(st.attentions))
			}
			if p.d.persistent.kind != 0 || p.d.reserved {
				reasons++
			}
			if g := p.d.gate.Load(); g != reasons {
				t.Errorf("gate %d, want %d", g, reasons)
			}
		})
	}
}

// TestReserveOutConflicts checks which service actions of PERSISTENT RESERVE
// OUT are allowed beside a reservation of another nexus, SPC-4 table 66.
func TestReserveOutConflicts(t *testing.T) {
	for _, kind := range []int{1, 3, 5, 6, 7, 8} {
		for _, c := range []struct{ action, registered, unregistered string }{
			{"register KEY 5", "00", "00"},
			{"ignore 5", "00", "00"},
			{"reserve TYPE KEY", "18", "18"},
			{"release TYPE KEY", "00", "18"},
			{"clear KEY", "00", "18"},
			{"preempt TYPE KEY 1", "00", "18"},
			{"abort TYPE KEY 1", "00", "18"},
			{"move KEY 7 x", "18", "18"},
			{"keys", "1 2", "1 2"},
		} {
			if strings.HasPrefix(c.action, "reserve") && kind >= 7 {
				c.registered = "00" // who is registered is a holder
			}
			for who, want := range map[string]string{"r": c.registered, "u": c.unregistered} {
				p := newReserving(t)
				p.run(fmt.Sprintf(`
					h register 0 1	00
					r register 0 2	00
					h reserve %d 1	00`, kind))
				key := map[string]string{"r": "2", "u": "0"}[who]
				action := strings.NewReplacer("KEY", key, "TYPE", fmt.Sprint(kind)).Replace(c.action)
				p.run(fmt.Sprintf("%s %s\t%s", who, action, want))
			}
		}
	}
}

// TestPreemptAndAbort checks that the commands of those who are preempted are
// aborted after they have lost their access, SPC-4 5.13.11.5.
func TestPreemptAndAbort(t *testing.T) {
	for _, c := range []struct{ script, abort, want string }{
		{"a reserve 5 a	00", "b abort 5 b a	00", "a"},
		{"a reserve 5 a	00", "a abort 5 a b	00", "b c"},
		{"a reserve 5 a	00", "a abort 5 a a	00", "a"},
		{"a reserve 7 a	00", "b abort 7 b 0	00", "a c"},
		{"a reserve 5 a	00", "b preempt 5 b a	00", ""},
		{"a reserve 5 a	00", "b abort 5 b d	18", ""},
	} {
		p := newReserving(t)
		p.run("a register 0 a	00\nb register 0 b	00\nc register 0 b	00\nd ready	00\n" + c.script)
		p.trans["a"].then = func() {
			if p.d.reservedAgainst(p.nexus("a"), accessWrite) != (c.want != "a" || !strings.HasPrefix(c.abort, "a")) {
				t.Errorf("%s: aborted too early", c.abort)
			}
			if len(p.d.turn) != 0 {
				t.Errorf("%s: others wait meanwhile", c.abort)
			}
		}
		p.run(c.abort)
		if got := p.aborted(); got != c.want {
			t.Errorf("%s aborts commands of %q, want %q", c.abort, got, c.want)
		}
		for name, a := range p.trans {
			if a.n > 0 && (a.unit != p.d || a.but == nil || a.but.CDB[0] != 0x5f || a.n > 1) {
				t.Errorf("%s: %s is asked to abort %+v", c.abort, name, a)
			}
		}
	}
}
