package target

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"skylun/lun"
)

// Server is an iSCSI target node: portals, targets and sessions.
type Server struct {
	cfg     Config
	log     *slog.Logger
	buffers bufferPool
	budget  budget
	polling atomic.Int32 // readers that wait in a system call

	redirect func(LoginAttempt) (Redirection, bool) // nil: nobody is

	accepted, refused, failed, logins atomic.Uint64

	wg sync.WaitGroup // connections, and answers on their way to one

	mu         sync.Mutex // taken before a connection's, when both are
	portals    []*portal
	stopping   bool
	targets    map[string]*target
	conns      map[*conn]bool // true: in login
	inLogin    int
	loginsFrom map[netip.Addr]int  // of these, by source
	sessions   map[uint16]*session // by TSIH
	ports      map[sessionKey]*session
	told       time.Time // when the log last said that connections are refused
	lastTSIH   uint16
	past       Counters // of sessions that have ended
}

// Target is what initiators log in to.
type Target struct {
	Name       string         // iqn., eui. or naa. name
	Alias      string         // for people, told at login; may be empty
	Initiators []string       // names of initiators that may use it; empty: any
	Networks   []netip.Prefix // where initiators may come from; empty: anywhere
	CHAP       *CHAP          // how initiators authenticate; nil: they do not
	Units      *lun.Map       // what its LUNs point to
}

// target is a Target that has been added.
type target struct {
	Target
	allowed map[string]bool // nil: any
	removed bool            // guarded by Server.mu
}

// admits tells whether the initiator may use the target from that address.
func (t *target) admits(initiator string, from netip.Addr) bool {
	return t.admitsName(initiator) && t.admitsAddress(from)
}

func (t *target) admitsName(initiator string) bool {
	return t.allowed == nil || t.allowed[initiator]
}

func (t *target) admitsAddress(from netip.Addr) bool {
	from = from.Unmap().WithZone("")
	return len(t.Networks) == 0 || slices.ContainsFunc(t.Networks, func(n netip.Prefix) bool { return n.Contains(from) })
}

// New returns a server that does not listen yet.
func New(cfg Config, log *slog.Logger) (*Server, error) {
	cfg.setDefaults()
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	return &Server{
		cfg:        cfg,
		log:        log,
		budget:     budget{limit: cfg.ServerBuffers},
		targets:    make(map[string]*target),
		conns:      make(map[*conn]bool),
		loginsFrom: make(map[netip.Addr]int),
		sessions:   make(map[uint16]*session),
		ports:      make(map[sessionKey]*session),
	}, nil
}

// AddTarget lets initiators log in to t from now on.
func (s *Server) AddTarget(t Target) error {
	if err := ValidIQN(t.Name); err != nil {
		return err
	}
	if t.Units == nil {
		return fmt.Errorf("target %s: no logical unit inventory", t.Name)
	}
	if t.CHAP != nil {
		if err := t.CHAP.Validate(); err != nil {
			return fmt.Errorf("target %s: %w", t.Name, err)
		}
	}
	added := &target{Target: t}
	for _, name := range t.Initiators {
		n, ok := peerName([]byte(name))
		if !ok {
			return fmt.Errorf("target %s: initiators: %q is not an iSCSI name", t.Name, name)
		}
		if added.allowed == nil {
			added.allowed = make(map[string]bool)
		}
		added.allowed[n] = true
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.targets[t.Name] != nil {
		return fmt.Errorf("target %s: there is one of that name", t.Name)
	}
	s.targets[t.Name] = added
	return nil
}

// RemoveTarget ends all sessions with the target of that name, and admits no
// new ones. Initiators are asked to log out first. It returns when no command of theirs is being executed, or with
// the error of ctx.
func (s *Server) RemoveTarget(ctx context.Context, name string) error {
	s.mu.Lock()
	t := s.targets[name]
	if t == nil {
		s.mu.Unlock()
		return fmt.Errorf("target %s: there is none of that name", name)
	}
	delete(s.targets, name)
	t.removed = true
	s.mu.Unlock()
	ending := s.sessionsOf(t)
	s.dismiss(ending, errRemoved, ctx.Done())
	for _, sess := range ending {
		select {
		case <-sess.done:
		case <-ctx.Done():
			return fmt.Errorf("remove target %s: %w", name, ctx.Err())
		}
	}
	return nil
}

// target returns the target of that name, or nil.
func (s *Server) target(name string) *target {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.targets[name]
}

// targetList returns all targets, sorted by name.
func (s *Server) targetList() []*target {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := make([]*target, 0, len(s.targets))
	for _, t := range s.targets {
		list = append(list, t)
	}
	slices.SortFunc(list, func(a, b *target) int { return strings.Compare(a.Name, b.Name) })
	return list
}

// sessionsOf returns the sessions with t.
func (s *Server) sessionsOf(t *target) []*session {
	s.mu.Lock()
	defer s.mu.Unlock()
	var list []*session
	for _, sess := range s.sessions {
		if sess.target == t {
			list = append(list, sess)
		}
	}
	return list
}
