package cmd

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"skylun/admin"
	"skylun/node"
)

func newServe(e *env) *cobra.Command {
	return &cobra.Command{
		Use:   "serve",
		Short: "Export the targets of the configuration until stopped",
		Long: `Export the targets of the configuration until SIGTERM, SIGINT or SIGHUP. Then commands in
flight may end for some seconds and everything written is made durable. A second
signal ends the process at once.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return e.serve(c.Context()) },
	}
}

func (e *env) serve(ctx context.Context) error {
	s, err := e.load()
	if err != nil {
		return err
	}
	log := newLogger(e.stderr, s.Log)
	for _, line := range strayEnv() {
		log.Warn("environment: " + line)
	}
	n, err := node.Start(ctx, s.Config, log)
	if err != nil {
		return s.locate(err)
	}
	// From here on ctx only says when to stop.
	stop := context.WithoutCancel(ctx)
	api, err := admin.Listen(s.SocketPath(), n, log)
	if err != nil {
		return errors.Join(err, n.Close(stop))
	}
	err = e.printAttach(attachCommands(n.Portals(), s.Config))
	if err == nil {
		select {
		case <-ctx.Done():
			log.Info("stopping", "why", context.Cause(ctx))
		case <-n.Served():
		}
	}
	calls, cancel := context.WithTimeout(stop, apiDrainTime)
	defer cancel()
	return errors.Join(err, api.Close(calls), n.Close(stop))
}

// apiDrainTime is how long calls of the API may go on when the node stops.
const apiDrainTime = 2 * time.Second

// attach is how to use what a node exports.
type attach struct {
	Portals []string   `json:"portals"`
	Targets []string   `json:"targets"`
	CHAP    []string   `json:"chap,omitempty"` // the targets that initiators have to authenticate for
	Linux   [][]string `json:"linux"`          // commands for open-iscsi, each as its words
}

// attachCommands returns the commands for a Linux initiator: one that finds
// the targets, and one for each target that logs in to it.
func attachCommands(portals []netip.AddrPort, cfg node.Config) attach {
	a := attach{Portals: []string{}, Targets: []string{}, Linux: [][]string{}}
	for i, p := range portals { // in the order of the configuration
		a.Portals = append(a.Portals, cfg.Portals[i].Address(reachable(p)))
	}
	if len(portals) == 0 || len(cfg.Targets) == 0 {
		return a
	}
	portal := a.Portals[0]
	a.Linux = append(a.Linux, []string{"iscsiadm", "-m", "discovery", "-t", "sendtargets", "-p", portal})
	for _, t := range cfg.Targets {
		a.Targets = append(a.Targets, t.IQN)
		if t.Chap.Asked() {
			a.CHAP = append(a.CHAP, t.IQN)
		}
		a.Linux = append(a.Linux, []string{"iscsiadm", "-m", "node", "-T", t.IQN, "-p", portal, "--login"})
	}
	return a
}

// reachable replaces an address that means all of this machine by one that
// others can reach.
func reachable(p netip.AddrPort) netip.AddrPort {
	if !p.Addr().IsUnspecified() {
		return p
	}
	addrs, _ := net.InterfaceAddrs()
	best := netip.IPv6Loopback()
	if p.Addr().Is4() {
		best = netip.AddrFrom4([4]byte{127, 0, 0, 1})
	}
	for _, a := range addrs {
		ip, err := netip.ParsePrefix(a.String())
		if err != nil || !ip.Addr().IsGlobalUnicast() {
			continue
		}
		if ip.Addr().Is4() {
			best = ip.Addr()
			break
		} else if p.Addr().Is6() && best.IsLoopback() {
			best = ip.Addr()
		}
	}
	return netip.AddrPortFrom(best, p.Port())
}

func (e *env) printAttach(a attach) error {
	return e.print(a, func(t *table) {
		if len(a.Linux) == 0 {
			t.row("No targets are configured: nothing is exported.")
			return
		}
		t.row("Ready. To attach from Linux, as root, with open-iscsi:")
		for _, words := range a.Linux {
			line := " "
			for _, w := range words {
				line += " " + w
			}
			t.row(line)
		}
		if len(a.CHAP) > 0 {
			t.row("CHAP is asked for by " + strings.Join(a.CHAP, ", ") + ":")
			t.row("  set node.session.auth.authmethod, username and password before the login, with iscsiadm -m node -o update")
		}
	})
}

// count returns "1 session", "2 sessions".
func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
