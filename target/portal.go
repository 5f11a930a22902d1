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

// portal is an address that is listened on.
type portal struct {
	ln   net.Listener
	addr netip.AddrPort
}

// Listen binds every portal, or none. Connections wait in the backlog until
// Serve is called: an initiator that is refused may not come back.
func (s *Server) Listen() error {
	var bound []portal
	for _, p := range s.cfg.Portals {
		ln, err := listen(p)
		if err != nil {
			for _, b := range bound {
				b.ln.Close()
			}
			return err
		}
		bound = append(bound, portal{ln, addrPort(ln.Addr())})
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.portals = bound
	return nil
}

func listen(p string) (net.Listener, error) {
	addr, err := portalAddr(p)
	if err != nil {
		return nil, err
	}
	ln, err := net.Listen("tcp", addr)
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return nil, fmt.Errorf("portal %s: address already in use; stop the other iSCSI target there or choose another port", p)
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return nil, fmt.Errorf("portal %s: this machine does not have that address; choose one of its own or 0.0.0.0", p)
	case errors.Is(err, syscall.EACCES):
		return nil, fmt.Errorf("portal %s: not permitted; choose a port above 1023 or run with the right to bind it", p)
	case err != nil:
		return nil, fmt.Errorf("portal %s: %w", p, err)
	}
	return ln, nil
}

// Portals returns the addresses that Listen has bound.
func (s *Server) Portals() []netip.AddrPort {
	s.mu.Lock()
	defer s.mu.Unlock()
	addrs := make([]netip.AddrPort, len(s.portals))
	for i, p := range s.portals {
		addrs[i] = p.addr
	}
	return addrs
}

// accept accepts connections on p until it is closed.
func (s *Server) accept(ctx context.Context, p portal) error {
	for {
		nc, err := p.ln.Accept()
		switch {
		case err == nil:
			s.admit(ctx, nc)
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
