package node

import (
	"errors"
	"testing"

	"skylun/target/pdu"
	"skylun/test/initiator"
)

// The limits of the configuration are those of the portals.
func TestLimits(t *testing.T) {
	cfg := testConfig(t)
	cfg.Limits.Sessions = 1
	n := start(t, cfg)
	attach(t, n)
	c, err := initiator.Dial(n.Portals()[0].String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.ISID[5]++
	_, err = c.Login(initiator.Options{Initiator: "iqn.2026-11.com.example:client", Target: mappingTarget})
	if status := (initiator.StatusError{}); !errors.As(err, &status) || status.Status != pdu.LoginOutOfResources {
		t.Errorf("second session: %v", err)
	}
	stop(t, n)

	cfg.Limits = LimitsConfig{Logins: 1}
	n = start(t, cfg)
	first, err := initiator.Dial(n.Portals()[0].String())
	if err != nil {
		t.Fatal(err)
	}
	defer first.Close()
	if err := first.Send(first.NewLogin(pdu.Operational, 0, false, initiator.Options{Initiator: "iqn.2026-11.com.example:client", Target: mappingTarget}.Names())); err != nil {
		t.Fatal(err)
	}
	if _, _, err := first.ReceiveLogin(); err != nil {
		t.Fatal(err)
	}
	second, err := initiator.Dial(n.Portals()[0].String())
	if err != nil {
		t.Fatal(err)
	}
	defer second.Close()
	if p, err := second.Receive(); err == nil {
		t.Errorf("second login: received %v", p)
	}
	if st, err := n.Status(t.Context()); err != nil || st.SCSI.Refused != 1 {
		t.Errorf("status %+v, %v", st.SCSI, err)
	}
}
