package target

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"
)

// admit lets a new connection that came by p begin its login, or closes it when
// too many have not finished theirs.
func (s *Server) admit(ctx context.Context, nc net.Conn, p *portal) {
	s.accepted.Add(1)
	from := sourceOf(addrPort(nc.RemoteAddr()).Addr())
	if why := s.beginLogin(from); why != "" {
		if s.refused.Add(1); s.mayTell() {
			s.log.Warn("connection refused; more of them may follow unsaid", "remote", nc.RemoteAddr().String(), "why", why)
		}
		nc.Close()
		return
	}
	nc.SetDeadline(time.Now().Add(s.cfg.LoginTimeout))
	// The end of ctx drops the connection, and that cancels the commands: the
	// other way round an answer could still leave.
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	c := newConn(s, nc, p, cancel)
	s.mu.Lock()
	s.conns[c] = true
	stopping := s.stopping
	s.mu.Unlock()
	if stopping { // it may have been too late for stop to see it
		c.drop(errShutdown)
	}
	go func() {
		defer s.wg.Done()
		c.run(ctx)
		s.mu.Lock()
		delete(s.conns, c)
		s.mu.Unlock()
	}()
}

// beginLogin counts a connection in login, or tells why there may not be one
// more.
func (s *Server) beginLogin(from netip.Addr) (why string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.stopping:
		return "the server stops"
	case s.inLogin >= s.cfg.MaxLogins:
		return fmt.Sprintf("%d connections have not logged in yet, as many as are configured", s.inLogin)
	case s.loginsFrom[from] >= s.cfg.MaxSourceLogins:
		return fmt.Sprintf("%d connections from %v have not logged in yet, as many as one source may have", s.loginsFrom[from], from)
	}
	s.inLogin++
	s.loginsFrom[from]++
	s.wg.Add(1)
	return ""
}

// tellInterval is how often the log says that connections are refused: whoever
// makes them could fill it.
const tellInterval = time.Minute

// mayTell tells whether it is time to say so again.
func (s *Server) mayTell() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	if !s.told.IsZero() && now.Sub(s.told) < tellInterval {
		return false
	}
	s.told = now
	return true
}

// loginDone makes room for the next login.
func (s *Server) loginDone(c *conn) {
	from := sourceOf(c.remote.Addr())
	s.mu.Lock()
	defer s.mu.Unlock()
	s.inLogin--
	if s.loginsFrom[from]--; s.loginsFrom[from] == 0 {
		delete(s.loginsFrom, from)
	}
	s.conns[c] = false
	if c.sess == nil {
		s.failed.Add(1)
	}
}

// sourceOf returns whose an address is, when it comes to what one peer may use
// up. With IPv6 it is the address, too: a whole storage network is often one
// /64, and who could take any of its addresses is in it.
func sourceOf(a netip.Addr) netip.Addr { return a.Unmap().WithZone("") }

// sessionsFrom returns how many sessions a source has. s.mu is held.
func (s *Server) sessionsFrom(from netip.Addr) (n int) {
	for _, sess := range s.sessions {
		if sess.source == from {
			n++
		}
	}
	return n
}

// Shutdown stops accepting, asks the initiators to log out, lets the commands
// in flight of those that do not end and their answers leave, and closes all
// connections. When ctx ends first, what is left is
// dropped and its error is returned; no command is being executed after
// Shutdown in any case.
func (s *Server) Shutdown(ctx context.Context) error {
	s.stop(func(c *conn) {
		if !c.canLogOut() {
			c.drain()
		}
	})
	s.awaitLogout(s.normalSessions(), ctx.Done())
	s.stop((*conn).drain)
	done := make(chan struct{})
	go func() {
		s.wg.Wait()
		close(done)
	}()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
	}
	s.stop(func(c *conn) { c.drop(errShutdown) })
	<-done
	return fmt.Errorf("shutdown: sessions dropped: %w", ctx.Err())
}

// stop closes the portals and calls f for all connections.
func (s *Server) stop(f func(*conn)) {
	s.mu.Lock()
	s.stopping = true
	for _, p := range s.portals {
		p.ln.Close()
	}
	conns := make([]*conn, 0, len(s.conns))
	for c := range s.conns {
		conns = append(conns, c)
	}
	s.mu.Unlock()
	for _, c := range conns {
		f(c)
	}
}

// normalSessions returns the sessions that are not for discovery.
func (s *Server) normalSessions() []*session {
	return slices.DeleteFunc(s.sessionList(), func(sess *session) bool { return sess.discovery })
}

// Serve accepts connections, until Shutdown is called (then it returns nil)
// or ctx ends (then all connections are dropped first).
func (s *Server) Serve(ctx context.Context) error {
	s.mu.Lock()
	portals := s.portals
	s.mu.Unlock()
	if len(portals) == 0 {
		return errors.New("serve: no portal is bound")
	}
	defer context.AfterFunc(ctx, func() { s.stop(func(c *conn) { c.drop(errShutdown) }) })()
	var accepting sync.WaitGroup
	errs := make([]error, len(portals))
	for i, p := range portals {
		accepting.Go(func() { errs[i] = s.accept(ctx, p) })
	}
	accepting.Wait()
	if err := errors.Join(errs...); err != nil {
		return err
	}
	if ctx.Err() != nil {
		s.wg.Wait()
		return ctx.Err()
	}
	return nil
}
