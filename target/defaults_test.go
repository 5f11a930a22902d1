package target

import (
	"bytes"
	"testing"

	"skylun/target/pdu"
	"skylun/test/initiator"
)

// RFC 7143 13: what nobody has negotiated has its default: data segments of
// 8192 bytes, bursts of 262144, one R2T, and no data before it but immediate.
func TestLoginDefaults(t *testing.T) {
	taker := newTaker(true)
	s := start(t, Config{}, giver(content(300_000), 300_000, 0), taker)
	c := s.dial(t)
	answers, err := c.Login(initiator.Options{Initiator: testInitiator, Target: testTarget, Keys: initiator.Keys{}})
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{"HeaderDigest", "DataDigest", "MaxBurstLength", "FirstBurstLength", "InitialR2T", "ImmediateData", "MaxOutstandingR2T"} {
		if v := answers.Get(key); v != nil {
			t.Errorf("%s=%q answers nothing", key, v)
		}
	}
	r, err := c.Do(0, []byte{0x28}, 300_000, nil)
	if err != nil || !bytes.Equal(r.Data, content(300_000)) {
		t.Fatalf("read: %v", err)
	}
	burst := 0
	for i, p := range r.PDUs {
		burst += len(p.Data)
		if len(p.Data) > 8192 || burst > 262144 {
			t.Errorf("Data-In %d: %d bytes, %d in the burst", i, len(p.Data), burst)
		}
		if p.Final() {
			burst = 0
		}
	}

	out := content(300_000)
	w := c.NewCommand(1, []byte{0x2a})
	w.SetFlags(pdu.FlagFinal | pdu.FlagWrite)
	w.SetExpectedLen(uint32(len(out)))
	w.Data = out[:8192]
	send(t, c, w)
	for off := 8192; off < len(out); {
		r2t := receive(t, c, pdu.R2T)
		if int(r2t.Offset()) != off || r2t.DesiredLen() > 262144 {
			t.Fatalf("R2T for %d+%d, %d bytes have been sent", r2t.Offset(), r2t.DesiredLen(), off)
		}
		end := off + int(r2t.DesiredLen())
		for sn := uint32(0); off < end; sn++ {
			n := min(8192, end-off)
			if off+n == end { // a second R2T would be here by now
				alive(t, c)
			}
			send(t, c, c.NewDataOut(w.ITT(), r2t.TTT(), sn, uint32(off), out[off:off+n], off+n == end))
			off += n
		}
	}
	if end := receive(t, c, pdu.SCSIResponse); end.SCSIStatus() != 0 || !bytes.Equal(taker.last(), out) {
		t.Errorf("write: status %d", end.SCSIStatus())
	}

	// InitialR2T is Yes: no unsolicited Data-Out.
	w = c.NewCommand(1, []byte{0x2a})
	w.SetFlags(pdu.FlagWrite)
	w.SetExpectedLen(1024)
	send(t, c, w, c.NewDataOut(w.ITT(), pdu.NoTag, 0, 0, make([]byte, 1024), true))
	if r, err := c.Gather(w.ITT(), nil); err != nil || r.Status == 0 {
		t.Errorf("unsolicited Data-Out that was not agreed: %+v, %v", r, err)
	}
}
