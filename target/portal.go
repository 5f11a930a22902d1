package target

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"
	"time"
)

// portal is a Portal that is listened on.
type portal struct {
	ln        net.Listener
	addr      netip.AddrPort
	both      bool // it takes IPv4 and IPv6
	group     uint16
	advertise []string
}

// Listen binds every portal, or none. Connections wait in the backlog until
// Serve is called: an initiator that is refused may not come back.
func (s *Server) Listen() error {
	var bound []*portal
	for i := range s.cfg.Portals {
		p, err := listen(s.cfg.Portals, i)
		if err != nil {
			for _, b := range bound {
				b.ln.Close()
			}
			return err
		}
		bound = append(bound, p)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.portals = bound
	return nil
}

// listen binds the portal of that number. [::] takes IPv4 too, unless there is
// a portal for IPv4 on the same port.
func listen(all []Portal, i int) (*portal, error) {
	p := all[i]
	addr, err := ParsePortal(p.Listen)
	if err != nil {
		return nil, err
	}
	network, both := "tcp", addr.Addr() == netip.IPv6Unspecified()
	for _, o := range all {
		if a, err := ParsePortal(o.Listen); both && err == nil && a.Addr().Is4() && a.Port() == addr.Port() {
			network, both = "tcp6", false // which has the kernel keep IPv4 out
		}
	}
	if addr.Addr().Is4() {
		network = "tcp4"
	}
	ln, err := net.Listen(network, addr.String())
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return nil, fmt.Errorf("portal %s: address already in use; stop the other iSCSI target there or choose another port", p.Listen)
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return nil, fmt.Errorf("portal %s: this machine does not have that address; choose one of its own or 0.0.0.0", p.Listen)
	case errors.Is(err, syscall.EACCES):
		return nil, fmt.Errorf("portal %s: not permitted; choose a port above 1023 or run with the right to bind it", p.Listen)
	case err != nil:
		return nil, fmt.Errorf("portal %s: %w", p.Listen, err)
	}
	b := &portal{ln: ln, addr: addrPort(ln.Addr()), both: both, group: p.Tag()}
	for _, a := range p.Advertise {
		text, err := Advertised(a, b.addr.Port())
		if err != nil {
			ln.Close()
			return nil, err
		}
		b.advertise = append(b.advertise, text)
	}
	return b, nil
}

// portalList returns the portals that Listen has bound.
func (s *Server) portalList() []*portal {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.portals
}

// Portals returns the addresses that Listen has bound, in the order of the
// configuration.
func (s *Server) Portals() []netip.AddrPort {
	bound := s.portalList()
	addrs := make([]netip.AddrPort, len(bound))
	for i, p := range bound {
		addrs[i] = p.addr
	}
	return addrs
}

// accept accepts connections on p until it is closed.
func (s *Server) accept(ctx context.Context, p *portal) error {
	for {
		nc, err := p.ln.Accept()
		switch {
		case err == nil:
			s.admit(ctx, nc, p)
		case errors.Is(err, net.ErrClosed):
			return nil
		case errors.Is(err, syscall.EMFILE), errors.Is(err, syscall.ENFILE),
			errors.Is(err, syscall.ENOBUFS), errors.Is(err, syscall.ENOMEM):
			s.log.Error("cannot accept connections for now", "portal", p.addr, "err", err)
			select {
			case <-time.After(time.Second):
			case <-ctx.Done():
			}
		case errors.Is(err, syscall.ECONNABORTED):
		default:
			return fmt.Errorf("portal %s: %w", p.addr, err)
		}
	}
}
