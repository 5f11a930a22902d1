package raid

import (
	"errors"
	"fmt"
	"log/slog"
	"sync"

	"skylun/raid/stripe"
)

// Errors that callers tell apart.
var (
	ErrNotExist = errors.New("no such file in the local array")
	ErrMember   = errors.New("the members do not fit") // to be set right by the operator
)

// Records is the durable memory of an array: values by key. *meta.Records is
// one.
type Records interface {
	// Load calls f, in order, with all keys that begin with prefix.
	Load(prefix string, f func(key string, value []byte) error) error
	// Store makes changes durable, all or none. A nil value removes the key.
	Store(changes map[string][]byte) error
}

// Config is what an array is made of.
type Config struct {
	Members   []MemberConfig
	Stripe    int64   // bytes, for files made from now on; 0: stripe.DefaultSize
	Chunk     int64   // bytes, of members that hand them out from now on; 0: ChunkSize
	MovePiece int64   // bytes that Rebalance moves at a time; 0: MovePiece
	Records   Records // nil: the array is one directory, without a stamp
	Boot      string  // a name for this run of the system

	// Expendable tells of a file that it may be lost with a member.
	Expendable func(name string) bool

	Log *slog.Logger // nil: nothing is logged
}

// Array is a set of members.
type Array struct {
	cfg   Config
	log   *slog.Logger
	slots []*slot // in their order

	moving  sync.Mutex // held by Rebalance, before opening
	opening sync.Mutex // held while files are opened, made and removed; before mu
	mu      sync.Mutex
	files   map[string]*body // guarded by mu: those that are open
}

// Open opens an array of one directory that has no stamp, creating it when it
// does not exist.
func Open(members []string) (*Array, error) {
	cfg := Config{}
	for _, m := range members {
		cfg.Members = append(cfg.Members, MemberConfig{Path: m})
	}
	return OpenArray(cfg)
}

// OpenArray opens an array. An ErrMember among its errors says which member is
// not what it should be, and what to do.
func OpenArray(cfg Config) (_ *Array, err error) {
	if cfg.Stripe == 0 {
		cfg.Stripe = stripe.DefaultSize
	}
	if cfg.MovePiece == 0 {
		cfg.MovePiece = MovePiece
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	a := &Array{cfg: cfg, log: cfg.Log, files: map[string]*body{}}
	defer func() {
		if err != nil {
			a.Close()
		}
	}()
	if cfg.Records == nil {
		if len(cfg.Members) != 1 {
			return nil, fmt.Errorf("%d members: an array without records has exactly one", len(cfg.Members))
		}
		d, err := openDir(cfg.Members[0].Path)
		if err != nil {
			return nil, err
		}
		a.slots = []*slot{{Member: d, where: d.path, kind: kindDirectory}}
		return a, nil
	}
	if err := a.assemble(); err != nil {
		return nil, err
	}
	return a, a.sweep()
}

// slot returns the member of that number, or nil.
func (a *Array) slot(number int) *slot {
	for _, s := range a.slots {
		if s.number == number {
			return s
		}
	}
	return nil
}

// segment returns how size bytes are laid out that are new now.
//
// Where somebody has asked for weights they count for all of it; else every
// member gets a part as its size is one of the array's, in zones.
func (a *Array) segment(size int64) (s segment, err error) {
	var parts []int64
	var weights []int
	weighted := false
	for _, m := range a.slots {
		if m.leaving.Load() {
			continue
		}
		total, _, err := m.Space()
		if err != nil {
			return s, err
		}
		s.On = append(s.On, m.number)
		parts, weights = append(parts, total), append(weights, m.weight)
		weighted = weighted || m.weight > 0
	}
	if s.Stripe = a.cfg.Stripe; len(s.On) == 1 {
		s.Stripe = stripe.MinSize // nothing is striped, and nothing has to be rounded up
	}
	if weighted {
		for i, w := range weights {
			parts[i] = int64(max(w, 1))
		}
	}
	for i, n := range stripe.Share(size, s.Stripe, parts) {
		s.Members = append(s.Members, stripe.Member{Size: n, Weight: weights[i]})
	}
	return s, nil
}

// Close releases the array. Its files are closed by those who opened them.
func (a *Array) Close() error {
	var errs []error
	for _, s := range a.slots {
		errs = append(errs, s.Close())
	}
	return errors.Join(errs...)
}
