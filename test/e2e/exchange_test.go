//go:build e2e

package e2e

import (
	"testing"

	"skylun/target/pdu"
	"skylun/test/initiator"
)

// everything logs in, says whatever an initiator can say in the full feature
// phase, and logs out.
func everything(t *testing.T, addr string, keys initiator.Keys) {
	t.Helper()
	i, err := initiator.Dial(addr)
	if err != nil {
		t.Fatal(err)
	}
	defer i.Close()
	if _, err := i.Login(initiator.Options{Initiator: "iqn.2026-11.com.example:wire", Target: iqn, Keys: keys}); err != nil {
		t.Fatal(err)
	}
	exchange := func(p *initiator.PDU, want pdu.Opcode) {
		t.Helper()
		if err := i.Send(p); err != nil {
			t.Fatal(err)
		}
		if r, err := i.Receive(); err != nil || r.Opcode() != want {
			t.Fatalf("%v: answered by %v, %v", p, r, err)
		}
	}
	do := func(cdb []byte, in int, out []byte) {
		t.Helper()
		if _, err := i.Do(0, cdb, in, out); err != nil {
			t.Fatal(err)
		}
	}
	ping := i.NewRequest(pdu.NOPOut)
	ping.Data = []byte("hello") // and three bytes of padding
	exchange(ping, pdu.NOPIn)
	text := i.NewRequest(pdu.TextReq)
	text.Data = pdu.AppendPair(nil, "SendTargets", "")
	exchange(text, pdu.TextResp)
	snack := i.NewRequest(pdu.SNACK)
	snack.SetOpcode(pdu.SNACK) // which is never immediate
	exchange(snack, pdu.Reject)
	for _, f := range []pdu.TaskFunction{pdu.AbortTask, pdu.AbortTaskSet, pdu.ClearTaskSet, pdu.LogicalUnitReset, pdu.TargetWarmReset, pdu.TaskReassign} {
		p := i.NewRequest(pdu.TaskRequest)
		p.SetFlags(pdu.FlagFinal | byte(f))
		p.SetRefTag(pdu.NoTag)
		exchange(p, pdu.TaskResponse)
	}
	for range 4 {
		do(make([]byte, 6), 0, nil) // unit attentions, until there are no more
	}
	do([]byte{0: 0x28, 8: 100, 9: 0}, 100*512, nil)
	do([]byte{0: 0x28, 8: 2, 9: 0}, 1000, nil) // an overflow, and padding
	do([]byte{0: 0x28, 8: 1, 9: 0}, 1000, nil) // an underflow
	do([]byte{0: 0x2a, 8: 200, 9: 0}, 0, make([]byte, 200*512))
	if i.DataDigest {
		w := i.NewCommand(0, []byte{0: 0x2a, 8: 1, 9: 0})
		w.SetFlags(pdu.FlagFinal | pdu.FlagWrite)
		w.SetExpectedLen(512)
		w.Data = make([]byte, 512)
		w.BadDataDigest = true
		exchange(w, pdu.Reject)
		if r, err := i.Receive(); err != nil || r.Opcode() != pdu.SCSIResponse {
			t.Fatalf("after a bad data digest: %v, %v", r, err)
		}
	}
	if err := i.Logout(); err != nil {
		t.Fatal(err)
	}
}

// twoConnections opens a session of two connections and reads through both, in
// turns.
func twoConnections(t *testing.T, addr string) (a, b *initiator.Conn) {
	t.Helper()
	o := initiator.Options{Initiator: "iqn.2026-11.com.example:wire", Target: iqn, Keys: initiator.Keys{"MaxConnections", "2"}}
	var conns [2]*initiator.Conn
	for i := range conns {
		c, err := initiator.Dial(addr)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		if i > 0 {
			c.TSIH, c.CID, c.ITT, c.CmdSN = conns[0].TSIH, 1, 1000, conns[0].CmdSN
		}
		if _, err := c.Login(o); err != nil {
			t.Fatal(err)
		}
		conns[i] = c
	}
	sn := conns[0].CmdSN
	for i := range 8 {
		c := conns[i%2]
		c.CmdSN = sn
		sn++
		r, err := c.Do(0, []byte{0: 0x28, 8: 8, 9: 0}, 4096, nil)
		if err != nil || i > 3 && r.Status != 0 { // after the unit attentions
			t.Fatalf("read %d: %+v, %v", i, r, err)
		}
	}
	conns[0].CmdSN, conns[1].CmdSN = sn, sn
	return conns[0], conns[1]
}
