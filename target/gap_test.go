package target

import (
	"context"
	"testing"
	"time"

	"skylun/target/pdu"
)

// A logout that waits for a request that is missing does not keep the server
// from stopping.
func TestShutdownWithLogoutBehindGap(t *testing.T) {
	s := start(t, Config{}, giver(nil, 0, 0))
	c := s.login(t)
	p := c.NewRequest(pdu.LogoutReq)
	p.SetOpcode(pdu.LogoutReq)
	p.SetCmdSN(c.CmdSN + 1)
	p.SetFlags(pdu.FlagFinal | pdu.LogoutSession)
	send(t, c, p)
	eventually(t, "the logout waits for its turn", func() bool { return s.sessionList()[0].win.kept.Load() > 0 })
	ctx, cancel := context.WithTimeout(t.Context(), 8*time.Second)
	defer cancel()
	if err := s.Shutdown(ctx); err != nil {
		t.Error(err)
	}
}
