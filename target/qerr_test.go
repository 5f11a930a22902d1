package target

import (
	"testing"

	"skylun/lun"
	"skylun/target/pdu"
	"skylun/test/initiator"
	"skylun/test/memdev"
)

// Commands that fail in several sessions at once, and that by QERR abort one
// another, all end: with TAS each with a status.
func TestQERR(t *testing.T) {
	s := start(t, Config{}, disk(t, memdev.New(1<<20)))
	conns := []*initiator.Conn{s.dial(t), s.dial(t), s.dial(t)}
	for i, c := range conns {
		c.ISID[5] = byte(i)
		mustLogin(t, c)
		if _, err := c.Do(0, make([]byte, 6), 0, nil); err != nil { // the unit attention
			t.Fatal(err)
		}
	}
	modes := []byte{0, 0, 0, 0, 0x0a, 0x0a, 0x02, 0x12, 0, 0x40, 0, 0, 0, 0, 0, 0} // QERR 1, TAS
	do(t, conns[0], []byte{0x15, 0x10, 0, 0, byte(len(modes)), 0}, 0, modes)
	const each = 30
	for range each {
		for _, c := range conns {
			send(t, c, c.NewCommand(0, []byte{0x28, 0, 0xff, 0xff, 0xff, 0xff, 0, 0, 1, 0})) // beyond the end
		}
	}
	failed := 0
	for _, c := range conns {
		for range each {
			switch r := receive(t, c, pdu.SCSIResponse); lun.Status(r.SCSIStatus()) {
			case lun.StatusCheckCondition:
				failed++
			case lun.StatusTaskAborted:
			default:
				t.Errorf("status %d", r.SCSIStatus())
			}
		}
		alive(t, c)
	}
	if failed == 0 {
		t.Error("every command has been aborted, by none")
	}
}
