package target

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"

	"skylun/lun"
)

// Server is an iSCSI target node: portals, targets and sessions.
type Server struct {
	cfg Config
	log *slog.Logger
}

// Target is what initiators log in to.
type Target struct {
	Name       string   // iqn., eui. or naa. name
	Alias      string   // for people, told at login; may be empty
	Initiators []string // names of initiators that may use it; empty: any
	Units      *lun.Map // what its LUNs point to
}

// New returns a server that does not listen yet.
func New(cfg Config, log *slog.Logger) (*Server, error) {
	cfg.setDefaults()
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	return &Server{cfg: cfg, log: log}, nil
}

// AddTarget lets initiators log in to t from now on.
func (s *Server) AddTarget(t Target) error { return errors.New("not there yet") }

// RemoveTarget ends all sessions with the target of that name, and admits no
// new ones. It returns when no command of theirs is being executed, or with
// the error of ctx.
func (s *Server) RemoveTarget(ctx context.Context, name string) error { return nil }

// Listen binds every portal, or none. Connections wait in the backlog until
// Serve is called: an initiator that is refused may not come back.
func (s *Server) Listen() error { return errors.New("not there yet") }

// Portals returns the addresses that Listen has bound.
func (s *Server) Portals() []netip.AddrPort { return nil }

// Serve accepts connections, until Shutdown is called (then it returns nil)
// or ctx ends (then all connections are dropped first).
func (s *Server) Serve(ctx context.Context) error { return errors.New("not there yet") }

// Shutdown stops accepting, lets the commands in flight end and their answers
// leave, and closes all connections. When ctx ends first, what is left is
// dropped and its error is returned; no command is being executed after
// Shutdown in any case.
func (s *Server) Shutdown(ctx context.Context) error { return nil }

// Sessions returns the sessions that are open, oldest first.
func (s *Server) Sessions() []SessionInfo { return nil }

// Stats returns the counters of the server.
func (s *Server) Stats() Stats { return Stats{} }
